"""The decoder layer that Llama and its descendants share, with the names their checkpoints give its tensors."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from localinfer.graph.graph import Graph
from localinfer.graph.ops import (
    Attend,
    DeltaNet,
    DepthwiseConv,
    Embed,
    Expert,
    GatedMLP,
    Head,
    LayerInputs,
    LayerOp,
    Linear,
    Mamba2,
    Mixture,
    Norm,
)
from localinfer.graph.spec import LayerShape, ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureStyle:
    """What the tensors of a mixture are called."""

    block: str = "mlp"
    """Empty: they are the layer's own."""
    router: str = "gate"
    expert: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    """An empty name of the gates: there are none."""
    shared: str = "shared_expert"
    shared_gate: str = "shared_expert_gate"
    """Empty: the shared expert has no gate."""
    choice_bias: str = ""
    """Empty: there is none."""
    choice_bias_is_row: bool = False
    """It is a matrix of one row."""
    latent: tuple[str, str] = ("fc1_latent_proj", "fc2_latent_proj")
    """Around experts that are not as wide as the stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How the layers of a family differ from Llama's. Norms are named; an empty name is none."""

    norm: str = "input_layernorm"
    post_norm: str = ""
    mlp_norm: str = "post_attention_layernorm"
    mlp_post_norm: str = ""
    offset: float = 0.0
    centered: bool = False
    """All norms of the residual stream are LayerNorm."""
    qk_norm: Literal["", "head", "after rope", "all"] = ""
    """Queries and keys are normed: each head, each head after it is rotated, or all heads at once."""
    q_norm: str = "q_norm"
    k_norm: str = "k_norm"
    norms_values: bool = False
    """Each head of the values is normed, without a weight."""
    o: str = "o_proj"
    gate: str = "gate_proj"
    """Empty: the MLP is not gated."""
    up: str = "up_proj"
    down: str = "down_proj"
    mlp_block: str = "mlp"
    beside: bool = False
    """Attention and MLP read the same residual stream."""
    scale: str = ""
    """Of the stream at the end of each layer."""
    final_norm: str = "model.norm"
    attention_gate: str = ""
    """The matrix of the gates behind attention; empty: they are rows of q, where there are any."""
    sinks: bool = False
    """Heads have attention sinks."""
    mixture: MixtureStyle = MixtureStyle()


LLAMA = Style()


def attend(spec: ModelSpec, layer: int, style: Style = LLAMA) -> Attend:
    """Attention of one layer."""
    at, shape = f"model.layers.{layer}", shape_of(spec, layer)
    q_rows, kv_rows = spec.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    own = shape.kv_of < 0

    def head_norm(name: str, rows: int) -> Norm | None:
        size = rows if style.qk_norm == "all" else shape.head_dim
        if not name:
            return Norm("", size, spec.norm_eps) if style.qk_norm else None
        return Norm(f"{at}.self_attn.{name}", size, spec.norm_eps, style.offset) if style.qk_norm else None

    def keys_or_values(name: str) -> Linear:
        return Linear(f"{at}.self_attn.{name}", kv_rows, spec.hidden_size, spec.qkv_bias)

    gates_in_q = spec.attention_gate and not style.attention_gate
    return Attend(
        norm=_norm(spec, style, at, style.norm),
        q=Linear(f"{at}.self_attn.q_proj", q_rows * (2 if gates_in_q else 1), spec.hidden_size, spec.qkv_bias),
        k=keys_or_values("k_proj") if own else None,
        v=keys_or_values("v_proj") if own and shape.has_values else None,
        o=Linear(f"{at}.self_attn.{style.o}", spec.hidden_size, q_rows, spec.o_bias),
        heads=spec.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        rope=spec.ropes[layer],
        scale=spec.attention_scale,
        q_norm=head_norm(style.q_norm, q_rows),
        k_norm=head_norm(style.k_norm, kv_rows) if own else None,
        v_norm=Norm("", shape.head_dim, spec.norm_eps) if own and style.norms_values else None,
        kv_of=shape.kv_of,
        post_norm=_post_norm(spec, style, at, style.post_norm),
        norm_after_rope=style.qk_norm == "after rope",
        softcap=spec.attention_softcap,
        window=spec.windows[layer],
        sinks=f"{at}.self_attn.sinks" if style.sinks else "",
        gated=spec.attention_gate,
        gate=Linear(f"{at}.self_attn.{style.attention_gate}", q_rows, spec.hidden_size)
        if style.attention_gate
        else None,
    )


def delta_net(
    spec: ModelSpec,
    layer: int,
    style: Style = LLAMA,
    *,
    inputs: tuple[tuple[str, int], ...],
    gates: tuple[str, ...],
    out: tuple[str, str] = ("norm", "out_proj"),
    out_eps: float | None = None,
    by_key_head: bool = False,
    conv_each: bool = False,
) -> DeltaNet:
    """A gated delta net instead of attention. `inputs` are names and rows of its matrices, `gates` the names of those
    of b and a, `out` those of norm and matrix behind it; with `conv_each` q, k and v have a convolution each."""
    of = spec.delta
    assert of is not None
    at = f"model.layers.{layer}.linear_attn"
    keys, values = of.heads * of.key_dim, of.value_heads * of.value_dim
    each = {"q_conv1d": keys, "k_conv1d": keys, "v_conv1d": values}
    sizes = each if conv_each else {"conv1d": 2 * keys + values}
    return DeltaNet(
        norm=_stream_norm(spec, style, f"model.layers.{layer}.{style.norm}"),
        inputs=tuple(Linear(f"{at}.{name}", rows, spec.hidden_size) for name, rows in inputs),
        gates=tuple(Linear(f"{at}.{name}", 2 * of.value_heads // len(gates), spec.hidden_size) for name in gates),
        convs=tuple(DepthwiseConv(f"{at}.{name}", size, of.conv_length) for name, size in sizes.items()),
        rates=f"{at}.A_log",
        dt_bias=f"{at}.dt_bias",
        out_norm=Norm(f"{at}.{out[0]}", of.value_dim, spec.norm_eps if out_eps is None else out_eps),
        out_proj=Linear(f"{at}.{out[1]}", spec.hidden_size, of.value_heads * of.value_dim),
        heads=of.heads,
        value_heads=of.value_heads,
        key_dim=of.key_dim,
        value_dim=of.value_dim,
        beta_scale=of.beta_scale,
        by_key_head=by_key_head,
    )


def mamba2(spec: ModelSpec, layer: int, style: Style = LLAMA, *, block: str = "mamba", beside: bool = False) -> Mamba2:
    """Mamba-2 instead of attention, or beside it."""
    of = spec.mamba
    assert of is not None
    at, hidden = f"model.layers.{layer}.{block}", spec.hidden_size
    inner, states = of.heads * of.head_dim, of.groups * of.state
    rows = {"c": states, "b": states, "x": inner, "z": inner}
    norm = _stream_norm(spec, style, f"model.layers.{layer}.{style.norm}")
    return Mamba2(
        norm=replace(norm, scale=of.in_scale),
        inputs=tuple(Linear(f"{at}.in_{part}", size, hidden) for part, size in rows.items()),
        dt=Linear(f"{at}.in_dt", of.heads, hidden),
        conv=DepthwiseConv(f"{at}.conv1d", inner + 2 * states, of.conv_length, of.conv_bias),
        rates=f"{at}.A_log",
        dt_bias=f"{at}.dt_bias",
        skip=f"{at}.D",
        out_norm=Norm(f"{at}.norm", inner, spec.norm_eps) if of.norm_groups else None,
        out_proj=Linear(f"{at}.out_proj", hidden, inner),
        heads=of.heads,
        groups=of.groups,
        state_dim=of.state,
        head_dim=of.head_dim,
        dt_limit=of.dt_limit,
        norm_groups=of.norm_groups,
        norm_before_gate=of.norm_before_gate,
        scales=of.scales,
        out_scale=of.out_scale,
        beside=beside,
    )


def gated_mlp(spec: ModelSpec, layer: int, style: Style = LLAMA) -> GatedMLP:
    """The feed-forward half of one layer."""
    at, hidden, inner, bias = f"model.layers.{layer}", spec.hidden_size, shape_of(spec, layer).inner, spec.mlp_bias
    block = f"{at}.{style.mlp_block}"
    return GatedMLP(
        norm=_norm(spec, style, at, style.norm if style.beside else style.mlp_norm),
        gate=Linear(f"{block}.{style.gate}", inner, hidden, bias) if style.gate else None,
        up=Linear(f"{block}.{style.up}", inner, hidden, bias),
        down=Linear(f"{block}.{style.down}", hidden, inner, bias),
        activation=spec.activation,
        post_norm=_post_norm(spec, style, at, style.mlp_post_norm),
        beside=style.beside,
        scale=f"{at}.{style.scale}" if style.scale else "",
    )


def shape_of(spec: ModelSpec, layer: int) -> LayerShape:
    """The numbers of one layer."""
    if spec.shapes:
        return spec.shapes[layer]
    return LayerShape(kv_heads=spec.kv_heads, head_dim=spec.head_dim, inner=spec.intermediate_size)


def mixture(spec: ModelSpec, layer: int, style: Style = LLAMA) -> Mixture:
    """The feed-forward half of one layer as a mixture."""
    of, called = spec.mixture, style.mixture
    assert of is not None
    at, hidden = f"model.layers.{layer}.{called.block}".removesuffix("."), spec.hidden_size

    def expert(name: str, inner: int, bias: bool, width: int = hidden) -> Expert:
        gate, up, down = called.expert
        return Expert(
            Linear(f"{name}.{gate}", inner, width, bias) if gate else None,
            Linear(f"{name}.{up}", inner, width, bias),
            Linear(f"{name}.{down}", width, inner, bias),
        )

    each, (into, out_of) = of.latent or hidden, called.latent
    shape = (1, of.experts) if called.choice_bias_is_row else (of.experts,)
    norm = _norm(spec, style, f"model.layers.{layer}", style.mlp_norm)
    assert norm is not None
    return Mixture(
        norm=norm,
        router=Linear(f"{at}.{called.router}", of.experts, hidden, of.bias),
        experts=tuple(expert(f"{at}.experts.{number}", of.inner, of.bias, each) for number in range(of.experts)),
        chosen=of.chosen,
        routing=of.routing,
        choice_bias=(f"{at}.{called.choice_bias}", shape) if called.choice_bias else None,
        activation=spec.activation,
        clamp=of.clamp,
        shared=expert(f"{at}.{called.shared}", of.shared_inner, False) if of.shared_inner else None,
        shared_gate=Linear(f"{at}.{called.shared_gate}", 1, hidden) if of.shared_inner and called.shared_gate else None,
        latent=(Linear(f"{at}.{into}", each, hidden), Linear(f"{at}.{out_of}", hidden, each)) if of.latent else None,
    )


def feed_forward(spec: ModelSpec, layer: int, style: Style = LLAMA) -> GatedMLP | Mixture:
    """A mixture in the layers that have one, else one half for all rows."""
    has_experts = spec.mixture is not None and spec.mixture.layers[layer]
    return mixture(spec, layer, style) if has_experts else gated_mlp(spec, layer, style)


def decoder(
    spec: ModelSpec,
    style: Style = LLAMA,
    layers: Iterable[tuple[LayerOp, ...]] | None = None,
    inputs: LayerInputs | None = None,
) -> Graph:
    """Embedding, `layers` (attention, then the MLP, if nothing else is said), final norm and head; a tied head is the
    embedding's own matrix.

    What all layers add may be scaled by one number r (`residual_scale`): the stream is then held divided by r, and the
    epsilon of its norms by r². A norm gives the same of both.
    """
    if layers is None:
        layers = ((attend(spec, i, style), feed_forward(spec, i, style)) for i in range(spec.layers))
    table = Linear("model.embed_tokens", spec.vocab_size, spec.hidden_size)
    head = table if spec.tied else Linear("lm_head", spec.vocab_size, spec.hidden_size)
    final = _stream_norm(spec, style, style.final_norm)
    return Graph(
        spec,
        Embed(table, spec.embed_scale / spec.residual_scale),
        tuple(layers),
        Head(final, head, spec.logit_softcap, spec.logit_scale),
        inputs,
    )


def _norm(spec: ModelSpec, style: Style, at: str, name: str) -> Norm | None:
    return _stream_norm(spec, style, f"{at}.{name}") if name else None


def _post_norm(spec: ModelSpec, style: Style, at: str, name: str) -> Norm | None:
    norm = _norm(spec, style, at, name)
    return norm if norm is None or spec.post_norm_eps is None else replace(norm, eps=spec.post_norm_eps)


def _stream_norm(spec: ModelSpec, style: Style, name: str) -> Norm:
    eps = spec.norm_eps / spec.residual_scale**2
    return Norm(name, spec.hidden_size, eps, style.offset, style.centered, spec.norm_bias)
