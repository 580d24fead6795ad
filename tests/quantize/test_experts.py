"""Mixtures of experts rounded expert by expert: experts nobody chose, stopped runs, the stream behind them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from localinfer.chats.template import conversation
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.weights import Checkpoint
from localinfer.quantize import CalibrationText, Method, quantize_checkpoint, readers
from localinfer.quantize.calibrated import LEAST_ROWS, Layers
from localinfer.quantize.calibration import calibration
from localinfer.quantize.plan import make_plan
from localinfer.quantize.recipe import Asked, recipe_of
from localinfer.reference.executor import logits
from tests.quantize.test_calibrated import stop_after
from tests.quantize.trees import read_tensor, record, replace_tensor, tree
from tests.tiny import Family, make_checkpoint

TEXT = CalibrationText(tokens=4096, render=conversation)
BIAS = "model.layers.{}.mlp.gate.e_score_correction_bias"
MINUS_100 = 0xC2C8  # as bfloat16
PARTS = ("gate", "up", "down")
MORE: dict[str, dict[str, Any]] = {
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "moe", "full_attention", "moe"],
        "moe_latent_size": 32,
    },
    "gemma4_text": {
        "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 0,
        "enable_moe_block": True,
        "num_experts": 6,
        "top_k_experts": 2,
        "moe_intermediate_size": 64,
    },
}
"""What makes a mixture that is calibrated of families that have others, too."""


def avoided(folder: Path, expert: int) -> Path:
    """A model no row of which goes to `expert`."""
    model = make_checkpoint(folder, "glm4_moe")
    layers = [number for number, mixes in enumerate(Checkpoint(model).spec.mixture.layers) if mixes]  # type: ignore[union-attr]
    for layer in layers:
        bias = read_tensor(model, BIAS.format(layer)).copy()
        bias[expert] = MINUS_100
        replace_tensor(model, BIAS.format(layer), bias)
    return model


@pytest.mark.parametrize("method", ["gptq", "imatrix"])
def test_an_expert_nobody_chose_is_named_and_rounded_by_its_weights(method: Method, tmp_path: Path) -> None:
    model = avoided(tmp_path / "m", 2)
    quantize_checkpoint(model, tmp_path / "plain", bits=3, method="rtn", threads=1)
    report = quantize_checkpoint(model, tmp_path / "q", bits=3, method=method, text=TEXT, threads=1)
    last = Checkpoint(model).spec.layers - 1
    told = f"fewer than {LEAST_ROWS} tokens chose" if method == "gptq" else "no token chose"
    assert any(told in note and f"layers.{last}.mlp.experts.2" in note for note in report.notes)
    for part in PARTS:
        name = f"model.layers.{last}.mlp.experts.{{}}.{part}_proj.weight_packed"
        plain, made = ([read_tensor(tmp_path / at, name.format(one)) for one in (1, 2)] for at in ("plain", "q"))
        assert [np.array_equal(*both) for both in zip(plain, made, strict=True)] == [False, True]
        assert name.format(2).removesuffix("_packed") not in record(tmp_path / "q")["output_error"] or method != "gptq"


@pytest.mark.parametrize("family", ["qwen2_moe", "nemotron_h", "gpt_oss", "gemma4_text"])
def test_stopped_and_resumed(family: Family, tmp_path: Path) -> None:
    """With a shared expert and its gate, with narrow experts, with biases, beside an MLP."""
    source = make_checkpoint(tmp_path / "m", family, **MORE.get(family, {}))
    quantize_checkpoint(source, tmp_path / "whole", bits=3, method="gptq", text=TEXT, threads=1)
    stop_after(source, tmp_path / "q", 3)
    report = quantize_checkpoint(source, tmp_path / "q", bits=3, method="gptq", text=TEXT, threads=1)
    assert report.resumed_files == 3
    assert tree(tmp_path / "q") == tree(tmp_path / "whole")


@pytest.mark.parametrize("family", ["qwen2_moe", "glm4_moe", "gemma4_text"])
def test_the_stream_is_that_of_the_quantized_model(family: Family, tmp_path: Path) -> None:
    """At its end, the stream gives the logits of the written model, run with rounded activations."""
    source = make_checkpoint(tmp_path / "m", family, **MORE.get(family, {}))
    quantize_checkpoint(source, tmp_path / "q", bits=4, method="gptq", text=TEXT, threads=1)
    tokens = calibration(Tokenizer(source), conversation, 4096, 0)[:1]
    plan = make_plan(source, 4, None, "gptq")
    layers = Layers(source, plan, tokens, tmp_path / "q" / plan.file_name(0), tmp_path)
    for number, unit in enumerate(plan.units):
        if ops := layers.ops(unit):
            layers.pass_over(ops, tmp_path / "q" / plan.file_name(number))

    class Rounding(readers.Reader):
        def linear(self, linear, x):  # type: ignore[no-untyped-def]
            rounding = layers.stream.roundings.get(linear.name)
            return super().linear(linear, x if rounding is None else readers.rounded(x, rounding))

    model = Rounding(Checkpoint(tmp_path / "q"))
    with torch.no_grad():
        ours = model.head(model.checkpoint.graph.head, layers.stream.x[0])
    torch.testing.assert_close(ours, model.logits(tokens[0].tolist()), rtol=1e-4, atol=1e-4)


def test_efforts_read_more_and_train_nothing(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "m", "olmoe", num_experts=16, num_experts_per_tok=2)
    plain, _ = recipe_of(Asked(), 4, make_checkpoint(tmp_path / "llama", "llama"))
    mixed, _ = recipe_of(Asked(), 4, source)
    best, remark = recipe_of(Asked("best"), 4, source)
    assert (mixed.method, mixed.tokens) == ("gptq", 2 * plain.tokens)
    assert best.refine is None
    assert "mixture of experts" in remark


def test_all_experts_of_a_layer_get_one_width(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "m", "qwen2_moe")
    quantize_checkpoint(source, tmp_path / "q", bits=3, method="rtn", text=TEXT, threads=1, bits_per_weight=4.6)
    model = Checkpoint(tmp_path / "q")
    patterns = json.loads((tmp_path / "q" / "config.json").read_text())["quantization_config"]["config_groups"]
    assert not any("experts\\.0" in target for group in patterns.values() for target in group["targets"])
    found: dict[str, set[Any]] = {}
    for linear in model.graph.linears():
        layer, mixed, part = linear.name.partition(".mlp.experts.")
        if mixed:
            found.setdefault(f"{layer} {'down' in part}", set()).add(model.form(linear.name))
    assert len({form for forms in found.values() for form in forms}) > 1
    assert all(len(forms) == 1 for forms in found.values())
    assert np.isfinite(logits(model, [1, 2, 3]).numpy()).all()
