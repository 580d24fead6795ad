"""What GGUF files call the tensors of a layer, and the metadata keys that types share: tables for `gguf_forms`.

Source: the tensor names of the `gguf` package.
"""

from collections.abc import Mapping

Names = Mapping[str, tuple[str, str]]
"""Tensors of a layer: GGUF name → name in a Hugging Face directory (`{}`: the number of an expert), and kind."""

ATTENTION: Names = {
    "attn_q.weight": ("self_attn.q_proj.weight", "q"),
    "attn_k.weight": ("self_attn.k_proj.weight", "k"),
    "attn_v.weight": ("self_attn.v_proj.weight", "kv"),
    "attn_output.weight": ("self_attn.o_proj.weight", "o"),
}
MLP: Names = {
    "ffn_gate.weight": ("mlp.gate_proj.weight", "up"),
    "ffn_up.weight": ("mlp.up_proj.weight", "up"),
    "ffn_down.weight": ("mlp.down_proj.weight", "down"),
}
NORMS: Names = {
    "attn_norm.weight": ("input_layernorm.weight", "norm"),
    "ffn_norm.weight": ("post_attention_layernorm.weight", "norm"),
}
AFTER: Names = {
    "post_attention_norm.weight": ("post_attention_layernorm.weight", "norm"),
    "post_ffw_norm.weight": ("post_feedforward_layernorm.weight", "norm"),
}
GEMMA_NORMS: Names = {
    "attn_norm.weight": ("input_layernorm.weight", "norm"),
    **AFTER,
    "ffn_norm.weight": ("pre_feedforward_layernorm.weight", "norm"),
}
HEAD_NORMS: Names = {
    "attn_q_norm.weight": ("self_attn.q_norm.weight", "head"),
    "attn_k_norm.weight": ("self_attn.k_norm.weight", "head"),
}
WIDE_NORMS: Names = {
    "attn_q_norm.weight": ("self_attn.q_norm.weight", "q_norm"),
    "attn_k_norm.weight": ("self_attn.k_norm.weight", "k_norm"),
}
QKV_BIAS: Names = {
    "attn_q.bias": ("self_attn.q_proj.bias", "q_bias"),
    "attn_k.bias": ("self_attn.k_proj.bias", "k_bias"),
    "attn_v.bias": ("self_attn.v_proj.bias", "kv_bias"),
}
O_BIAS: Names = {"attn_output.bias": ("self_attn.o_proj.bias", "bias")}
MLP_BIAS: Names = {
    "ffn_gate.bias": ("mlp.gate_proj.bias", "up_bias"),
    "ffn_up.bias": ("mlp.up_proj.bias", "up_bias"),
    "ffn_down.bias": ("mlp.down_proj.bias", "bias"),
}
LLAMA: Names = {**NORMS, **ATTENTION, **MLP}
STARCODER2: Names = {
    **NORMS,
    **ATTENTION,
    **QKV_BIAS,
    **O_BIAS,
    "attn_norm.bias": ("input_layernorm.bias", "norm"),
    "ffn_norm.bias": ("post_attention_layernorm.bias", "norm"),
    "ffn_up.weight": ("mlp.c_fc.weight", "up"),
    "ffn_up.bias": ("mlp.c_fc.bias", "up_bias"),
    "ffn_down.weight": ("mlp.c_proj.weight", "down"),
    "ffn_down.bias": ("mlp.c_proj.bias", "bias"),
}
GATE_UP: Names = {
    "ffn_up.weight": ("mlp.gate_up_proj.weight", "gate_up"),
    "ffn_down.weight": ("mlp.down_proj.weight", "down"),
}
GLM4: Names = {
    **NORMS,
    **ATTENTION,
    **GATE_UP,
    "post_attention_norm.weight": ("post_self_attn_layernorm.weight", "norm"),
    "post_ffw_norm.weight": ("post_mlp_layernorm.weight", "norm"),
}
PHI3: Names = {
    **NORMS,
    "attn_qkv.weight": ("self_attn.qkv_proj.weight", "qkv"),
    "attn_output.weight": ("self_attn.o_proj.weight", "o"),
    **GATE_UP,
}
EXPERTS: Names = {
    "ffn_gate_inp.weight": ("mlp.gate.weight", "router"),
    "ffn_gate_exps.weight": ("mlp.experts.{}.gate_proj.weight", "experts_up"),
    "ffn_up_exps.weight": ("mlp.experts.{}.up_proj.weight", "experts_up"),
    "ffn_down_exps.weight": ("mlp.experts.{}.down_proj.weight", "experts_down"),
}
GRANITE_EXPERTS: Names = {
    source: (name.replace("mlp.gate.", "mlp.router.").replace("mlp.", "block_sparse_moe."), kind)
    for source, (name, kind) in EXPERTS.items()
}
GPT_OSS: Names = {
    "attn_norm.weight": ("input_layernorm.weight", "norm"),
    "post_attention_norm.weight": ("post_attention_layernorm.weight", "norm"),
    **ATTENTION,
    **QKV_BIAS,
    **O_BIAS,
    "attn_sinks.weight": ("self_attn.sinks", "sinks"),
    **EXPERTS,
    "ffn_gate_inp.weight": ("mlp.router.weight", "router"),
    "ffn_gate_inp.bias": ("mlp.router.bias", "choice"),
    "ffn_gate_exps.bias": ("mlp.experts.{}.gate_proj.bias", "experts_up_bias"),
    "ffn_up_exps.bias": ("mlp.experts.{}.up_proj.bias", "experts_up_bias"),
    "ffn_down_exps.bias": ("mlp.experts.{}.down_proj.bias", "bias"),
}
SHARED: Names = {
    "ffn_gate_inp_shexp.weight": ("mlp.shared_expert_gate.weight", "shared_gate"),
    "ffn_gate_shexp.weight": ("mlp.shared_expert.gate_proj.weight", "shared_up"),
    "ffn_up_shexp.weight": ("mlp.shared_expert.up_proj.weight", "shared_up"),
    "ffn_down_shexp.weight": ("mlp.shared_expert.down_proj.weight", "shared_down"),
}
SHARED_EXPERTS: Names = {
    "ffn_gate_shexp.weight": ("mlp.shared_experts.gate_proj.weight", "shared_up"),
    "ffn_up_shexp.weight": ("mlp.shared_experts.up_proj.weight", "shared_up"),
    "ffn_down_shexp.weight": ("mlp.shared_experts.down_proj.weight", "shared_down"),
}
ERNIE_CHOICE: Names = {"exp_probs_b.bias": ("mlp.moe_statics.e_score_correction_bias", "choice_row")}
GLM_CHOICE: Names = {"exp_probs_b.bias": ("mlp.gate.e_score_correction_bias", "choice")}
MIXTRAL: Names = {
    **NORMS,
    **ATTENTION,
    "ffn_gate_inp.weight": ("block_sparse_moe.gate.weight", "router"),
    "ffn_gate_exps.weight": ("block_sparse_moe.experts.{}.w1.weight", "experts_up"),
    "ffn_up_exps.weight": ("block_sparse_moe.experts.{}.w3.weight", "experts_up"),
    "ffn_down_exps.weight": ("block_sparse_moe.experts.{}.w2.weight", "experts_down"),
}
LFM2: Names = {
    "attn_norm.weight": ("operator_norm.weight", "norm"),
    "ffn_norm.weight": ("ffn_norm.weight", "norm"),
    **ATTENTION,
    "attn_output.weight": ("self_attn.out_proj.weight", "o"),
    "attn_q_norm.weight": ("self_attn.q_layernorm.weight", "head"),
    "attn_k_norm.weight": ("self_attn.k_layernorm.weight", "head"),
    "ffn_gate.weight": ("feed_forward.w1.weight", "up"),
    "ffn_up.weight": ("feed_forward.w3.weight", "up"),
    "ffn_down.weight": ("feed_forward.w2.weight", "down"),
}
LFM2_CONV: Names = {
    "shortconv.in_proj.weight": ("conv.in_proj.weight", "conv_in"),
    "shortconv.conv.weight": ("conv.conv.weight", "conv"),
    "shortconv.out_proj.weight": ("conv.out_proj.weight", "conv_out"),
}
SIGMOID_EXPERTS: Names = {
    "ffn_gate_inp.weight": ("feed_forward.gate.weight", "router"),
    "exp_probs_b.bias": ("feed_forward.expert_bias", "choice"),
    "ffn_gate_exps.weight": ("feed_forward.experts.{}.w1.weight", "experts_up"),
    "ffn_up_exps.weight": ("feed_forward.experts.{}.w3.weight", "experts_up"),
    "ffn_down_exps.weight": ("feed_forward.experts.{}.w2.weight", "experts_down"),
}
QWEN_NORMS: Names = {
    "attn_norm.weight": ("input_layernorm.weight", "norm"),
    "post_attention_norm.weight": ("post_attention_layernorm.weight", "norm"),
}
GATED_ATTENTION: Names = {**ATTENTION, "attn_q.weight": ("self_attn.q_proj.weight", "gated_q"), **HEAD_NORMS}
RECURRENCE: Names = {
    "ssm_conv1d.weight": ("linear_attn.conv1d.weight", "delta_conv"),
    "ssm_dt.bias": ("linear_attn.dt_bias", "delta_heads"),
    "ssm_a": ("linear_attn.A_log", "delta_rates"),
    "ssm_norm.weight": ("linear_attn.norm.weight", "delta_norm"),
    "ssm_out.weight": ("linear_attn.out_proj.weight", "delta_out"),
}
DELTA: Names = {
    "attn_qkv.weight": ("linear_attn.in_proj_qkv.weight", "delta_qkv"),
    "attn_gate.weight": ("linear_attn.in_proj_z.weight", "delta_z"),
    "ssm_beta.weight": ("linear_attn.in_proj_b.weight", "delta_gate"),
    "ssm_alpha.weight": ("linear_attn.in_proj_a.weight", "delta_gate"),
    **RECURRENCE,
}
FUSED_DELTA: Names = {
    "ssm_in.weight": ("linear_attn.in_proj_qkvz.weight", "delta_qkvz"),
    "ssm_ba.weight": ("linear_attn.in_proj_ba.weight", "delta_gates"),
    **RECURRENCE,
}
AHEAD: Names = {
    "nextn.eh_proj.weight": ("fc.weight", "mix"),
    "nextn.enorm.weight": ("pre_fc_norm_embedding.weight", "norm"),
    "nextn.hnorm.weight": ("pre_fc_norm_hidden.weight", "norm"),
    "nextn.shared_head_norm.weight": ("norm.weight", "norm"),
}
DELTA_KEYS = frozenset(
    (
        *("ssm.conv_kernel", "ssm.state_size", "ssm.group_count", "ssm.time_step_rank", "ssm.inner_size"),
        *("full_attention_interval", "rope.dimension_sections", "nextn_predict_layers"),
    )
)
NORM = ("output_norm.weight", "model.norm.weight", "norm")
EXPERT_KEYS = frozenset(("expert_count", "expert_used_count", "expert_feed_forward_length"))
SHARED_KEYS = frozenset(("expert_shared_count", "expert_shared_feed_forward_length", "leading_dense_block_count"))
GROUP_KEYS = frozenset(("expert_group_count", "expert_group_used_count"))
WEIGHT_KEYS = frozenset(("expert_weights_norm", "expert_weights_scale"))
WINDOW_KEYS = frozenset(("attention.sliding_window", "attention.sliding_window_pattern"))
