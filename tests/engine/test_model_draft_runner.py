"""A model that guesses, by itself: what it computes of each text is what a fresh one would."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer import native
from localinfer.config import DRAFT_BACK, SamplingParams, window_blocks
from localinfer.engine.draft_model import ModelDraftRunner, open_model
from localinfer.errors import UsageError
from localinfer.graph.program import load_program
from localinfer.graph.weights import Checkpoint
from localinfer.scheduler.sequence import Work
from localinfer.speculation.chain import ChainDrafter
from localinfer.speculation.drafter import Ask
from tests.engine.running import SAMPLINGS
from tests.tiny import make_checkpoint


def open_guesser(path: Path, *, parallel: int = 1, chunk: int = 10) -> ModelDraftRunner:
    program = load_program(Checkpoint(path), threads=1, context=256, kv_blocks=8 * parallel)
    return ModelDraftRunner(program, parallel=parallel, context=256, chunk=chunk)


Guess = tuple[list[int], list[bytes]]
"""Tokens, and the scores that each was drawn from, bit by bit."""


def guess(draft_runner: ModelDraftRunner, texts: Mapping[int, list[int]], most: Mapping[int, int]) -> dict[int, Guess]:
    """As `ChainDrafter`, but as far as told, however confidence it is. Draws as a text's own sampler does."""
    none = np.empty(0, np.int32)
    found: dict[int, Guess] = {handle: ([], []) for handle in texts}

    def ask(handle: int) -> Ask:
        def choose(logits: NDArray[np.float32], taken: list[int]) -> int:
            found[handle][1].append(logits.tobytes())
            return native.sample(logits, none, 1.0, 0, 1.0, 0.0, 1.0, handle, len(texts[handle]) + len(taken))

        return Ask(handle, texts[handle], most[handle], choose)

    asks = {handle: ask(handle) for handle in texts}
    scores = draft_runner.start(list(asks.values()))
    while asks:
        for one, row in zip(asks.values(), scores, strict=True):
            assert row is not None
            drawn = row.draw(one.choose, found[one.handle][0])
            assert drawn is not None
            found[one.handle][0].append(drawn[0])
        asks = {handle: one for handle, one in asks.items() if len(found[handle][0]) < one.most}
        if asks:
            scores = [*draft_runner.go_on(list(asks.values()), [found[handle][0] for handle in asks])]
    return found


@pytest.mark.parametrize("chunk", [2, 10, 100])
def test_a_batch_is_one_by_one(llama: Path, chunk: int) -> None:
    """Over some rounds, in which texts go on as was guessed, or only at first, or not at all."""
    rng = np.random.default_rng(4)
    texts = {i: [int(t) for t in rng.integers(0, 250, n)] for i, n in enumerate((40, 1, 13, 7))}
    together = open_guesser(llama, parallel=4, chunk=chunk)
    alone = {i: open_guesser(llama) for i in texts}
    for _ in range(6):
        most = {i: int(rng.integers(1, 9)) for i in texts}
        found = guess(together, texts, most)
        for i, text in texts.items():
            assert guess(alone[i], {i: text}, most)[i] == found[i]
            assert guess(open_guesser(llama), {i: text}, most)[i] == found[i]
            tokens = found[i][0]
            right = tokens[: int(rng.integers(0, len(tokens) + 1))]
            texts[i] = [*text, *right, *(int(t) for t in rng.integers(0, 250, int(rng.integers(1, 4))))]


def test_a_model_with_a_window_gives_blocks_back_and_goes_back(tmp_path: Path) -> None:
    """Texts that go on as was guessed, or not; one goes back so far that it is read anew."""
    path = make_checkpoint(tmp_path / "m", "gemma3_text", seed=2)  # a window of 8
    target, rng = Checkpoint(path), np.random.default_rng(9)
    opened = open_model(path, target, threads=1, isa="", parallel=2, context=256, chunk=32, kv_bits=8)
    windowed = next(group for group in opened._cache.groups if group.window)
    assert windowed.allocator.count == 2 * window_blocks(8, 32 + DRAFT_BACK) < 16
    texts = {i: [int(t) for t in rng.integers(0, 250, n)] for i, n in enumerate((200, 130))}
    for turn in range(8):
        found = guess(opened, texts, {0: 5, 1: 9})
        for i, text in texts.items():
            assert found[i] == guess(open_guesser(path), {i: text}, {i: len(found[i][0])})[i]
            assert windowed.allocator.available >= 1
            texts[i] = [*text, *found[i][0][: int(rng.integers(0, 6))], int(rng.integers(0, 250))]
        if turn == 4:
            texts[0] = [*texts[0][:20], *(int(t) for t in rng.integers(0, 250, 90))]
            opened._agreed[0] = 20


def test_an_interrupt_in_the_middle(llama: Path) -> None:
    """Ctrl-C while it reads or guesses: what was not computed is not taken for computed."""
    draft_runner = open_guesser(llama)
    tokens = [int(t) for t in np.random.default_rng(5).integers(0, 250, 35)]
    runner = draft_runner._runner

    class Interrupted:
        def __init__(self, after: int) -> None:
            self.left = after

        def forward(self, batch: Any) -> NDArray[np.float32]:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return runner.forward(batch)

    for after in (0, 2, 5, 3):  # reading takes four calls, later one
        draft_runner._runner = Interrupted(after)  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            guess(draft_runner, {1: tokens}, {1: 9})
        draft_runner._runner = runner
        tokens = [*tokens, 7]
        if after != 2:
            assert guess(draft_runner, {1: tokens}, {1: 3}) == guess(open_guesser(llama), {1: tokens}, {1: 3})


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_confidence_is_the_models_own_probability(llama: Path, sampling: SamplingParams) -> None:
    """Whatever the text's sampler does to the scores: penalties, filters, temperature."""
    tokens = [int(t) for t in np.random.default_rng(6).integers(0, 250, 20)]
    draft_runner = open_guesser(llama)
    recent = np.arange(320, dtype=np.int32)
    p = replace(sampling, repeat_penalty=1.3)
    seen: list[NDArray[np.float32]] = []

    def choose(logits: NDArray[np.float32], taken: list[int]) -> int:
        seen.append(logits.copy())
        return native.sample(
            logits, recent, p.temperature, p.top_k, p.top_p, p.min_p, p.repeat_penalty, p.seed, len(taken)
        )

    drafts = [ChainDrafter("model", draft_runner).propose([Ask(1, tokens, most, choose)])[0] for most in (1, 2, 8)]
    pairs = [pair for draft in drafts for pair in zip(draft.tokens, draft.confidence, strict=True)]
    for (token, confidence), row in zip(pairs, seen, strict=True):
        chances = np.exp(row.astype(np.float64) - row.max())
        assert confidence == pytest.approx(chances[token] / chances.sum(), rel=1e-5)


class Counting:
    """Passes batches on to a draft model's runner, and counts their rows."""

    def __init__(self, draft_runner: ModelDraftRunner) -> None:
        self.rows, self._inner = 0, draft_runner._runner
        draft_runner._runner = self  # type: ignore[assignment]

    def forward(self, batch: Sequence[Work]) -> NDArray[np.float32]:
        self.rows += sum(work.count for work in batch)
        return self._inner.forward(batch)


def test_it_reads_prompts_along_and_what_is_written_only_when_asked(llama: Path) -> None:
    """Time spent on texts that nobody wants guesses for is lost, and nobody would count it."""
    tokens = [int(t) for t in np.random.default_rng(7).integers(0, 250, 200)]
    draft_runner = open_guesser(llama)
    count = Counting(draft_runner)
    for start, end in ((0, 20), (20, 60), (60, 100)):  # the target reads a prompt of 100 tokens
        draft_runner.read(1, tokens[: 100 + (end == 100)], start, end, None)
    assert count.rows == 100
    for end in range(101, 200):  # it writes, and nobody asks
        draft_runner.read(1, tokens[: end + 1], end - 1, end, None)
    assert count.rows == 100
    assert guess(draft_runner, {1: tokens}, {1: 3}) == guess(open_guesser(llama), {1: tokens}, {1: 3})
    assert count.rows == 202


def test_the_last_of_a_long_reading_is_not_lost(llama: Path) -> None:
    """Scores of a text that is done early are kept while the others are still being read."""
    rng = np.random.default_rng(8)
    texts = {i: [int(t) for t in rng.integers(0, 250, n)] for i, n in enumerate((3, 60))}
    found = guess(open_guesser(llama, parallel=2), texts, {0: 2, 1: 2})
    for i, text in texts.items():
        assert found[i] == guess(open_guesser(llama), {i: text}, {i: 2})[i]


@pytest.mark.parametrize(("mine", "says"), [(300, "nothing there and"), (320, "there and nothing here")])
def test_a_vocabulary_that_ends_earlier_is_another(tmp_path: Path, mine: int, says: str) -> None:
    """The first token that only one of the two has is named."""
    draft, target = (
        make_checkpoint(tmp_path / name, vocab_size=rows) for name, rows in (("draft", mine), ("target", 620 - mine))
    )
    with pytest.raises(UsageError, match=f"/draft` cannot guess for this model: token 300 is .*{says}") as refused:
        open_model(draft, Checkpoint(target), threads=1, isa="", parallel=1, context=64, chunk=8, kv_bits=8)
    assert "--draft auto" in str(refused.value.hint)
