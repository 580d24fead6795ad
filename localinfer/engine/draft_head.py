"""A one-layer head that goes on from what the target computed, trained on this machine for one model, or brought by it.

At position i it sees what the target made of it (after the last layer) and the embedding of the token that came next,
and says what comes after that one; its own output stands for the target's in the guess after (EAGLE, Li et al., 2024).
Scores are those of the target's own head, of the tokens alone that the model says most often.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from localinfer import native
from localinfer.engine.draft_scores import ScoreRow
from localinfer.kv.blocks import BLOCK_TOKENS
from localinfer.speculation.chain import Scores
from localinfer.speculation.drafter import Ask

WINDOW = 512
"""Positions that a head looks back on at most."""

MOST_RECENT = 32
"""Of them, those that it begins anew with when the window is full, or when a long prompt was read."""

Floats = NDArray[np.float32]


def _same(rows: Floats) -> Floats:
    return rows


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a head reads: embedding and stream, each brought to unit size, times `gains` float32 [2, hidden].

    `theirs` and `ours` come first, over what the target computed and what the head did, rows [n, hidden]: norms.
    """

    gains: Floats
    eps: float = 1e-6
    theirs: Callable[[Floats], Floats] = _same
    ours: Callable[[Floats], Floats] = _same

    def joined(self, embedded: Floats, streams: Floats) -> Floats:
        """Rows [n, 2 * hidden]."""
        parts = (_unit(embedded, self.eps) * self.gains[0], _unit(streams, self.eps) * self.gains[1])
        return np.ascontiguousarray(np.concatenate(parts, axis=1), np.float32)


@dataclass(slots=True)
class _Text:
    slot: int
    recent: deque[tuple[int, Floats]]
    """The last positions: the token after each, and what the target made of it."""
    end: int = 0
    """One past the last of them, in the text."""
    computed: int = 0
    """So many of `recent`, the first ones, are in the head's cache."""
    base: int = 0
    """Where the first of `recent` stands in the head's cache."""
    stream: Floats = field(default_factory=lambda: np.empty(0, np.float32))
    """Of the last row: what stands for the target's in the next guess."""
    at: int = 0
    """Where the next guess stands in the head's cache."""


class HeadDraftRunner:
    """Runs `program`, which begins with the mix of both inputs and ends with the scores of tokens `ids` (ascending).

    `target` is asked for embeddings; there is room for `parallel` texts, of which it looks back on `window` positions,
    and of a long one that it has not followed on the last `recent`.
    """

    def __init__(
        self,
        program: native.Program,
        target: native.Program,
        ids: NDArray[np.int32],
        inputs: Inputs,
        *,
        parallel: int,
        window: int = WINDOW,
        recent: int = MOST_RECENT,
    ) -> None:
        self._program, self._target, self._ids, self._inputs = program, target, ids, inputs
        self._window, self._recent = window, recent
        self._texts: dict[int, _Text] = {}
        self._slots = list(range(parallel))
        blocks = window // BLOCK_TOKENS
        self._tables = np.arange(parallel * blocks, dtype=np.int32).reshape(parallel, blocks)
        self._spread = np.empty(target.vocab, np.float32)

    def read(self, handle: int, tokens: Sequence[int], start: int, end: int, hidden: Floats | None) -> None:
        """Keep what the target computed of the last positions; the head itself runs when it is asked to guess."""
        assert hidden is not None
        text = self._texts.get(handle)
        if text is None:
            if not self._slots:
                return
            text = self._texts[handle] = _Text(self._slots.pop(), deque())
        if text.end != start:  # a gap: what was found in the prefix cache, or the text was shifted
            text.recent.clear()
            text.computed = text.base = 0
        first = max(start, end - self._recent)
        for position, row in enumerate(self._inputs.theirs(hidden[first - start : end - start]), first):
            text.recent.append((tokens[position + 1] if position + 1 < len(tokens) else -1, row.copy()))
        if end - start > self._recent or text.base + len(text.recent) + 32 > self._window:
            while len(text.recent) > self._recent:
                text.recent.popleft()
            text.computed = text.base = 0
        text.end = end

    def start(self, asks: Sequence[Ask]) -> list[Scores | None]:
        able = [ask for ask in asks if self._can(ask)]
        texts = [self._texts[ask.handle] for ask in able]
        rows: list[tuple[_Text, int, int, Floats]] = []
        last: list[int] = []
        for text in texts:
            fresh = list(text.recent)[text.computed :]
            rows += [(text, text.base + text.computed + i, *pair) for i, pair in enumerate(fresh)]
            last.append(len(rows) - 1)
        scores = self._run(rows, last)
        for text in texts:  # not before: a step that was interrupted has computed nothing
            text.computed = len(text.recent)
            text.at = text.base + text.computed
            while text.computed > self._recent:  # older ones are in the cache for good
                text.recent.popleft()
                text.computed -= 1
                text.base += 1
        found = dict(zip((ask.handle for ask in able), scores, strict=True))
        return [found.get(ask.handle) for ask in asks]

    def go_on(self, asks: Sequence[Ask], guesses: Sequence[list[int]]) -> list[Scores]:
        rows = []
        for ask, guessed in zip(asks, guesses, strict=True):
            text = self._texts[ask.handle]
            rows.append((text, text.at, guessed[-1], text.stream))
            text.at += 1
        return self._run(rows, list(range(len(rows))))

    def forget(self, handle: int) -> None:
        text = self._texts.pop(handle, None)
        if text is not None:
            self._slots.append(text.slot)

    def close(self) -> None:
        self._texts.clear()

    def _can(self, ask: Ask) -> bool:
        """Whether the target's rows up to the one before the last known token are there, the last of them not yet
        computed here."""
        text = self._texts.get(ask.handle)
        return text is not None and text.end == len(ask.tokens) - 1 and text.computed < len(text.recent)

    def _run(self, rows: Sequence[tuple[_Text, int, int, Floats]], wanted: Sequence[int]) -> list[Scores]:
        """Rows of (text, position in the head's cache, token, residual stream); the scores of those that are wanted."""
        if not rows:
            return []
        n = len(rows)
        tokens = np.array([token for _, _, token, _ in rows], np.int32)
        embedded = np.empty((n, self._program.hidden), np.float32)
        self._target.embed_rows(tokens, embedded)
        inputs = self._inputs.joined(embedded, np.stack([stream for *_, stream in rows]))
        out = np.array(wanted, np.int32)
        logits = np.empty((len(out), self._program.vocab), np.float32)
        after = np.empty((n, self._program.hidden), np.float32)
        self._program.step(
            tokens,
            np.array([position for _, position, _, _ in rows], np.int32),
            np.array([text.slot for text, *_ in rows], np.int32),
            self._tables,
            out,
            logits,
            inputs=inputs,
            hidden=after,
        )
        for i, stream in zip(wanted, self._inputs.ours(after[wanted]), strict=True):
            rows[i][0].stream = stream
        return [ScoreRow(row, self._ids, self._spread) for row in logits]


def _unit(x: Floats, eps: float) -> Floats:
    """Rows brought to a root mean square of 1."""
    scaled: Floats = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + np.float32(eps))
    return scaled
