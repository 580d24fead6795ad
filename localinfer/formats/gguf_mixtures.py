"""What config.json of types with experts says beyond what all say, from a GGUF file's metadata."""

from collections.abc import Callable, Mapping
from typing import Any

from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_forms import FORMS
from localinfer.formats.gguf_values import bounded, experts, number, refused, windowed_layers

Config = dict[str, Any]


def _qwen_moe(file: GgufFile, arch: str, config: Config) -> Config:
    count, used = experts(file, arch)
    inner = bounded(file, f"{arch}.expert_feed_forward_length", 1 << 20, 0, low=0)
    found: Config = {
        "num_experts": count,
        "num_experts_per_tok": used,
        "moe_intermediate_size": inner or max(1, config["intermediate_size"] // used),
        "norm_topk_prob": arch == "qwen3moe",
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "use_sliding_window": False,
    }
    if arch == "qwen2moe":
        shared = bounded(file, f"{arch}.expert_shared_feed_forward_length", 1 << 20, 0, low=0)
        found["shared_expert_intermediate_size"] = shared or config["intermediate_size"]
    return found


def mixtral(file: GgufFile, arch: str, config: Config) -> Config:
    count, used = experts(file, arch)
    inner = bounded(file, f"{arch}.expert_feed_forward_length", 1 << 20, config["intermediate_size"])
    if inner != config["intermediate_size"]:
        raise refused(file, f"`{arch}.expert_feed_forward_length` is not `{arch}.feed_forward_length`")
    return {"num_local_experts": count, "num_experts_per_tok": used, "sliding_window": None}


def _olmoe(file: GgufFile, arch: str, config: Config) -> Config:
    count, used = experts(file, arch)
    inner = bounded(file, f"{arch}.expert_feed_forward_length", 1 << 20, config["intermediate_size"])
    return {"intermediate_size": inner, "num_experts": count, "num_experts_per_tok": used, "norm_topk_prob": False}


def _gpt_oss(file: GgufFile, arch: str, config: Config) -> Config:
    count, used = experts(file, arch)
    limit, alpha = FORMS["gpt_oss"].clamp or (0.0, 0.0)
    return {
        "intermediate_size": bounded(file, f"{arch}.expert_feed_forward_length", 1 << 20, config["intermediate_size"]),
        "num_local_experts": count,
        "num_experts_per_tok": used,
        "swiglu_limit": limit,
        "swiglu_alpha": alpha,
        "attention_bias": True,
        "sliding_window": bounded(file, f"{arch}.attention.sliding_window", 1 << 24),
        "layer_types": windowed_layers(file, arch, config["num_hidden_layers"], 2),
        "rope_scaling": config["rope_scaling"] or {"rope_type": "default"},  # left out, it would be YaRN
    }


def _ernie(file: GgufFile, arch: str, config: Config) -> Config:
    count, used = experts(file, arch)
    inner = bounded(file, f"{arch}.expert_feed_forward_length", 1 << 20)
    return {
        "moe_num_experts": count,
        "moe_k": used,
        "moe_intermediate_size": inner,
        "moe_num_shared_experts": _shared(file, arch, inner),
        "moe_layer_start_index": _dense_layers(file, arch, config),
        "moe_layer_end_index": -1,
        "moe_layer_interval": 1,
        "moe_norm_min": 1e-12,
        "use_bias": False,
    }


def _glm(file: GgufFile, arch: str, config: Config) -> Config:
    count, used = experts(file, arch)
    inner = bounded(file, f"{arch}.expert_feed_forward_length", 1 << 20)
    groups = bounded(file, f"{arch}.expert_group_count", 64, 1, low=0) or 1
    chosen = bounded(file, f"{arch}.expert_group_used_count", groups, 1, low=0) or 1
    if count % groups or (groups > 1 and count == groups) or used > chosen * (count // groups):
        said = f"`{arch}.expert_group_count` is {groups}, `{arch}.expert_group_used_count` {chosen}"
        raise file.error(f"{said}, which does not go with {used} of {count} experts")
    return {
        "n_routed_experts": count,
        "num_experts_per_tok": used,
        "moe_intermediate_size": inner,
        "n_shared_experts": _shared(file, arch, inner),
        "first_k_dense_replace": _dense_layers(file, arch, config),
        "n_group": groups,
        "topk_group": chosen,
        "norm_topk_prob": bool(file.metadata.get(f"{arch}.expert_weights_norm", False)),
        "routed_scaling_factor": number(file, f"{arch}.expert_weights_scale", 0.0) or 1.0,
        "partial_rotary_factor": config.get("partial_rotary_factor", 1.0),
    }


def _dense_layers(file: GgufFile, arch: str, config: Config) -> int:
    return bounded(file, f"{arch}.leading_dense_block_count", config["num_hidden_layers"], 0, low=0)


def _shared(file: GgufFile, arch: str, inner: int) -> int:
    """How many experts as wide as the others each row goes to. A file may say their number, how wide they are
    together, or both."""
    number_key, width_key = f"{arch}.expert_shared_count", f"{arch}.expert_shared_feed_forward_length"
    count = bounded(file, number_key, 64, 0, low=0)
    width = bounded(file, width_key, 1 << 20, count * inner, low=0)
    if width % inner or (number_key in file.metadata and width != count * inner):
        raise file.error(f"`{width_key}` is {width}, but `{number_key}` is {count}, and experts are {inner} wide")
    return width // inner


MIXTURES: Mapping[str, Callable[[GgufFile, str, Config], Config]] = {
    "qwen2_moe": _qwen_moe,
    "qwen3_moe": _qwen_moe,
    "mixtral": mixtral,
    "olmoe": _olmoe,
    "gpt_oss": _gpt_oss,
    "ernie4_5_moe": _ernie,
    "glm4_moe": _glm,
}
"""By `model_type`."""
