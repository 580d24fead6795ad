"""Mixtures of experts: the same bits whatever the company, widths as `quantize` writes them, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer import native
from localinfer.config import EngineConfig
from localinfer.engine.opening import open_engine
from localinfer.errors import Corrupt, NotFinite, NotSupported
from localinfer.formats.safetensors import SafetensorsFile, write_safetensors
from localinfer.graph.ops import Mixture
from localinfer.graph.packing import activation_bits
from localinfer.graph.program import load_program
from localinfer.graph.weights import Checkpoint
from localinfer.quantize import default_method, quantize_checkpoint
from tests.engine.running import GREEDY, open_tiny, run_one
from tests.graph.emulated import Emulated
from tests.graph.oracle import assert_close
from tests.graph.variants import make_variant
from tests.tiny import MIXTURES, Family, make_checkpoint

N = 40
WIDTHS: dict[str, Literal[8, 4, 3] | None] = {"BF16": None, "INT8": 8, "INT4": 4, "INT3": 3}


VARIANTS = ("qwen2_moe-dense-first", "glm4_moe-groups", "gpt_oss", "gemma4-experts")
"""A shared expert of another width than the others, a dense layer first; groups; biases, clamps and sinks; an MLP
beside the experts."""
CASES = [f"{VARIANTS[0]} {width}" for width in WIDTHS] + [f"{v} {w}" for v in VARIANTS[1:] for w in ("BF16", "INT4")]


@pytest.fixture(scope="module", params=CASES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each kind of mixture, the first of them in each width."""
    folder = tmp_path_factory.mktemp("mixture")
    variant, width = request.param.split()
    source = make_variant(variant, folder / "source")
    bits = WIDTHS[width]
    if bits is None:
        return source
    quantize_checkpoint(source, folder / "q", bits=bits)
    return folder / "q"


def program(path: Path, **how: Any) -> native.Program:
    return load_program(Checkpoint(path), context=64, kv_blocks=12, **({"threads": 1} | how))


def tokens(n: int = N) -> NDArray[np.int32]:
    return ((np.arange(n) * 37 + 11) % 300).astype(np.int32)


def feed(made: native.Program, chunk: int) -> NDArray[np.float32]:
    """Logits of `tokens()`, read in pieces of `chunk`."""
    out = np.empty((N, made.vocab), np.float32)
    for first in range(0, N, chunk):
        rows = np.arange(min(chunk, N - first), dtype=np.int32)
        blocks = np.array([[3, 1]], np.int32)
        at = tokens()[first : first + chunk]
        made.step(at, rows + np.int32(first), np.zeros(len(rows), np.int32), blocks, rows, out[first : first + chunk])
    return out


@pytest.mark.parametrize("isa", native.supported_isas())
@pytest.mark.parametrize(("threads", "chunk"), [(1, 1), (1, 5), (2, 1), (3, 4), (2, N), (3, 9)])
def test_the_same_bits(model: Path, isa: str, threads: int, chunk: int) -> None:
    meant = feed(program(model, isa="scalar"), 1)
    assert np.array_equal(feed(program(model, isa=isa, threads=threads), chunk), meant)
    assert np.array_equal(feed(program(model, isa=isa, threads=threads, max_rows=3), chunk), meant)


@pytest.mark.parametrize("threads", [1, 2])
def test_rows_of_many_sequences(model: Path, threads: int) -> None:
    """Each row meets others that go to other experts, and does not feel them."""
    made = program(model, threads=threads)
    count, alone = 6, np.empty((6, made.vocab), np.float32)
    table = np.arange(count, dtype=np.int32)[:, None]
    zero, rows = np.zeros(1, np.int32), np.arange(count, dtype=np.int32)
    for i in range(count):
        made.step(tokens()[i : i + 1], zero, zero, table[i : i + 1], zero, alone[i : i + 1])
    together = np.empty_like(alone)
    made.step(tokens()[:count], np.zeros(count, np.int32), rows, table, rows, together)
    assert np.array_equal(together, alone)


def test_integers_mean_what_the_reference_means(model: Path) -> None:
    if not model.name.startswith("q"):
        pytest.skip("floats are compared with transformers")
    checkpoint = Checkpoint(model)
    meant = Emulated(checkpoint, 8).logits(tokens().tolist()).numpy()
    seen = feed(program(model), N)
    up = next(op.experts[0].up for op in checkpoint.graph.body if isinstance(op, Mixture))
    assert activation_bits(checkpoint) == (16 if checkpoint.form(up.name)[0] == 8 else 8)
    assert np.median(np.abs(seen - meant).max(axis=1)) / meant.std() < 0.05
    assert_close(seen[:1], meant[:1], 0.05)


def test_quantize_leaves_the_router_alone(tmp_path: Path) -> None:
    source = make_variant("qwen2_moe", tmp_path / "m")
    assert default_method(4, source)[0] == "gptq"
    quantize_checkpoint(source, tmp_path / "q", bits=4, method="rtn")
    made = Checkpoint(tmp_path / "q")
    assert made.form("model.layers.0.mlp.gate") == made.form("model.layers.0.mlp.shared_expert_gate") == (16, 0)
    assert made.form("model.layers.0.mlp.experts.5.down_proj")[0] == 4
    scheme = json.loads((tmp_path / "q" / "config.json").read_text())["quantization_config"]
    assert [one for one in scheme["ignore"] if "gate" in one] == [
        r"re:model\.layers\.\d+\.mlp\.gate$",
        r"re:model\.layers\.\d+\.mlp\.shared_expert_gate$",
    ]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("isa", native.supported_isas())
def test_sinks_of_long_texts(tmp_path: Path, isa: str, threads: int) -> None:
    """Beyond one KV split, read in one piece by several threads, or row by row at the end."""
    path = make_variant("gpt_oss", tmp_path / "m", max_position_embeddings=1024)
    text = ((np.arange(600) * 37 + 11) % 300).astype(np.int32)
    made = load_program(Checkpoint(path), context=1024, kv_blocks=20, kv_bits=16, isa=isa, threads=threads, max_rows=64)
    table, out = np.arange(20, dtype=np.int32)[None], np.empty((600, made.vocab), np.float32)
    for first, last in ((0, 590), *((row, row + 1) for row in range(590, 600))):
        rows = np.arange(last - first, dtype=np.int32)
        made.step(text[first:last], rows + np.int32(first), np.zeros_like(rows), table, rows, out[first:last])
    meant = Emulated(Checkpoint(path), 16).logits(text.tolist()).numpy()
    off = np.abs(out - meant).max(axis=1) / meant.std()
    assert np.median(off) < 1e-3  # now and then an expert of a near tie is another one
    assert np.median(off[590:]) < 1e-2


@pytest.mark.parametrize("family", MIXTURES)
def test_an_engine_with_drafts_and_without(tmp_path: Path, family: Family) -> None:
    path = make_checkpoint(tmp_path / "m", family)
    said = []
    for draft in ("off", "suffix"):
        with open_tiny(path, draft=draft) as engine:
            said.append([run_one(engine, prompt, GREEDY).token_ids for prompt in ([1, 2, 3], [7] * 9, [1, 2, 3, 4])])
    assert said[0] == said[1]


def test_a_router_of_nan_is_named(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m", "qwen3_moe")
    with_tensor(path, "model.layers.1.mlp.gate.weight", lambda x: np.full_like(x, 0x7FC0))
    with pytest.raises(Corrupt, match=r"model\.layers\.1\.mlp\.gate\.weight"), open_engine(path, EngineConfig()):
        pass


def test_scores_that_overflow_are_no_answer(tmp_path: Path) -> None:
    """All finite on disk, but the router's scores are not: the request fails, and nothing crashes."""
    path = make_checkpoint(tmp_path / "m", "qwen3_moe")
    with_tensor(path, "model.layers.0.post_attention_layernorm.weight", lambda x: np.full_like(x, 0x7F00))
    with open_tiny(path) as engine, pytest.raises(NotFinite):
        run_one(engine, [1, 2, 3], GREEDY)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_experts_per_tok": 9}, "num_experts_per_tok"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok"),
        ({"num_experts": 0}, "num_experts"),
        ({"num_experts": 1 << 20}, "num_experts"),
        ({"num_experts": "8"}, "num_experts"),
        ({"moe_intermediate_size": -1}, "moe_intermediate_size"),
        ({"mlp_only_layers": [2]}, "mlp_only_layers"),
        ({"mlp_only_layers": "all"}, "mlp_only_layers"),
        ({"decoder_sparse_step": 0}, "decoder_sparse_step"),
    ],
)
def test_numbers_that_make_no_sense(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = make_checkpoint(tmp_path / "m", "qwen3_moe")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises((Corrupt, NotSupported), match=words):
        Checkpoint(path)


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("olmoe", {"clip_qkv": 8.0}),
        ("ernie4_5_moe", {"use_bias": True}),
        ("gpt_oss", {"hidden_act": "gelu_pytorch_tanh"}),
        ("gpt_oss", {"quantization_config": {"quant_method": "nvfp4"}}),
        ("glm4_moe", {"n_group": 3}),
        ("glm4_moe", {"n_group": 8}),
        ("glm4_moe", {"n_group": 4, "topk_group": 5}),
        ("glm4_moe", {"n_group": 4, "topk_group": 1, "num_experts_per_tok": 3}),
        ("glm4_moe", {"routed_scaling_factor": 0}),
        ("glm4_moe", {"n_shared_experts": 0}),
        ("ernie4_5_moe", {"moe_k": 9}),
        ("ernie4_5_moe", {"moe_layer_interval": 0}),
        ("ernie4_5_moe", {"moe_norm_min": -1}),
        ("gpt_oss", {"swiglu_limit": 0}),
        ("gpt_oss", {"num_local_experts": "many"}),
        ("granitemoe", {"num_experts_per_tok": 9}),
    ],
)
def test_what_a_family_cannot_be(tmp_path: Path, family: Family, change: dict[str, Any]) -> None:
    """Named by the last field."""
    path = make_checkpoint(tmp_path / "m", family)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises((Corrupt, NotSupported), match=[*change][-1]):
        Checkpoint(path)


@pytest.mark.parametrize("count", [9, 7])
def test_other_experts_than_the_config_says(tmp_path: Path, count: int) -> None:
    path = make_checkpoint(tmp_path / "m", "qwen3_moe")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"num_experts": count}))
    with pytest.raises(Corrupt, match=rf"mlp\.gate\.weight` is \[8, 64\].*\[{count}, 64\]"):
        Checkpoint(path)


def test_an_expert_that_is_missing(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m", "qwen3_moe")
    with_tensor(path, "model.layers.1.mlp.experts.7.up_proj.weight", None)
    with pytest.raises(Corrupt, match=r"model\.layers\.1\.mlp\.experts\.7\.up_proj"):
        Checkpoint(path)


def with_tensor(path: Path, name: str, change: Any) -> None:
    """Rewrite one tensor of the only weight file, or leave it out."""
    file = SafetensorsFile(path / "model.safetensors")
    tensors = {key: (info.dtype, file.read(key)) for key, info in file.tensors.items()}
    dtype, values = tensors.pop(name)
    if change is not None:
        tensors[name] = (dtype, change(values))
    write_safetensors(path / "new.safetensors", tensors)
    shutil.move(path / "new.safetensors", path / "model.safetensors")
