"""What models that guess keep of each text: right after any turn that texts, batches and people take."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer import native
from localinfer.config import SamplingParams
from localinfer.engine.draft_early import EarlyGuesser, ExitAdapter, TextsOf
from localinfer.engine.draft_model import ModelGuesser, open_model
from localinfer.engine.draft_scores import ScoreRow
from localinfer.engine.engine import StepEngine
from localinfer.engine.protocol import Request
from localinfer.engine.runner import NativeRunner
from localinfer.graph.program import load_program
from localinfer.graph.weights import Checkpoint
from localinfer.kv.cache import PagedCache
from localinfer.quantize import quantize_checkpoint
from localinfer.scheduler.sequence import Sequence as Text
from localinfer.scheduler.sequence import Work
from localinfer.speculation.chain import ChainDrafter, Scores
from localinfer.speculation.drafter import Ask
from tests.engine.running import (
    GREEDY,
    SAMPLED,
    SAMPLINGS,
    WILD,
    Eager,
    Recorder,
    Said,
    finish,
    make_prompts,
    open_tiny,
    rows_of,
    run_all,
    run_one,
    said,
)
from tests.tiny import make_checkpoint

PROMPTS = make_prompts(5)
BOTH = pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])


@pytest.fixture(scope="module")
def narrow(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model in INT4: often right, often wrong."""
    path = tmp_path_factory.mktemp("narrow") / "INT4"
    quantize_checkpoint(llama, path, bits=4, group=32, threads=1)
    return path


@contextmanager
def guessed_by(draft: Path | int, target: Path, *, chunk: int = 16, **config: Any) -> Iterator[StepEngine]:
    """An engine on `target` for which the model at `draft` guesses, or so many of its own first layers."""
    with open_tiny(target, **config) as engine:
        guesser: ModelGuesser | EarlyGuesser
        if isinstance(draft, int):
            assert isinstance(engine.runner, Recorder)
            guesser = early(engine, engine.runner.inner, draft)
        else:
            parallel = config.get("parallel", 1)
            context = engine.context_size
            guesser = open_model(
                draft, Checkpoint(target), threads=1, isa="", parallel=parallel, context=context, chunk=chunk, kv_bits=8
            )
        engine.guessing, engine.draft_mode = Eager([ChainDrafter("model", guesser)]), "model"
        yield engine


def early(engine: StepEngine, runner: object, layers: int) -> EarlyGuesser:
    assert isinstance(runner, NativeRunner)
    hidden = runner.program.hidden
    nothing = ExitAdapter(layers, np.zeros((2, hidden), np.float32), np.zeros((hidden, 2), np.float32))
    texts = TextsOf(engine.scheduler.running, engine.scheduler.reserve)
    return EarlyGuesser(runner.program, runner, texts, nothing)


def accepted(texts: Sequence[Said]) -> tuple[int, int]:
    """Guesses that were right, and all."""
    stats = [text.finished.stats for text in texts]
    return sum(s.accepted for s in stats), sum(s.drafted for s in stats)


@BOTH
@pytest.mark.parametrize("kv_bits", [8, 16])
@pytest.mark.parametrize("way", ["model", "early"])
def test_in_company_behind_a_prefix_cache(
    llama: Path, narrow: Path, way: str, kv_bits: int, sampling: SamplingParams
) -> None:
    """Several at once, twice, so that the second time most of each prompt is found and never read again. Not a bit of
    the target's scores differs, though guesses have written into its cache."""
    with open_tiny(llama, reuse=False, kv_bits=kv_bits) as engine:
        plain = [run_one(engine, prompt, sampling) for prompt in PROMPTS]
        rows = rows_of(engine)
    draft = narrow if way == "model" else 1
    with guessed_by(draft, llama, kv_bits=kv_bits, parallel=3, prefill_chunk=20) as engine:
        first, second = (run_all(engine, PROMPTS, sampling) for _ in range(2))
        assert all(rows[text] == bits for text, bits in rows_of(engine).items() if text in rows)
        assert rows.keys() <= rows_of(engine).keys()
    for found in (first, second):
        assert [t.token_ids for t in found] == [t.token_ids for t in plain]
    assert sum(text.finished.stats.cached_tokens for text in second) > 100
    right, tried = accepted([*first, *second])
    assert 0 < right < tried


@pytest.mark.parametrize("way", ["model", "early"])
def test_a_shift(circling: Path, way: str) -> None:
    """The beginning of the text is forgotten while it is being guessed, and every guess stays right."""
    sampling = SamplingParams(temperature=0.3, seed=3, max_tokens=150, ignore_eos=True)
    request = Request(tuple(make_prompts(2, seed=3)[1]), sampling, on_overflow="shift", keep=3)
    with open_tiny(circling, context=64) as engine:
        engine.add(request)
        plain = said(finish(engine), 1)
    with guessed_by(circling if way == "model" else 2, circling, context=64) as engine:
        engine.add(request)
        found = said(finish(engine), 1)
    assert found.token_ids == plain.token_ids
    right, tried = accepted([found])
    assert right == tried > 50


@pytest.mark.parametrize("way", ["model", "early"])
def test_the_end_of_the_context(llama: Path, way: str) -> None:
    sampling = replace(GREEDY, max_tokens=None)
    with open_tiny(llama, context=70) as engine:
        plain = run_one(engine, PROMPTS[3], sampling)
    assert plain.finished.reason == "overflow"
    with guessed_by(llama if way == "model" else 2, llama, context=70) as engine:
        found = run_one(engine, PROMPTS[3], sampling)
    assert (found.token_ids, found.finished.reason) == (plain.token_ids, "overflow")
    right, tried = accepted([found])
    assert right == tried > 0


def test_a_draft_model_of_a_shorter_context(tmp_path: Path, llama: Path) -> None:
    """It guesses as far as it can see, and the text goes on without it."""
    short = make_checkpoint(tmp_path / "short", "llama", seed=1, max_position_embeddings=64)
    sampling = replace(GREEDY, max_tokens=80)
    with open_tiny(llama) as engine:
        plain = run_one(engine, PROMPTS[1], sampling)
    with guessed_by(short, llama) as engine:
        found = run_one(engine, PROMPTS[1], sampling)
    assert found.token_ids == plain.token_ids
    right, tried = accepted([found])
    assert 10 < right == tried < 64


@pytest.mark.parametrize("rows", [(400, 320), (320, 400)], ids=["fewer than the target", "more than the target"])
@pytest.mark.parametrize("sampling", [GREEDY, WILD], ids=["greedy", "wild"])
def test_rows_past_the_tokenizer(tmp_path: Path, rows: tuple[int, int], sampling: SamplingParams) -> None:
    """Makers round tables up by different amounts. Tokens that only one of the two knows do occur, if rarely."""
    target, draft = (
        make_checkpoint(tmp_path / name, "llama", seed=seed, vocab_size=count)
        for name, seed, count in zip(("target", "draft"), (1, 2), rows, strict=True)
    )
    sampling = replace(sampling, max_tokens=60)
    with open_tiny(target) as engine:
        plain = [run_one(engine, prompt, sampling) for prompt in PROMPTS]
    with guessed_by(draft, target, parallel=2) as engine:
        found = run_all(engine, PROMPTS, sampling)
    assert [t.token_ids for t in found] == [t.token_ids for t in plain]
    assert accepted(found)[1] > 0
    if rows[0] > rows[1]:
        assert any(token >= 320 for text in plain for token in text.token_ids)


def test_people_come_and_go(llama: Path, narrow: Path) -> None:
    """More texts than places, some cancelled half way; each has its place again, and none keeps one."""
    with open_tiny(llama) as engine:
        plain = [run_one(engine, prompt, SAMPLED) for prompt in PROMPTS]
    with guessed_by(narrow, llama, parallel=2) as engine:
        events = []
        for prompt in PROMPTS:
            engine.cancel(engine.add(Request(tuple(reversed(prompt)), SAMPLED)))
        handles = [engine.add(Request(tuple(prompt), SAMPLED)) for prompt in PROMPTS]
        doomed = [engine.add(Request(tuple(prompt), SAMPLED)) for prompt in PROMPTS]
        for handle in doomed:
            events += engine.step() + engine.step()
            engine.cancel(handle)
        events += finish(engine)
        found = [said(events, handle) for handle in handles]
        eager = engine.guessing
        assert isinstance(eager, Eager)
        guesser = guesser_of(eager)
        assert not guesser._texts
        assert guesser._cache.allocator.available == guesser._cache.allocator.count
    assert [t.token_ids for t in found] == [t.token_ids for t in plain]
    assert accepted(found)[0] > 0


def guesser_of(eager: Eager) -> ModelGuesser:
    drafter = eager.drafters[0]
    assert isinstance(drafter, ChainDrafter)
    guesser = drafter._guesser
    assert isinstance(guesser, ModelGuesser)
    return guesser


def open_guesser(path: Path, *, parallel: int = 1, chunk: int = 10) -> ModelGuesser:
    program = load_program(Checkpoint(path), threads=1, context=256, kv_blocks=8 * parallel)
    return ModelGuesser(program, parallel=parallel, context=256, chunk=chunk)


Guess = tuple[list[int], list[bytes]]
"""Tokens, and the scores that each was drawn from, bit by bit."""


def guess(guesser: ModelGuesser, texts: Mapping[int, list[int]], most: Mapping[int, int]) -> dict[int, Guess]:
    """As `ChainDrafter`, but as far as told, however sure it is. Draws as a text's own sampler does."""
    none = np.empty(0, np.int32)
    found: dict[int, Guess] = {handle: ([], []) for handle in texts}

    def ask(handle: int) -> Ask:
        def choose(logits: NDArray[np.float32], taken: list[int]) -> int:
            found[handle][1].append(logits.tobytes())
            return native.sample(logits, none, 1.0, 0, 1.0, 0.0, 1.0, handle, len(texts[handle]) + len(taken))

        return Ask(handle, texts[handle], most[handle], choose)

    asks = {handle: ask(handle) for handle in texts}
    scores = guesser.start(list(asks.values()))
    while asks:
        for one, row in zip(asks.values(), scores, strict=True):
            assert row is not None
            found[one.handle][0].append(row.draw(one.choose, found[one.handle][0])[0])
        asks = {handle: one for handle, one in asks.items() if len(found[handle][0]) < one.most}
        if asks:
            scores = [*guesser.go_on(list(asks.values()), [found[handle][0] for handle in asks])]
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


def test_an_interrupt_in_the_middle(llama: Path) -> None:
    """Ctrl-C while it reads or guesses: what was not computed is not taken for computed."""
    guesser = open_guesser(llama)
    tokens = [int(t) for t in np.random.default_rng(5).integers(0, 250, 35)]
    runner = guesser._runner

    class Interrupted:
        def __init__(self, after: int) -> None:
            self.left = after

        def forward(self, batch: Any) -> NDArray[np.float32]:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return runner.forward(batch)

    for after in (0, 2, 5, 3):  # reading takes four calls, later one
        guesser._runner = Interrupted(after)  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            guess(guesser, {1: tokens}, {1: 9})
        guesser._runner = runner
        tokens = [*tokens, 7]
        if after != 2:
            assert guess(guesser, {1: tokens}, {1: 3}) == guess(open_guesser(llama), {1: tokens}, {1: 3})


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_sure_is_the_models_own_probability(llama: Path, sampling: SamplingParams) -> None:
    """Whatever the text's sampler does to the scores: penalties, filters, temperature."""
    tokens = [int(t) for t in np.random.default_rng(6).integers(0, 250, 20)]
    guesser = open_guesser(llama)
    recent = np.arange(320, dtype=np.int32)
    p = replace(sampling, repeat_penalty=1.3)
    seen: list[NDArray[np.float32]] = []

    def choose(logits: NDArray[np.float32], taken: list[int]) -> int:
        seen.append(logits.copy())
        return native.sample(
            logits, recent, p.temperature, p.top_k, p.top_p, p.min_p, p.repeat_penalty, p.seed, len(taken)
        )

    drafts = [ChainDrafter("model", guesser).propose([Ask(1, tokens, most, choose)])[0] for most in (1, 2, 8)]
    pairs = [pair for draft in drafts for pair in zip(draft.tokens, draft.sure, strict=True)]
    for (token, sure), row in zip(pairs, seen, strict=True):
        chances = np.exp(row.astype(np.float64) - row.max())
        assert sure == pytest.approx(chances[token] / chances.sum(), rel=1e-5)


class Counting:
    """Passes batches on to a draft model's runner, and counts their rows."""

    def __init__(self, guesser: ModelGuesser) -> None:
        self.rows, self._inner = 0, guesser._runner
        guesser._runner = self  # type: ignore[assignment]

    def forward(self, batch: Sequence[Work]) -> NDArray[np.float32]:
        self.rows += sum(work.count for work in batch)
        return self._inner.forward(batch)


def test_it_reads_prompts_along_and_what_is_written_only_when_asked(llama: Path) -> None:
    """Time spent on texts that nobody wants guesses for is lost, and nobody would count it."""
    tokens = [int(t) for t in np.random.default_rng(7).integers(0, 250, 200)]
    guesser = open_guesser(llama)
    count = Counting(guesser)
    for start, end in ((0, 20), (20, 60), (60, 100)):  # the target reads a prompt of 100 tokens
        guesser.read(1, tokens[: 100 + (end == 100)], start, end, None)
    assert count.rows == 100
    for end in range(101, 200):  # it writes, and nobody asks
        guesser.read(1, tokens[: end + 1], end - 1, end, None)
    assert count.rows == 100
    assert guess(guesser, {1: tokens}, {1: 3}) == guess(open_guesser(llama), {1: tokens}, {1: 3})
    assert count.rows == 202


def test_the_last_of_a_long_reading_is_not_lost(llama: Path) -> None:
    """Scores of a text that is done early are kept while the others are still being read."""
    rng = np.random.default_rng(8)
    texts = {i: [int(t) for t in rng.integers(0, 250, n)] for i, n in enumerate((3, 60))}
    found = guess(open_guesser(llama, parallel=2), texts, {0: 2, 1: 2})
    for i, text in texts.items():
        assert found[i] == guess(open_guesser(llama), {i: text}, {i: 2})[i]


def test_the_head_alone(llama: Path) -> None:
    """Of rows that came out of all layers: the scores that the whole step gave, for more rows than a block holds."""
    context = 128
    program = load_program(Checkpoint(llama), threads=1, context=context, kv_blocks=4)
    runner = NativeRunner(program, parallel=10, chunk=64, width=4, wants_hidden=True)
    text = Text(1, [int(t) for t in np.random.default_rng(9).integers(0, 250, 40)])
    cache = PagedCache(slots=1, context=context)
    text.lease = cache.open(text.tokens)
    cache.reserve(text.lease, context)
    drafts = Work(text, 0, 5, [])
    text.tokens, drafts.drafts = text.tokens[:5], text.tokens[5:]
    logits = runner.forward([drafts]).copy()
    stream = runner.hidden[4:40].copy()
    assert logits.shape == (36, program.vocab)
    assert np.array_equal(runner.head(stream), logits)
    assert runner.partly([drafts], 1, None, scores=False).shape == (0, program.vocab)


def test_an_adapter_that_does_nothing_changes_nothing(model: Path) -> None:
    """The exit through it gives the bits of the exit without it."""
    with open_tiny(model, parallel=2) as engine:
        assert isinstance(engine.runner, Recorder)
        runner = engine.runner.inner
        assert isinstance(runner, NativeRunner)
        texts = TextsOf(engine.scheduler.running, engine.scheduler.reserve)
        bare = EarlyGuesser(runner.program, runner, texts)
        for prompt in PROMPTS[:2]:
            engine.add(Request(tuple(prompt), SAMPLED))
        for _ in range(4):
            engine.step()
        asks = [Ask(text.handle, text.tokens, 5, lambda logits, taken: 0) for text in engine.scheduler.running]
        assert len(asks) == 2
        rounds: list[list[list[int]]] = [[[], []], [[7], [9]], [[7, 8], [9, 1]]]
        for guesses in rounds:
            one, other = (bits(each._scores(asks, guesses)) for each in (bare, early(engine, runner, 1)))
            assert one == other


def bits(rows: Sequence[Scores]) -> list[bytes]:
    assert all(isinstance(row, ScoreRow) for row in rows)
    return [row.logits.tobytes() for row in rows if isinstance(row, ScoreRow)]
