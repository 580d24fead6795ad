"""What models that guess keep of each text: right after any turn that texts, batches and people take."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localinfer.config import SamplingParams
from localinfer.engine.draft_early import EarlyDraftRunner, ExitAdapter, TextsOf
from localinfer.engine.draft_model import ModelDraftRunner, open_model
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
        draft_runner: ModelDraftRunner | EarlyDraftRunner
        if isinstance(draft, int):
            assert isinstance(engine.runner, Recorder)
            draft_runner = early(engine, engine.runner.inner, draft)
        else:
            parallel = config.get("parallel", 1)
            context = engine.context_size
            draft_runner = open_model(
                draft, Checkpoint(target), threads=1, isa="", parallel=parallel, context=context, chunk=chunk, kv_bits=8
            )
        engine.speculator, engine.draft_mode = Eager([ChainDrafter("model", draft_runner)]), "model"
        yield engine


def early(engine: StepEngine, runner: object, layers: int) -> EarlyDraftRunner:
    assert isinstance(runner, NativeRunner)
    hidden = runner.program.hidden
    nothing = ExitAdapter(layers, np.zeros((2, hidden), np.float32), np.zeros((hidden, 2), np.float32))
    texts = TextsOf(engine.scheduler.running, engine.scheduler.reserve)
    return EarlyDraftRunner(runner.program, runner, texts, nothing)


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


@pytest.mark.parametrize("layers", [1, 2])
def test_over_a_4_bit_cache_on_two_threads(tmp_path: Path, layers: int) -> None:
    """Guesses write into the target's cache what it will write itself, in 4 bits as in 8."""
    target = make_checkpoint(tmp_path / "qwen3", "qwen3", seed=2)
    with open_tiny(target, reuse=False, kv_bits=4) as engine:
        plain = [run_one(engine, prompt, SAMPLED) for prompt in PROMPTS]
        rows = rows_of(engine)
    with guessed_by(layers, target, kv_bits=4, parallel=3, threads=2) as engine:
        found = run_all(engine, PROMPTS, SAMPLED)
        assert all(rows[text] == bits for text, bits in rows_of(engine).items() if text in rows)
    assert [t.token_ids for t in found] == [t.token_ids for t in plain]
    right, tried = accepted(found)
    assert (right == tried) == (layers == 2)
    assert tried > 0


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
        eager = engine.speculator
        assert isinstance(eager, Eager)
        draft_runner = draft_runner_of(eager)
        assert not draft_runner._texts
        assert draft_runner._cache.allocator.available == draft_runner._cache.allocator.count
    assert [t.token_ids for t in found] == [t.token_ids for t in plain]
    assert accepted(found)[0] > 0


def draft_runner_of(eager: Eager) -> ModelDraftRunner:
    drafter = eager.drafters[0]
    assert isinstance(drafter, ChainDrafter)
    draft_runner = drafter._draft_runner
    assert isinstance(draft_runner, ModelDraftRunner)
    return draft_runner


def test_the_head_alone(llama: Path) -> None:
    """Of rows that came out of all layers: the scores that the whole step gave, for more rows than a block holds."""
    context = 128
    program = load_program(Checkpoint(llama), threads=1, context=context, kv_blocks=4)
    runner = NativeRunner(program, parallel=10, chunk=64, width=4, wants_hidden="all")
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
        bare = EarlyDraftRunner(runner.program, runner, texts)
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


def test_far_guesses_have_room_of_their_own(llama: Path) -> None:
    """Guesses of two texts run into blocks that neither has yet; what comes afterwards is what would have come."""
    prompts = [prompt[:30] for prompt in make_prompts(5)[2:4]]
    with open_tiny(llama, reuse=False) as engine:
        plain = [run_one(engine, prompt, SAMPLED) for prompt in prompts]
        rows = rows_of(engine)
    with open_tiny(llama, parallel=2) as engine:
        assert isinstance(engine.runner, Recorder)
        draft_runner = early(engine, engine.runner.inner, 1)
        handles = [engine.add(Request(tuple(prompt), SAMPLED)) for prompt in prompts]
        events = engine.step()
        asks = [Ask(text.handle, text.tokens, 40, lambda logits, taken: 0) for text in engine.scheduler.running]
        assert [len(ask.tokens) for ask in asks] == [31, 31]
        draft_runner.start(asks)
        for far in range(1, 40):
            draft_runner.go_on(asks, [[3] * far, [5] * far])
        events += finish(engine)
        found = [said(events, handle) for handle in handles]
        assert all(rows[text] == bits for text, bits in rows_of(engine).items())
    assert [t.token_ids for t in found] == [t.token_ids for t in plain]


def bits(rows: Sequence[Scores]) -> list[bytes]:
    assert all(isinstance(row, ScoreRow) for row in rows)
    return [row.logits.tobytes() for row in rows if isinstance(row, ScoreRow)]
