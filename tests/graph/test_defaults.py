"""What is left out of config.json, what is null and what is there mean what they mean to transformers, live.

Long because every family has exceptions of its own, which stand together here.
"""

import json
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer.errors import LocalInferError, NotSupported
from localinfer.graph.defaults import DEFAULTS, HARMLESS, REFUSED
from localinfer.graph.registry import known_families, read_graph
from tests.graph.oracle import assert_close, transformers_model
from tests.graph.running import load, run
from tests.tiny import BOS, LLAMA3_ROPE, NESTED, Family, make_checkpoint, write_json
from tests.tiny_mamba import MAMBA


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT: Any = _Absent()
TOKENS = [BOS, *b"What is left out has a meaning too: the default."]
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_experts",
    "num_local_experts",
    "moe_num_experts",
    "n_routed_experts",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "vocab_size_per_layer_input",
    "shared_intermediate_size",
)
"""Left out, these make a model of gigabytes; the table alone is compared."""

NONE_IS_CLEAR = (
    "use_conv_bias",
    "mamba_proj_bias",
    "mlp_bias",
    "tie_word_embeddings",
    "num_key_value_heads",
    "head_dim",
)
"""Null is read as none here, also in families whose class in transformers refuses null today, and took it once."""

EXPERTS = (
    "moe_latent_size",
    "n_routed_experts",
    "moe_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "n_shared_experts",
    "norm_topk_prob",
    "num_experts_per_tok",
    "routed_scaling_factor",
    "n_group",
    "topk_group",
)
"""Keys of Nemotron-H that mean something beside experts alone."""

SEEDS = {
    ("granitemoehybrid", "residual_multiplier"): 1,
    ("ernie4_5_moe", "num_attention_heads"): 3,
    ("ernie4_5_moe", "rope_theta"): 4,
    ("gpt_oss", "num_key_value_heads"): 2,
}
"""Of tiny models that choose experts at a near tie with the usual seed, when a key is left out."""

NEEDED = {
    ("ministral", "head_dim"),
    ("hunyuan_v1_dense", "head_dim"),
    ("lfm2_moe", "layer_types"),
    ("granitemoehybrid", "layer_types"),
}
"""Keys without which transformers has no model."""


IDLE = {
    "nemotron_h": (
        "chunk_size",
        "expand",
        "hidden_dropout",
        "mamba_ssm_cache_dtype",
        "moe_shared_expert_overlap",
        "mtp_layers_block_type",
        "num_nextn_predict_layers",
        "rescale_prenorm_residual",
        "residual_in_fp32",
        "sliding_window",
        "time_step_floor",
        "time_step_max",
        "time_step_min",
        "use_mamba_kernels",
    ),
}
"""Keys that a family's classes know and that change no answer of ours: of layers that guess ahead, and of what its code
never looks at."""


def class_of(model_type: str) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type]


def default_in_transformers(model_type: str, key: str) -> object:
    config = class_of(model_type)()
    ropes: Any = getattr(config, "rope_parameters", None)
    match key:
        case "rope_theta" if model_type == "ministral3":
            return config.default_theta  # beside other settings; alone it has its own
        case "partial_rotary_factor":
            return ropes[key]
        case "global_head_dim":
            return config.per_layer_config["full_attention"].head_dim
        case "rope_theta" if "full_attention" in ropes:
            return ropes["full_attention"]["rope_theta"]
        case "rope_local_base_freq":
            return ropes["sliding_attention"]["rope_theta"]
        case "rope_theta":
            return ropes["rope_theta"]
        case "sliding_window_pattern" | "full_attention_interval":
            return config.layer_types.index("full_attention") + 1
    field = {one.name: one for one in fields(config)}.get(key)
    return None if field is None else field.default


@pytest.mark.parametrize(
    ("model_type", "key"), [(model_type, key) for model_type in DEFAULTS for key in DEFAULTS[model_type]]
)
def test_a_default_is_that_of_transformers(model_type: str, key: str) -> None:
    assert DEFAULTS[model_type][key] == default_in_transformers(model_type, key)


def test_every_family_has_defaults() -> None:
    assert {*DEFAULTS, *NESTED} == {*known_families()}


@pytest.mark.parametrize("model_type", DEFAULTS)
def test_every_key_that_transformers_knows_is_read_refused_or_harmless(model_type: str) -> None:
    """A key of a later version makes this fail: read it, refuse it, or say that it changes no answer."""
    known = {one.name for one in fields(class_of(model_type)) if not one.name.startswith("_")}
    assert known <= {*DEFAULTS[model_type], *REFUSED, *HARMLESS, *IDLE.get(model_type, ()), "rope_parameters"}


def logits_of_transformers(path: Path) -> NDArray[np.float32]:
    import torch

    model = transformers_model(path)
    with torch.no_grad():
        found: NDArray[np.float32] = model(torch.tensor([TOKENS])).logits[0].numpy()
    return found


def changed(path: Path, family: Family, made_with: dict[str, Any], said: dict[str, Any]) -> Path:
    """A tiny model whose config.json then says something else, or nothing (`ABSENT`)."""
    make_checkpoint(path, family, **made_with)
    config = {**json.loads((path / "config.json").read_text()), **said}
    write_json(path / "config.json", {key: value for key, value in config.items() if value is not ABSENT})
    return path


def agree(path: Path, *, lenient: bool = False) -> bool:
    """Assert that both give the same logits, or that both refuse; whether they answer. `lenient`: we never refuse."""
    try:
        said = logits_of_transformers(path)
    except Exception:
        with nullcontext() if lenient else pytest.raises(LocalInferError):
            load(path)
        return False
    assert_close(run(load(path), TOKENS), said, 0.03)
    return True


def usual_seed(family: str) -> int:
    """One with which no choice of experts is a near tie."""
    return 1 if family == "ernie4_5_moe" else 0


def fitting(family: str, key: str, how: str) -> dict[str, Any]:
    """With what a tiny model is made, so that leaving `key` out, or making it null, fits its weights."""
    default: Any = DEFAULTS[family][key]
    heads = 4
    match key, how:
        case _, _ if family in MAMBA and (fit := mamba_fitting(family, key, how)):
            return fit
        case "num_attention_heads", "absent":
            heads = default
            return {
                key: heads,
                "num_key_value_heads": 4 if heads % 4 == 0 else 2,
                "hidden_size": 16 * heads,
                "head_dim": 16,
            }
        case "num_key_value_heads", "absent" if default:
            return {key: default, "num_attention_heads": default, "hidden_size": 16 * default, "head_dim": 16}
        case "num_key_value_heads", _:
            return {key: heads}
        case "head_dim", "absent":
            return {key: default or 16}
        case "head_dim", _:
            return {key: 16}
        case (("layer_types" | "full_attention_interval"), _) if "linear_num_key_heads" in DEFAULTS[family]:
            return {"num_hidden_layers": 4, "layer_types": ["linear_attention"] * 3 + ["full_attention"]}
        case "linear_num_key_heads", "absent" if default:
            return {key: default, "linear_num_value_heads": default}
        case "linear_key_head_dim", _ if family == "olmo_hybrid":
            return {key: 48, "hidden_size": 256}
        case (("linear_num_value_heads" | "linear_key_head_dim" | "linear_value_head_dim"), "absent") if default:
            return {key: default}
        case "num_experts_per_tok", "absent" if family == "qwen3_next":
            return {"num_experts": 12}
        case "layer_types", _ if family == "lfm2":
            return {key: ["full_attention"] * 3}
        case (("block_auto_adjust_ff_dim" | "num_dense_layers"), "absent"):
            return {key: default}
        case (
            ("global_head_dim" | "hidden_size_per_layer_input" | "num_kv_shared_layers" | "attention_k_eq_v"),
            "absent",
        ):
            return {key: default}
        case (("use_double_wide_mlp" | "num_global_key_value_heads"), "absent"):
            return {key: default}
        case "layer_types", "absent" if family.startswith("gemma4"):
            return {key: None, "num_kv_shared_layers": 0}
        case "tie_word_embeddings", _:
            return {key: default if how == "absent" else False}
        case (("sliding_window" | "max_window_layers" | "layer_types"), _) if family.startswith("qwen"):
            return {"use_sliding_window": True}
        case _:
            return {}


def mamba_fitting(family: str, key: str, how: str) -> dict[str, Any]:
    """The same for families with Mamba-2, whose heads are together as wide as config.json says twice."""
    with_experts = {"layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"]}
    if family == "nemotron_h" and key == "layers_block_type":
        return with_experts
    if how == "null":
        return with_experts if key in EXPERTS else {}
    wide: dict[str, dict[str, Any]] = {
        "num_attention_heads": {key: 32, "num_key_value_heads": 4, "hidden_size": 512, "head_dim": 16},
        "mamba_n_heads": {key: 128, "mamba_d_head": 16},
        "mamba_d_ssm": {key: 1024, "mamba_n_heads": 64},
        "mamba_d_state": {key: 256},
        "mamba_n_groups": {key: 1},
    }
    if family == "nemotron_h":
        wide |= {
            "mamba_num_heads": {key: 128},
            "mamba_head_dim": {key: 64},
            "n_groups": {key: 8, "mamba_num_heads": 8},
            "ssm_state_size": {key: 128},
            **{name: {**with_experts, name: DEFAULTS[family][name]} for name in EXPERTS},
        }
    elif family == "granitemoehybrid":
        wide["num_attention_heads"] |= {"mamba_n_heads": 32}
        wide["mamba_n_heads"] |= {"hidden_size": 1024, "head_dim": 16}
    else:
        wide["mamba_n_heads"] |= {"mamba_d_ssm": 2048}
    return wide.get(key, {})


@pytest.mark.parametrize(
    ("family", "key"), [(family, key) for family in DEFAULTS for key in DEFAULTS[family] if key not in SIZES]
)
def test_a_key_that_is_left_out(tmp_path: Path, family: Family, key: str) -> None:
    made_with = {"seed": SEEDS.get((family, key), usual_seed(family)), **fitting(family, key, "absent")}
    path = changed(tmp_path / "m", family, made_with, {key: ABSENT})
    answers = agree(path)
    assert answers == ((family, key) not in NEEDED)


@pytest.mark.parametrize(("family", "key"), [(family, key) for family in DEFAULTS for key in DEFAULTS[family]])
def test_a_key_that_is_null(tmp_path: Path, family: Family, key: str) -> None:
    made_with = {"seed": usual_seed(family), **fitting(family, key, "null")}
    path = changed(tmp_path / "m", family, made_with, {key: None})
    agree(path, lenient=key in NONE_IS_CLEAR and (family, key) not in NEEDED)


@pytest.mark.parametrize("family", DEFAULTS)
def test_sizes_that_are_left_out(family: str) -> None:
    bare = {"model_type": family, "head_dim": 128}  # 2304 over 8 heads would be no width of ours
    bare |= {"block_auto_adjust_ff_dim": False} if family == "lfm2" else {}
    bare |= {"layer_types": ["conv"] * 32} if family == "lfm2_moe" else {}
    bare |= {"layer_types": ["mamba", "attention"] * 16} if family == "granitemoehybrid" else {}
    bare |= {"mamba_d_ssm": 2048} if family == "falcon_h1" else {}
    bare |= {"layers_block_type": ["mlp", "full_attention"] * 2} if family == "nemotron_h" else {}
    spec, config = read_graph(bare).spec, class_of(family)()
    assert (spec.vocab_size, spec.hidden_size, spec.intermediate_size, spec.layers, spec.kv_heads) == (
        config.vocab_size,
        config.hidden_size,
        config.moe_intermediate_size if family == "qwen3_5_moe_text" else config.intermediate_size,
        config.num_hidden_layers,
        config.num_key_value_heads,
    )


LINEAR = {"rope_type": "linear", "factor": 4.0}
GEMMA4_EXPERTS = {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32}
LLAMA3_BARE = {key: value for key, value in LLAMA3_ROPE.items() if key != "original_max_position_embeddings"}
FULL, SLIDING, LINEAR_LAYER = "full_attention", "sliding_attention", "linear_attention"


@pytest.mark.parametrize(
    ("family", "made_with", "said"),
    [
        ("llama", {}, {"rope_theta": 500.0}),
        ("llama", {}, {"rms_norm_eps": 0.01}),
        ("llama", {}, {"hidden_act": "gelu_pytorch_tanh"}),
        ("llama", {}, {"hidden_act": "gelu"}),
        ("llama", {}, {"hidden_act": "gelu_new"}),
        ("mistral", {}, {"hidden_act": "gelu_python"}),
        ("starcoder2", {}, {"hidden_act": "gelu"}),
        ("gemma2", {}, {"hidden_activation": "gelu"}),
        ("llama", {}, {"hidden_act": "swish"}),
        ("llama", {"num_key_value_heads": 1, "head_dim": 48}, {}),
        ("llama", {}, {"rope_parameters": {"rope_theta": 500.0}}),
        ("llama", {}, {"rope_theta": ABSENT, "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}),
        ("llama", {}, {"rope_parameters": {"rope_theta": 500.0}, "rope_scaling": LINEAR}),
        ("llama", {}, {"rope_parameters": {"rope_theta": 500.0, **LINEAR}, "rope_scaling": {}}),
        ("llama", {}, {"rope_scaling": {**LINEAR, "rope_theta": 500.0}}),
        ("llama", {}, {"rope_scaling": {"type": "linear", "factor": 2}}),
        ("llama", {}, {"rope_scaling": {"type": "linear", "rope_type": "default", "factor": 2.0}}),
        ("llama", {}, {"rope_scaling": LLAMA3_ROPE}),
        ("llama", {"max_position_embeddings": 128}, {"rope_scaling": LLAMA3_BARE}),
        ("llama", {}, {"rope_scaling": LLAMA3_ROPE, "original_max_position_embeddings": 32}),
        ("llama", {}, {"rope_parameters": {"rope_theta": None}}),
        ("llama", {}, {"sliding_window": 8, "use_sliding_window": True}),
        ("llama", {}, {"pretraining_tp": 2, "attention_dropout": 0.5, "use_cache": False}),
        ("mistral", {}, {"sliding_window": 8}),
        ("mistral", {}, {"rope_parameters": {"rope_theta": 500.0}}),
        ("qwen2", {}, {"use_sliding_window": True, "max_window_layers": 0}),
        ("qwen2", {}, {"use_sliding_window": True, "max_window_layers": 2}),
        ("qwen2", {}, {"use_sliding_window": True, "sliding_window": None}),
        ("qwen2", {}, {"use_sliding_window": True, "layer_types": [SLIDING, FULL]}),
        ("qwen2", {}, {"use_sliding_window": True, "sliding_window": None, "layer_types": [SLIDING, FULL]}),
        ("qwen2", {}, {"use_sliding_window": False, "layer_types": [SLIDING, FULL]}),
        ("qwen2", {}, {"use_sliding_window": False, "layer_types": [FULL] * 2}),
        ("qwen2", {}, {"use_sliding_window": False, "layer_types": ["linear_attention", FULL]}),
        ("qwen2", {"head_dim": 32}, {}),
        ("qwen2", {}, {"attention_bias": False, "use_mrope": False}),
        ("qwen3", {}, {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
        ("qwen3", {"attention_bias": True}, {}),
        ("gemma3_text", {}, {"query_pre_attn_scalar": 64}),
        ("gemma3_text", {}, {"final_logit_softcapping": 3.0}),
        ("gemma3_text", {}, {"rope_local_base_freq": 500.0}),
        ("gemma3_text", {}, {"sliding_window": 4, "sliding_window_pattern": 2}),
        ("gemma3_text", {}, {"layer_types": [FULL, SLIDING, FULL]}),
        ("gemma3_text", {}, {"layer_types": [FULL, SLIDING, FULL], "sliding_window_pattern": None}),
        ("gemma3_text", {}, {"rope_parameters": {FULL: {"rope_theta": 500.0}}}),
        ("gemma3_text", {}, {"rope_parameters": {SLIDING: {"rope_theta": 500.0}, FULL: None}}),
        ("gemma3_text", {}, {"rope_parameters": {"rope_theta": 500.0}}),
        ("gemma3_text", {}, {"rope_parameters": {FULL: {"rope_theta": 500.0}}, "rope_scaling": LINEAR}),
        ("gemma3_text", {}, {"rope_parameters": {FULL: {"rope_theta": 500.0, **LINEAR}}}),
        ("gemma3_text", {}, {"rope_scaling": {**LINEAR, "rope_theta": 500.0}}),
        ("gemma4_text", {}, {"per_layer_config": {i: {"head_dim": 64} for i in ("1", "3", "05")}}),
        ("gemma4_text", {}, {"per_layer_config": {"1": {"head_dim": 64}, "3": {"head_dim": 64}}}),
        ("gemma4_text", {"global_head_dim": 32}, {"per_layer_config": {}}),
        ("gemma4_text", {}, {"per_layer_config": {"1": {"head_dim": 64, "num_attention_heads": 2}}}),
        ("gemma4_text", {"num_global_key_value_heads": 1}, {}),
        ("gemma4_text", {}, {"layer_types": [SLIDING, FULL, SLIDING, FULL, FULL, SLIDING]}),
        ("gemma4_text", {"num_kv_shared_layers": 5}, {}),
        ("gemma4_text", {}, {"num_kv_shared_layers": 6}),
        ("gemma4_text", {}, {"use_bidirectional_attention": "vision"}),
        ("gemma4_text", {}, {"use_bidirectional_attention": False}),
        ("gemma4_text", {}, {"rope_parameters": {FULL: {"rope_type": "proportional", "rope_theta": 100.0}}}),
        ("gemma4_text", {}, {"rope_parameters": {kind: {"rope_theta": 100.0} for kind in (FULL, SLIDING)}}),
        (
            "gemma4_text",
            {},
            {
                "rope_parameters": {
                    FULL: {
                        "rope_type": "proportional",
                        "rope_theta": 100.0,
                        "partial_rotary_factor": 0.3,
                        "factor": 4.0,
                    },
                    SLIDING: {"rope_type": "default", "rope_theta": 50.0, "partial_rotary_factor": 0.5},
                }
            },
        ),
        ("gemma4_unified_text", {}, {"hidden_size_per_layer_input": 64, "enable_moe_block": True}),
        ("gemma4_text", GEMMA4_EXPERTS, {}),
        ("gemma4_text", GEMMA4_EXPERTS, {"top_k_experts": 1}),
        ("gemma4_text", GEMMA4_EXPERTS, {"top_k_experts": 5}),
        ("gemma4_text", GEMMA4_EXPERTS, {"top_k_experts": None}),
        ("gemma4_text", {}, {"enable_moe_block": True}),
        ("gemma3", {}, {"tie_word_embeddings": True}),
        ("qwen3_5", {}, {"tie_word_embeddings": ABSENT}),
        ("qwen3_5_text", {"partial_rotary_factor": 0.5}, {}),
        ("qwen3_5_text", {}, {"rope_parameters": {"rope_theta": 500.0, "mrope_section": [2, 1, 1]}}),
        ("qwen3_5_text", {"layer_types": [LINEAR_LAYER, LINEAR_LAYER, FULL]}, {}),
        ("qwen3_5_text", {}, {"layer_types": [LINEAR_LAYER, SLIDING, FULL]}),
        ("qwen3_next", {}, {"norm_topk_prob": False}),
        ("olmo_hybrid", {}, {"linear_allow_neg_eigval": False}),
        ("olmo_hybrid", {"attention_bias": False}, {"rope_parameters": {"rope_type": "default", "rope_theta": None}}),
        ("olmo_hybrid", {}, {"layer_types": [LINEAR_LAYER] * 3}),
        ("gemma3", {}, {"architectures": ABSENT}),
    ],
    ids=str,
)
def test_a_key_that_is_there(tmp_path: Path, family: Family, made_with: dict[str, Any], said: dict[str, Any]) -> None:
    agree(changed(tmp_path / "m", family, made_with, said))


def test_the_outer_object_says_whether_the_head_is_tied(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m", "gemma3", tie_word_embeddings=False)
    for outer in (ABSENT, False):
        config = json.loads((path / "config.json").read_text()) | {"tie_word_embeddings": outer}
        assert config["text_config"]["tie_word_embeddings"] is False
        write_json(path / "config.json", {key: value for key, value in config.items() if value is not ABSENT})
        assert agree(path)


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("llama", {"is_causal": False}),
        ("llama", {"is_causal": None}),
        ("llama", {"rope_parameters": {"full_attention": {"rope_theta": 500.0}}}),
        ("llama", {"per_layer_config": {"0": {"num_attention_heads": 2}}}),
        ("qwen3", {"is_encoder_decoder": True}),
        ("gemma3_text", {"use_bidirectional_attention": True}),
        ("gemma4_text", {"use_bidirectional_attention": "all"}),
        ("mistral", {"layer_types": ["full_attention", "full_attention"]}),
        ("qwen3_5_text", {"attention_bias": True}),
        ("qwen3_5_text", {"attn_output_gate": False}),
        ("qwen3_next", {"hidden_act": "gelu"}),
        ("qwen3_next", {"linear_key_head_dim": 24}),
    ],
)
def test_keys_that_change_the_answer_and_are_not_run(tmp_path: Path, family: Family, said: dict[str, Any]) -> None:
    with pytest.raises(NotSupported, match=next(iter(said))):
        load(changed(tmp_path / "m", family, {}, said))
