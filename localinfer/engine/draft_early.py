"""The target guesses for itself: its first layers, then its own head, on the target's own cache.

What a guess writes there is what the whole model would write for the same row, or is written over before it is read.
States of recurrent layers stay as they are: there all guesses of a text are run anew with each.
With an exit adapter, trained on this machine, the residual stream is first moved to where it is likely to end up.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from localinfer import native
from localinfer.engine.draft_scores import ScoreRow
from localinfer.engine.runner import NativeRunner
from localinfer.scheduler.sequence import Sequence as Text
from localinfer.scheduler.sequence import Work
from localinfer.speculation.chain import Scores
from localinfer.speculation.drafter import Ask

SHARE = 3
"""A third of the layers guess, unless an adapter was trained for others."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ExitAdapter:
    """x + up (down (x / rms(x))) stands for the residual stream after all layers, x being that after `layers`."""

    layers: int
    down: Floats
    """[rank, hidden]."""
    up: Floats
    """[hidden, rank]."""

    def __call__(self, x: Floats) -> Floats:
        """Rows [n, hidden]."""
        normed = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6)
        moved: Floats = x + (normed @ self.down.T) @ self.up.T
        return moved


class Running(Protocol):
    """Where the texts that run have their places."""

    def text(self, handle: int) -> Text: ...
    def reserve(self, work: Work) -> None: ...


class EarlyDraftRunner:
    """Guesses with `layers` of `program`, which `runner` runs; `running` knows the texts."""

    def __init__(
        self, program: native.Program, runner: NativeRunner, running: Running, adapter: ExitAdapter | None = None
    ) -> None:
        self._runner, self._running, self._adapter = runner, running, adapter
        self._recurrent = bool(program.states)
        self._layers = adapter.layers if adapter else max(1, program.layers // SHARE)
        self._hidden = np.empty((64, program.hidden), np.float32)
        self._room = np.empty(program.vocab, np.float32)

    def start(self, asks: Sequence[Ask]) -> list[Scores | None]:
        return [*self._scores(asks, [[] for _ in asks])]

    def go_on(self, asks: Sequence[Ask], guesses: Sequence[list[int]]) -> list[Scores]:
        return self._scores(asks, guesses)

    def read(self, handle: int, tokens: Sequence[int], start: int, end: int, hidden: object) -> None:
        """Nothing to do: the target has read them."""

    def forget(self, handle: int) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is held."""

    def _scores(self, asks: Sequence[Ask], guesses: Sequence[list[int]]) -> list[Scores]:
        """What the first layers make of the last guess of each text, or of its last known token."""
        batch = []
        for ask, guessed in zip(asks, guesses, strict=True):
            known = self._running.text(ask.handle)
            if self._recurrent:
                text = Text(ask.handle, [*known.tokens], lease=known.lease)
                work = Work(text, len(text.tokens) - 1, 1, [*guessed])
            else:
                text = Text(ask.handle, [*known.tokens, *guessed], lease=known.lease)
                work = Work(text, len(text.tokens) - 1, 1)
            self._running.reserve(work)
            batch.append(work)
        if self._adapter is None:
            logits = self._runner.partly(batch, self._layers, None)
        else:
            last = np.cumsum([1 + len(work.drafts) for work in batch]) - 1
            if last[-1] >= len(self._hidden):
                self._hidden = np.empty((int(last[-1]) + 1, self._hidden.shape[1]), np.float32)
            hidden = self._hidden[: last[-1] + 1]
            self._runner.partly(batch, self._layers, hidden, scores=False)  # the head is dear: once is enough
            logits = self._runner.head(np.ascontiguousarray(self._adapter(hidden[last])))
        return [ScoreRow(row, room=self._room) for row in logits]


class TextsOf:
    """The running texts of a scheduler, as `Running`."""

    def __init__(self, running: Sequence[Text], reserve: Callable[[Work], None]) -> None:
        self._running, self.reserve = running, reserve

    def text(self, handle: int) -> Text:
        return next(text for text in self._running if text.handle == handle)
