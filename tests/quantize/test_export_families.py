"""Every family as a GGUF file: llama.cpp says the same tokens, and what comes back is what went in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localinfer.errors import NotSupported
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_import import import_gguf
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.rope import Rope
from localinfer.graph.spec import ModelSpec
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.export import export_gguf
from localinfer.quantize.from_gguf import GgufImporter
from tests.graph.packed import quantized
from tests.graph.running import load, run
from tests.quantize.beside_llamacpp import says_the_same
from tests.tiny import LLAMA3_ROPE, Family, make_checkpoint

SLIDING, FULL = "sliding_attention", "full_attention"
LLAMA3 = LLAMA3_ROPE | {"original_max_position_embeddings": 8192}
YARN: dict[str, Any] = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LONG: dict[str, Any] = {
    "rope_type": "longrope",
    "short_factor": [1.0 + i / 20 for i in range(12)],
    "long_factor": [2.0 + i / 3 for i in range(12)],
}
ALTERNATING: dict[str, Any] = {
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "linear_key_head_dim": 32,
    "head_dim": 32,
}
ONES: dict[str, Any] = {
    **{f"{name}_multiplier": 1.0 for name in ("embedding", "lm_head", "key", "attention_in", "attention_out")},
    "ssm_in_multiplier": 1.0,
    "ssm_out_multiplier": 1.0,
    "mlp_multipliers": [1.0] * 2,
    "ssm_multipliers": [1.0] * 5,
}
GPT_OSS: dict[str, Any] = {
    "swiglu_limit": 7.0,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 32.0,
        "beta_slow": 0.5177,  # one turn at a whole frequency, or llama.cpp would cut there
        "truncate": False,
        "original_max_position_embeddings": 64,
    },
}
MODELS: dict[str, tuple[Family, dict[str, Any]]] = {
    "llama with yarn": ("llama", {"rope_scaling": YARN}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen2 with yarn": ("qwen2", {"rope_scaling": YARN | {"beta_fast": 8.0, "attention_factor": 1.1}}),
    "qwen3": ("qwen3", {}),
    "ministral": ("ministral", {"head_dim": 32, "num_hidden_layers": 4, "layer_types": ["full_attention"] * 4}),
    "mistral3": ("mistral3", {}),
    "ministral3": ("ministral3", {}),
    "mixtral": ("mixtral", {}),
    "qwen2_moe": ("qwen2_moe", {}),
    "qwen3_moe": ("qwen3_moe", {}),
    "olmoe": ("olmoe", {"num_key_value_heads": 4}),
    "gpt_oss": ("gpt_oss", GPT_OSS),
    "ernie4_5_moe": ("ernie4_5_moe", {}),
    "ernie4_5_moe without shared experts": (
        "ernie4_5_moe",
        {"moe_num_shared_experts": 0, "moe_layer_start_index": 0, "tie_word_embeddings": False},
    ),
    "glm4_moe": ("glm4_moe", {}),
    "glm4_moe with groups": (
        "glm4_moe",
        {
            "n_routed_experts": 12,
            "n_group": 6,
            "topk_group": 2,
            "n_shared_experts": 2,
            "use_qk_norm": True,
            "attention_bias": False,
            "first_k_dense_replace": 0,
            "norm_topk_prob": False,
        },
    ),
    "muse": ("muse_glimmer", {}),
    "muse, tied, with windows elsewhere": (
        "muse_glimmer",
        {
            "tie_word_embeddings": True,
            "layer_types": [FULL, SLIDING, FULL, SLIDING, FULL],
            "layer_rope_theta": [0, 10000.0, 0, 10000.0, 0],
        },
    ),
    "granitemoe": ("granitemoe", {}),
    "seed_oss": ("seed_oss", {"attention_out_bias": False}),
    "smollm3": ("smollm3", {"num_hidden_layers": 4, "no_rope_layers": None}),
    "granite": ("granite", {}),
    "granite with biases": ("granite", {"attention_bias": True, "mlp_bias": True, "rope_scaling": LLAMA3}),
    "olmo2": ("olmo2", {}),
    "olmo2, tied": ("olmo2", {"tie_word_embeddings": True}),
    "olmo3": ("olmo3", {"num_hidden_layers": 4, "rope_theta": 500_000.0}),
    "olmo3 with yarn": ("olmo3", {"num_hidden_layers": 4, "rope_theta": 500_000.0, "rope_scaling": YARN}),
    "phi3": ("phi3", {"partial_rotary_factor": 1.0}),
    "phi3, part of each head": ("phi3", {}),
    "phi3 with longrope": ("phi3", {"rope_scaling": LONG, "original_max_position_embeddings": 256}),
    "phi3 with longrope, beyond": ("phi3", {"rope_scaling": LONG, "original_max_position_embeddings": 32}),
    "exaone4": (
        "exaone4",
        {"head_dim": 16, "sliding_window": None, "layer_types": ["full_attention"] * 4, "rope_scaling": LLAMA3},
    ),
    "exaone4 with windows": ("exaone4", {"head_dim": 16, "num_hidden_layers": 64}),
    "glm4": ("glm4", {}),
    "glm4 without biases": ("glm4", {"attention_bias": False, "tie_word_embeddings": True}),
    "hunyuan": ("hunyuan_v1_dense", {}),
    "hunyuan with alpha": (
        "hunyuan_v1_dense",
        {"rope_scaling": {"rope_type": "dynamic", "alpha": 50.0, "factor": 1.0}},
    ),
    "ernie4_5": ("ernie4_5", {}),
    "cohere2": ("cohere2", {}),
    "starcoder2": ("starcoder2", {}),
    "gemma2": ("gemma2", {"query_pre_attn_scalar": 32}),
    "gemma4_text": ("gemma4_text", {}),
    "gemma4": ("gemma4", {}),
    "gemma4 without inputs": (
        "gemma4_text",
        {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "num_key_value_heads": 1},
    ),
    "gemma4, keys are values": (
        "gemma4_text",
        {
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
            "use_double_wide_mlp": False,
            "final_logit_softcapping": None,
            "tie_word_embeddings": False,
        },
    ),
    "gemma4, whole heads": (
        "gemma4_text",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 50000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            }
        },
    ),
    "gemma4_unified": ("gemma4_unified", {}),
    "lfm2": ("lfm2", {}),
    "lfm2_moe": ("lfm2_moe", {}),
    "qwen3_5": ("qwen3_5", ALTERNATING),
    "qwen3_5 with as many key heads": ("qwen3_5_text", ALTERNATING | {"linear_num_value_heads": 2}),
    "qwen3_5_moe": ("qwen3_5_moe_text", ALTERNATING),
    "qwen3_next": ("qwen3_next", ALTERNATING | {"moe_intermediate_size": 64}),
    "qwen3_5 with a head for guessing ahead": ("qwen3_5", ALTERNATING | {"mtp_num_hidden_layers": 1}),
    "qwen3_5_moe with such a head": ("qwen3_5_moe_text", ALTERNATING | {"mtp_num_hidden_layers": 1}),
    "granitemoehybrid": ("granitemoehybrid", {"position_embedding_type": "nope", "num_local_experts": 5}),
    "granitemoehybrid without experts": (
        "granitemoehybrid",
        {"num_local_experts": 0, "position_embedding_type": "rope", "mamba_n_groups": 2, "intermediate_size": 64},
    ),
    "falcon_h1": ("falcon_h1", ONES),
    "falcon_h1 with a norm": ("falcon_h1", ONES | {"mamba_rms_norm": True}),
    "nemotron_h": ("nemotron_h", {}),
    "nemotron_h with experts": (
        "nemotron_h",
        {"layers_block_type": ["linear_attention", "moe", "full_attention", "moe"], "intermediate_size": 64},
    ),
    "nemotron_h with narrow experts": (
        "nemotron_h",
        {
            "layers_block_type": ["linear_attention", "moe", "full_attention", "linear_attention"],
            "intermediate_size": 64,
            "moe_latent_size": 32,
        },
    ),
}


def shapes_alike(one: ModelSpec, other: ModelSpec) -> None:
    """Equal but for how a tied head is told, and the last digits of what GGUF has as float32."""
    for name in ("hidden_size", "layers", "heads", "kv_heads", "head_dim", "intermediate_size", "vocab_size"):
        assert getattr(other, name) == getattr(one, name), name
    for name in ("max_context", "activation", "windows", "qkv_bias", "o_bias", "mlp_bias", "norm_bias", "mixture"):
        assert getattr(other, name) == getattr(one, name), name
    for name in ("shapes", "layer_inputs"):
        assert getattr(other, name) == getattr(one, name), name
    for name in ("conv_layers", "conv_length", "conv_bias", "delta", "attention_gate", "mamba", "mixers"):
        assert getattr(other, name) == getattr(one, name), name
    for name in ("norm_eps", "attention_scale", "attention_softcap", "embed_scale", "residual_scale"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-6), name
    for name in ("logit_scale", "logit_softcap"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-6), name
    for rope, back in zip(one.ropes, other.ropes, strict=True):
        ropes_alike(rope, back)


def ropes_alike(one: Rope, other: Rope) -> None:
    np.testing.assert_allclose(other.inv_freq, one.inv_freq, rtol=2e-6)
    np.testing.assert_allclose(other.long_inv_freq, one.long_inv_freq, rtol=2e-6)
    assert other.attention_factor == pytest.approx(one.attention_factor, rel=2e-6)
    assert (other.interleaved, other.original) == (one.interleaved, one.original)
    assert other.growth == pytest.approx(one.growth)
    assert one.growth == 0 or other.growth_every == one.growth_every


@pytest.mark.parametrize(("family", "config"), MODELS.values(), ids=MODELS.keys())
def test_the_same_weights_come_back(tmp_path: Path, family: Family, config: dict[str, Any]) -> None:
    source = make_checkpoint(tmp_path / "m", family, seed=3, **config)
    export_gguf(source, tmp_path / "x.gguf")
    import_gguf(tmp_path / "x.gguf", tmp_path / "back")
    before, after = Checkpoint(source), Checkpoint(tmp_path / "back")
    shapes_alike(before.spec, after.spec)
    for linear in before.graph.linears():
        np.testing.assert_allclose(after.matrix(linear.name), before.matrix(linear.name), rtol=2**-8, atol=1e-7)
    for name, _ in before.graph.vectors():
        np.testing.assert_allclose(after.vector(name), before.vector(name), rtol=2**-8, atol=2**-8)
    assert {type(op) for op in after.graph.ops} == {type(op) for op in before.graph.ops}
    assert not after.notes
    assert after.has_ahead == before.has_ahead
    if after.has_ahead:
        one, other = (Checkpoint(path, ahead=True) for path in (source, tmp_path / "back"))
        for linear in one.graph.linears():
            np.testing.assert_allclose(other.matrix(linear.name), one.matrix(linear.name), rtol=2**-8, atol=1e-7)
        for name, _ in one.graph.vectors():
            np.testing.assert_allclose(other.vector(name), one.vector(name), rtol=2**-8, atol=2**-8)


FOLDED = MODELS | {"falcon_h1 with its numbers": ("falcon_h1", {"mamba_rms_norm": True})}


@pytest.mark.parametrize(("family", "config"), FOLDED.values(), ids=FOLDED.keys())
def test_llama_cpp_says_the_same_tokens(tmp_path: Path, family: Family, config: dict[str, Any]) -> None:
    source = make_checkpoint(tmp_path / "m", family, seed=3, **config)
    export_gguf(source, tmp_path / "x.gguf")
    says_the_same(source, tmp_path / "x.gguf")


def test_the_numbers_of_falcon_h1_are_in_its_weights(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "m", "falcon_h1", seed=3, mamba_rms_norm=True)
    export_gguf(source, tmp_path / "x.gguf")
    import_gguf(tmp_path / "x.gguf", tmp_path / "back")
    tokens = Tokenizer(source).encode_text("Hello there, this is a text of some length.")
    before, after = run(load(source), tokens), run(load(tmp_path / "back"), tokens)
    assert np.abs(before - after).max() < 0.1 * before.std()


@pytest.mark.parametrize("family", ["granitemoehybrid", "falcon_h1", "nemotron_h"])
def test_integers_of_mamba_keep_their_values(tmp_path: Path, family: Family) -> None:
    """The rows of the steps, floats here, are one tensor with others there, which then has 8 bits."""
    config = ONES if family == "falcon_h1" else {"num_local_experts": 0, "intermediate_size": 64}
    source = quantized(make_checkpoint(tmp_path / "m", family, seed=3, **config), tmp_path / "q", 4, 32)
    export_gguf(source, tmp_path / "x.gguf")
    GgufImporter().write(tmp_path / "x.gguf", tmp_path / "back")
    before, after = Checkpoint(source), Checkpoint(tmp_path / "back")
    kept = {one.name for one in before.graph.unquantized}
    for linear in before.graph.linears():
        if linear.name in kept:
            np.testing.assert_allclose(after.matrix(linear.name), before.matrix(linear.name), atol=0.02)
        else:
            assert np.array_equal(after.matrix(linear.name), before.matrix(linear.name)), linear.name


INTEGERS = [
    "mixtral",
    "qwen2_moe",
    "phi3",
    "glm4",
    "lfm2",
    "granite",
    "starcoder2",
    "qwen3_5",
    "gemma4_unified",
]


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_keep_their_bits(tmp_path: Path, name: str) -> None:
    family, config = MODELS[name]
    source = make_checkpoint(tmp_path / "m", family, seed=3, **config)
    before = Checkpoint(quantized(source, tmp_path / "q", 4, 32)) if "moe" not in name and name != "mixtral" else None
    export_gguf(source if before is None else before.path, tmp_path / "x.gguf", None if before else "Q4_0")
    GgufImporter().write(tmp_path / "x.gguf", tmp_path / "back")
    after = Checkpoint(tmp_path / "back")
    kept = {one.name for one in after.graph.unquantized}
    file = GgufFile(tmp_path / "x.gguf")
    assert {one.type for one in file.tensors.values()} <= {"Q4_0", "Q8_0", "F32", "F16"}
    for linear in after.graph.linears():
        bits = 16 if linear.name in kept else 8 if ".layers." not in linear.name else 4
        assert after.form(linear.name)[0] == bits, linear.name
        if before is not None and linear.name not in kept:
            assert np.array_equal(after.matrix(linear.name), before.matrix(linear.name))


ODD = ["linear_attention", "full_attention", "full_attention", "linear_attention"]
REFUSED: dict[str, tuple[Family, dict[str, Any], str]] = {
    "a window": ("ministral3", {"sliding_window": 8}, "sliding windows"),
    "other layers that do not rotate": ("smollm3", {"no_rope_layers": [0, 1]}, "rotate"),
    "smollm3 with biases": (
        "smollm3",
        {"num_hidden_layers": 4, "no_rope_layers": None, "attention_bias": True},
        r"_proj\.bias",
    ),
    "qwen3 with biases": ("qwen3", {"attention_bias": True}, r"_proj\.bias"),
    "olmo2 with biases": ("olmo2", {"attention_bias": True}, r"_proj\.bias"),
    "ernie with biases": ("ernie4_5", {"use_bias": True}, r"_proj\.bias"),
    "starcoder2 without": ("starcoder2", {"use_bias": False}, "without"),
    "cohere2, untied": ("cohere2", {"tie_word_embeddings": False}, "a head of its own"),
    "exaone4 with windows": ("exaone4", {"head_dim": 16}, "sliding windows"),
    "narrow heads": ("olmo2", {"head_dim": 32}, "4 heads of 32 in a stream of 64"),
    "groups of heads": ("olmoe", {}, "2 key heads for 4 query heads"),
    "a dense layer among mixtures": ("qwen3_moe", {"mlp_only_layers": [0]}, "a mixture of this kind"),
    "other local rope": ("olmo3", {"rope_theta": 10_000.0}, "other RoPE in sliding layers"),
    "keys narrower than values": ("qwen3_5", ALTERNATING | {"linear_key_head_dim": 16}, "keys of 16"),
    "delta nets elsewhere": (
        "qwen3_5",
        {"linear_key_head_dim": 32, "num_hidden_layers": 4, "layer_types": ODD},
        "layers",
    ),
    "experts of other weights": ("lfm2_moe", {"routed_scaling_factor": 2.0}, "a mixture of this kind"),
    "experts without a bias": ("lfm2_moe", {"use_expert_bias": False}, "without"),
    "gpt_oss with another clamp": ("gpt_oss", GPT_OSS | {"swiglu_limit": 6.5}, "a mixture of this kind"),
    "gpt_oss with YaRN that is cut": (
        "gpt_oss",
        {"swiglu_limit": 7.0, "rope_scaling": YARN},
        "YaRN that is cut at whole frequencies",
    ),
    "gpt_oss without biases": ("gpt_oss", GPT_OSS | {"attention_bias": False}, "without `model.layers.0"),
    "gpt_oss, windows elsewhere": ("gpt_oss", GPT_OSS | {"layer_types": [FULL, SLIDING]}, "sliding windows"),
    "ernie4_5_moe, experts in every other layer": (
        "ernie4_5_moe",
        {"num_hidden_layers": 4, "moe_layer_start_index": 0, "moe_layer_interval": 2},
        "a mixture of this kind",
    ),
    "ernie4_5_moe with a larger least sum": ("ernie4_5_moe", {"moe_norm_min": 0.01}, "a mixture of this kind"),
    "muse with another epsilon": ("muse_glimmer", {"post_norm_eps": 1e-6}, "norms with an epsilon of 1e-06"),
    "muse that rotates elsewhere": (
        "muse_glimmer",
        {"layer_rope_theta": [10000.0, 0, 10000.0, 10000.0, 0]},
        "layers that rotate and do not slide",
    ),
    "gemma4 with biases": ("gemma4_text", {"attention_bias": True}, r"_proj\.bias"),
    "gemma4, keys of a layer further back": (
        "gemma4_text",
        {"num_hidden_layers": 4, "num_kv_shared_layers": 1, "layer_types": [FULL, SLIDING, SLIDING, FULL]},
        "keys and values of these layers",
    ),
    "gemma4 without windows": ("gemma4_text", {"layer_types": ["full_attention"] * 6}, "without sliding windows"),
    "gemma4, more inputs than tokens": ("gemma4_text", {"vocab_size_per_layer_input": 352}, "inputs by layer of 352"),
    "gemma4, sliding layers in part": (
        "gemma4_text",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 50000.0},
                "sliding_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.5, "rope_theta": 100.0},
            }
        },
        "RoPE of this kind in sliding layers",
    ),
    "conv with biases": ("lfm2", {"conv_bias": True}, r"conv\.\S+\.bias"),
    "experts beside an MLP": (
        "gemma4_text",
        {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32},
        "a mixture of this kind",
    ),
}


@pytest.mark.parametrize(("family", "config", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_llama_cpp_would_run_otherwise_is_refused(
    tmp_path: Path, family: Family, config: dict[str, Any], words: str
) -> None:
    source = make_checkpoint(tmp_path / "m", family, **config)
    with pytest.raises(NotSupported, match=words):
        export_gguf(source, tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()
