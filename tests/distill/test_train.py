"""Heads that learn on tiny models: better than untrained, the same for a seed, run as trained, seen by nobody."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from localinfer.config import SamplingParams
from localinfer.distill import early as early_module
from localinfer.distill import features, train
from localinfer.distill import judge as judge_module
from localinfer.distill.head import HeadModel
from localinfer.distill.judge import replay
from localinfer.distill.time_plan import plan_training
from localinfer.engine import drafters
from localinfer.engine.drafters import folder_of, key_of, known, load_adapter, load_head
from localinfer.errors import Corrupt, NotFound, UsageError
from localinfer.formats.safetensors import SafetensorsFile
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.speeds import Speeds
from localinfer.speculation.chain import ChainDrafter
from localinfer.speculation.controller import Controller
from localinfer.speculation.drafter import Ask
from tests.engine.conftest import circling  # noqa: F401 - a fixture
from tests.engine.running import Eager, make_prompts, open_tiny, run_all, run_one
from tests.tiny import make_checkpoint

STEP_S = {1: 1.0, 2: 1.05, 4: 1.1, 8: 1.3}
"""Steps so slow that any guess of a tiny model is worth its time."""


@pytest.fixture(scope="module")
def texts(circling: Path) -> np.ndarray:  # noqa: F811
    """What the model itself says, [sequences, 64]."""
    sampling = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    with open_tiny(circling, parallel=8) as engine:
        said = run_all(engine, [prompt[:4] * 2 for prompt in make_prompts(32, seed=4)], sampling)
    return np.array([text.token_ids[:60] for text in said], np.int32)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "VOCABULARY", 320)
    monkeypatch.setattr(train, "SEGMENT", 60)
    monkeypatch.setattr(train, "RATE", 2e-2)


def trained(path: Path, texts: np.ndarray, steps: int, kind: train.Kind = "head") -> train.Result:
    return train.train_drafter(path, "tiny", texts, STEP_S, kind=kind, seconds=60, steps=steps, threads=1)


def test_it_learns_and_the_same_seed_gives_the_same(circling: Path, texts: np.ndarray) -> None:  # noqa: F811
    before, after = trained(circling, texts, 1), trained(circling, texts, 100)
    assert after.trained.acceptance[0] > before.trained.acceptance[0] + 0.2
    assert after.kept is not None
    bits = (after.kept / "weights.safetensors").read_bytes()
    again = trained(circling, texts, 100)
    assert again.kept == after.kept
    assert (after.kept / "weights.safetensors").read_bytes() == bits
    assert again.trained.acceptance == after.trained.acceptance
    assert [one.kind for one, _ in known()] == ["head"]


def test_guesses_of_the_head_change_no_token(circling: Path, texts: np.ndarray) -> None:  # noqa: F811
    trained(circling, texts, 100)
    prompts = [prompt[:12] * 3 for prompt in make_prompts(5, seed=3)]
    sampling = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    with open_tiny(circling, reuse=False) as engine:
        plain = [run_one(engine, prompt, sampling).token_ids for prompt in prompts]
    with open_tiny(circling, draft="head", parallel=3, prefill_chunk=10) as engine:
        assert engine.speculator is not None
        draft_runner = load_head(Checkpoint(circling), engine.runner.inner.program, parallel=3, threads=1, isa="")  # type: ignore[attr-defined]
        assert draft_runner is not None
        engine.speculator = Eager([ChainDrafter("head", draft_runner)])
        found = run_all(engine, prompts, sampling)
        again = run_all(
            engine, prompts, sampling
        )  # their beginnings come from the prefix cache, and never reach the head
    assert [text.token_ids for text in found] == plain
    assert [text.token_ids for text in again] == plain
    stats = [text.finished.stats for text in found]
    assert sum(s.accepted for s in stats) > 0.2 * sum(s.drafted for s in stats) > 5


def test_it_runs_as_it_was_trained(circling: Path, texts: np.ndarray) -> None:  # noqa: F811
    target = Checkpoint(circling)
    program = features.reading_program(target, texts.shape[1], 1)
    hidden = features.read_text(program, texts[:2])
    model, ids = HeadModel(target, 3), np.arange(0, 256, 2, dtype=np.int32)
    head = drafters.make_head(model.arrays(ids), target, program, parallel=2, threads=1, isa="")
    learning = train._Learning(target, program, ids)
    text = [int(token) for token in texts[0]]
    embedded, true = learning.embedded(texts[:1]), torch.from_numpy(hidden[:1].astype(np.float32))
    with torch.no_grad():
        meant = learning.scores(model(embedded[:, 1:], true[:, :-1]))[0].numpy()
    for end in (5, 6, 20, 58):
        head.read(
            1, text[: end + 1], 5 if end == 6 else 0, end, hidden[0, (5 if end == 6 else 0) : end].astype(np.float32)
        )
        row = head.start([Ask(1, text[: end + 1], 4, lambda logits, taken: 0)])[0]
        assert row is not None
        apart = np.abs(row.logits - meant[end - 1]).max() / np.abs(meant[end - 1]).max()  # type: ignore[attr-defined]
        assert apart < 0.06  # weights of 8 bits, activations of 8 bits
        if end != 5:
            head.forget(1)


def test_a_gap_begins_anew(circling: Path) -> None:  # noqa: F811
    target = Checkpoint(circling)
    program = features.reading_program(target, 64, 1)
    head = drafters.make_head(
        HeadModel(target, 3).arrays(np.arange(9, dtype=np.int32)), target, program, parallel=1, threads=1, isa=""
    )
    rows = np.random.default_rng(1).standard_normal((40, program.hidden)).astype(np.float32)
    tokens = list(range(1, 60))

    def ask(end: int) -> Ask:
        return Ask(1, tokens[: end + 1], 3, lambda logits, taken: 0)

    assert head.start([ask(4)]) == [None]
    head.read(1, tokens, 0, 4, rows[:4])
    assert head.start([ask(4)]) != [None]
    assert head.start([ask(4)]) == [None]  # nothing new to go on from
    head.read(1, tokens, 32, 36, rows[:4])
    alone = head.start([ask(36)])[0]
    head.forget(1)
    head.read(1, tokens, 32, 36, rows[:4])
    fresh = head.start([ask(36)])[0]
    assert np.array_equal(alone.logits, fresh.logits)  # type: ignore[union-attr]
    head.read(2, tokens, 0, 4, rows[:4])  # no room for a second text
    assert head.start([Ask(2, tokens[:5], 3, lambda logits, taken: 0)]) == [None]


def test_an_exit_learns_too(circling: Path, texts: np.ndarray) -> None:  # noqa: F811
    before, after = trained(circling, texts, 1, "early"), trained(circling, texts, 200, "early")
    assert after.trained.acceptance[0] > before.trained.acceptance[0]
    assert after.kept is not None
    adapter = load_adapter(Checkpoint(circling))
    assert adapter is not None
    assert adapter.layers == 1


@pytest.mark.parametrize("kind", ["head", "early"])
def test_a_model_with_delta_nets_learns_too(tmp_path: Path, kind: train.Kind) -> None:
    path = make_checkpoint(tmp_path / "m", "qwen3_5_text", seed=2)
    prompts = [prompt[:12] * 3 for prompt in make_prompts(8, seed=3)]
    sampling = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    with open_tiny(path, reuse=False) as engine:
        said = [run_one(engine, prompt, sampling).token_ids for prompt in prompts]
    texts = np.array([ids[:60] for ids in said] * 3, np.int32)
    before, after = trained(path, texts, 1, kind), trained(path, texts, 60, kind)
    assert after.trained.acceptance[0] > before.trained.acceptance[0]
    assert after.kept is not None
    with open_tiny(path, draft=kind, parallel=3) as engine:
        assert isinstance(engine.speculator, Controller)
        engine.speculator = Eager([record.drafter for record in engine.speculator._records.values()])
        found = run_all(engine, prompts, sampling)
    assert [text.token_ids for text in found] == said
    assert sum(text.finished.stats.drafted for text in found) > 5


def test_what_does_not_pay_is_not_kept(circling: Path, texts: np.ndarray) -> None:  # noqa: F811
    dear = {1: 1e-9, 2: 2e-9}
    result = train.train_drafter(circling, "tiny", texts, dear, seconds=60, steps=2, threads=1)
    assert result.kept is None
    assert result.length == 0
    assert not list(known())


def test_the_replay_is_worked_out_by_hand() -> None:
    flat = {1: 1.0, 2: 1.0, 3: 1.0}
    for chances, ratio, length in (([0.5, 0.5], 1.75 / 1.2, 2), ([0.5, 0.1], 1.5 / 1.1, 1)):
        found, best = replay(chances, 0.1, flat)
        assert found == pytest.approx(ratio)
        assert best == length
    assert replay([0.0], 0.1, {1: 1.0, 2: 1.0}) == (1.0, 0)


@pytest.mark.parametrize("harm", ["cut", "shape", "ids", "words", "nan"])
def test_damaged_files_are_named(circling: Path, texts: np.ndarray, harm: str) -> None:  # noqa: F811
    assert trained(circling, texts, 100).kept is not None
    target = Checkpoint(circling)
    folder = folder_of(key_of(target), "head")
    file = folder / "weights.safetensors"
    arrays = {name: SafetensorsFile(file).read(name) for name in SafetensorsFile(file).tensors}
    one = next(known())[0]
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    elif harm == "words":
        (folder / "drafter.json").write_text(json.dumps({"format": 1, "model": "x"}))
    else:
        if harm == "shape":
            arrays["gains"] = arrays["gains"][:1].copy()
        elif harm == "nan":
            arrays["gains"][0, 0] = np.nan
        else:
            arrays["ids"] = arrays["ids"][::-1].copy()
        drafters.write(one, arrays)
    with pytest.raises(Corrupt):
        load_head(target, features.reading_program(target, 32, 1), parallel=1, threads=1, isa="")
    with open_tiny(circling, draft="auto") as engine:  # goes on without it, and says so
        assert any("without the trained head" in note for note in engine.info.notes)
    with pytest.raises(Corrupt):
        open_tiny(circling, draft="head")


def test_no_head_no_guesses_by_it(circling: Path) -> None:  # noqa: F811
    with pytest.raises(NotFound, match="no head was trained"):
        open_tiny(circling, draft="head")


def test_the_minutes_hold_all_of_it_or_it_is_refused(circling: Path) -> None:  # noqa: F811
    speeds = Speeds(hashing=1e7, rounding=1e6, kernels=1e7, multiply=1e7, fit_s=0.01)
    how: dict[str, Any] = {"workers": 1, "started": 0.0, "clock": lambda: 3.0, "speeds": speeds}
    with pytest.raises(UsageError, match=r"a drafter takes about .* writing .*, learning ") as error:
        plan_training(circling, 6, **how)
    assert "`--minutes` allows 6.0 s" in error.value.message
    plan = plan_training(circling, 6000, **how)
    assert plan.left("writing") == pytest.approx(0.4 * 6000 - 3, rel=0.1)
    assert plan.left("learning") <= 0.95 * 6000 - 3


@pytest.mark.parametrize("kind", ["head", "early"])
def test_training_ends_in_time(
    circling: Path,  # noqa: F811
    texts: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    kind: train.Kind,
) -> None:
    """By a clock that reading, steps and guesses move; what was not reached is left out."""
    now = 0.0

    def passing(owner: object, name: str, seconds: float) -> None:
        real = getattr(owner, name)

        def slow(*args: object, **kwargs: object) -> object:
            nonlocal now
            now += seconds
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, slow)

    def reading(what: str, done: int, total: int) -> None:
        nonlocal now
        now += 1.5 * (what == "reading")

    passing(train._Learning, "loss", 2.0)
    passing(judge_module, "likeliest_tokens", 1.0)
    passing(early_module, "likeliest_tokens", 1.0)
    how: dict[str, Any] = {"seconds": 60, "threads": 1, "clock": lambda: now, "on_progress": reading}
    result = train.train_drafter(circling, "tiny", texts, STEP_S, kind=kind, **how)
    assert 40 <= now <= 60 + 2
    assert 0 < result.trained.tokens < 60 * 60
