"""The metadata keys of an architecture: each is read, known to change nothing, or refused by name.

The keys are those of the GGUF specification and of llama.cpp's `llama-arch.cpp`; what is left out has the default that
llama.cpp's loader gives it.
"""

from typing import Any

from localinfer.errors import NotSupported
from localinfer.formats.gguf import GgufFile

_READ = {
    *("embedding_length", "feed_forward_length", "block_count", "context_length"),
    *(f"attention.{name}" for name in ("head_count", "head_count_kv", "key_length", "value_length")),
    *("attention.layer_norm_rms_epsilon", "rope.dimension_count", "rope.freq_base", "rope.scale_linear"),
    *("rope.scaling.type", "rope.scaling.factor"),
}
_READ_OF = {
    "gemma3": {
        *("attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa"),
        *("attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa"),
        "final_logit_softcapping",
    }
}
_WITHOUT_EFFECT = {
    *("vocab_size", "tensor_data_layout", "attention.layer_norm_epsilon"),
    *("rope.scaling.finetuned", "rope.scaling.original_context_length"),
    *(f"rope.scaling.yarn_{name}" for name in ("log_multiplier", "beta_fast", "beta_slow", "attn_factor")),
}
"""What plays no part in these architectures, or only with a scaling that is refused."""
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
    "expert_shared_feed_forward_length": (0,),
    "leading_dense_block_count": (0,),
    "nextn_predict_layers": (0,),
    "pooling_type": (0,),
    "rope.scaling.alpha": (0,),
    "rope.scaling.attn_factor": (1,),
    "rope.scaling.yarn_ext_factor": (0, -1),
    "use_parallel_residual": (False,),
}
"""Values that mean what a file without the key means."""
_ACTIVATIONS = {"gemma3": ("gelu_pytorch_tanh", "gelu_tanh", "gelu")}
_SILU = ("silu", "swish", "swiglu")


def refuse_keys(file: GgufFile, arch: str, head_dim: int, context: int) -> None:
    """Raise `NotSupported`, naming the first key of `arch` that would change the result and is not known here."""
    if (kind := file.metadata.get("general.type", "model")) != "model":
        raise NotSupported(
            f"{file.path.name}: holds a {str(kind)[:40]!r}, not a model", hint="give the model's own file"
        )
    known = _READ | _READ_OF.get(arch, set()) | _WITHOUT_EFFECT
    for key, value in file.metadata.items():
        name = key.removeprefix(f"{arch}.")
        if name == key or name in known or _is_neutral(arch, name, value, head_dim, context):
            continue
        shown = str(value)[:40] if not isinstance(value, list) else f"a list of {len(value)}"
        raise NotSupported(
            f"{file.path.name}: `{key[:80]}` is {shown}, which would change the result and is not supported",
            hint="run it with `--backend llamacpp`",
        )


def _is_neutral(arch: str, name: str, value: Any, head_dim: int, context: int) -> bool:
    if name == "attention.scale":
        return type(value) is float and (value == 0 or abs(value * head_dim**0.5 - 1) < 1e-5)
    if name == "attention.sliding_window" and type(value) is int and value >= context:
        return True
    if name == "hidden_activation":
        return value in _ACTIVATIONS.get(arch, _SILU)
    if isinstance(value, list):
        return name in _NEUTRAL and bool(value) and all(item in _NEUTRAL[name] for item in value)
    return name in _NEUTRAL and value in _NEUTRAL[name]
