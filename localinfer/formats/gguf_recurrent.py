"""What config.json of types with recurrent layers says beyond what all say, from a GGUF file's metadata."""

from collections.abc import Callable, Mapping
from typing import Any

from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_values import MOST_EXPERTS, bounded, experts, number, positive, refused

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
        **({"mtp_num_hidden_layers": 1} if _has_ahead(file, config["num_hidden_layers"]) else {}),
    }


def _has_ahead(file: GgufFile, layer: int) -> bool:
    """Whether there is one head that guesses tokens ahead, with a norm of its own."""
    count = sum(name.endswith(".nextn.eh_proj.weight") for name in file.tensors)
    return count == 1 and f"blk.{layer}.nextn.shared_head_norm.weight" in file.tensors


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


def _mamba(file: GgufFile, arch: str, names: tuple[str, ...]) -> Config:
    """The numbers of Mamba-2, `names` those of heads, their size, groups, state and convolution in config.json."""

    def said(key: str, high: int) -> int:
        return bounded(file, f"{arch}.ssm.{key}", high)

    heads, groups = said("time_step_rank", 1024), said("group_count", 1024)
    inner = said("inner_size", 1 << 20)
    if inner % heads or inner % groups:
        raise refused(file, f"{heads} heads and {groups} groups of {inner} values")
    return dict(
        zip(names, (heads, inner // heads, groups, said("state_size", 512), said("conv_kernel", 8)), strict=True)
    )


_MAMBA = ("mamba_n_heads", "mamba_d_head", "mamba_n_groups", "mamba_d_state", "mamba_d_conv")
_NEMOTRON = ("mamba_num_heads", "mamba_head_dim", "n_groups", "ssm_state_size", "conv_kernel")


def _granite(file: GgufFile, arch: str, config: Config) -> Config:
    layers, hidden = range(config["num_hidden_layers"]), config["hidden_size"]
    inner = bounded(file, f"{arch}.ssm.inner_size", 1 << 20)
    if inner % hidden:
        raise refused(file, f"Mamba-2 of {inner} values in a stream of {hidden}")
    count = bounded(file, f"{arch}.expert_count", MOST_EXPERTS, 0, low=0)
    shared = bounded(file, f"{arch}.expert_shared_feed_forward_length", 1 << 20, 0, low=0) if count else 0
    found = {
        **_mamba(file, arch, _MAMBA),
        "mamba_expand": inner // hidden,
        "mamba_conv_bias": True,
        "mamba_proj_bias": False,
        "layer_types": ["mamba" if f"blk.{i}.ssm_in.weight" in file.tensors else "attention" for i in layers],
        "position_embedding_type": "rope" if file.metadata.get(f"{arch}.rope.scaling.finetuned", True) else "nope",
        "attention_multiplier": number(file, f"{arch}.attention.scale", 0.0) or float(config["head_dim"] ** -0.5),
        "embedding_multiplier": number(file, f"{arch}.embedding_scale", 0.0) or 1.0,
        "residual_multiplier": number(file, f"{arch}.residual_scale", 0.0) or 1.0,
        "logits_scaling": positive(file, f"{arch}.logit_scale"),
        "num_local_experts": count,
        "shared_intermediate_size": shared or config["intermediate_size"],
    }
    return found | ({"num_experts_per_tok": experts(file, arch)[1]} if count else {})


def _falcon(file: GgufFile, arch: str, config: Config) -> Config:
    """Its numbers are in the weights."""
    found = _mamba(file, arch, _MAMBA)
    ones = ("embedding", "lm_head", "key", "attention_in", "attention_out", "ssm_in", "ssm_out")
    return {
        **found,
        "mamba_d_ssm": found["mamba_n_heads"] * found["mamba_d_head"],
        "mamba_conv_bias": True,
        "mamba_proj_bias": False,
        "mamba_norm_before_gate": False,
        "mlp_bias": False,
        "projectors_bias": False,
        **{f"{name}_multiplier": 1.0 for name in ones},
        "mlp_multipliers": [1.0] * 2,
        "ssm_multipliers": [1.0] * 5,
    }


_KINDS = {
    "ssm_in.weight": "linear_attention",
    "attn_q.weight": "full_attention",
    "ffn_gate_inp.weight": "moe",
    "ffn_up.weight": "mlp",
}


def _nemotron(file: GgufFile, arch: str, config: Config) -> Config:
    kinds = []
    for layer in range(config["num_hidden_layers"]):
        kind = next((kind for end, kind in _KINDS.items() if f"blk.{layer}.{end}" in file.tensors), None)
        if kind is None:
            raise refused(file, f"layer {layer} has no tensors of a kind that is known")
        kinds.append(kind)
    found: Config = {
        **_mamba(file, arch, _NEMOTRON),
        "model_type": "nemotron_h",
        "layers_block_type": kinds,
        "use_conv_bias": True,
        "use_bias": False,
        "mlp_bias": False,
        "mamba_proj_bias": False,
    }
    if "moe" not in kinds:
        return found
    count, used = experts(file, arch)
    inner = bounded(file, f"{arch}.expert_feed_forward_length", 1 << 20)
    return found | {
        "n_routed_experts": count,
        "num_experts_per_tok": used,
        "n_shared_experts": bounded(file, f"{arch}.expert_shared_count", 1, 1),
        "moe_intermediate_size": inner,
        "moe_shared_expert_intermediate_size": bounded(file, f"{arch}.expert_shared_feed_forward_length", 1 << 20),
        "moe_latent_size": bounded(file, f"{arch}.moe_latent_size", 1 << 16, 0, low=0) or None,
        "norm_topk_prob": bool(file.metadata.get(f"{arch}.expert_weights_norm", False)),
        "routed_scaling_factor": number(file, f"{arch}.expert_weights_scale", 0.0) or 1.0,
    }


RECURRENT: Mapping[str, Callable[[GgufFile, str, Config], Config]] = {
    "lfm2": _lfm2,
    "lfm2_moe": _lfm2_moe,
    "qwen3_5_text": _delta_nets,
    "qwen3_5_moe_text": _delta_nets_with_experts,
    "qwen3_next": _delta_nets_with_experts,
    "granitemoehybrid": _granite,
    "falcon_h1": _falcon,
    "nemotron_h": _nemotron,
    "nemotron_h_moe": _nemotron,
}
"""By `model_type`."""
