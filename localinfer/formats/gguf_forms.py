"""What GGUF files call the tensors of each model type, and what llama.cpp's converter changes in them.

Sources: the tensor names of the `gguf` package, and llama.cpp's converter and loaders. The converter reorders the rows
of q and k of some architectures for its own RoPE, adds 1 to Gemma's and Qwen's norm weights, stacks the matrices of
experts, and puts the value heads of delta nets in another order. Long because each type has its form here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from localinfer.formats import gguf_gemma4 as of_gemma4
from localinfer.formats import gguf_mamba as mamba

Names = Mapping[str, tuple[str, str]]
"""Tensors of a layer: GGUF name → name in a Hugging Face directory (`{}`: the number of an expert), and kind."""

_ATTENTION: Names = {
    "attn_q.weight": ("self_attn.q_proj.weight", "q"),
    "attn_k.weight": ("self_attn.k_proj.weight", "k"),
    "attn_v.weight": ("self_attn.v_proj.weight", "kv"),
    "attn_output.weight": ("self_attn.o_proj.weight", "o"),
}
_MLP: Names = {
    "ffn_gate.weight": ("mlp.gate_proj.weight", "up"),
    "ffn_up.weight": ("mlp.up_proj.weight", "up"),
    "ffn_down.weight": ("mlp.down_proj.weight", "down"),
}
_NORMS: Names = {
    "attn_norm.weight": ("input_layernorm.weight", "norm"),
    "ffn_norm.weight": ("post_attention_layernorm.weight", "norm"),
}
_AFTER: Names = {
    "post_attention_norm.weight": ("post_attention_layernorm.weight", "norm"),
    "post_ffw_norm.weight": ("post_feedforward_layernorm.weight", "norm"),
}
_GEMMA_NORMS: Names = {
    "attn_norm.weight": ("input_layernorm.weight", "norm"),
    **_AFTER,
    "ffn_norm.weight": ("pre_feedforward_layernorm.weight", "norm"),
}
_HEAD_NORMS: Names = {
    "attn_q_norm.weight": ("self_attn.q_norm.weight", "head"),
    "attn_k_norm.weight": ("self_attn.k_norm.weight", "head"),
}
_WIDE_NORMS: Names = {
    "attn_q_norm.weight": ("self_attn.q_norm.weight", "q_norm"),
    "attn_k_norm.weight": ("self_attn.k_norm.weight", "k_norm"),
}
_QKV_BIAS: Names = {
    "attn_q.bias": ("self_attn.q_proj.bias", "q_bias"),
    "attn_k.bias": ("self_attn.k_proj.bias", "k_bias"),
    "attn_v.bias": ("self_attn.v_proj.bias", "kv_bias"),
}
_O_BIAS: Names = {"attn_output.bias": ("self_attn.o_proj.bias", "bias")}
_MLP_BIAS: Names = {
    "ffn_gate.bias": ("mlp.gate_proj.bias", "up_bias"),
    "ffn_up.bias": ("mlp.up_proj.bias", "up_bias"),
    "ffn_down.bias": ("mlp.down_proj.bias", "bias"),
}
_LLAMA: Names = {**_NORMS, **_ATTENTION, **_MLP}
_STARCODER2: Names = {
    **_NORMS,
    **_ATTENTION,
    **_QKV_BIAS,
    **_O_BIAS,
    "attn_norm.bias": ("input_layernorm.bias", "norm"),
    "ffn_norm.bias": ("post_attention_layernorm.bias", "norm"),
    "ffn_up.weight": ("mlp.c_fc.weight", "up"),
    "ffn_up.bias": ("mlp.c_fc.bias", "up_bias"),
    "ffn_down.weight": ("mlp.c_proj.weight", "down"),
    "ffn_down.bias": ("mlp.c_proj.bias", "bias"),
}
_GATE_UP: Names = {
    "ffn_up.weight": ("mlp.gate_up_proj.weight", "gate_up"),
    "ffn_down.weight": ("mlp.down_proj.weight", "down"),
}
_GLM4: Names = {
    **_NORMS,
    **_ATTENTION,
    **_GATE_UP,
    "post_attention_norm.weight": ("post_self_attn_layernorm.weight", "norm"),
    "post_ffw_norm.weight": ("post_mlp_layernorm.weight", "norm"),
}
_PHI3: Names = {
    **_NORMS,
    "attn_qkv.weight": ("self_attn.qkv_proj.weight", "qkv"),
    "attn_output.weight": ("self_attn.o_proj.weight", "o"),
    **_GATE_UP,
}
_EXPERTS: Names = {
    "ffn_gate_inp.weight": ("mlp.gate.weight", "router"),
    "ffn_gate_exps.weight": ("mlp.experts.{}.gate_proj.weight", "experts_up"),
    "ffn_up_exps.weight": ("mlp.experts.{}.up_proj.weight", "experts_up"),
    "ffn_down_exps.weight": ("mlp.experts.{}.down_proj.weight", "experts_down"),
}
_GRANITE_EXPERTS: Names = {
    source: (name.replace("mlp.gate.", "mlp.router.").replace("mlp.", "block_sparse_moe."), kind)
    for source, (name, kind) in _EXPERTS.items()
}
_SHARED: Names = {
    "ffn_gate_inp_shexp.weight": ("mlp.shared_expert_gate.weight", "shared_gate"),
    "ffn_gate_shexp.weight": ("mlp.shared_expert.gate_proj.weight", "shared_up"),
    "ffn_up_shexp.weight": ("mlp.shared_expert.up_proj.weight", "shared_up"),
    "ffn_down_shexp.weight": ("mlp.shared_expert.down_proj.weight", "shared_down"),
}
_MIXTRAL: Names = {
    **_NORMS,
    **_ATTENTION,
    "ffn_gate_inp.weight": ("block_sparse_moe.gate.weight", "router"),
    "ffn_gate_exps.weight": ("block_sparse_moe.experts.{}.w1.weight", "experts_up"),
    "ffn_up_exps.weight": ("block_sparse_moe.experts.{}.w3.weight", "experts_up"),
    "ffn_down_exps.weight": ("block_sparse_moe.experts.{}.w2.weight", "experts_down"),
}
_LFM2: Names = {
    "attn_norm.weight": ("operator_norm.weight", "norm"),
    "ffn_norm.weight": ("ffn_norm.weight", "norm"),
    **_ATTENTION,
    "attn_output.weight": ("self_attn.out_proj.weight", "o"),
    "attn_q_norm.weight": ("self_attn.q_layernorm.weight", "head"),
    "attn_k_norm.weight": ("self_attn.k_layernorm.weight", "head"),
    "ffn_gate.weight": ("feed_forward.w1.weight", "up"),
    "ffn_up.weight": ("feed_forward.w3.weight", "up"),
    "ffn_down.weight": ("feed_forward.w2.weight", "down"),
}
_LFM2_CONV: Names = {
    "shortconv.in_proj.weight": ("conv.in_proj.weight", "conv_in"),
    "shortconv.conv.weight": ("conv.conv.weight", "conv"),
    "shortconv.out_proj.weight": ("conv.out_proj.weight", "conv_out"),
}
_SIGMOID_EXPERTS: Names = {
    "ffn_gate_inp.weight": ("feed_forward.gate.weight", "router"),
    "exp_probs_b.bias": ("feed_forward.expert_bias", "choice"),
    "ffn_gate_exps.weight": ("feed_forward.experts.{}.w1.weight", "experts_up"),
    "ffn_up_exps.weight": ("feed_forward.experts.{}.w3.weight", "experts_up"),
    "ffn_down_exps.weight": ("feed_forward.experts.{}.w2.weight", "experts_down"),
}
_QWEN_NORMS: Names = {
    "attn_norm.weight": ("input_layernorm.weight", "norm"),
    "post_attention_norm.weight": ("post_attention_layernorm.weight", "norm"),
}
_GATED_ATTENTION: Names = {**_ATTENTION, "attn_q.weight": ("self_attn.q_proj.weight", "gated_q"), **_HEAD_NORMS}
_RECURRENCE: Names = {
    "ssm_conv1d.weight": ("linear_attn.conv1d.weight", "delta_conv"),
    "ssm_dt.bias": ("linear_attn.dt_bias", "delta_heads"),
    "ssm_a": ("linear_attn.A_log", "delta_rates"),
    "ssm_norm.weight": ("linear_attn.norm.weight", "delta_norm"),
    "ssm_out.weight": ("linear_attn.out_proj.weight", "delta_out"),
}
_DELTA: Names = {
    "attn_qkv.weight": ("linear_attn.in_proj_qkv.weight", "delta_qkv"),
    "attn_gate.weight": ("linear_attn.in_proj_z.weight", "delta_z"),
    "ssm_beta.weight": ("linear_attn.in_proj_b.weight", "delta_gate"),
    "ssm_alpha.weight": ("linear_attn.in_proj_a.weight", "delta_gate"),
    **_RECURRENCE,
}
_FUSED_DELTA: Names = {
    "ssm_in.weight": ("linear_attn.in_proj_qkvz.weight", "delta_qkvz"),
    "ssm_ba.weight": ("linear_attn.in_proj_ba.weight", "delta_gates"),
    **_RECURRENCE,
}
_AHEAD: Names = {
    "nextn.eh_proj.weight": ("fc.weight", "mix"),
    "nextn.enorm.weight": ("pre_fc_norm_embedding.weight", "norm"),
    "nextn.hnorm.weight": ("pre_fc_norm_hidden.weight", "norm"),
    "nextn.shared_head_norm.weight": ("norm.weight", "norm"),
}
_DELTA_KEYS = frozenset(
    (
        *("ssm.conv_kernel", "ssm.state_size", "ssm.group_count", "ssm.time_step_rank", "ssm.inner_size"),
        *("full_attention_interval", "rope.dimension_sections", "nextn_predict_layers"),
    )
)
_NORM = ("output_norm.weight", "model.norm.weight", "norm")
_EXPERT_KEYS = frozenset(("expert_count", "expert_used_count", "expert_feed_forward_length"))
_WINDOW_KEYS = frozenset(("attention.sliding_window", "attention.sliding_window_pattern"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How llama.cpp has one model type. `arch` is its name for it, which several types may share."""

    arch: str
    class_name: str
    layer: Names = field(default_factory=lambda: _LLAMA)
    recurrent: Names = field(default_factory=dict)
    """Of layers with a convolution or a delta net instead of attention."""
    dense: Names = field(default_factory=dict)
    """Of the first layers, which have no experts."""
    mixers: Mapping[str, Names] = field(default_factory=dict)
    """By what a layer is, where each is one thing, what it has beside `layer`."""
    ahead: Names = field(default_factory=dict)
    """Of the head that guesses tokens ahead, which is a layer more: what it has beside `layer`."""
    inputs: Names = field(default_factory=dict)
    """Of layers that get an input of their own."""
    input_tables: tuple[tuple[str, str, str], ...] = ()
    """What makes these inputs, as `final`."""
    by_layer: bool = False
    """Key heads, sizes of heads and widths may differ from layer to layer."""
    unscaled: bool = False
    """Scores are not scaled."""
    raw_tokens: bool = False
    """A tokenizer that falls back to bytes keeps its merges."""
    proportional: bool = False
    """`rope_freqs.weight` says which pairs of full layers stand still."""
    folded: bool = False
    """The family's numbers are in its weights."""
    may_be_still: bool = False
    """Nothing may be rotated."""
    optional: tuple[tuple[str, Names], ...] = ()
    """Fields of config.json, and the biases that are there, all of them, where it is true."""
    final: tuple[tuple[str, str, str], ...] = (_NORM,)
    rotated: bool = False
    """llama.cpp turns neighbours together, the original halves: the rows of q and k are in another order."""
    plus_one: bool = False
    """Norm weights are stored with 1 added."""
    eps: tuple[str, str] = ("attention.layer_norm_rms_epsilon", "rms_norm_eps")
    """The metadata key, and the field of config.json."""
    activation: tuple[str, str] = ("hidden_act", "silu")
    own_head: bool = False
    """llama.cpp wants `output.weight` even where it is the embedding."""
    no_head: bool = False
    """llama.cpp knows no head but the embedding."""
    square: bool = False
    """llama.cpp wants heads that are together as wide as the stream."""
    ungrouped: bool = False
    """llama.cpp wants a key head for each query head."""
    divisors: bool = False
    """`rope_freqs.weight` is read."""
    longrope: bool = False
    """Factors of frequencies for short and for long contexts are read."""
    one_base: bool = False
    """llama.cpp turns sliding layers by the base of the full ones, whatever the file says."""
    still_every: int = 0
    """Every n-th layer rotates nothing, in llama.cpp's own code."""
    still_full: bool = False
    """Where some layers have a window, those without one rotate nothing."""
    always_windows: bool = False
    """llama.cpp takes some layers for sliding ones, whatever the file says."""
    window_layers: int = 0
    """Of models with this many layers only llama.cpp reads the window; 0: of all."""
    wide_layers: int = 0
    """With this many layers the scale of scores is by the stream's width over the heads, not by a head's width."""
    logits_divided: bool = False
    """`logit_scale` divides."""
    partial: bool = False
    """A part of each head may be turned."""
    sections: bool = False
    """llama.cpp wants to know which frequencies belong to which axis of a picture."""
    tiled: bool = False
    """The value heads that share a key head do not stand together, but key heads take turns."""
    sigmoid: bool = False
    """Scores of experts are sigmoids, and the file says so."""
    reads: frozenset[str] = frozenset()
    """Metadata keys of its own."""
    neutral: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Values of keys that mean what llama.cpp does without asking."""


FORMS: dict[str, Form] = {
    "llama": Form(
        arch="llama",
        class_name="LlamaForCausalLM",
        optional=(("attention_bias", {**_QKV_BIAS, **_O_BIAS}), ("mlp_bias", _MLP_BIAS)),
        rotated=True,
        divisors=True,
    ),
    "mixtral": Form(
        arch="llama",
        class_name="MixtralForCausalLM",
        layer=_MIXTRAL,
        rotated=True,
        reads=_EXPERT_KEYS,
        neutral={"expert_weights_norm": (True,)},
    ),
    "qwen2": Form(arch="qwen2", class_name="Qwen2ForCausalLM", layer={**_LLAMA, **_QKV_BIAS}),
    "qwen3": Form(
        arch="qwen3",
        class_name="Qwen3ForCausalLM",
        layer={**_LLAMA, **_HEAD_NORMS},
    ),
    "qwen2_moe": Form(
        arch="qwen2moe",
        class_name="Qwen2MoeForCausalLM",
        layer={**_NORMS, **_ATTENTION, **_EXPERTS, **_SHARED},
        optional=(("qkv_bias", _QKV_BIAS),),
        own_head=True,
        square=True,
        reads=_EXPERT_KEYS | {"expert_shared_feed_forward_length"},
        neutral={"expert_weights_norm": (False,)},
    ),
    "qwen3_moe": Form(
        arch="qwen3moe",
        class_name="Qwen3MoeForCausalLM",
        layer={**_NORMS, **_ATTENTION, **_HEAD_NORMS, **_EXPERTS},
        reads=_EXPERT_KEYS,
        neutral={"expert_weights_norm": (True,)},
    ),
    "olmoe": Form(
        arch="olmoe",
        class_name="OlmoeForCausalLM",
        layer={**_NORMS, **_ATTENTION, **_WIDE_NORMS, **_EXPERTS},
        own_head=True,
        square=True,
        ungrouped=True,
        reads=_EXPERT_KEYS,
        neutral={"expert_weights_norm": (False,)},
    ),
    "granitemoe": Form(
        arch="granitemoe",
        class_name="GraniteMoeForCausalLM",
        logits_divided=True,
        layer={**_NORMS, **_ATTENTION, **_GRANITE_EXPERTS},
        rotated=True,
        divisors=True,
        reads=_EXPERT_KEYS | {"attention.scale", "embedding_scale", "residual_scale", "logit_scale"},
        neutral={"rope.scaling.finetuned": (True,), "expert_weights_norm": (True,)},
    ),
    "gemma3_text": Form(
        arch="gemma3",
        class_name="Gemma3ForCausalLM",
        wide_layers=62,
        layer={**_GEMMA_NORMS, **_ATTENTION, **_HEAD_NORMS, **_MLP},
        plus_one=True,
        activation=("hidden_activation", "gelu_pytorch_tanh"),
        reads=_WINDOW_KEYS
        | {
            *("rope.freq_base_swa", "rope.dimension_count_swa", "final_logit_softcapping"),
            *("attention.key_length_swa", "attention.value_length_swa"),
        },
    ),
    "gemma2": Form(
        arch="gemma2",
        class_name="Gemma2ForCausalLM",
        wide_layers=46,
        always_windows=True,
        layer={**_GEMMA_NORMS, **_ATTENTION, **_MLP},
        plus_one=True,
        activation=("hidden_activation", "gelu_pytorch_tanh"),
        no_head=True,
        reads=_WINDOW_KEYS | {"attn_logit_softcapping", "final_logit_softcapping"},
    ),
    "gemma4_text": Form(
        arch="gemma4",
        class_name="Gemma4ForCausalLM",
        layer={**_GEMMA_NORMS, **_ATTENTION, **_HEAD_NORMS, **_MLP, **of_gemma4.LAYER},
        inputs=of_gemma4.INPUTS,
        input_tables=of_gemma4.TABLES,
        activation=("hidden_activation", "gelu_pytorch_tanh"),
        always_windows=True,
        by_layer=True,
        unscaled=True,
        raw_tokens=True,
        proportional=True,
        reads=_WINDOW_KEYS | of_gemma4.KEYS,
    ),
    "granite": Form(
        arch="granite",
        class_name="GraniteForCausalLM",
        logits_divided=True,
        optional=(("attention_bias", {**_QKV_BIAS, **_O_BIAS}), ("mlp_bias", _MLP_BIAS)),
        rotated=True,
        divisors=True,
        reads=frozenset(("attention.scale", "embedding_scale", "residual_scale", "logit_scale")),
        neutral={"rope.scaling.finetuned": (True,)},  # false: nothing is rotated
    ),
    "smollm3": Form(
        arch="smollm3",
        class_name="SmolLM3ForCausalLM",
        still_every=4,
        rotated=True,
    ),
    "olmo2": Form(
        arch="olmo2",
        class_name="Olmo2ForCausalLM",
        layer={**_AFTER, **_ATTENTION, **_WIDE_NORMS, **_MLP},
        own_head=True,
        square=True,
    ),
    "olmo3": Form(
        arch="olmo2",
        class_name="Olmo3ForCausalLM",
        one_base=True,
        always_windows=True,
        layer={**_AFTER, **_ATTENTION, **_WIDE_NORMS, **_MLP},
        own_head=True,
        square=True,
        reads=_WINDOW_KEYS | {"rope.freq_base_swa"},
    ),
    "phi3": Form(
        arch="phi3",
        class_name="Phi3ForCausalLM",
        longrope=True,
        layer=_PHI3,
        square=True,
        partial=True,
        reads=frozenset(("attention.sliding_window",)),
    ),
    "exaone4": Form(
        arch="exaone4",
        class_name="Exaone4ForCausalLM",
        still_full=True,
        window_layers=64,
        layer={**_AFTER, **_ATTENTION, **_HEAD_NORMS, **_MLP},
        square=True,
        divisors=True,
        reads=_WINDOW_KEYS,
    ),
    "glm4": Form(
        arch="glm4",
        class_name="Glm4ForCausalLM",
        layer=_GLM4,
        optional=(("attention_bias", _QKV_BIAS),),
        partial=True,
    ),
    "hunyuan_v1_dense": Form(
        arch="hunyuan-dense",
        class_name="HunYuanDenseV1ForCausalLM",
        layer={
            **_LLAMA,
            "attn_q_norm.weight": ("self_attn.query_layernorm.weight", "head"),
            "attn_k_norm.weight": ("self_attn.key_layernorm.weight", "head"),
        },
    ),
    "ernie4_5": Form(arch="ernie4_5", class_name="Ernie4_5ForCausalLM"),
    "cohere2": Form(
        arch="cohere2",
        class_name="Cohere2ForCausalLM",
        still_full=True,
        always_windows=True,
        layer={"attn_norm.weight": ("input_layernorm.weight", "norm"), **_ATTENTION, **_MLP},
        eps=("attention.layer_norm_epsilon", "layer_norm_eps"),
        no_head=True,
        square=True,
        reads=_WINDOW_KEYS | {"logit_scale"},
    ),
    "starcoder2": Form(
        arch="starcoder2",
        class_name="Starcoder2ForCausalLM",
        layer=_STARCODER2,
        final=(_NORM, ("output_norm.bias", "model.norm.bias", "norm")),
        eps=("attention.layer_norm_epsilon", "norm_epsilon"),
        activation=("hidden_act", "gelu_pytorch_tanh"),
        square=True,
    ),
    "seed_oss": Form(
        arch="seed_oss",
        class_name="SeedOssForCausalLM",
        layer={
            "attn_norm.weight": ("input_layernorm.weight", "norm"),
            "post_attention_norm.weight": ("post_attention_layernorm.weight", "norm"),
            **_ATTENTION,
            **_MLP,
        },
        optional=(("attention_bias", _QKV_BIAS),),
    ),
    "mistral": Form(arch="mistral3", class_name="MistralForCausalLM", rotated=True),
    "ministral3": Form(
        arch="mistral3",
        class_name="Ministral3ForCausalLM",
        rotated=True,
        reads=frozenset(("attention.temperature_scale",)),
    ),
    "lfm2": Form(
        arch="lfm2",
        class_name="Lfm2ForCausalLM",
        layer=_LFM2,
        recurrent=_LFM2_CONV,
        final=(("token_embd_norm.weight", "model.embedding_norm.weight", "norm"),),
        eps=("attention.layer_norm_rms_epsilon", "norm_eps"),
        reads=frozenset(("shortconv.l_cache",)),
    ),
    "lfm2_moe": Form(
        arch="lfm2moe",
        class_name="Lfm2MoeForCausalLM",
        layer={**{key: value for key, value in _LFM2.items() if value[1] not in ("up", "down")}, **_SIGMOID_EXPERTS},
        recurrent=_LFM2_CONV,
        dense={key: value for key, value in _LFM2.items() if value[1] in ("up", "down")},
        final=(("token_embd_norm.weight", "model.embedding_norm.weight", "norm"),),
        eps=("attention.layer_norm_rms_epsilon", "norm_eps"),
        sigmoid=True,
        reads=_EXPERT_KEYS | {"shortconv.l_cache", "leading_dense_block_count"},
        neutral={"expert_weights_norm": (True,), "expert_gating_func": (2,)},
    ),
    "qwen3_5_text": Form(
        arch="qwen35",
        class_name="Qwen3_5ForCausalLM",
        layer={**_QWEN_NORMS, **_GATED_ATTENTION, **_MLP},
        recurrent=_DELTA,
        ahead=_AHEAD,
        plus_one=True,
        partial=True,
        sections=True,
        tiled=True,
        reads=_DELTA_KEYS,
    ),
    "qwen3_5_moe_text": Form(
        arch="qwen35moe",
        class_name="Qwen3_5MoeForCausalLM",
        layer={**_QWEN_NORMS, **_GATED_ATTENTION, **_EXPERTS, **_SHARED},
        recurrent=_DELTA,
        ahead=_AHEAD,
        plus_one=True,
        partial=True,
        sections=True,
        tiled=True,
        reads=_DELTA_KEYS | _EXPERT_KEYS | {"expert_shared_feed_forward_length"},
        neutral={"expert_weights_norm": (True,)},
    ),
    "qwen3_next": Form(
        arch="qwen3next",
        class_name="Qwen3NextForCausalLM",
        layer={**_QWEN_NORMS, **_GATED_ATTENTION, **_EXPERTS, **_SHARED},
        recurrent=_FUSED_DELTA,
        plus_one=True,
        partial=True,
        reads=_DELTA_KEYS | _EXPERT_KEYS | {"expert_shared_feed_forward_length"},
        neutral={"expert_weights_norm": (True,)},
    ),
    "granitemoehybrid": Form(
        arch="granitehybrid",
        class_name="GraniteMoeHybridForCausalLM",
        logits_divided=True,
        layer={**_NORMS, **_ATTENTION, **_GRANITE_EXPERTS, **mamba.GRANITE_SHARED},
        recurrent=mamba.ssm("mamba"),
        dense=mamba.GRANITE_DENSE,
        rotated=True,
        may_be_still=True,
        reads=_EXPERT_KEYS
        | mamba.SSM_KEYS
        | {"attention.scale", "embedding_scale", "residual_scale", "logit_scale", "rope.scaling.finetuned"}
        | {"expert_shared_feed_forward_length"},
        neutral={"expert_weights_norm": (True,)},
    ),
    "falcon_h1": Form(
        arch="falcon-h1",
        class_name="FalconH1ForCausalLM",
        layer=mamba.FALCON,
        optional=(("mamba_rms_norm", mamba.FALCON_NORM),),
        final=(("output_norm.weight", "model.final_layernorm.weight", "norm"),),
        folded=True,
        own_head=True,
        reads=mamba.SSM_KEYS,
    ),
    "nemotron_h": Form(
        arch="nemotron_h",
        class_name="NemotronHForCausalLM",
        layer={"attn_norm.weight": ("norm.weight", "norm")},
        recurrent=mamba.ssm("mixer"),
        mixers=mamba.NEMOTRON,
        eps=("attention.layer_norm_rms_epsilon", "layer_norm_epsilon"),
        activation=("mlp_hidden_act", "relu2"),
        may_be_still=True,
        reads=mamba.SSM_KEYS,
    ),
}
"""By `model_type` of config.json."""

FORMS["nemotron_h_moe"] = replace(
    FORMS["nemotron_h"],
    arch="nemotron_h_moe",
    reads=mamba.SSM_KEYS | mamba.NEMOTRON_EXPERT_KEYS | {"moe_latent_size", "nextn_predict_layers"},
    neutral={"expert_group_count": (0, 1), "expert_gating_func": (0, 2)},
)
"""Nemotron-H with experts, which has a name of its own in llama.cpp."""
