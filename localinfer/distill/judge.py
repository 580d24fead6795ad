"""Whether a drafter is worth its time: guesses on held-out text, and what they would save at this machine's speeds."""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from localinfer import native
from localinfer.kv.blocks import BLOCK_TOKENS
from localinfer.speculation.chain import DraftRunner
from localinfer.speculation.cost import Measured, StepCost
from localinfer.speculation.drafter import Ask

DEPTH = 6
"""Guesses in a row that are judged."""

EVERY = 7
"""Positions between two judged ones."""


def judge(
    draft_runner: DraftRunner,
    program: native.Program,
    tokens: NDArray[np.int32],
    hidden: NDArray[np.float16],
    late: Callable[[], bool] = lambda: False,
) -> tuple[tuple[float, ...], float]:
    """Of held-out texts [n, length] that the target read (`hidden` as it computed them): how often the first, second, …
    guess was the target's own likeliest token, all before it being so and being the text; and the seconds of one guess.
    When it gets `late`, what is judged by then counts.
    """
    tried, right = np.zeros(DEPTH), np.zeros(DEPTH)
    seconds, guesses = 0.0, 0
    for number, (text, rows) in enumerate(zip(tokens, hidden, strict=True), 1):
        if guesses and late():
            break
        likeliest = likeliest_tokens(program, rows.astype(np.float32))
        known = [int(token) for token in text]
        done = 0
        for end in range(EVERY, len(known) - DEPTH, EVERY):
            if guesses and late():
                break
            draft_runner.read(number, known[: end + 1], done, end, rows[done:end].astype(np.float32))
            done = end
            ask = Ask(number, known[: end + 1], DEPTH, lambda logits, taken: int(np.argmax(logits)))
            started = time.perf_counter()
            scores = draft_runner.start([ask])[0]
            guessed: list[int] = []
            for depth in range(DEPTH):
                drawn = scores.draw(ask.choose, guessed) if scores is not None else None
                if drawn is None:
                    break
                token, _ = drawn
                guessed.append(token)
                tried[depth] += 1
                guesses += 1
                right[depth] += token == likeliest[end + depth]
                if token != likeliest[end + depth] or token != known[end + 1 + depth]:
                    break
                scores = draft_runner.go_on([ask], [guessed])[0]
            seconds += time.perf_counter() - started
        draft_runner.forget(number)
    chances = tuple(float(r / t) if t else 0.0 for r, t in zip(right, tried, strict=True))
    return chances, seconds / max(1, guesses)


def likeliest_tokens(program: native.Program, stream: NDArray[np.float32]) -> NDArray[np.int64]:
    """The target's likeliest next token after each row [n, hidden] of its residual stream after all layers."""
    n = len(stream)
    rows, alone = np.arange(n, dtype=np.int32), np.zeros(n, np.int32)
    table = np.arange(-(-n // BLOCK_TOKENS), dtype=np.int32)[None]  # no layer runs: nothing is written there
    logits = np.empty((n, program.vocab), np.float32)
    inputs = np.ascontiguousarray(stream)
    program.step(alone, rows, alone, table, rows, logits, begin=program.layers, inputs=inputs)
    found: NDArray[np.int64] = logits.argmax(-1)
    return found


def replay(chances: Sequence[float], guess_s: float, step_s: Mapping[int, float]) -> tuple[float, int]:
    """How many times as fast drafts of the best length would make decoding, and that length (0: none helps)."""
    cost = StepCost(Measured(step_s, {}, 0))
    best, length, tokens, alive = 1.0, 0, 1.0, 1.0
    for k, chance in enumerate(chances, 1):
        alive *= chance
        tokens += alive
        ratio = tokens * cost.rows(1) / (cost.rows(1 + k) + k * guess_s)
        if ratio > best:
            best, length = ratio, k
    return best, length
