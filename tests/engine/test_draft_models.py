"""Models that guess: another one, or the first layers of the target itself. Right when they should be; never seen."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from localinfer import native
from localinfer.config import SamplingParams
from localinfer.engine.draft_early import EarlyDraftRunner, ExitAdapter, TextsOf
from localinfer.engine.draft_model import ModelDraftRunner, open_model
from localinfer.engine.engine import StepEngine
from localinfer.engine.runner import NativeRunner
from localinfer.errors import UsageError
from localinfer.graph.program import load_program
from localinfer.graph.weights import Checkpoint
from localinfer.quantize import quantize_checkpoint
from localinfer.speculation.chain import ChainDrafter
from localinfer.speculation.drafter import Ask
from tests.engine.running import SAMPLINGS, Eager, Recorder, make_prompts, open_tiny, run_all, run_one
from tests.tiny import make_checkpoint

PROMPTS = make_prompts(5)


@contextmanager
def with_model(target: Path, draft: Path, *, parallel: int = 1, chunk: int = 16) -> Iterator[StepEngine]:
    with open_tiny(target, parallel=parallel, reuse=False) as engine:
        draft_runner = open_model(
            draft, Checkpoint(target), threads=1, isa="", parallel=parallel, context=256, chunk=chunk, kv_bits=8
        )
        engine.speculator, engine.draft_mode = Eager([ChainDrafter("model", draft_runner)]), "model"
        yield engine


@contextmanager
def with_early(target: Path, layers: int, *, parallel: int = 1) -> Iterator[StepEngine]:
    with open_tiny(target, parallel=parallel, reuse=False) as engine:
        assert isinstance(engine.runner, Recorder)
        runner = engine.runner.inner
        assert isinstance(runner, NativeRunner)
        program = runner.program
        hidden = program.hidden
        nothing = ExitAdapter(layers, np.zeros((2, hidden), np.float32), np.zeros((hidden, 2), np.float32))
        texts = TextsOf(engine.scheduler.running, engine.scheduler.reserve)
        engine.speculator = Eager([ChainDrafter("early", EarlyDraftRunner(program, runner, texts, nothing))])
        engine.draft_mode = "early"
        yield engine


def plain(target: Path, sampling: SamplingParams) -> list[tuple[int, ...]]:
    with open_tiny(target, reuse=False) as engine:
        return [run_one(engine, prompt, sampling).token_ids for prompt in PROMPTS]


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_a_model_that_guesses_for_itself_is_always_right(llama: Path, sampling: SamplingParams) -> None:
    """Also where tokens are drawn at random, since both draw alike."""
    wanted = plain(llama, sampling)
    with with_model(llama, llama) as engine:
        found = [run_one(engine, prompt, sampling) for prompt in PROMPTS]
    assert [text.token_ids for text in found] == wanted
    assert all(text.finished.stats.accepted == text.finished.stats.drafted > 5 for text in found)


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_all_layers_are_always_right(model: Path, sampling: SamplingParams) -> None:
    wanted = plain(model, sampling)
    with with_early(model, Checkpoint(model).spec.layers) as engine:
        found = [run_one(engine, prompt, sampling) for prompt in PROMPTS]
    assert [text.token_ids for text in found] == wanted
    assert all(text.finished.stats.accepted == text.finished.stats.drafted > 5 for text in found)


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_one_layer_leaves_no_trace(llama: Path, sampling: SamplingParams) -> None:
    wanted = plain(llama, sampling)
    with with_early(llama, 1) as engine:
        found = [run_one(engine, prompt, sampling) for prompt in PROMPTS]
    assert [text.token_ids for text in found] == wanted
    assert sum(text.finished.stats.drafted for text in found) > 5


def test_early_layers_guess_through_a_head_of_its_own(tmp_path: Path) -> None:
    """Of four bits, made of a table that was the head's as well."""
    source = make_checkpoint(tmp_path / "source", "llama", seed=1, tie_word_embeddings=True)
    quantize_checkpoint(source, tmp_path / "q", bits=4, head=4, method="rtn")
    wanted = plain(tmp_path / "q", SAMPLINGS["greedy"])
    with with_early(tmp_path / "q", Checkpoint(source).spec.layers) as engine:
        found = [run_one(engine, prompt, SAMPLINGS["greedy"]) for prompt in PROMPTS]
    assert [text.token_ids for text in found] == wanted
    assert all(text.finished.stats.accepted == text.finished.stats.drafted > 5 for text in found)


@pytest.mark.parametrize("sampling", [SAMPLINGS["greedy"], SAMPLINGS["sampled"]], ids=["greedy", "sampled"])
def test_a_narrower_self_guesses_for_its_original(tmp_path: Path, llama: Path, sampling: SamplingParams) -> None:
    """And in company: four texts at once, one of them longer than what is read in a step."""
    quantize_checkpoint(llama, tmp_path / "int4", bits=4, method="rtn")
    wanted = plain(llama, sampling)
    with with_model(llama, tmp_path / "int4", parallel=4, chunk=7) as engine:
        found = run_all(engine, PROMPTS, sampling)
    assert [text.token_ids for text in found] == wanted
    stats = [text.finished.stats for text in found]
    assert 0 < sum(s.accepted for s in stats) < sum(s.drafted for s in stats)


def test_its_own_cache_is_right_after_wrong_guesses(llama: Path) -> None:
    """The text goes another way than was guessed, again and again: the scores stay those of a fresh reading."""

    def draft_runner() -> ModelDraftRunner:
        program = load_program(Checkpoint(llama), threads=1, context=256, kv_blocks=8)
        return ModelDraftRunner(program, parallel=1, context=256, chunk=10)

    rng = np.random.default_rng(1)
    tokens = [int(t) for t in rng.integers(0, 250, 30)]
    one = draft_runner()
    for grown in (3, 1, 7, 2, 12):
        ask = Ask(1, tokens, 4, lambda logits, taken: 7 + len(taken))
        first = one.start([ask])[0]
        fresh = draft_runner().start([ask])[0]
        assert first is not None
        assert fresh is not None
        assert np.array_equal(first.logits, fresh.logits)  # type: ignore[attr-defined]
        one.go_on([ask], [[7]])
        one.go_on([ask], [[7, 8]])
        tokens = [*tokens, *([7] if grown % 2 else []), *(int(t) for t in rng.integers(0, 250, grown))]
    one.forget(1)
    assert one.start([replace(ask, tokens=tokens[:5])])[0] is not None


def test_texts_without_room_are_not_guessed(llama: Path) -> None:
    program = load_program(Checkpoint(llama), threads=1, context=64, kv_blocks=2)
    draft_runner = ModelDraftRunner(program, parallel=1, context=64, chunk=16)
    long, short = ([Ask(handle, [5] * count, 4, lambda logits, taken: 1)] for handle, count in ((1, 62), (2, 9)))
    assert draft_runner.start(long) == [None]
    assert draft_runner.start(short) != [None]
    assert draft_runner.start([Ask(3, [5] * 9, 4, lambda logits, taken: 1)]) == [
        None
    ]  # nor more texts than there is room


def test_another_tokenizer_is_refused_by_its_first_token(tmp_path: Path, llama: Path) -> None:
    other = make_checkpoint(tmp_path / "other")
    file = other / "tokenizer.json"
    document = json.loads(file.read_text())
    words = document["model"]["vocab"]
    words["b"], words["c"] = words["c"], words["b"]
    file.write_text(json.dumps(document))
    with pytest.raises(UsageError, match=r"other` cannot guess for this model: token \d+ is 'c' there and 'b' here"):
        open_model(other, Checkpoint(llama), threads=1, isa="", parallel=1, context=64, chunk=8, kv_bits=8)


def test_drawing_says_how_likely_the_token_was() -> None:
    from localinfer.engine.draft_scores import ScoreRow

    logits = np.log(np.array([0.1, 0.6, 0.3], np.float32)) + 5
    drawn = ScoreRow(logits.copy()).draw(lambda row, taken: 2, [])
    assert drawn is not None
    token, confidence = drawn
    assert token == 2
    assert confidence == pytest.approx(0.3)
    spread = np.empty(9, np.float32)
    row = ScoreRow(logits, np.array([2, 5, 8], np.int32), spread)

    def greedy(row: np.ndarray, taken: Sequence[int]) -> int:
        return native.sample(row, np.empty(0, np.int32), 0.0, 0, 1.0, 0.0, 1.0, 0, 0)

    drawn = row.draw(greedy, [])
    assert drawn is not None
    token, confidence = drawn
    assert token == 5
    assert confidence == pytest.approx(0.6)
    assert (spread[[0, 1, 3, 4, 6, 7]] == np.finfo(np.float32).min).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("laid_out", [False, True])
def test_nothing_is_drawn_from_scores_that_are_not_finite(bad: float, laid_out: bool) -> None:
    from localinfer.engine.draft_scores import ScoreRow
    from localinfer.engine.sampling import Sampler

    row = ScoreRow(np.array([0, bad, 1], np.float32))
    if laid_out:
        row = ScoreRow(row.logits, np.array([2, 5, 8], np.int32), np.empty(9, np.float32))
    sampler = Sampler(SamplingParams(temperature=0.5))
    assert row.draw(lambda logits, taken: sampler.choose(logits, [], taken, 0), []) is None
