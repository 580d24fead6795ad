"""`/v1/embeddings`, as OpenAI's clients speak it."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from localinfer.chats.embedding import unit, vector_request
from localinfer.config import Pool
from localinfer.protocols.errors import Refused
from localinfer.protocols.fields import Fields
from localinfer.protocols.openai_text import Prompt, prompts_of

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine
    from localinfer.engine.request import Request

MOST_TEXTS = 2048
"""As OpenAI has it."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of some texts, of length 1."""

    model: str
    texts: tuple[Prompt, ...]
    pool: Pool
    form: str
    """`float` or `base64`."""
    dimensions: int | None
    """So many of the first ones are kept."""

    def requests(self, engine: "Engine") -> list["Request"]:
        """What the engine is asked. Raises `ContextOverflow`."""
        return [vector_request(engine, text, self.pool) for text in self.texts]

    def whole(self, model: str, read: int, found: Sequence[Sequence[float]]) -> dict[str, Any]:
        """The answer: the vectors `found` by `model` for `read` tokens. Raises `Refused`."""
        if self.dimensions is not None and self.dimensions > len(found[0]):
            raise Refused("dimensions", f"`dimensions` is {self.dimensions}, but the model has {len(found[0])}")
        listed = [
            {"object": "embedding", "index": index, "embedding": self._spelled(unit(vector[: self.dimensions]))}
            for index, vector in enumerate(found)
        ]
        usage = {"prompt_tokens": read, "total_tokens": read}
        return {"object": "list", "data": listed, "model": model, "usage": usage}

    def _spelled(self, vector: list[float]) -> list[float] | str:
        if self.form == "float":
            return vector
        return base64.b64encode(np.array(vector, "<f4").tobytes()).decode("ascii")


def understand(fields: Fields) -> Vectors:
    """The request: one text, several, or tokens; `pool` is ours, `last` or `mean`. Raises `Refused`."""
    model, texts = fields.needed_text("model"), prompts_of(fields, "input", MOST_TEXTS)
    form = fields.one_of("encoding_format", "float", "base64") or "float"
    dimensions = fields.whole("dimensions", 1, 1 << 20)
    pool: Pool = "mean" if fields.one_of("pool", "last", "mean") == "mean" else "last"
    fields.labels("user")
    return Vectors(model, texts, pool, form, dimensions)
