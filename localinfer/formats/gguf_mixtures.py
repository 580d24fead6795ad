"""What config.json of types with experts says beyond what all say, from a GGUF file's metadata."""

from collections.abc import Callable, Mapping
from typing import Any

from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_forms import FORMS
from localinfer.formats.gguf_values import bounded, experts, refused, windowed_layers

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


MIXTURES: Mapping[str, Callable[[GgufFile, str, Config], Config]] = {
    "qwen2_moe": _qwen_moe,
    "qwen3_moe": _qwen_moe,
    "mixtral": mixtral,
    "olmoe": _olmoe,
    "gpt_oss": _gpt_oss,
}
"""By `model_type`."""
