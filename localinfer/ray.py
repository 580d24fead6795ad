"""A callable for `ray.data`'s `map_batches`, or for anything else that sends functions to processes: picklable, its
engine opened where it is first called. It imports no ray."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from localinfer.config import EngineConfig, SamplingParams
from localinfer.errors import UsageError

if TYPE_CHECKING:
    from localinfer.chats.mapping import Answered
    from localinfer.chats.rows import Asked
    from localinfer.engine.protocol import Engine


class Mapper:
    """Answers a batch of prompts with the model `ref`, as `map` does: the same rows for the same prompts, ids and seed,
    however they are split.

    `prompt` names the column of texts; with a column `id`, a row's seed comes of it, else of the prompt. The batch
    comes back with the columns `text`, `finish_reason`, `seed` and `error` (None where there is none). `sampling` holds
    what is to differ from what the model's makers advise. `parallel` rows are written together.
    """

    def __init__(
        self,
        ref: str,
        *,
        prompt: str = "prompt",
        system: str | None = None,
        sampling: Mapping[str, Any] | None = None,
        parallel: int = 8,
        config: EngineConfig | None = None,
        backend: str = "auto",
    ) -> None:
        SamplingParams(**(sampling or {}))  # what is wrong is told here, not on a worker
        self._ref, self._prompt, self._system = ref, prompt, system
        self._sampling, self._parallel = dict(sampling or {}), parallel
        self._config, self._backend = config or EngineConfig(parallel=parallel), backend
        self._engine: Engine | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_engine": None}

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """`batch` is columns of equal length, as lists or arrays. Raises `UsageError` for one without the column, and
        what opening the model raises."""
        from localinfer.chats.mapping import Manner, answer_all, begin_chat

        if self._prompt not in batch:
            known = ", ".join(list(batch)[:10])
            raise UsageError(f"the batch has no column `{self._prompt}`", hint=f"its columns: {known}")
        engine = self._opened()
        begin = partial(begin_chat, manner=Manner(system=self._system))
        answers = list(answer_all(engine, self._asked(engine, batch), parallel=self._parallel, begin=begin))
        return {**batch, **_columns(answers)}

    def close(self) -> None:
        """Give the model's memory back; the next call opens it again."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def _opened(self) -> "Engine":
        from localinfer.api import load

        if self._engine is None:
            self._engine = load(self._ref, self._config, backend=self._backend)
        return self._engine

    def _asked(self, engine: "Engine", batch: Mapping[str, Sequence[Any]]) -> "Iterator[Asked]":
        from dataclasses import replace

        from localinfer.chats.files import BYTES_PER_TOKEN
        from localinfer.chats.rows import Line, understood

        usual = replace(engine.default_sampling, **self._sampling)
        limit = engine.context_size * BYTES_PER_TOKEN
        identities = batch.get("id")
        for index, text in enumerate(batch[self._prompt]):
            row = {} if identities is None else {"id": _plain(identities[index])}
            line = json.dumps(row | {"prompt": _plain(text)}, ensure_ascii=False).encode("utf-8", "surrogatepass")
            yield understood(Line.of(index, index + 1, line, ""), limit=limit, sampling=usual)


def _plain(value: Any) -> Any:
    """A number of an array as Python's own."""
    return value.item() if hasattr(value, "item") else value


def _columns(answers: "Sequence[Answered]") -> dict[str, list[Any]]:
    return {
        "text": ["".join(one.text) if one.error is None else None for one in answers],
        "finish_reason": [one.reason for one in answers],
        "seed": [one.asked.sampling.seed for one in answers],
        "error": [one.error and one.error.message for one in answers],
    }
