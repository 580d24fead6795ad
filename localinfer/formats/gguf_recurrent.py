"""What config.json of types with recurrent layers says beyond what all say, from a GGUF file's metadata."""

from collections.abc import Callable, Mapping
from typing import Any

from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_values import bounded, experts, refused

Config = dict[str, Any]


def _short_convolutions(file: GgufFile, arch: str, config: Config) -> Config:
    return {
        "layer_types": config.get("layer_types", ["full_attention"] * config["num_hidden_layers"]),
        "conv_L_cache": bounded(file, f"{arch}.shortconv.l_cache", 16, low=2),
        "conv_bias": False,
    }


def _lfm2(file: GgufFile, arch: str, config: Config) -> Config:
    return {**_short_convolutions(file, arch, config), "block_auto_adjust_ff_dim": False}


def _lfm2_moe(file: GgufFile, arch: str, config: Config) -> Config:
    count, used = experts(file, arch)
    return {
        **_short_convolutions(file, arch, config),
        "num_experts": count,
        "num_experts_per_tok": used,
        "moe_intermediate_size": bounded(file, f"{arch}.expert_feed_forward_length", 1 << 20),
        "num_dense_layers": bounded(file, f"{arch}.leading_dense_block_count", 1024, 0, low=0),
        "use_expert_bias": True,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
    }


def _delta_nets(file: GgufFile, arch: str, config: Config) -> Config:
    def said(key: str, high: int) -> int:
        return bounded(file, f"{arch}.ssm.{key}", high)

    key_dim, heads, value_heads = said("state_size", 512), said("group_count", 1024), said("time_step_rank", 1024)
    inner = said("inner_size", 1 << 20)
    if inner % value_heads or value_heads % heads:
        raise refused(file, f"{heads} key heads and {value_heads} value heads of {inner} values")
    every = bounded(file, f"{arch}.full_attention_interval", 1 << 16, 4)
    layers = range(config["num_hidden_layers"])
    return {
        "layer_types": ["linear_attention" if (layer + 1) % every else "full_attention" for layer in layers],
        "linear_conv_kernel_dim": said("conv_kernel", 8),
        "linear_num_key_heads": heads,
        "linear_num_value_heads": value_heads,
        "linear_key_head_dim": key_dim,
        "linear_value_head_dim": inner // value_heads,
        "partial_rotary_factor": config.get("partial_rotary_factor", 1.0),
    }


def _delta_nets_with_experts(file: GgufFile, arch: str, config: Config) -> Config:
    count, used = experts(file, arch)
    inner = bounded(file, f"{arch}.expert_feed_forward_length", 1 << 20)
    found = {
        **_delta_nets(file, arch, config),
        "num_experts": count,
        "num_experts_per_tok": used,
        "moe_intermediate_size": inner,
        "shared_expert_intermediate_size": bounded(file, f"{arch}.expert_shared_feed_forward_length", 1 << 20, inner),
    }
    if arch == "qwen3next":
        found |= {"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []}
    return found


RECURRENT: Mapping[str, Callable[[GgufFile, str, Config], Config]] = {
    "lfm2": _lfm2,
    "lfm2_moe": _lfm2_moe,
    "qwen3_5_text": _delta_nets,
    "qwen3_5_moe_text": _delta_nets_with_experts,
    "qwen3_next": _delta_nets_with_experts,
}
"""By `model_type`."""
