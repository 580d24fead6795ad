"""The numbers that make one model: read from config.json, checked, before anything is allocated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from localinfer.errors import NotSupported
from localinfer.graph.defaults import DEFAULTS, REFUSED
from localinfer.graph.fields import Fields
from localinfer.graph.rope import Rope

MOST_LAYERS = 1024
MOST_VOCABULARY = 1 << 22
MOST_CONTEXT = 1 << 24
MOST_DELTA_HEAD = 512
MOST_DELTA_CONV = 8
Activation = Literal["silu", "gelu", "gelu_tanh", "relu2"]
_ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
"""By the name of config.json: GELU is erf's, if nothing else is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Sizes and settings of one model. All are checked: dividing, multiplying and allocating by them is safe."""

    model_type: str
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_context: int
    """Longest context the model was made for, in tokens."""
    tied: bool
    """The head uses the embedding's matrix."""
    norm_eps: float
    post_norm_eps: float | None = None
    """Of the norms behind attention and MLP, where it is another one."""
    activation: Activation
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    norm_bias: bool = False
    qk_norm: bool = False
    """Queries and keys are normed, in families where config.json says so."""
    attention_scale: float
    attention_in: float = 1.0
    """Of what attention reads, behind its norm."""
    attention_out: float = 1.0
    """Of what attention gives."""
    mlp_scales: tuple[float, float] = (1.0, 1.0)
    """Of what the gates of the MLP give before they are activated, and of what the MLP gives."""
    attention_softcap: float = 0.0
    """0 is none."""
    embed_scale: float = 1.0
    residual_scale: float = 1.0
    """Of what each half of a layer adds."""
    logit_scale: float = 1.0
    logit_softcap: float = 0.0
    windows: tuple[int, ...] = field(repr=False)
    """Sliding window of each layer, in tokens; 0 is none."""
    ropes: tuple[Rope, ...] = field(repr=False)
    """RoPE frequencies of each layer."""
    conv_layers: tuple[bool, ...] = field(default=(), repr=False)
    """Of each layer, whether it has a short convolution instead of attention; empty: none has."""
    conv_length: int = 0
    """Rows that such a convolution sees."""
    conv_bias: bool = False
    delta: "DeltaSpec | None" = None
    """Of layers with a gated delta net instead of attention; None: no layer has one."""
    mamba: "MambaSpec | None" = None
    """Of layers with Mamba-2 instead of attention, or beside it; None: no layer has one."""
    mixers: tuple[str, ...] = field(default=(), repr=False)
    """What each layer is where a layer is one thing: "mamba", "attention", "mlp" or "moe"; empty: both halves are
    there."""
    shared_inner: int = 0
    """Width of the feed-forward half that stands where others have experts."""
    attention_gate: bool = False
    """The output of attention is multiplied by gates."""
    shapes: "tuple[LayerShape, ...]" = field(default=(), repr=False)
    """Of each layer where they differ; empty: all are as the numbers above say."""
    layer_inputs: int = 0
    """Values that a token gives to each layer beside the stream; 0: none."""
    layer_inputs_vocab: int = 0
    """Tokens that have such."""
    mixture: "MixtureSpec | None" = None
    """Of layers with a mixture of experts; None: no layer has one."""
    assistant: "AssistantSpec | None" = None
    """Of a model that guesses for another one and reads its cache; None: it is no such model."""
    eos_token_ids: tuple[int, ...] = ()
    bos_token_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaSpec:
    """The numbers of gated delta nets."""

    layers: tuple[bool, ...] = field(repr=False)
    """Which layers have one."""
    heads: int
    """Of queries and keys."""
    value_heads: int
    key_dim: int
    value_dim: int
    conv_length: int
    """Rows that their convolution sees."""
    beta_scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MambaSpec:
    """The numbers of Mamba-2."""

    layers: tuple[bool, ...] = field(repr=False)
    """Which layers have one."""
    heads: int
    groups: int
    state: int
    """Numbers of a column's state."""
    head_dim: int
    conv_length: int
    conv_bias: bool
    dt_limit: tuple[float, float]
    norm_groups: int
    """Of the norm of what heads give; 0: there is none."""
    norm_before_gate: bool = False
    in_scale: float = 1.0
    scales: tuple[float, ...] = (1.0,) * 5
    out_scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """The numbers of one layer where layers differ."""

    kv_heads: int
    head_dim: int
    inner: int
    """Width of the feed-forward half."""
    has_values: bool = True
    """Values have a matrix of their own, else they are the keys before these are normed."""
    kv_of: int = -1
    """The layer whose keys and values this one reads; -1: its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantSpec:
    """The numbers of a model that guesses for another one."""

    target_hidden: int
    """Width of the residual stream of the other."""
    clusters: int = 0
    """Of the vocabulary, equally large; 0: all tokens are scored."""
    chosen: int = 0
    """Clusters whose tokens are scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureSpec:
    """The numbers of a mixture of experts."""

    layers: tuple[bool, ...] = field(repr=False)
    """Which layers have one, instead of one feed-forward half for all rows."""
    experts: int
    chosen: int
    """Experts that a row goes to."""
    inner: int
    """Width of an expert."""
    routing: "Routing"
    shared_inner: int = 0
    """Width of the expert that every row goes to; 0: there is none."""
    latent: int = 0
    """Values that the chosen experts read, and give; 0: as many as the residual stream has."""
    bias: bool = False
    """Router and experts have biases."""
    choice_bias: bool = False
    """Experts are chosen by scores and a bias, in families where config.json says so."""
    clamp: tuple[float, float] | None = None
    """`Mixture.clamp`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How scores of experts become a choice and weights.

    With `groups` > 1 experts in a row are a group, and only those of the `chosen_groups` groups can be chosen whose
    best two sum to the most (DeepSeek-V3; DeepSeek, 2024). With `renormalise` the weights of a row are divided by their
    sum, `least_sum` at least, plus `added_sum`: a softmax over all that is renormalised is one over the chosen.
    """

    score: Literal["softmax", "sigmoid"] = "softmax"
    renormalise: bool = False
    least_sum: float = 0.0
    added_sum: float = 0.0
    scale: float = 1.0
    """Of all weights."""
    groups: int = 1
    chosen_groups: int = 1


class Sizes(TypedDict):
    """The fields of `ModelSpec` that every family reads alike."""

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_context: int
    norm_eps: float
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None


def read_config(values: Mapping[str, Any], model_type: str) -> Fields:
    """config.json with the defaults of its type. Raises `NotSupported` for keys that no family of ours knows how to
    run."""
    config = Fields(values, defaults=DEFAULTS[model_type])
    for name, harmless in REFUSED.items():
        if name not in values or name in DEFAULTS[model_type]:
            continue
        if not any(values[name] is one or values[name] == one for one in harmless):
            raise config.unknown(name, values[name], [one for one in harmless if one is not None])
    return config


def read_sizes(config: Fields, *, norm_eps: str = "rms_norm_eps", inner: str | None = None) -> Sizes:
    """Read and check what all families share, under the names that some give it."""
    hidden = config.integer("hidden_size", 1, 1 << 16)
    n_heads = config.integer("num_attention_heads", 1, 1 << 10)
    n_kv_heads = n_heads
    if config.has("num_key_value_heads"):
        n_kv_heads = config.integer("num_key_value_heads", 1, n_heads)
    if n_heads % n_kv_heads:
        raise config.bad("num_key_value_heads", f"a divisor of num_attention_heads ({n_heads})")
    if config.has("head_dim"):
        dim = config.integer("head_dim", 2, 1 << 12)
    elif hidden % n_heads:
        raise config.bad("hidden_size", f"a multiple of num_attention_heads ({n_heads})")
    else:
        dim = hidden // n_heads
    require_kernels(dim, n_heads // n_kv_heads)
    vocab = config.integer("vocab_size", 1, MOST_VOCABULARY)
    return Sizes(
        hidden_size=hidden,
        layers=config.integer("num_hidden_layers", 1, MOST_LAYERS),
        heads=n_heads,
        kv_heads=n_kv_heads,
        head_dim=dim,
        intermediate_size=config.integer(inner or "intermediate_size", 1, 1 << 20),
        vocab_size=vocab,
        max_context=config.integer("max_position_embeddings", 1, MOST_CONTEXT),
        norm_eps=config.number(norm_eps, 1e-12, 0.1),
        eos_token_ids=_token_ids(config, "eos_token_id", vocab),
        bos_token_id=config.integer("bos_token_id", 0, vocab - 1) if config.has("bos_token_id") else None,
    )


def read_tied(config: Fields, name: str = "tie_word_embeddings") -> bool:
    """Whether the head is the embedding's own matrix; null is no."""
    return config.has(name) and config.flag(name)


def read_activation(config: Fields, name: str) -> Activation:
    """The activation of the feed-forward half, by the name config.json gives it."""
    return config.word(name, _ACTIVATIONS)


def read_windows(config: Fields, layers: int, default: tuple[bool, ...], *, on: bool = True) -> tuple[int, ...]:
    """The window of the sliding layers and 0 for the full ones: by `layer_types`, else by `default`. Not `on`: there is
    no window, so no layer may slide."""
    types = config.words("layer_types", layers, ("full_attention", "sliding_attention"))
    sliding = default if types is None else tuple(t == "sliding_attention" for t in types)
    if not any(sliding):
        return (0,) * layers
    if not on:
        raise config.bad("use_sliding_window", "true, as layer_types asks for")
    window = config.integer("sliding_window", 1, MOST_CONTEXT)
    return tuple(window if s else 0 for s in sliding)


def read_upper_windows(config: Fields, layers: int) -> tuple[int, ...]:
    """Qwen's rule: with `use_sliding_window` and a window, the layers from `max_window_layers` on have it."""
    on = config.flag("use_sliding_window")
    first = config.integer("max_window_layers", 0, MOST_CONTEXT)
    upper = tuple(on and config.has("sliding_window") and i >= first for i in range(layers))
    return read_windows(config, layers, upper, on=on)


def read_mixture(
    config: Fields, experts: str, inner: str, *, chosen_as: str = "num_experts_per_tok", **more: Any
) -> MixtureSpec:
    """A mixture whose number of experts and their width are called `experts` and `inner`."""
    count = config.integer(experts, 1, 1 << 12)
    chosen = config.integer(chosen_as, 1, 64)
    if chosen > count:
        raise config.bad(chosen_as, f"at most {experts} ({count})")
    return MixtureSpec(experts=count, chosen=chosen, inner=config.integer(inner, 1, 1 << 20), **more)


def read_grouped(config: Fields) -> Routing:
    """DeepSeek-V3's routing: sigmoid scores, and groups of experts."""
    count, groups = config.integer("n_routed_experts", 1, 1 << 12), config.integer("n_group", 1, 64)
    if count % groups or (groups > 1 and count == groups):
        raise config.bad("n_group", f"a number of groups of two or more of n_routed_experts ({count})")
    chosen = config.integer("topk_group", 1, groups)
    if config.integer("num_experts_per_tok", 1, 64) > chosen * (count // groups):
        raise config.bad("num_experts_per_tok", f"at most the experts of topk_group ({chosen}) groups")
    return Routing(
        score="sigmoid",
        renormalise=config.flag("norm_topk_prob"),
        least_sum=1e-20,
        scale=config.number("routed_scaling_factor", 1e-6, 1e6),
        groups=groups,
        chosen_groups=chosen,
    )


def read_delta(
    config: Fields, layers: tuple[bool, ...], sizes: tuple[int, int, int, int] | None = None, beta_scale: float = 1.0
) -> DeltaSpec:
    """Gated delta nets in these layers; `sizes` stand for heads of keys and of values, and the size of each, where they
    are null."""
    names = ("linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim")
    tops = (1024, 1024, MOST_DELTA_HEAD, MOST_DELTA_HEAD)
    heads, value_heads, key_dim, value_dim = (
        sizes[i] if sizes and not config.has(name) else config.integer(name, 1, top)
        for i, (name, top) in enumerate(zip(names, tops, strict=True))
    )
    if value_heads % heads:
        raise config.bad(names[1], f"a multiple of {names[0]} ({heads})")
    for name, dim in zip(names[2:], (key_dim, value_dim), strict=True):
        if dim % 16 or not 16 <= dim <= MOST_DELTA_HEAD:
            raise NotSupported(
                f"`{name}` is {dim}, which is not supported, only multiples of 16 up to {MOST_DELTA_HEAD}",
                hint="use its GGUF file with `--backend llamacpp`",
            )
    return DeltaSpec(
        layers=layers,
        heads=heads,
        value_heads=value_heads,
        key_dim=key_dim,
        value_dim=value_dim,
        conv_length=config.integer("linear_conv_kernel_dim", 2, MOST_DELTA_CONV),
        beta_scale=beta_scale,
    )


def read_sparse_layers(config: Fields, layers: int) -> tuple[bool, ...]:
    """Qwen's rule: no mixture in layers of `mlp_only_layers`, nor in those whose number, counted from 1,
    `decoder_sparse_step` does not divide."""
    step = config.integer("decoder_sparse_step", 1, MOST_LAYERS)
    dense = config.get("mlp_only_layers")
    dense = [] if dense is None else dense
    if not isinstance(dense, list) or not all(type(i) is int and 0 <= i < layers for i in dense):
        raise config.bad("mlp_only_layers", f"a list of layers below {layers}")
    return tuple(layer not in dense and (layer + 1) % step == 0 for layer in range(layers))


def _token_ids(config: Fields, name: str, vocab: int) -> tuple[int, ...]:
    value = config.values.get(name)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if len(ids) > 256 or not all(type(i) is int and 0 <= i < vocab for i in ids):
        raise config.bad(name, f"a token below vocab_size ({vocab}), or a list of such")
    return tuple(ids)


def require_kernels(head_dim: int, group: int) -> None:
    """Raise `NotSupported` for heads of a size, or that share a key head with so many, that no kernel has."""
    hint = "use its GGUF file with `--backend llamacpp`"
    if head_dim % 16 or head_dim > 512:
        raise NotSupported(f"heads of {head_dim} values are not supported, only multiples of 16 up to 512", hint=hint)
    if group > 64:
        raise NotSupported(f"{group} query heads on one key head are not supported, only up to 64", hint=hint)
