"""Whole models quantized by calibration: better than without, the same bytes however often they were stopped."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from localinfer.chats.template import conversation
from localinfer.errors import Corrupt, NotSupported
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.weights import Checkpoint
from localinfer.quantize import CalibrationText, Method, quantize_checkpoint, readers
from localinfer.quantize.calibration import calibration
from localinfer.reference.executor import logits
from tests.quantize.trees import read_tensor, record, replace_tensor, tree
from tests.tiny import FAMILIES, UNCALIBRATED, Family, make_checkpoint

TEXT = CalibrationText(tokens=4096, render=conversation)
MOST_LOST: dict[Method, float] = {
    "imatrix": 1.05,
    "gptq": 0.85,
    "awq": 1.1,  # random inputs have no column that matters
    "awq+gptq": 0.85,
}
"""Of what rounding to the nearest loses, by method."""

BY_EVERY_METHOD: tuple[Family, ...] = ("llama", "gemma3_text", "phi3", "cohere2", "lfm2", "gemma4_unified_text")
"""One family for each way that norms and matrices lie in a layer; the others by the default alone."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("source") / "m", "llama", num_hidden_layers=5)


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed run writes."""
    dest = tmp_path_factory.mktemp("whole") / "q"
    quantize_checkpoint(source, dest, bits=3, method="gptq", text=TEXT, threads=1)
    return dest


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in UNCALIBRATED])
def test_loses_less_than_rounding(family: Family, tmp_path: Path) -> None:
    """Logits on text that was not calibrated on; each method better than the one before it."""
    model = make_checkpoint(tmp_path / "m", family)
    ids = calibration(Tokenizer(model), None, 4 * 512, 99)[0].tolist()
    true = logits(Checkpoint(model), ids)
    matrices = sum(len(op.linears()) - len(op.unquantized()) for op in Checkpoint(model).graph.body)
    lost: dict[str, float] = {}
    methods: tuple[Method, ...] = tuple(MOST_LOST) if family in BY_EVERY_METHOD else ("gptq",)
    for method in ("rtn", *methods):
        report = quantize_checkpoint(model, tmp_path / method, bits=3, method=method, text=TEXT, threads=1)
        off = logits(Checkpoint(tmp_path / method), ids) - true
        lost[method] = float(off.pow(2).mean())
        said = record(tmp_path / method)
        assert said["recipe"]["method"] == method
        seen = matrices - 3 * sum(note.count("experts.") for note in report.notes)
        assert len(said["output_error"]) == (0 if method == "rtn" else seen)
    for method, part in MOST_LOST.items():
        assert lost.get(method, 0) < part * lost["rtn"], method


def test_a_second_run_gives_the_same_bytes(source: Path, whole: Path, tmp_path: Path) -> None:
    quantize_checkpoint(source, tmp_path / "q", bits=3, method="gptq", text=TEXT, threads=1)
    assert tree(tmp_path / "q") == tree(whole)


def test_stopped_and_resumed_with_folded_norms(source: Path, tmp_path: Path) -> None:
    quantize_checkpoint(source, tmp_path / "whole", bits=3, method="awq+gptq", text=TEXT, threads=1)
    name = "model.layers.1.input_layernorm.weight"
    assert (Checkpoint(tmp_path / "whole").vector(name) != Checkpoint(source).vector(name)).any()
    stop_after(source, tmp_path / "q", 4, "awq+gptq")
    assert (
        quantize_checkpoint(source, tmp_path / "q", bits=3, method="awq+gptq", text=TEXT, threads=1).resumed_files == 4
    )
    assert tree(tmp_path / "q") == tree(tmp_path / "whole")


@pytest.mark.parametrize("files", [1, 2, 4, 6])
def test_stopped_and_resumed(source: Path, whole: Path, tmp_path: Path, files: int) -> None:
    stop_after(source, tmp_path / "q", files)
    report = quantize_checkpoint(source, tmp_path / "q", bits=3, method="gptq", text=TEXT, threads=1)
    assert report.resumed_files == files
    assert tree(tmp_path / "q") == tree(whole)


def stop_after(source: Path, dest: Path, files: int, method: Method = "gptq") -> None:
    partial = dest.with_name(dest.name + ".partial")

    def interrupt(done: int, total: int) -> None:
        if len(list(partial.glob("model-*.safetensors"))) >= files:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_checkpoint(source, dest, bits=3, method=method, text=TEXT, threads=1, on_progress=interrupt)
    assert not dest.exists()


def test_other_text_starts_afresh(source: Path, tmp_path: Path) -> None:
    stop_after(source, tmp_path / "q", 3)
    text = CalibrationText(tokens=4096, seed=1, render=conversation)
    assert quantize_checkpoint(source, tmp_path / "q", bits=3, method="gptq", text=text, threads=1).resumed_files == 0


def test_a_large_stream_lies_in_a_file(
    source: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "IN_MEMORY", 1000)
    quantize_checkpoint(source, tmp_path / "q", bits=3, method="gptq", text=TEXT, threads=1)
    assert tree(tmp_path / "q") == tree(whole)


def test_activations_as_the_kernels_round_them() -> None:
    x = torch.tensor([[1.0, -3.0, 0.25, 0.5 * 3 / 127], [0, 0, 0, 0]]).repeat(1, 8)
    seen = readers.rounded(x, (127, 32))
    integers = seen * 127 / 3
    assert torch.equal(seen[1], x[1])
    torch.testing.assert_close(integers, integers.round(), atol=1e-4, rtol=0)
    assert integers[0, :4].round().tolist() == [42, -127, 11, 0]  # ops to even
    torch.testing.assert_close(readers.rounded(x, (32512, 32)), x, atol=3 / 32512, rtol=0)


def test_the_stream_is_that_of_the_quantized_model(source: Path, whole: Path, tmp_path: Path) -> None:
    """At its end, the stream gives the logits of the written model, run with rounded activations."""
    from localinfer.quantize.calibrated import Layers
    from localinfer.quantize.plan import make_plan

    tokens = calibration(Tokenizer(source), conversation, 4096, 0)[:1]
    plan = make_plan(source, 3, None, "gptq")
    layers = Layers(source, plan, tokens, whole / plan.file_name(0), tmp_path)
    for number, unit in enumerate(plan.units):
        if ops := layers.ops(unit):
            layers.pass_over(ops, whole / plan.file_name(number))

    class Rounding(readers.Reader):  # sums of attention in the same order: an ulp is a step where it is rounded
        def linear(self, linear, x):  # type: ignore[no-untyped-def]
            return super().linear(linear, readers.rounded(x, layers.stream.roundings[linear.name]))

    model = Rounding(Checkpoint(whole))
    with torch.no_grad():
        ours = model.head(model.checkpoint.graph.head, layers.stream.x[0])
    torch.testing.assert_close(ours, model.logits(tokens[0].tolist()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), 1e30])
def test_weights_that_cannot_be_quantized_are_named(tmp_path: Path, value: float) -> None:
    model = make_checkpoint(tmp_path / "m", dtype="float32")
    name = "model.layers.1.mlp.up_proj.weight"
    values = read_tensor(model, name)
    values[3, 5] = value
    replace_tensor(model, name, values)
    with pytest.raises(Corrupt, match=r"model\.layers\.1\.mlp\.(up|gate)_proj"):
        quantize_checkpoint(model, tmp_path / "q", bits=4, method="gptq", text=TEXT)
    assert {path.name for path in tmp_path.iterdir()} == {"m"}


def test_inputs_that_overflow_are_said(tmp_path: Path) -> None:
    """A norm so large that the layer's inputs are infinite: rounded all the same, and the report says so."""
    model = make_checkpoint(tmp_path / "m", dtype="float32")
    name = "model.layers.1.input_layernorm.weight"
    replace_tensor(model, name, np.full_like(read_tensor(model, name), 3e38))
    report = quantize_checkpoint(model, tmp_path / "q", bits=4, method="gptq", text=TEXT)
    assert any("q_proj" in note and "NaN or infinity" in note for note in report.notes)
    assert record(tmp_path / "q")["recipe"]["notes"] == list(report.notes)


def test_eight_bits(source: Path, tmp_path: Path) -> None:
    report = quantize_checkpoint(source, tmp_path / "q", bits=8, method="gptq", text=TEXT)
    assert max(record(tmp_path / "q")["output_error"].values()) < 0.01
    assert report.bits == 8


def test_without_torch(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from localinfer.quantize import default_method

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotSupported, match="torch") as caught:
        quantize_checkpoint(source, tmp_path / "q", bits=4, method="gptq")
    assert "--method imatrix" in str(caught.value.hint)
    assert default_method(4, source)[0] == "imatrix"
    assert "localinfer[quantize]" in default_method(4, source)[1]
    assert quantize_checkpoint(source, tmp_path / "q", bits=4).bits == 4


def test_rounding_alone_loads_no_torch() -> None:
    code = "import sys, localinfer.quantize, localinfer.quantize.checkpoint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
