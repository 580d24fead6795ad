"""`/v1/embeddings`, as OpenAI's clients speak it."""

import asyncio
import base64
from typing import Any

import numpy as np

from localinfer.chats.embedding import unit, vector_request
from localinfer.config import Pool
from localinfer.serve.fields import Fields
from localinfer.serve.openai_text import prompts_of
from localinfer.serve.service import Service


async def embeddings(service: Service, fields: Fields) -> dict[str, Any]:
    """The vectors of one text, of several, or of tokens; of length 1. `dimensions` keeps the first ones; `pool` is
    ours, `last` or `mean`."""
    model, texts = fields.needed_text("model"), prompts_of(fields, "input", MOST_TEXTS)
    form = fields.one_of("encoding_format", "float", "base64") or "float"
    dimensions = fields.whole("dimensions", 1, 1 << 20)
    pool: Pool = "mean" if fields.one_of("pool", "last", "mean") == "mean" else "last"
    fields.labels("user")
    fields.done()
    async with service.models.use(model) as held:
        engine = held.engine
        requests = await asyncio.to_thread(lambda: [vector_request(engine, text, pool) for text in texts])
        found = await service.vectors(held, requests)
        if dimensions is not None and dimensions > len(found[0]):
            raise fields.wrong("dimensions", f"is {dimensions}, but the model has {len(found[0])}")
        listed = [
            {"object": "embedding", "index": index, "embedding": _spelled(unit(vector[:dimensions]), form)}
            for index, vector in enumerate(found)
        ]
        read = sum(len(request.prompt) for request in requests)
        service.note(f"/v1/embeddings {held.served.name}: {len(texts)} texts, {read} tokens")
        usage = {"prompt_tokens": read, "total_tokens": read}
        return {"object": "list", "data": listed, "model": held.served.name, "usage": usage}


def _spelled(vector: list[float], form: str) -> list[float] | str:
    if form == "float":
        return vector
    return base64.b64encode(np.array(vector, "<f4").tobytes()).decode("ascii")


MOST_TEXTS = 2048
"""As OpenAI has it."""
