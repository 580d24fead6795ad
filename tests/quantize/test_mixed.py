"""Models of mixed widths: the bytes are dealt well, kept to, and what is written loads and runs."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from localinfer.chats.template import conversation
from localinfer.errors import UsageError
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.graph import together
from localinfer.graph.program import load_program
from localinfer.graph.weights import Checkpoint
from localinfer.quantize import CalibrationText, quantize_checkpoint
from localinfer.quantize.calibration import calibration
from localinfer.quantize.mixed import Option, choose, forms
from localinfer.quantize.sensitivity import Probe, sensitivities
from localinfer.reference.executor import logits
from tests.quantize.trees import record, tree
from tests.tiny import Family, make_checkpoint

TEXT = CalibrationText(tokens=2048, render=conversation)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("source") / "m", "llama", num_hidden_layers=4)


def test_close_to_the_best_choice() -> None:
    rng = random.Random(2)
    for _ in range(30):
        groups = [
            [Option((bits, 32), bits * size, rng.random() * size / 4**bits) for bits in (3, 4, 8)]
            for size in rng.choices((10, 20, 30), k=6)
        ]
        least, most = sum(g[0].nbytes for g in groups), sum(g[-1].nbytes for g in groups)
        budget = rng.randint(least, most)
        chosen = choose(groups, budget)
        assert sum(option.nbytes for option in chosen) <= budget
        best = min(
            sum(option.cost for option in way)
            for way in itertools.product(*groups)
            if sum(option.nbytes for option in way) <= budget
        )
        worst = sum(group[0].cost for group in groups)
        assert sum(option.cost for option in chosen) <= best + 0.2 * (worst - best)


def test_ends_of_the_range() -> None:
    groups = [[Option((3, 32), 3, 1.0), Option((4, 32), 4, 0.5)], [Option((3, 32), 3, 0.0), Option((4, 32), 4, 0.0)]]
    assert [option.form for option in choose(groups, 0)] == [(3, 32), (3, 32)]
    assert [option.form for option in choose(groups, 7)] == [(4, 32), (3, 32)]
    assert [option.form for option in choose(groups, 100)] == [(4, 32), (3, 32)]  # what gains nothing is not bought


def test_forms_that_fit() -> None:
    assert forms({"a": 64, "b": 192}, 3) == [(3, 32), (3, 64), (4, 32), (4, 64), (8, 32)]
    assert forms({"a": 96}, 4) == [(4, 32), (8, 32)]


@pytest.mark.parametrize("family", ["cohere2", "falcon_h1", "llama"])
def test_costs_are_measured_where_the_model_goes(family: Family, tmp_path: Path) -> None:
    """Also where attention and MLP read the same stream: what goes through the layers is what the model computes."""
    checkpoint = Checkpoint(make_checkpoint(tmp_path / "m", family))
    probe, steps, text = Probe(checkpoint), together(checkpoint.graph.body), np.arange(1, 33, dtype=np.int32)
    passed, _ = probe.forward(steps, text[None], torch.Generator().manual_seed(0))
    with torch.no_grad():
        seen = probe.head(checkpoint.graph.head, probe.after(steps[-1], passed[-1][0].detach()))
    torch.testing.assert_close(seen, logits(checkpoint, text.tolist()), rtol=1e-5, atol=1e-5)


def test_costs_foretell_the_divergence(source: Path, tmp_path: Path) -> None:
    """Each stage rounded alone: what was foretold and what the answers really lose go together."""
    checkpoint = Checkpoint(source)
    tokens = calibration(Tokenizer(source), conversation, 2048, 0)
    found = sensitivities(checkpoint, tokens, [(3, 32), (4, 32), (8, 32)])
    assert [names[0].split(".", 3)[3] for names, _ in found[:4]] == [
        "self_attn.q_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.down_proj",
    ]
    assert all(cost[3, 32] > cost[4, 32] > cost[8, 32] > 0 for _, cost in found)
    assert found == sensitivities(checkpoint, tokens, [(3, 32), (4, 32), (8, 32)])

    from localinfer.quantize.gptq import dequantized, nearest
    from localinfer.reference.executor import Executor

    ids = tokens[0].tolist()
    true = torch.log_softmax(logits(checkpoint, ids), -1)
    foretold, seen = [], []
    for names, cost in found:
        model = Executor(checkpoint)
        for name in names:
            matrix = torch.from_numpy(checkpoint.matrix(name))
            model._cached[name] = dequantized(*nearest(matrix, None, 3, 32))
        off = torch.log_softmax(model.logits(ids), -1)
        seen.append(float((true.exp() * (true - off)).sum(-1).mean()))
        foretold.append(cost[3, 32])
    assert np.corrcoef(np.log(foretold), np.log(seen))[0, 1] > 0.7
    assert 0.3 < np.exp(np.mean(np.log(foretold) - np.log(seen))) < 3


@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen2"])
def test_what_is_written_loads_and_runs(family: Family, tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "m", family)
    report = quantize_checkpoint(
        model, tmp_path / "q", bits=3, method="gptq", text=TEXT, bits_per_weight=4.2, threads=1
    )
    assert 3.9 < report.body_bits_per_weight < 4.3
    made = Checkpoint(tmp_path / "q")
    widths = {made.form(linear.name) for linear in made.graph.linears() if ".layers." in linear.name}
    assert len(widths) > 1
    assert record(tmp_path / "q")["recipe"]["forms"]
    load_program(made, context=64, kv_blocks=4)
    off = logits(made, list(range(40))) - logits(Checkpoint(model), list(range(40)))
    assert float(off.abs().mean()) < 1

    from compressed_tensors.quantization import QuantizationConfig  # type: ignore[import-untyped]
    from compressed_tensors.utils import match_name  # type: ignore[import-untyped]

    settings: Any = json.loads((tmp_path / "q" / "config.json").read_text())["quantization_config"]
    groups = QuantizationConfig.model_validate(settings).config_groups.values()
    for linear in made.graph.linears():
        found = [g for g in groups if any(match_name(f"language_model.{linear.name}", target) for target in g.targets)]
        assert [(g.weights.num_bits, g.weights.group_size) for g in found] == [made.form(linear.name)]


def test_sizes_are_kept_and_resumed(source: Path, tmp_path: Path) -> None:
    def make(dest: Path, **more: Any) -> int:
        quantize_checkpoint(source, dest, bits=3, method="imatrix", text=TEXT, target_bytes=130_000, threads=1, **more)
        return sum(tensor.stat().st_size for tensor in dest.glob("*.safetensors"))

    assert 100_000 < make(tmp_path / "a") < 145_000  # headers come on top

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "b", on_progress=interrupt)
    make(tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"bits_per_weight": 2.0}, r"2 bits a weight cannot be had: 3\.\d+ to 8\.\d+ can"),
        ({"bits_per_weight": 8.6}, r"8.6 bits a weight cannot be had"),
        ({"target_bytes": 5000}, r"5\.0 kB cannot be had: the smallest is"),
    ],
)
def test_sizes_that_cannot_be_had(source: Path, tmp_path: Path, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        quantize_checkpoint(source, tmp_path / "q", bits=3, text=TEXT, **asked)
    assert caught.value.hint
    assert {path.name for path in tmp_path.iterdir()} <= {"q.partial"}
