"""What a step costs: measured once, cached under all that could change it, and never a reason for another answer."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localinfer import native
from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine import step_timing
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Request
from localinfer.engine.step_timing import Key, StepTiming, cached_or_measured, entries, forget, key_for, known, measure
from localinfer.graph.program import load_program
from localinfer.graph.weights import Checkpoint
from localinfer.paths import step_timing_file
from tests.tiny import make_checkpoint


class Fake:
    """A program that only tells how long its steps take, on a clock of its own."""

    vocab = 10
    states = 0
    prefetch = 1024
    kv_blocks = (1 << 20,)
    cold = 2.0
    """By which the first step takes longer."""

    def __init__(
        self, threads: int, seconds: dict[int, float], a_row: float = 0.0, far: dict[int, float] | None = None
    ) -> None:
        self.far, self.takes_prefetch = far or {}, far is not None
        self.threads, self.seconds, self.a_row = threads, seconds, a_row
        self.now = 0.0
        self.steps: list[tuple[int, int]] = []

    def set_threads(self, threads: int) -> None:
        self.threads = threads

    def set_prefetch(self, distance: int) -> None:
        self.prefetch = distance

    def step(self, tokens: Any, positions: Any, sequences: Any, tables: Any, outs: Any, logits: Any) -> None:
        assert tokens.max() < self.vocab
        assert list(positions) == list(outs) == list(range(len(tokens)))
        assert (sequences.max(), tables.shape, logits.shape) == (0, (1, 1, 1), (len(tokens), self.vocab))
        cold = self.cold if not self.steps else 1.0
        self.steps.append((self.threads, len(tokens)))
        self.now += cold * self.seconds[self.threads] + self.a_row * (len(tokens) - 1)
        self.now += self.far.get(self.prefetch, 0.0)

    def clock(self) -> float:
        return self.now


def measured(fake: Fake, **how: Any) -> StepTiming:
    found = measure(fake, clock=fake.clock, **({"choose": True} | how))  # type: ignore[arg-type]
    assert fake.threads == found.threads
    return found


def test_the_least_time_of_each_number_of_rows() -> None:
    found = measured(Fake(2, {2: 0.001, 1: 0.002}, a_row=0.0001))
    assert found.threads == 2
    assert found.step_s == pytest.approx({n: 0.001 + 0.0001 * (n - 1) for n in step_timing.ROWS})
    assert found.tried == pytest.approx({2: 0.001, 1: 0.002})


@pytest.mark.parametrize(
    ("seconds", "chosen", "tried"),
    [
        ({8: 0.010, 6: 0.011, 4: 0.1, 2: 0.1, 1: 0.1}, 8, [8, 6, 4]),
        ({8: 0.010, 6: 0.0098, 4: 0.012, 2: 0.1, 1: 0.1}, 8, [8, 6, 4]),  # 2 % is not worth a slower prefill
        ({8: 0.010, 6: 0.008, 4: 0.006, 2: 0.009, 1: 0.1}, 4, [8, 6, 4, 2]),
        ({8: 0.010, 6: 0.008, 4: 0.006, 2: 0.005, 1: 0.003}, 1, [8, 6, 4, 2, 1]),
        ({3: 0.010, 2: 0.008, 1: 0.012}, 2, [3, 2, 1]),
    ],
)
def test_fewer_threads_where_they_are_faster(seconds: dict[int, float], chosen: int, tried: list[int]) -> None:
    found = measured(Fake(max(seconds), seconds))
    assert (found.threads, list(found.tried)) == (chosen, tried)
    assert found.step_s[1] == pytest.approx(seconds[chosen])


def test_threads_that_were_asked_for_stay() -> None:
    fake = Fake(2, {2: 0.002, 1: 0.001})
    assert measured(fake, choose=False).threads == 2
    assert {threads for threads, _ in fake.steps} == {2}


@pytest.mark.parametrize("seconds", [0.03, 0.1, 0.2, 0.4, 5.0])
def test_it_takes_no_longer_than_it_may(seconds: float) -> None:
    fake = Fake(8, dict.fromkeys((8, 6, 4, 2, 1), seconds), a_row=seconds / 20)
    found = measured(fake)
    first = 2 * seconds
    assert fake.now <= first + max(step_timing.BUDGET_S, seconds if first < step_timing.SLOW_S else 0) * 1.001
    assert 1 in found.step_s
    assert list(found.step_s) == sorted(found.step_s)
    assert (len(found.step_s) > 6) == (seconds < 0.1)


@pytest.mark.parametrize("cold", [50.0, 290.0])
def test_the_step_that_touches_all_pages_is_no_measurement(cold: float) -> None:
    fake = Fake(2, {2: 0.01, 1: 0.02}, a_row=0.001)
    fake.cold = cold
    assert measured(fake).step_s == pytest.approx(measured(Fake(2, {2: 0.01, 1: 0.02}, a_row=0.001)).step_s)


def test_no_more_rows_than_the_context_holds() -> None:
    assert list(measured(Fake(1, {1: 0.001}), context=5).step_s) == [1, 2, 3, 4]


FAR = {1024: 0.0010, 0: 0.0030, 2048: 0.0011, 4096: 0.0011, 8192: 0.0002, 16384: 0.00099}


def test_the_distance_at_which_one_row_is_fastest() -> None:
    fake = Fake(1, {1: 0.001}, far=FAR)
    found = measured(fake)
    assert found.prefetch == fake.prefetch == 8192
    assert found.tried_prefetch == pytest.approx({n: 0.001 + FAR[n] for n in step_timing.PREFETCH})
    assert found.step_s[1] == pytest.approx(0.0012)
    nearly = Fake(1, {1: 0.001}, far=FAR | {8192: 0.00099})  # no better than the kernels' own
    assert measured(nearly).prefetch == nearly.prefetch == 1024
    slow = Fake(1, {1: 0.2}, far=FAR)  # no time to try
    assert (measured(slow).prefetch, slow.prefetch, measured(slow).tried_prefetch) == (1024, 1024, {})


def test_a_program_is_left_with_what_was_chosen_before() -> None:
    first, again = (Fake(2, {2: 0.001, 1: 0.002}, far=FAR) for _ in range(2))
    found = cached_or_measured(first, a_key(), None, 64)  # type: ignore[arg-type]
    assert cached_or_measured(again, a_key(), known(a_key()), 64) == known(a_key()) == found  # type: ignore[arg-type]
    assert (again.prefetch, again.steps) == (found.prefetch, [])


def test_what_an_older_release_measured_is_measured_anew_in_silence(tmp_path: Path) -> None:
    step_timing_file().parent.mkdir(parents=True, exist_ok=True)
    step_timing_file().write_text('{"format": 2, "models": []}')
    with open_engine(make_checkpoint(tmp_path / "m"), name="m") as engine:
        assert engine.info.step_timing is not None
        assert engine.info.step_timing.note == ""


def test_a_real_program_says_the_same_before_and_after(tmp_path: Path) -> None:
    program = load_program(Checkpoint(make_checkpoint(tmp_path)), context=64, kv_blocks=2, threads=3)

    def logits() -> Any:
        rows = np.arange(20, dtype=np.int32)
        out = np.empty((20, program.vocab), np.float32)
        program.step(rows + 1, rows, np.zeros(20, np.int32), np.zeros((1, 1), np.int32), rows, out)
        return out

    before = logits()
    found = measure(program, choose=True)
    assert program.threads == found.threads in found.tried
    assert np.array_equal(logits(), before)
    for threads in (1, 2, 5):
        program.set_threads(threads)
        assert program.threads == threads
        assert np.array_equal(logits(), before)
    for distance in step_timing.PREFETCH:
        program.set_prefetch(distance)
        assert program.prefetch == distance
        assert np.array_equal(logits(), before)
    for distance in (1, 1 << 21):
        with pytest.raises(ValueError, match="bytes ahead"):
            program.set_prefetch(distance)


def test_an_engine_measures_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_checkpoint(tmp_path / "m")
    asked: list[bool] = []
    real = measure

    def counting(program: native.Program, *, choose: bool, context: int) -> StepTiming:
        asked.append(choose)
        return real(program, choose=choose, context=context)

    monkeypatch.setattr(step_timing, "measure", counting)
    for _ in range(2):
        with open_engine(path, name="org/m:BF16") as engine:
            found = engine.info.step_timing
            assert found is not None
            assert (engine.info.threads, found.note) == (found.threads, "")
    assert asked == [True]
    for _ in range(2):
        with open_engine(path, EngineConfig(threads=2), name="org/m:BF16") as engine:
            assert (engine.info.threads, engine.info.threads_why) == (2, "as asked")
    assert asked == [True, False]
    assert [key.threads for key, _ in entries()] == [2, 0]
    make_checkpoint(path, seed=1)  # the same name, other weights
    with open_engine(path, name="org/m:BF16"):
        assert asked == [True, False, True]
    assert [key.threads for key, _ in entries()] == [0, 2]  # the old measurement made room


def test_the_text_does_not_depend_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_checkpoint(tmp_path / "m")
    texts = []
    for threads in (1, 2, 3):

        def choose(program: native.Program, chosen: int = threads, **_: Any) -> StepTiming:
            program.set_threads(chosen)
            return StepTiming(chosen, {1: 1.0}, {chosen: 1.0}, 0)

        monkeypatch.setattr(step_timing, "measure", choose)
        forget()
        with open_engine(path) as engine:
            assert engine.info.threads == threads
            events = engine.stream(Request((1, 2, 3), SamplingParams(max_tokens=20, seed=1)))
            texts.append([token for event in events for token in getattr(event, "token_ids", ())])
    assert texts[0] == texts[1] == texts[2] != []


def a_key(**changed: Any) -> Key:
    return dataclasses.replace(Key("m", "f", "cpu", "avx2", 4, "b", 0, 8), **changed)


def keep(key: Key, threads: int = 2) -> StepTiming:
    fake = Fake(threads, {threads: 0.01})
    return cached_or_measured(fake, dataclasses.replace(key, threads=threads), None, 64)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Key)])
def test_any_change_means_to_measure_again(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_timing, "measure", lambda *_, **__: StepTiming(2, {1: 0.5, 16: 0.7}, {2: 0.5}, 9.0))
    found = cached_or_measured(Fake(2, {}), a_key(), None, 64)  # type: ignore[arg-type]
    assert known(a_key()) == found
    other = getattr(a_key(), field)
    assert known(a_key(**{field: other + 1 if isinstance(other, int) else other + "x"})) is None


BROKEN = [
    "",
    "{",
    "[]",
    '{"format": 99, "models": []}',
    '{"format": 3, "models": {}}',
    '{"format": 3, "models": [3]}',
    '{"format": 3, "models": [{"key": {"model": "m"}}]}',
]
ENTRIES: list[dict[str, Any]] = [
    {"threads": 0},
    {"threads": 5},
    {"threads": "many"},
    {"step_s": {}},
    {"step_s": {"2": 1.0}},
    {"step_s": {"1": -1.0}},
    {"step_s": {"1": "x"}},
    {"step_s": [1]},
    {"tried": None},
    {"measured": None},
    {"prefetch": 3},
    {"tried_prefetch": {"-1": 1.0}},
    {"deep_s": {"1": 1.0}, "depth": 1 << 20},
]


@pytest.mark.parametrize("text", [*BROKEN, *map(json.dumps, ENTRIES)])
def test_a_damaged_file_is_said_and_measured_anew(tmp_path: Path, text: str) -> None:
    path = make_checkpoint(tmp_path / "m")
    key = key_for(Checkpoint(path), "m", isa="", threads=0, kv_bits=8)
    entry = {
        "key": dataclasses.asdict(dataclasses.replace(key, cores=4)),
        "threads": 1,
        "step_s": {"1": 1.0},
        "tried": {"1": 1.0},
        "measured": 1.0,
        "prefetch": 0,
        "tried_prefetch": {},
        "deep_s": {},
        "depth": 0,
    }
    if text not in BROKEN:
        text = json.dumps({"format": 3, "models": [entry | json.loads(text)]})
    step_timing_file().parent.mkdir(parents=True, exist_ok=True)
    step_timing_file().write_text(text)
    with open_engine(path, name="m") as engine:
        found = engine.info.step_timing
        assert found is not None
        assert str(step_timing_file()) in found.note
        assert found.note.endswith("measuring the model again")
        assert "\n" not in found.note
    with open_engine(path, name="m") as engine:
        assert engine.info.step_timing is not None
        assert engine.info.step_timing.note == ""


def test_a_home_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    step_timing_file().parent.parent.mkdir(parents=True, exist_ok=True)
    step_timing_file().parent.write_text("a file where the folder should be")
    with open_engine(make_checkpoint(tmp_path / "m")) as engine:
        assert engine.info.step_timing is not None


def test_no_more_is_kept_than_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_timing, "MOST_CACHED", 3)
    monkeypatch.setattr(step_timing, "measure", lambda *_, **__: StepTiming(2, {1: 0.5}, {2: 0.5}, 9.0))
    for i in range(5):
        cached_or_measured(Fake(2, {}), a_key(model=f"m{i}"), None, 64)  # type: ignore[arg-type]
    assert [key.model for key, _ in entries()] == ["m4", "m3", "m2"]
    assert forget() == 3
    assert (list(entries()), forget()) == ([], 0)
