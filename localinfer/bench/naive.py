"""The naive way: the same model in 16-bit floats, one text at a time, as most programs run it first.

`transformers` where it is installed, else our own plain torch program. Both keep keys and values; nothing else.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from localinfer.bench.measure import Clock
from localinfer.errors import NotSupported
from localinfer.evaluate.measures import Logits
from localinfer.extras import install_command


class Naive(Protocol):
    """One model in bfloat16."""

    name: str
    """Which program, and its version."""

    def start(self) -> None:
        """Begin another text."""
        ...

    def next_token(self, token_ids: Sequence[int]) -> int:
        """The likeliest token after these, which come after all that were read before."""
        ...

    def logits(self, token_ids: Sequence[int], first: int, last: int) -> Logits:
        """Scores after positions `first` to `last` - 1 of a new text, float32."""
        ...


def open_naive(path: Path, threads: int, *, plain: bool = False) -> Naive:
    """The original at `path` on so many threads; with `plain` our own program even where there is another.

    Raises `NotSupported` without torch.
    """
    if importlib.util.find_spec("torch") is None:
        raise NotSupported(
            "the naive way runs in torch, which is not installed", hint=f"run `{install_command('quantize')}`"
        )
    import torch

    torch.set_num_threads(threads)
    if not plain and importlib.util.find_spec("transformers") is not None:
        return _Transformers(path)
    return _Plain(path)


class _Transformers:
    def __init__(self, path: Path) -> None:
        import torch
        import transformers

        logging: Any = transformers.utils.logging
        logging.disable_progress_bar()
        self.name = f"transformers {transformers.__version__}, torch {torch.__version__}"
        self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.bfloat16, local_files_only=True
        )
        self._past: Any = None

    def start(self) -> None:
        self._past = None

    def next_token(self, token_ids: Sequence[int]) -> int:
        import torch

        with torch.inference_mode():
            said = self._model(
                torch.tensor([list(token_ids)]), past_key_values=self._past, use_cache=True, logits_to_keep=1
            )
        self._past = said.past_key_values
        return int(said.logits[0, -1].argmax())

    def logits(self, token_ids: Sequence[int], first: int, last: int) -> Logits:
        import torch

        with torch.inference_mode():
            said = self._model(torch.tensor([list(token_ids)]), use_cache=False)
        return np.ascontiguousarray(said.logits[0, first:last].float().numpy())


class _Plain:
    def __init__(self, path: Path) -> None:
        import torch

        from localinfer.graph.weights import Checkpoint
        from localinfer.reference.cached import CachedExecutor

        self.name = f"torch {torch.__version__}"
        self._executor = CachedExecutor(Checkpoint(path))

    def start(self) -> None:
        self._executor.start()

    def next_token(self, token_ids: Sequence[int]) -> int:
        return int(self._executor.read(token_ids)[-1].argmax())

    def logits(self, token_ids: Sequence[int], first: int, last: int) -> Logits:
        self.start()
        return np.ascontiguousarray(self._executor.read(token_ids, all_rows=True)[first:last].numpy())


def answer(
    naive: Naive, prompt: Sequence[int], most: int, ends: frozenset[int], clock: Clock
) -> tuple[list[int], float, float]:
    """Tokens of one greedy answer, seconds up to its first token, and of all of it."""
    started = clock()
    naive.start()
    token = naive.next_token(prompt)
    first, said = clock() - started, list[int]()
    while token not in ends:
        said.append(token)
        if len(said) == most:
            break
        token = naive.next_token([token])
    return said, first, clock() - started
