"""What `fit` says of models that are here: the allocator's own figures, and measurements before estimates."""

from pathlib import Path
from typing import Any

import pytest

from localinfer import native
from localinfer.bench import measured
from localinfer.bench.measured import fit_report
from localinfer.config import EngineConfig
from localinfer.cost.fit import estimate
from localinfer.cost.fitting import Asked, fit_table
from localinfer.cost.machine import Bandwidth, last_level_cache
from localinfer.cost.predict import Known, load_of
from localinfer.engine.step_timing import Key, StepTiming
from localinfer.errors import NotSupported
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.checkpoint import quantize_checkpoint
from tests.tiny import make_checkpoint

CONFIG = EngineConfig(threads=1, context=128, parallel=2)


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localinfer.cost.fitting.read_bandwidth", lambda threads: Bandwidth(2e10, 2, 0.0))
    monkeypatch.setattr(measured, "measured_models", lambda config: [])
    monkeypatch.setattr("localinfer.cost.fit.available_bytes", lambda: 10**9)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10**10}))


@pytest.mark.parametrize("bits", [8, 4, 3])
def test_a_form_that_is_not_made_yet_needs_what_it_needs_when_it_is(tmp_path: Path, bits: Any) -> None:
    source = make_checkpoint(tmp_path / "m")
    report = fit_report(Asked(source, "me/m", "BF16"), CONFIG, disk=tmp_path)
    before = next(one for one in report.forms if one.form == f"INT{bits}")
    quantize_checkpoint(source, tmp_path / "q", bits=bits, method="rtn")
    after = fit_report(Asked(tmp_path / "q", "me/m", f"INT{bits}"), CONFIG, disk=tmp_path).forms
    assert len(after) == 1
    assert (before.weights_bytes, before.kv_bytes) == (after[0].weights_bytes, after[0].kv_bytes)
    assert before.predicted_tok_s == pytest.approx(after[0].predicted_tok_s)


def test_a_measurement_replaces_the_estimate_and_corrects_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_checkpoint(tmp_path / "m")
    plain = fit_report(Asked(source, "me/m", "BF16"), CONFIG, disk=tmp_path)
    load = load_of(Checkpoint(source))
    known = Known("me/m:BF16", load, 3 * load.seconds(2e10, last_level_cache()))
    monkeypatch.setattr(measured, "measured_models", lambda config: [known])
    report = fit_report(Asked(source, "me/m", "BF16"), CONFIG, disk=tmp_path)
    assert [one.tok_s_source for one in report.forms] == ["measured", *["estimate"] * 3]
    assert report.forms[0].predicted_tok_s == pytest.approx(1 / known.seconds)
    for before, after in zip(plain.forms, report.forms, strict=True):
        assert after.predicted_tok_s == pytest.approx(before.predicted_tok_s / 3)


def test_steps_of_other_machines_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, isa = str(native.cpu()["model"]), native.choose_isa("")
    steps = StepTiming(1, {1: 0.5}, {}, 0.0)

    def key(name: str, **changes: Any) -> Key:
        usual = {"files": "", "cpu": cpu, "isa": isa, "cores": 2, "build": "", "threads": 1, "kv_bits": 8}
        return Key(**{"model": name, **usual, **changes})

    others = [key("a", cpu="another"), key("b", isa="another"), key("c", threads=2)]
    mine = [key("d", kv_bits=16), key("e")]
    monkeypatch.setattr("localinfer.engine.step_timing.entries", lambda: ((one, steps) for one in [*others, *mine]))
    assert [one.model for one, _ in measured.timed_models(CONFIG)] == ["e", "d"]


def test_the_tokenizer_is_looked_into_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, source = list[Path](), make_checkpoint(tmp_path / "m")
    whole = Path.read_bytes

    def noted(path: Path) -> bytes:
        read.append(path)
        return whole(path)

    monkeypatch.setattr(Path, "read_bytes", noted)
    fit_report(Asked(source, "me/m", "BF16"), CONFIG, disk=tmp_path)
    assert [path.name for path in read].count("tokenizer.json") == 1


def test_a_form_that_cannot_be_made(tmp_path: Path) -> None:
    quantize_checkpoint(make_checkpoint(tmp_path / "m"), tmp_path / "q", bits=8, method="rtn")
    with pytest.raises(NotSupported, match="no INT3 can be made"):
        fit_report(Asked(tmp_path / "q", "me/m", "INT8", wanted="INT3"), CONFIG, disk=tmp_path)


def test_the_figures_are_the_allocators(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "m")
    drafter = make_checkpoint(tmp_path / "d")
    report = fit_report(Asked(source, "me/m", "BF16"), CONFIG, disk=tmp_path / "not" / "there", drafter=drafter)
    need = estimate(source, context=128, parallel=2)
    one = report.forms[0]
    assert (one.weights_bytes, one.kv_bytes, one.other_bytes) == (need.weights_bytes, need.kv_bytes, need.other_bytes)
    alone = estimate(drafter, context=128, parallel=2)  # it reads both texts
    assert one.drafter_bytes == alone.weights_bytes + alone.kv_bytes
    assert one.total_bytes == need.total_bytes + one.drafter_bytes
    said = report.to_json()
    for name in ("total_bytes", "weights_bytes", "kv_bytes", "other_bytes", "free_bytes", "fits", "predicted_tok_s"):
        assert said[name] == getattr(one, name)


def test_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_checkpoint(tmp_path / "m")
    asked = Asked(source, "me/m", "BF16", "0" * 40, download_bytes=10**11)
    monkeypatch.setattr("localinfer.cost.fit.available_bytes", lambda: 10**6)
    text = fit_table(fit_report(asked, CONFIG, disk=tmp_path))
    assert text.startswith("me/m, 0.00 B weights; 128 tokens of context for each of 2, 8-bit cache\n")
    assert "1.0 MB of memory is free, 10.0 GB of disk" in text
    assert text.count("| no   |") == 4
    assert "no form fits" in text
    assert "`localinfer pull me/m` downloads 100.0 GB" in text
    assert "no model was measured yet" in text
