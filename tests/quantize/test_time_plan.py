"""`--time-budget`: planned before anything begins, refused or shortened with the numbers, and kept, by a clock that
only the work moves."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localinfer.chats.template import conversation
from localinfer.errors import UsageError
from localinfer.evaluate import held_out_text
from localinfer.evaluate import run as evaluating
from localinfer.formats.json_files import read_object
from localinfer.quantize import (
    CalibrationText,
    calibrated,
    checkpoint,
    layer,
    layerwise,
    pace,
    quantize_checkpoint,
    readers,
    refine_checkpoint,
    scales,
)
from localinfer.quantize.distill import Distillation
from localinfer.quantize.estimates import Costs
from localinfer.quantize.journal import tokens_of_stopped
from localinfer.quantize.pace import Expected
from localinfer.quantize.scales import HASTY
from localinfer.quantize.schedule import MARGIN, Phase, scheduled
from localinfer.quantize.speeds import Speeds, busy, measure_speeds
from localinfer.quantize.time_plan import Effort, TimePlan, Wish, plan_time
from tests.tiny import make_checkpoint

SPEEDS = Speeds(hashing=1e8, rounding=1e6, kernels=1e9, multiply=1e9, fit_s=0.01)
TEXT = CalibrationText(tokens=2048, render=conversation)


class Clock:
    """Seconds that pass only where work is done."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, patch: pytest.MonkeyPatch, owner: Any, name: str, seconds: float) -> None:
        """Let each call of `owner.name` take so long."""
        real = getattr(owner, name)

        def slow(*args: Any, **kwargs: Any) -> Any:
            found = real(*args, **kwargs)
            self.now += seconds
            return found

        patch.setattr(owner, name, slow)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("source") / "m", "llama", num_hidden_layers=4)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def planned(source: Path, seconds: float, speeds: Speeds = SPEEDS, **wish: Any) -> TimePlan:
    asked = Wish(**{"bits": 4, "method": "gptq", "tokens": 32768, **wish})
    return plan_time(source, asked, seconds, workers=1, started=0.0, clock=lambda: 0.0, speeds=speeds)


phase = st.builds(
    lambda name, least, more, needed: Phase(name, least, least + more, needed),
    st.text("abc", min_size=1, max_size=6),
    st.floats(0, 100),
    st.floats(0, 1000),
    st.booleans(),
)


@given(st.lists(phase, min_size=1, max_size=6, unique_by=lambda one: one.name), st.floats(0.1, 5000), st.floats(0, 50))
def test_what_is_planned_fits_or_is_refused(phases: list[Phase], seconds: float, used: float) -> None:
    try:
        found = scheduled(phases, seconds, used=used, flag="`--f`", job="it")
    except UsageError:
        assert sum(one.least for one in phases if one.needed) > seconds * (1 - MARGIN) - used
        return
    assert used + sum(found.seconds.values()) <= seconds * (1 - MARGIN) * (1 + 1e-9)
    assert all(found.has(one.name) for one in phases if one.needed)
    for one in phases:
        if found.has(one.name):
            assert one.least - 1e-9 <= found.seconds[one.name] <= one.full + 1e-9
    ends = list(found.ends.values())
    assert ends == sorted(ends)
    assert all(end <= seconds for end in ends)


def test_a_refusal_names_the_parts_and_what_would_be_enough() -> None:
    phases = [Phase("rounding", 7.2, 7.2), Phase("refining", 30, 90), Phase("report", 5, 50, needed=False)]
    with pytest.raises(UsageError) as error:
        scheduled(phases, 20, used=2.0, flag="`--time-budget`", job="INT4")
    assert error.value.message == (
        "INT4 takes about 40 s here at the least (getting ready 2.0 s, rounding 7.2 s, refining 30 s), "
        "but `--time-budget` allows 20 s"
    )
    assert error.value.hint == "allow 46 s or more"
    scheduled(phases, 46, used=2.0, flag="`--time-budget`", job="INT4")


def test_less_time_is_less_work(source: Path) -> None:
    """Down to none, which is refused before anything is done."""
    whole = planned(source, 1e5, refine="qat", speaks=True, mixed=True)
    assert (whole.tokens, whole.effort.held_out, whole.effort.checks, whole.effort.sequences) == (32768, 8, 5, 32)
    assert whole.notes == ()
    seen, refused = list[TimePlan](), list[float]()
    for seconds in (4000, 1500, 700, 300, 100, 30, 10, 3, 1):
        try:
            seen.append(planned(source, seconds, refine="qat", speaks=True, mixed=True))
        except UsageError:
            refused.append(seconds)
    assert seen
    assert refused == sorted(refused, reverse=True)
    assert refused[-1] == 1
    for more, less in zip([whole, *seen], seen, strict=False):
        assert less.tokens <= more.tokens or not less.schedule.has("layers")
        assert less.effort.held_out * less.effort.checks <= more.effort.held_out * more.effort.checks
        assert less.effort.sequences <= more.effort.sequences
    assert seen[-1].notes


def test_the_method_and_the_report_go_before_the_model_does(source: Path) -> None:
    costs = Costs.of(source, 4, SPEEDS)
    hasty = costs.beside() + costs.rounding(hasty=True)
    plan = planned(source, 1.2 * hasty)
    assert not plan.schedule.has("layers")
    assert not plan.schedule.has("report")
    assert any("rounding to the nearest" in note for note in plan.notes)
    assert any("no time to measure" in note for note in plan.notes)
    with pytest.raises(UsageError, match="rounding"):
        planned(source, 0.8 * hasty)


def test_speeds_are_those_of_the_share_that_other_programs_leave() -> None:
    """Of a clock that goes four times as fast as that of the processor, a quarter is ours."""
    now = [0.0]

    def call() -> None:
        now[0] += 0.004

    often, share = busy(1, call, clock=lambda: now[0], processor=lambda: now[0] / 4)
    assert share == pytest.approx(0.25)
    assert often == pytest.approx(250)
    assert busy(1, call, clock=lambda: now[0], processor=lambda: now[0])[1] == pytest.approx(1)
    assert busy(1, lambda: None, clock=lambda: 0.0, processor=lambda: 0.0)[0] > 0


def test_what_torch_does_is_measured_only_if_asked() -> None:
    without, with_torch = (measure_speeds(2, torch=torch) for torch in (False, True))
    assert without.fit_s == 0 < with_torch.fit_s
    for found in (without, with_torch):
        assert 0 < found.share <= 1
        assert min(found.hashing, found.rounding, found.kernels, found.multiply) > 0


def hurried(dest: Path) -> int:
    """Layers that were rounded to the nearest, as the record's notes have them."""
    notes = " ".join(read_object(dest / "localinfer.json")["recipe"]["notes"])
    return int(notes.split(" of ")[0].rsplit(" ", 1)[-1]) if "the time was up" in notes else 0


@pytest.mark.parametrize("slower", [1.0, 3.0])
@pytest.mark.parametrize("seconds", [8.0, 25.0, 100.0])
def test_quantizing_keeps_to_its_time(
    source: Path, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, slower: float, seconds: float
) -> None:
    """However wrong the estimate of a layer was: the first one corrects it, so no more than that one is over time."""
    layer_s, unit_s = 10.0 * slower, 0.2
    clock.takes(monkeypatch, calibrated.Layers, "quantize", layer_s)
    clock.takes(monkeypatch, checkpoint, "quantize_unit", unit_s)
    weights = make_weights(source)
    quantize_checkpoint(
        source,
        tmp_path / "q",
        bits=4,
        method="gptq",
        text=TEXT,
        seconds=seconds,
        expected=Expected(10.0, 2 * unit_s / weights),
        clock=clock,
    )
    assert clock.now <= seconds + max(0.0, layer_s - 10.0)
    room = min(4, int((seconds - 7 * unit_s) / layer_s)) if slower <= 1 else None
    if room is not None:
        assert 4 - hurried(tmp_path / "q") >= room - 1
    assert (hurried(tmp_path / "q") == 4) == (seconds < 10)


def test_a_machine_that_gets_slower_is_met_with_fewer_trials_and_layers_given_up(
    source: Path, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Load that comes after the time was planned: what is planned again keeps it."""
    weights, said = make_weights(source), list[str]()
    hasty = list[bool]()
    real = scales.round_rows

    def slow(rows: Any, *args: Any, **more: Any) -> Any:
        hasty.append(more["hasty"])
        clock.now += (HASTY if more["hasty"] else 1.0) * 40.0 * rows.size / weights
        return real(rows, *args, **more)

    monkeypatch.setattr(layer, "round_rows", slow)
    monkeypatch.setattr(pace, "ENOUGH", 1)
    how: dict[str, Any] = {"bits": 4, "threads": 1, "clock": clock, "say": said.append}
    report = quantize_checkpoint(source, tmp_path / "q", seconds=35.0, expected=Expected(0.0, 10.0 / weights), **how)
    assert any("fewer" in words for words in said)
    assert "fewer trial scales" in report.notes[-1]
    assert (hasty[0], any(hasty)) == (False, True)
    assert clock.now <= 35.0

    clock.now = 0.0
    monkeypatch.setattr(layer, "round_rows", real)
    clock.takes(monkeypatch, readers, "rounded", 1.0)
    clock.takes(monkeypatch, checkpoint, "quantize_unit", 0.2)
    expected = Expected(1.0, 0.4 / weights)
    report = quantize_checkpoint(
        source, tmp_path / "r", method="gptq", text=TEXT, seconds=10.0, expected=expected, **how
    )
    assert "4 of 4 layers rounded to the nearest" in " ".join(report.notes)
    assert clock.now <= 12.0


def make_weights(source: Path) -> int:
    from localinfer.quantize.plan import make_plan

    return make_plan(source, 4, None).weights


def test_a_layer_that_would_be_late_is_not_begun(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is the text taken through the model."""
    monkeypatch.setattr(calibrated, "Layers", None)
    expected = Expected(60.0, 0.0)
    report = quantize_checkpoint(
        source, tmp_path / "q", bits=4, method="gptq", text=TEXT, seconds=30, expected=expected, clock=lambda: 0.0
    )
    assert "4 of 4 layers rounded to the nearest" in report.notes[-1]


@pytest.mark.parametrize("method", ["kl", "qat"])
@pytest.mark.parametrize("seconds", [60.0, 110.0])
def test_refining_keeps_to_its_time(
    source: Path, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, method: Any, seconds: float
) -> None:
    """Steps, looks at held-out text and layers alike take time; what is left over at the end is for writing."""
    clock.takes(monkeypatch, Distillation, "_step", 3.0)
    clock.takes(monkeypatch, Distillation, "divergence", 8.0)
    clock.takes(monkeypatch, layerwise.Layerwise, "train", 5.0)
    clock.takes(monkeypatch, layerwise.Layerwise, "pass_over", 2.0)

    def make(rough: Path) -> Any:
        clock.now += 10
        return quantize_checkpoint(source, rough, bits=3, text=TEXT, threads=1, clock=clock)

    how: dict[str, Any] = {"method": method, "text": TEXT, "threads": 1, "effort": Effort(4, 5, 8, 4, 1, ending_s=6.0)}
    report = refine_checkpoint(source, tmp_path / "q", make, {"bits": 3}, seconds=seconds, clock=clock, **how)
    assert 0.6 * seconds - 20 <= clock.now <= seconds - 6 + 5
    steps = int(report.notes[-1].split("refined in ")[1].split()[0])
    assert steps > 0


def test_refining_is_not_begun_where_quantizing_took_its_time(source: Path, tmp_path: Path, clock: Clock) -> None:
    def make(rough: Path) -> Any:
        clock.now += 50
        return quantize_checkpoint(source, rough, bits=3, text=TEXT, threads=1, clock=clock)

    how: dict[str, Any] = {"text": TEXT, "threads": 1, "effort": Effort(ending_s=4.0, least_s=10.0), "clock": clock}
    report = refine_checkpoint(source, tmp_path / "q", make, {"bits": 3}, seconds=60.0, **how)
    assert "no time" in report.notes[-1]
    assert read_object(tmp_path / "q" / "localinfer.json")["recipe"]["refine"]["steps"] == 0
    assert clock.now == 50.0


def test_without_a_limit_nothing_depends_on_the_clock(source: Path, tmp_path: Path, clock: Clock) -> None:
    quantize_checkpoint(source, tmp_path / "a", bits=4, text=TEXT, method="imatrix", clock=clock)
    ticks = iter(range(10**9))
    quantize_checkpoint(source, tmp_path / "b", bits=4, text=TEXT, method="imatrix", clock=lambda: float(next(ticks)))
    for file in (tmp_path / "a").glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_the_report_reads_as_much_as_there_is_time_for(
    source: Path, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no less than one chunk, which is read again for the floor; of an untimed one all."""
    quantize_checkpoint(source, tmp_path / "q", bits=8)
    clock.takes(monkeypatch, evaluating, "_read_chunk", 2.0)

    def chunks(seconds: float) -> int:
        until = clock.now + seconds
        how: dict[str, Any] = {"ctx": 128, "chunks": 12, "clock": clock, "seconds_left": lambda: until - clock.now}
        (found,) = evaluating.evaluate([tmp_path / "q"], source, held_out_text(), **how)
        assert clock.now <= max(until, until - seconds + 4)
        return int(found.chunks)

    assert (chunks(1e9), chunks(0.0)) == (12, 1)
    assert 4 <= chunks(24.0) <= 8


def test_a_stopped_run_keeps_the_text_it_was_begun_with(source: Path, tmp_path: Path) -> None:
    """Another time would choose another length of it, and nothing that is done could be gone on with."""
    partial = tmp_path / "q.partial"
    assert tokens_of_stopped(partial) is None

    def stop(done: int, total: int) -> None:
        if list(partial.glob("model-*.safetensors")):
            raise KeyboardInterrupt

    how: dict[str, Any] = {"bits": 4, "method": "imatrix", "text": TEXT}
    with pytest.raises(KeyboardInterrupt):
        quantize_checkpoint(source, tmp_path / "q", on_progress=stop, **how)
    assert tokens_of_stopped(partial) == 2048
