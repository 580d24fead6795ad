"""What GGUF files call the tensors of families with Mamba-2 layers: GGUF name → name here, and kind, as in
`gguf_forms`."""

from collections.abc import Mapping

Names = Mapping[str, tuple[str, str]]
SSM_KEYS = frozenset(
    f"ssm.{key}" for key in ("conv_kernel", "state_size", "group_count", "time_step_rank", "inner_size")
)


def ssm(block: str) -> Names:
    """Mamba-2 in the part of a layer that is called `block`."""
    return {
        "ssm_in.weight": (f"{block}.in_proj.weight", "ssm_in"),
        "ssm_conv1d.weight": (f"{block}.conv1d.weight", "ssm_conv"),
        "ssm_conv1d.bias": (f"{block}.conv1d.bias", "ssm_channels"),
        "ssm_dt.bias": (f"{block}.dt_bias", "ssm_heads"),
        "ssm_a": (f"{block}.A_log", "ssm_rates"),
        "ssm_d": (f"{block}.D", "ssm_skip"),
        "ssm_norm.weight": (f"{block}.norm.weight", "ssm_norm"),
        "ssm_out.weight": (f"{block}.out_proj.weight", "ssm_out"),
    }


_FALCON_SSM = ssm("mamba")
FALCON: Names = {
    "attn_norm.weight": ("input_layernorm.weight", "norm"),
    "attn_q.weight": ("self_attn.q_proj.weight", "q"),
    "attn_k.weight": ("self_attn.k_proj.weight", "k"),
    "attn_v.weight": ("self_attn.v_proj.weight", "kv"),
    "attn_output.weight": ("self_attn.o_proj.weight", "o"),
    **{source: one for source, one in _FALCON_SSM.items() if source != "ssm_norm.weight"},
    "ffn_norm": ("pre_ff_layernorm.weight", "norm"),  # llama.cpp wants it so
    "ffn_gate.weight": ("feed_forward.gate_proj.weight", "up"),
    "ffn_up.weight": ("feed_forward.up_proj.weight", "up"),
    "ffn_down.weight": ("feed_forward.down_proj.weight", "down"),
}
FALCON_NORM: Names = {"ssm_norm.weight": _FALCON_SSM["ssm_norm.weight"]}

_SHARED_MLP = "block_sparse_moe.shared_mlp"
GRANITE_SHARED: Names = {
    "ffn_gate_shexp.weight": (f"{_SHARED_MLP}.gate_proj.weight", "shared_up"),
    "ffn_up_shexp.weight": (f"{_SHARED_MLP}.up_proj.weight", "shared_up"),
    "ffn_down_shexp.weight": (f"{_SHARED_MLP}.down_proj.weight", "shared_down"),
}
GRANITE_DENSE: Names = {source.replace("_shexp", ""): one for source, one in GRANITE_SHARED.items()}

_EXPERTS: Names = {
    "ffn_gate_inp.weight": ("mixer.gate.weight", "router"),
    "exp_probs_b.bias": ("mixer.gate.e_score_correction_bias", "choice"),
    "ffn_up_exps.weight": ("mixer.experts.{}.up_proj.weight", "experts_up"),
    "ffn_down_exps.weight": ("mixer.experts.{}.down_proj.weight", "experts_down"),
    "ffn_up_shexp.weight": ("mixer.shared_experts.up_proj.weight", "shared_up"),
    "ffn_down_shexp.weight": ("mixer.shared_experts.down_proj.weight", "shared_down"),
}
NEMOTRON: Mapping[str, Names] = {
    "mamba": ssm("mixer"),
    "attention": {
        "attn_q.weight": ("mixer.q_proj.weight", "q"),
        "attn_k.weight": ("mixer.k_proj.weight", "k"),
        "attn_v.weight": ("mixer.v_proj.weight", "kv"),
        "attn_output.weight": ("mixer.o_proj.weight", "o"),
    },
    "mlp": {
        "ffn_up.weight": ("mixer.up_proj.weight", "up"),
        "ffn_down.weight": ("mixer.down_proj.weight", "down"),
    },
    "moe": _EXPERTS,
    "latent": {
        **_EXPERTS,
        "ffn_latent_down.weight": ("mixer.fc1_latent_proj.weight", "into"),
        "ffn_latent_up.weight": ("mixer.fc2_latent_proj.weight", "out_of"),
    },
}
"""By what a layer is."""
NEMOTRON_EXPERT_KEYS = frozenset(
    f"expert_{key}"
    for key in (
        *("count", "used_count", "feed_forward_length", "shared_feed_forward_length"),
        *("shared_count", "weights_norm", "weights_scale"),
    )
)
