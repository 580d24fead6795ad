"""The metadata keys of an architecture: each is read, known to change nothing, or refused by name.

The keys are those of the GGUF specification and of llama.cpp's `llama-arch.cpp`; what is left out has the default that
llama.cpp's loader gives it.
"""

from typing import Any

from localinfer.errors import NotSupported
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_form import Form

_READ = {
    *("embedding_length", "feed_forward_length", "block_count", "context_length"),
    *(f"attention.{name}" for name in ("head_count", "head_count_kv", "key_length", "value_length")),
    *("rope.dimension_count", "rope.freq_base", "rope.scale_linear", "rope.scaling.type", "rope.scaling.factor"),
}
_READ_WHEN = {"yarn": {"rope.scaling.attn_factor"}, "longrope": {"rope.scaling.attn_factor"}}
"""By how RoPE is scaled."""
_WITHOUT_EFFECT = {
    *("vocab_size", "tensor_data_layout", "attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon"),
    *("rope.scaling.finetuned", "rope.scaling.original_context_length"),
    *(f"rope.scaling.yarn_{name}" for name in ("log_multiplier", "beta_fast", "beta_slow", "attn_factor")),
}
"""What is read where it plays a part: the norm's other epsilon does not, nor YaRN's numbers without YaRN."""
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.max_alibi_bias": (0,),
    "attention.clamp_kqv": (0,),
    "attention.sliding_window": (0,),
    "attention.output_scale": (0, 1),
    "attention.value_scale": (0, 1),
    "attention.temperature_scale": (0,),
    "attention.temperature_length": (0,),
    "attn_logit_softcapping": (0,),
    "final_logit_softcapping": (0,),
    "router_logit_softcapping": (0,),
    "logit_scale": (0, 1),
    "embedding_scale": (0, 1),
    "residual_scale": (0, 1),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "expert_shared_count": (0,),
    "expert_group_count": (0,),
    "expert_group_used_count": (0,),
    "expert_feed_forward_length": (0,),
    "expert_gating_func": (0, 1),
    "expert_weights_scale": (0, 1),
    "expert_shared_feed_forward_length": (0,),
    "leading_dense_block_count": (0,),
    "nextn_predict_layers": (0,),
    "pooling_type": (0,),
    "rope.scaling.alpha": (0,),
    "rope.scaling.attn_factor": (1,),
    "use_parallel_residual": (False,),
}
"""Values that mean what a file without the key means."""
_GELU = ("gelu_pytorch_tanh", "gelu_tanh", "gelu")
_SILU = ("silu", "swish", "swiglu")


def refuse_keys(file: GgufFile, form: Form, head_dim: int, context: int, scaling: str) -> None:
    """Raise `NotSupported`, naming the first key that would change the result and is not known here. `scaling`: how
    RoPE is scaled."""
    if (kind := file.metadata.get("general.type", "model")) != "model":
        raise NotSupported(
            f"{file.path.name}: holds a {str(kind)[:40]!r}, not a model", hint="give the model's own file"
        )
    known = _READ | form.reads | _READ_WHEN.get(scaling, set()) | (_WITHOUT_EFFECT - form.neutral.keys())
    for key, value in file.metadata.items():
        name = key.removeprefix(f"{form.arch}.")
        if name == key or name in known or _is_neutral(form, name, value, head_dim, context, scaling):
            continue
        shown = str(value)[:40] if not isinstance(value, list) else f"a list of {len(value)}"
        raise NotSupported(
            f"{file.path.name}: `{key[:80]}` is {shown}, which would change the result and is not supported",
            hint="run it with `--backend llamacpp`",
        )


def _is_neutral(form: Form, name: str, value: Any, head_dim: int, context: int, scaling: str) -> bool:
    if name == "attention.scale":
        return type(value) is float and (value == 0 or abs(value * head_dim**0.5 - 1) < 1e-5)
    if name == "attention.sliding_window" and type(value) is int and value >= context:
        return True
    if name == "hidden_activation":
        return value in (_SILU if form.activation[1] == "silu" else _GELU)
    if name == "rope.scaling.yarn_ext_factor":
        return value in ((1, -1) if scaling == "yarn" else (0, -1))
    neutral = {**_NEUTRAL, **form.neutral}
    if isinstance(value, list):
        return name in neutral and bool(value) and all(item in neutral[name] for item in value)
    return name in neutral and value in neutral[name]
