"""Models trained against the original: better, never worse, the same bytes however often it was stopped."""

import math
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from localinfer.chats.template import conversation
from localinfer.errors import NotSupported, UsageError
from localinfer.formats.checkpoint_files import open_tensors
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.weights import Checkpoint
from localinfer.quantize import (
    CalibrationText,
    Method,
    QuantizeReport,
    Refining,
    distill,
    layerwise,
    quantize_checkpoint,
    refine,
)
from localinfer.quantize.calibration import calibration
from localinfer.quantize.distill import Distillation
from localinfer.quantize.readers import rounded
from localinfer.quantize.refine import refine_checkpoint
from localinfer.quantize.student import Student
from localinfer.quantize.time_plan import Effort
from localinfer.reference.executor import Executor, logits
from tests.quantize.trees import read_tensor, record, tree
from tests.tiny import Family, make_checkpoint

TEXT = CalibrationText(tokens=2048, render=conversation)
SETTINGS = {"bits": 3, "method": "imatrix"}
REFINING: list[Refining] = ["kl", "qat"]
TRAINED: list[tuple[Family, Refining]] = [
    ("llama", "kl"),
    ("llama", "qat"),
    ("gemma3_text", "kl"),
    ("phi3", "qat"),
    ("lfm2", "qat"),
    ("qwen3_5_text", "kl"),
    ("falcon_h1", "kl"),
    ("gemma4_unified_text", "qat"),
]
"""Every kind of operation once; families differ in no other way for a training."""


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of these tests is gone over in a few steps."""
    monkeypatch.setattr(distill, "RATE", 1e-2)
    monkeypatch.setattr(layerwise, "PASSES", 1)


def small(source: Path, dest: Path, **settings: Any) -> QuantizeReport:
    def make(rough: Path) -> QuantizeReport:
        return quantize_checkpoint(source, rough, bits=3, method="imatrix", text=TEXT, threads=1)

    return refine_checkpoint(source, dest, make, SETTINGS, text=TEXT, threads=1, **settings)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("source") / "m", "llama")


@pytest.fixture(scope="module")
def rough(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    dest = tmp_path_factory.mktemp("rough") / "q"
    quantize_checkpoint(source, dest, bits=3, method="imatrix", text=TEXT, threads=1)
    return dest


@pytest.fixture(scope="module")
def wholes(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Refining, Path]:
    """What an undisturbed run writes."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distill, "RATE", 1e-2)
        patch.setattr(layerwise, "PASSES", 1)
        for method in REFINING:
            small(source, folder / method, method=method)
    return {method: folder / method for method in REFINING}


def divergence(model: Path, source: Path, ids: list[int]) -> float:
    wanted, got = (logits(Checkpoint(path), ids).log_softmax(-1) for path in (source, model))
    return float((wanted.exp() * (wanted - got)).sum(-1).mean())


@pytest.mark.parametrize(("family", "method"), TRAINED)
def test_closer_to_the_original(family: Family, method: Refining, tmp_path: Path) -> None:
    """On text it was not trained on; forms and shapes stay as they were, and with `kl` every integer."""
    model = make_checkpoint(tmp_path / "m", family)
    quantize_checkpoint(model, tmp_path / "q", bits=3, method="imatrix", text=TEXT, threads=1)
    report = small(model, tmp_path / "r", method=method)
    ids = calibration(Tokenizer(model), None, 4 * 512, 99)[0].tolist()
    assert divergence(tmp_path / "r", model, ids) < 0.9 * divergence(tmp_path / "q", model, ids)
    before, after = open_tensors(tmp_path / "q"), open_tensors(tmp_path / "r")
    assert before.keys() == after.keys()
    for name in before:
        if before[name].info.dtype == "I32":
            table = "embed_tokens" in name or "lm_head" in name
            same = bool((before[name].read() == after[name].read()).all())
            assert same == (method == "kl" or table), name
        assert before[name].info.shape == after[name].info.shape
    said = record(tmp_path / "r")
    assert said["recipe"]["refine"]["method"] == method
    assert said["recipe"]["refine"]["kld_after"] < said["recipe"]["refine"]["kld_before"]
    assert said["recipe"]["notes"] == list(report.notes)
    assert not list(tmp_path.glob("*.partial"))


def test_qat_gains_more_than_kl(wholes: dict[Refining, Path]) -> None:
    left = {method: record(path)["recipe"]["refine"]["kld_after"] for method, path in wholes.items()}
    assert left["qat"] < left["kl"]


def test_the_student_is_the_model_as_it_will_run(rough: Path) -> None:
    class Rounding(Executor):
        def linear(self, linear, x):  # type: ignore[no-untyped-def]
            return super().linear(linear, rounded(x, (127, self.checkpoint.form(linear.name)[1])))

    model = Checkpoint(rough)
    student = Student(model, torch.float32)
    ids = torch.arange(40)
    with torch.no_grad():
        ours = student.head(model.graph.head, student.through(ids))
    torch.testing.assert_close(ours, Rounding(model).logits(ids.tolist()), rtol=1e-4, atol=1e-4)


def test_slopes_are_those_of_the_loss(source: Path, rough: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against differences, with the rounding of activations left out on both sides."""
    monkeypatch.setattr("localinfer.quantize.student.rounded", lambda x, rounding: x)
    monkeypatch.setattr(distill, "half_width", lambda: torch.float32)
    tokens = calibration(Tokenizer(source), None, 2048, 0)[:4, :64]
    teaching = Distillation(Checkpoint(source), Checkpoint(rough), tokens, 0, effort=Effort(held_out=1))
    student, ids = teaching.student, torch.from_numpy(tokens[1]).long()

    def loss() -> float:
        return teaching._compare(0, ids, student.through(ids), learn=False)[0]

    student.become(torch.zeros_like(student.first))
    x = student.through(ids)
    x.backward(teaching._compare(0, ids, x.detach(), learn=True)[1])  # type: ignore[no-untyped-call]
    slopes = student.slopes * student.first
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj", "model.norm.weight"):
        # Along the slope of one tensor, the loss must rise by the square of its length.
        leaf = student.parts[name]
        at = (leaf.data_ptr() - student.values.data_ptr()) // 4
        along = torch.zeros_like(slopes)
        along[at : at + leaf.numel()] = slopes[at : at + leaf.numel()]
        step = 0.02 / float(along.abs().max())
        ends = []
        for sign in (1, -1):
            student.become(sign * step * along)
            with torch.no_grad():
                ends.append(loss())
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(along.pow(2).sum()), rel=0.05)


@pytest.mark.parametrize(("family", "method"), [("llama", "imatrix"), ("gemma3_text", "awq")])
def test_the_errors_told_are_those_of_the_result(family: Family, method: Method, tmp_path: Path) -> None:
    """Not those from before; what awq has folded into the norms counts as no error."""
    model = make_checkpoint(tmp_path / "m", family)

    def make(rough: Path) -> QuantizeReport:
        return quantize_checkpoint(model, rough, bits=3, method=method, text=TEXT, threads=1)

    before = make(tmp_path / "q")
    report = refine_checkpoint(model, tmp_path / "r", make, SETTINGS, text=TEXT, threads=1)
    said = record(tmp_path / "r")
    assert said["before_refine"]["error"] == record(tmp_path / "q")["error"]
    assert said["output_error"] == {}
    assert report.worst_tensors != before.worst_tensors
    assert dict(report.worst_tensors).items() <= said["error"].items()
    assert report.worst_error == max(said["error"].values())
    for name, error in said["error"].items():
        assert error == pytest.approx(said["before_refine"]["error"][name], rel=0.3)
    name = "model.layers.1.mlp.down_proj.weight"
    original, made = (Checkpoint(tmp_path / where).matrix(name.removesuffix(".weight")) for where in ("m", "r"))
    wanted = np.linalg.norm(original - made) / np.linalg.norm(original)
    assert said["error"][name] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("method", REFINING)
def test_a_second_run_gives_the_same_bytes(
    source: Path, wholes: dict[Refining, Path], tmp_path: Path, method: Refining
) -> None:
    small(source, tmp_path / "q", method=method)
    assert parts(tmp_path / "q") == parts(wholes[method])


def stop_after(calls: int) -> Callable[[int, int], None]:
    left = count(calls, -1)

    def interrupt(done: int, total: int) -> None:
        if next(left) == 0:
            raise KeyboardInterrupt

    return interrupt


@pytest.mark.parametrize("method", REFINING)
@pytest.mark.parametrize("calls", [0, 1, 3, 20])
def test_stopped_and_resumed(
    source: Path,
    wholes: dict[Refining, Path],
    tmp_path: Path,
    calls: int,
    method: Refining,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between layers, between steps, and before anything was saved."""
    monkeypatch.setattr(refine, "SAVE_S", 0.0)
    monkeypatch.setattr(refine, "SAVING", math.inf)
    with pytest.raises(KeyboardInterrupt):
        small(source, tmp_path / "q", method=method, on_progress=stop_after(calls))
    assert not (tmp_path / "q").exists()
    small(source, tmp_path / "q", method=method)
    assert parts(tmp_path / "q") == parts(wholes[method])


def test_killed(source: Path, wholes: dict[Refining, Path], tmp_path: Path) -> None:
    """In the middle of a step, after some were saved: not even what Ctrl-C still does is done."""
    program = f"""
import os, sys
from pathlib import Path
from localinfer.quantize import distill, layerwise, refine
from tests.quantize.test_refine import small, stop_after
distill.RATE, layerwise.PASSES, refine.SAVE_S, refine.SAVING = 1e-2, 1, 0.0, float("inf")
step, left = distill.Distillation._step, [7]
def dying(self, state, share):
    left[0] -= 1
    if not left[0]:
        self.student.learn = None
        through = self.student.through
        def half_way(ids):
            through(ids)
            os.kill(os.getpid(), 9)
        self.student.through = half_way
    return step(self, state, share)
distill.Distillation._step = dying
small(Path({str(source)!r}), Path({str(tmp_path / "q")!r}), method="qat")
"""
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert ended.returncode == -9, ended.stderr
    assert (tmp_path / "q.partial" / refine.STATE).exists()
    small(source, tmp_path / "q", method="qat")
    assert parts(tmp_path / "q") == parts(wholes["qat"])


def parts(folder: Path) -> dict[str, bytes]:
    """All files but the record, which tells how long it took."""
    return {name: data for name, data in tree(folder).items() if name != "localinfer.json"}


@pytest.mark.parametrize("method", REFINING)
def test_a_torn_state_is_begun_again(
    source: Path, wholes: dict[Refining, Path], tmp_path: Path, method: Refining
) -> None:
    with pytest.raises(KeyboardInterrupt):
        small(source, tmp_path / "q", method=method, on_progress=stop_after(0))
    (tmp_path / "q.partial" / refine.STATE).write_bytes(b"half")
    small(source, tmp_path / "q", method=method)
    assert parts(tmp_path / "q") == parts(wholes[method])


def test_another_training_is_not_gone_on_with(
    source: Path, wholes: dict[Refining, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refine, "SAVE_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        small(source, tmp_path / "q", method="kl", on_progress=stop_after(3))
    small(source, tmp_path / "q", method="qat")
    assert parts(tmp_path / "q") == parts(wholes["qat"])


@pytest.mark.parametrize("method", REFINING)
def test_never_worse(
    source: Path, rough: Path, tmp_path: Path, method: Refining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps far too large: what was given is kept, byte for byte."""
    monkeypatch.setattr(distill, "RATE", 5.0)
    monkeypatch.setattr(distill, "NUMBERS_RATE", 50.0)
    report = small(source, tmp_path / "q", method=method)
    assert "kept as it was" in report.notes[-1]
    assert parts(tmp_path / "q") == parts(rough)


@pytest.mark.parametrize("method", REFINING)
def test_time_ends_it(source: Path, tmp_path: Path, method: Refining) -> None:
    ticks = count()
    report = small(source, tmp_path / "q", method=method, seconds=40, clock=lambda: float(next(ticks)))
    assert 0 < record(tmp_path / "q")["recipe"]["refine"]["steps"] < 24
    assert "refined in" in report.notes[-1]


def test_folded_norms(source: Path, tmp_path: Path) -> None:
    """Gemma's norms are kept less one; what is stored must say the same as what was trained."""
    model = make_checkpoint(tmp_path / "m", "gemma3_text")
    small(model, tmp_path / "r")
    name = "model.layers.0.input_layernorm.weight"
    before, after = read_tensor(model, name), Checkpoint(tmp_path / "r").vector(name)
    assert 0 < np.abs(Checkpoint(model).vector(name) - after).max() < 0.5
    assert before.shape == after.shape


def test_refused(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(rough: Path) -> QuantizeReport:
        raise AssertionError

    with pytest.raises(UsageError, match="8 bits"):
        refine_checkpoint(source, tmp_path / "q", never, {"bits": 8}, text=TEXT)
    with pytest.raises(UsageError, match="is there already"):
        refine_checkpoint(source, source, never, SETTINGS, text=TEXT)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotSupported, match="torch"):
        refine_checkpoint(source, tmp_path / "q", never, SETTINGS, text=TEXT)
