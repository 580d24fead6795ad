"""A GGUF file's metadata as config.json, and its tensors by the names of a Hugging Face directory.

Sources: the GGUF specification, the keys of the `gguf` package, and the defaults of llama.cpp's loaders.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from localinfer.errors import Corrupt, NotSupported
from localinfer.formats.checkpoint_files import listed
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_form import Form
from localinfer.formats.gguf_forms import FORMS
from localinfer.formats.gguf_gemma4_config import gemma4, passed_over
from localinfer.formats.gguf_keys import refuse_keys
from localinfer.formats.gguf_mixtures import MIXTURES, mixtral
from localinfer.formats.gguf_muse import muse, scale_norms
from localinfer.formats.gguf_recurrent import RECURRENT
from localinfer.formats.gguf_rope import DIVISORS, LONG, SHORT, rope_scaling, scaling_kind
from localinfer.formats.gguf_tensors import Renamed, renamed
from localinfer.formats.gguf_values import (
    LLAMACPP,
    ahead,
    bounded,
    each_layer,
    head_size,
    layers_of,
    number,
    positive,
    refused,
    windowed_layers,
)
from localinfer.formats.gguf_widths import widths_of

ARCHITECTURES = tuple(dict.fromkeys(form.arch for form in FORMS.values()))
Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """`config.json` (without token ids) and every tensor, in the order in which they are written."""

    config: Config
    tensors: tuple[Renamed, ...]
    notes: tuple[str, ...] = ()


def plan_import(file: GgufFile) -> Plan:
    """What to write for `file`. Raises `NotSupported` (architecture, keys, tensors) or `Corrupt` (naming the field)."""
    arch = file.text("general.architecture")
    if arch not in ARCHITECTURES:
        raise NotSupported(
            f"{file.path.name}: architecture {arch[:40]!r} is not known; known are {', '.join(ARCHITECTURES)}",
            hint=LLAMACPP,
        )
    model_type = _model_type(file, arch)
    form = FORMS[model_type]
    config = _config(file, model_type, form)
    refuse_keys(file, form, config["head_dim"], config["max_position_embeddings"], scaling_kind(file, arch))
    tensors = _tensors(file, form, config)
    read = {DIVISORS} if form.divisors or form.proportional else {SHORT, LONG} if form.longrope else set()
    if form.scale_in_norms:
        read = {name for pair in scale_norms(config["num_hidden_layers"]) for name in pair}
    copies = passed_over(file, config)
    unknown = file.tensors.keys() - {tensor.source for tensor in tensors} - read - copies
    left = ahead(file, arch) - {tensor.source for tensor in tensors}
    unknown -= left
    if unknown:
        raise refused(file, f"tensor `{min(unknown)}` is not part of a {arch} model as we know it")
    notes = {"of layers that read the keys of others": copies, "the head that guesses tokens ahead is not run": left}
    return Plan(config, tensors, tuple(f"{listed(sorted(some))}: {what}" for what, some in notes.items() if some))


def _model_type(file: GgufFile, arch: str) -> str:
    """Which of the types that share an architecture the file has."""

    def says(key: str) -> bool:
        return file.metadata.get(f"{arch}.{key}") not in (None, 0, 0.0)

    match arch:
        case "llama":
            experts = file.metadata.get("llama.expert_count")
            return "mixtral" if type(experts) is int and experts > 1 else "llama"
        case "olmo2":
            return "olmo3" if says("attention.sliding_window") else "olmo2"
        case "mistral3":
            stretched = file.metadata.get("mistral3.rope.scaling.type") == "yarn"
            return "ministral3" if stretched or says("attention.temperature_scale") else "mistral"
    return next(name for name, form in FORMS.items() if form.arch == arch)


def _config(file: GgufFile, model_type: str, form: Form) -> Config:
    arch = form.arch
    hidden = bounded(file, f"{arch}.embedding_length", 1 << 17)
    heads = bounded(file, f"{arch}.attention.head_count", 1024)
    head_dim = head_size(file, arch, max(1, hidden // heads), partial=form.partial)
    context = bounded(file, f"{arch}.context_length", 1 << 26)
    turned = bounded(file, f"{arch}.rope.dimension_count", 1024, head_dim)
    kv_heads, conv_layers = _kv_heads(file, form, heads)
    inner = f"{arch}.{_inner_key(file, arch)}"
    if form.mixers:
        _leave_out_zeros(file, inner)
    layers = layers_of(file, arch)
    config: Config = {
        "architectures": [form.class_name],
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": each_layer(file, inner, 1 << 20, 1)[0] if form.by_layer else bounded(file, inner, 1 << 20),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": context,
        "vocab_size": _rows(file, "token_embd.weight"),
        form.eps[1]: positive(file, f"{arch}.{form.eps[0]}"),
        "rope_theta": positive(file, f"{arch}.rope.freq_base", 10000.0),
        "rope_scaling": rope_scaling(file, form, turned, context),
        "tie_word_embeddings": form.no_head or "output.weight" not in file.tensors,
        "attention_bias": False,
        "torch_dtype": "bfloat16",
        form.activation[0]: form.activation[1],
    }
    for name, names in form.optional:
        config[name] = any(f"blk.0.{source}" in file.tensors for source in names)
    if conv_layers:
        config["layer_types"] = ["conv" if one else "full_attention" for one in conv_layers]
    if turned != head_dim:
        config["partial_rotary_factor"] = _part(turned, head_dim)
    if model_type in _MORE:
        config |= _MORE[model_type](file, arch, config)
    return config


def _inner_key(file: GgufFile, arch: str) -> str:
    """A model all of whose layers have experts may say no other width."""
    return next(
        (key for key in ("feed_forward_length", "expert_feed_forward_length") if f"{arch}.{key}" in file.metadata),
        "feed_forward_length",
    )


def _leave_out_zeros(file: GgufFile, key: str) -> None:
    """Of a list with a number for each layer, some of which have none, make that number."""
    found: Any = file.metadata.get(key)
    if not isinstance(found, list):
        return
    said = {one for one in found if one != 0}
    if len(said) == 1:
        file.metadata[key] = said.pop()
    elif not said:
        file.metadata[key] = 1  # of no layer


def _part(turned: int, head_dim: int) -> float:
    part = turned / head_dim
    return part if int(head_dim * part) == turned else (turned + 0.5) / head_dim


def _kv_heads(file: GgufFile, form: Form, heads: int) -> tuple[int, tuple[bool, ...]]:
    """Key heads, and which layers have none but a convolution."""
    key = f"{form.arch}.attention.head_count_kv"
    found: Any = file.metadata.get(key)
    if form.by_layer:
        return each_layer(file, key, 1024, 1, heads)[0], ()
    if not form.recurrent or not isinstance(found, list):
        return bounded(file, key, 1024, heads), ()
    layers = layers_of(file, form.arch)
    if len(found) < layers or not all(type(one) is int and 0 <= one <= 1024 for one in found):
        raise file.error(f"`{key}` does not say of each layer how many key heads it has")
    counts = set(found[:layers]) - {0}
    if len(counts) != 1:
        raise refused(file, f"`{key}` differs from layer to layer, which is not supported")
    return counts.pop(), tuple(one == 0 for one in found[:layers])


def _gemma3(file: GgufFile, arch: str, config: Config) -> Config:
    layers, heads, head_dim = config["num_hidden_layers"], config["num_attention_heads"], config["head_dim"]
    if head_size(file, arch, head_dim, "_swa") != head_dim:
        raise refused(file, "heads differ in length")
    # Of all Gemma 3 models only 27B scales its queries by hidden / heads; the file does not say.
    scalar = config["hidden_size"] // heads if layers == FORMS["gemma3_text"].wide_layers else head_dim
    window = bounded(file, f"{arch}.attention.sliding_window", 1 << 26, 0, low=0)
    return {
        "query_pre_attn_scalar": scalar,
        "sliding_window": window or 4096,
        "layer_types": windowed_layers(file, arch, layers, 6) if window else ["full_attention"] * layers,
        "rope_local_base_freq": positive(file, f"{arch}.rope.freq_base_swa", 10000.0),
        "attn_logit_softcapping": None,
        "final_logit_softcapping": _cap(file, f"{arch}.final_logit_softcapping", 0.0),
    }


def _gemma2(file: GgufFile, arch: str, config: Config) -> Config:
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    wide = layers == FORMS["gemma2"].wide_layers  # 27B alone; the file does not say
    return {
        "query_pre_attn_scalar": config["hidden_size"] // heads if wide else config["head_dim"],
        "sliding_window": bounded(file, f"{arch}.attention.sliding_window", 1 << 26, 4096),
        "layer_types": windowed_layers(file, arch, layers, 2),
        "attn_logit_softcapping": _cap(file, f"{arch}.attn_logit_softcapping", 50.0),
        "final_logit_softcapping": _cap(file, f"{arch}.final_logit_softcapping", 30.0),
    }


def _cap(file: GgufFile, key: str, default: float) -> float | None:
    cap = number(file, key, default)
    if cap < 0:
        raise file.error(f"`{key}` is {cap:g}, but must not be negative")
    return cap or None


def _granite(file: GgufFile, arch: str, config: Config) -> Config:
    head_scale = float(config["head_dim"] ** -0.5)
    return {
        "attention_multiplier": number(file, f"{arch}.attention.scale", 0.0) or head_scale,
        "embedding_multiplier": number(file, f"{arch}.embedding_scale", 0.0) or 1.0,
        "residual_multiplier": number(file, f"{arch}.residual_scale", 0.0) or 1.0,
        "logits_scaling": positive(file, f"{arch}.logit_scale"),
    }


def _smollm3(file: GgufFile, arch: str, config: Config) -> Config:
    return {"no_rope_layer_interval": FORMS["smollm3"].still_every, "use_sliding_window": False, "sliding_window": None}


def _olmo3(file: GgufFile, arch: str, config: Config) -> Config:
    base = config.pop("rope_theta")
    full = config.pop("rope_scaling") or {"rope_type": "default"}
    local = positive(file, f"{arch}.rope.freq_base_swa", base)
    return {
        "sliding_window": bounded(file, f"{arch}.attention.sliding_window", 1 << 24),
        "layer_types": windowed_layers(file, arch, config["num_hidden_layers"], 4),
        "rope_parameters": {
            "full_attention": {"rope_theta": base, **full},
            "sliding_attention": {"rope_theta": local, "rope_type": "default"},
        },
    }


def _phi3(file: GgufFile, arch: str, config: Config) -> Config:
    window = bounded(file, f"{arch}.attention.sliding_window", 1 << 26, 0, low=0)
    scaling = dict(config["rope_scaling"] or {})
    original = scaling.pop("original_max_position_embeddings", config["max_position_embeddings"])
    return {
        "sliding_window": window if 0 < window < config["max_position_embeddings"] else None,
        "original_max_position_embeddings": original,
        "rope_scaling": scaling or None,
    }


def _exaone4(file: GgufFile, arch: str, config: Config) -> Config:
    layers = config["num_hidden_layers"]
    window = bounded(
        file,
        f"{arch}.attention.sliding_window",
        1 << 24,
        4096 if layers == FORMS["exaone4"].window_layers else 0,
        low=0,
    )
    types = windowed_layers(file, arch, layers, 4) if window else ["full_attention"] * layers
    return {"sliding_window": window or None, "layer_types": types}


def _cohere2(file: GgufFile, arch: str, config: Config) -> Config:
    return {
        "sliding_window": bounded(file, f"{arch}.attention.sliding_window", 1 << 24),
        "layer_types": windowed_layers(file, arch, config["num_hidden_layers"], 4),
        "logit_scale": number(file, f"{arch}.logit_scale") or 1.0,
    }


def _ministral3(file: GgufFile, arch: str, config: Config) -> Config:
    original = bounded(file, f"{arch}.rope.scaling.original_context_length", 1 << 24, config["max_position_embeddings"])
    growth = number(file, f"{arch}.attention.temperature_scale", 0.0)
    scaling = config.pop("rope_scaling") or {"rope_type": "default", "original_max_position_embeddings": original}
    theta = config.pop("rope_theta")
    return {
        "sliding_window": None,
        "rope_parameters": {"rope_theta": theta, **scaling, "llama_4_scaling_beta": growth},
    }


def _granitemoe(file: GgufFile, arch: str, config: Config) -> Config:
    mixture = mixtral(file, arch, config)
    del mixture["sliding_window"]
    return mixture | _granite(file, arch, config)


def _none(name: str, value: Any) -> Callable[[GgufFile, str, Config], Config]:
    return lambda file, arch, config: {name: value}


_MORE: dict[str, Callable[[GgufFile, str, Config], Config]] = {
    "gemma3_text": _gemma3,
    "gemma2": _gemma2,
    "gemma4_text": gemma4,
    "muse_glimmer_text": muse,
    "granite": _granite,
    "smollm3": _smollm3,
    "olmo3": _olmo3,
    "phi3": _phi3,
    "exaone4": _exaone4,
    "cohere2": _cohere2,
    "ministral3": _ministral3,
    "mistral": _none("sliding_window", None),
    "granitemoe": _granitemoe,
    **MIXTURES,
    **RECURRENT,
    "ernie4_5": _none("use_bias", False),
    "starcoder2": lambda file, arch, config: {"use_bias": True, "sliding_window": None},
    "seed_oss": _none("attention_out_bias", False),
    "glm4": lambda file, arch, config: {"partial_rotary_factor": config.get("partial_rotary_factor", 1.0)},
}
"""What config.json of a type says beyond what all say."""


def _rows(file: GgufFile, name: str) -> int:
    tensor = file.tensors.get(name)
    if tensor is None:
        raise file.error(f"tensor `{name}` is missing")
    return tensor.shape[0]


def _tensors(file: GgufFile, form: Form, config: Config) -> tuple[Renamed, ...]:
    found = []
    for one in renamed(form, widths_of(config), lambda source, _: source in file.tensors):
        tensor = file.tensors.get(one.source)
        if tensor is None or tensor.shape != one.file_shape:
            what = "is missing" if tensor is None else f"has the shape {list(tensor.shape)}"
            raise Corrupt(
                f"{file.path}: tensor `{one.source}` {what}; the metadata asks for {list(one.file_shape)}",
                hint="download the file again, or another file of the model",
            )
        found.append(one)
    return tuple(found)
