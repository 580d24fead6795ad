"""What a program means, in float64: the ops one after the other, on one whole sequence, nothing fused or cached."""

from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from tests.native.matrices import Doubles, Matrix, random_matrix


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A tiny model; sizes are awkward on purpose: padded panels, odd vocabulary."""

    hidden: int = 96
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    ffn: int = 160
    vocab: int = 77
    layers: int = 2
    kind: str = "int4"
    table_kind: str = "int8"
    group: int = 32
    bias: bool = False
    qk_norm: bool = False
    post_norm: bool = False
    activation: str = "silu"
    windows: tuple[int, ...] = (0,)
    softcap: float = 0.0
    embed_scale: float = 1.0
    eps: float = 1e-5
    pre_norm: bool = True
    layer_norm: bool = False
    """All norms of the stream are LayerNorm, with biases."""
    norm_all_heads: bool = False
    norm_after_rope: bool = False
    rotary: int = 0
    """Values of a head that are turned; 0: all."""
    growth: float = 0.0
    """Of queries, with the logarithm of each 8 positions."""
    score_cap: float = 0.0
    gated: bool = True
    mlp_bias: bool = False
    beside: bool = False


@dataclass(frozen=True)
class Layer:
    norm: NDArray[np.float32]
    qkv: tuple[Matrix, Matrix, Matrix]
    o: Matrix
    mlp_norm: NDArray[np.float32]
    gate: Matrix
    up: Matrix
    down: Matrix
    window: int
    extra: dict[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    shape: Shape
    embed: Matrix
    layers: tuple[Layer, ...]
    norm: NDArray[np.float32]
    head: Matrix
    inv_freq: Doubles
    norm_bias: NDArray[np.float32]
    """Zeros where norms have none."""


def random_layer(rng: Generator, s: Shape, window: int) -> Layer:
    def matrix(rows: int, cols: int) -> Matrix:
        return random_matrix(rng, s.kind, rows, cols, s.group)

    def vector(n: int, center: float = 1.0) -> NDArray[np.float32]:
        return (center + 0.3 * rng.normal(size=n)).astype(np.float32)

    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    extra: dict[str, NDArray[np.float32]] = {}
    if s.bias:
        extra |= {"bias": vector(q + 2 * kv, 0.0), "o_bias": vector(s.hidden, 0.0)}
    if s.qk_norm:
        sizes = (q, kv) if s.norm_all_heads else (s.head_dim, s.head_dim)
        extra |= {"q_norm": vector(sizes[0]), "k_norm": vector(sizes[1])}
    if s.layer_norm:
        extra |= {"norm_bias": vector(s.hidden, 0.0), "mlp_norm_bias": vector(s.hidden, 0.0)}
    if s.mlp_bias:
        extra |= {name: vector(s.ffn, 0.0) for name in ("gate_bias", "up_bias")}
        extra |= {"down_bias": vector(s.hidden, 0.0)}
    if s.post_norm:
        extra |= {"post_norm": vector(s.hidden), "mlp_post_norm": vector(s.hidden)}
    return Layer(
        norm=vector(s.hidden),
        qkv=(matrix(q, s.hidden), matrix(kv, s.hidden), matrix(kv, s.hidden)),
        o=matrix(s.hidden, q),
        mlp_norm=vector(s.hidden),
        gate=matrix(s.ffn, s.hidden),
        up=matrix(s.ffn, s.hidden),
        down=matrix(s.hidden, s.ffn),
        window=window,
        extra=extra,
    )


def random_model(shape: Shape, seed: int = 0) -> Model:
    rng = default_rng(seed)
    s = shape
    return Model(
        shape=s,
        embed=random_matrix(rng, s.table_kind, s.vocab, s.hidden, s.group),
        layers=tuple(random_layer(rng, s, s.windows[i % len(s.windows)]) for i in range(s.layers)),
        norm=(1 + 0.3 * rng.normal(size=s.hidden)).astype(np.float32),
        head=random_matrix(rng, s.table_kind, s.vocab, s.hidden, s.group),
        inv_freq=10000.0 ** -(np.arange((s.rotary or s.head_dim) // 2) * 2.0 / (s.rotary or s.head_dim)),
        norm_bias=(0.3 * default_rng(seed + 1).normal(size=s.hidden) * s.layer_norm).astype(np.float32),
    )


def rounded(x: Doubles, group: int, most: int = 127) -> Doubles:
    """`x` as integers up to `most` with one scale a group along the last axis, and back."""
    groups = x.reshape(*x.shape[:-1], -1, group)
    scale = np.abs(groups).max(axis=-1, keepdims=True) / most
    safe = np.where(scale == 0, 1, scale)
    back: Doubles = (np.rint(groups / safe) * scale).reshape(x.shape)
    return back


def rounded_to_4(x: Doubles) -> Doubles:
    """`x` as integers up to 7 with one float16 scale for 32 values, and back."""
    groups = x.reshape(*x.shape[:-1], -1, 32)
    most = np.abs(groups).max(axis=-1, keepdims=True)
    scale = (most / 7).astype(np.float16).astype(np.float64)
    back: Doubles = (np.rint(groups * 7 / np.where(most == 0, 1, most)) * scale).reshape(x.shape)
    return back


def turned(x: Doubles) -> Doubles:
    """The Walsh-Hadamard transform, as long as divides the last axis, not scaled."""
    n = x.shape[-1] & -x.shape[-1]
    matrix: Doubles = np.ones((1, 1))
    while len(matrix) < n:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    back: Doubles = (x.reshape(*x.shape[:-1], -1, n) @ matrix).reshape(x.shape)
    return back


def linear(matrix: Matrix, x: Doubles) -> Doubles:
    if matrix.kind != "bf16":
        x = rounded(x, matrix.group, 32512 if matrix.kind == "int8a16" else 127)
    y: Doubles = x @ matrix.values.T
    return y


def rms_norm(x: Doubles, weight: NDArray[np.float32], eps: float) -> Doubles:
    y: Doubles = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight
    return y


def stream_norm(x: Doubles, weight: NDArray[np.float32], bias: NDArray[np.float32] | float, s: Shape) -> Doubles:
    if s.layer_norm:
        x = x - x.mean(axis=-1, keepdims=True)
    y: Doubles = rms_norm(x, weight, s.eps) + bias
    return y


def rope(x: Doubles, inv_freq: Doubles, growth: float = 0.0) -> Doubles:
    """x [n, heads, d] at positions 0 .. n-1; what has no frequency is left alone."""
    at = np.arange(len(x))[:, None, None]
    angle, factor = at * inv_freq, 1 + growth * np.log1p(at // 8)
    half = len(inv_freq)
    a, b, rest = np.split(x, [half, 2 * half], axis=-1)
    cos, sin = np.cos(angle) * factor, np.sin(angle) * factor
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)


def attention(q: Doubles, k: Doubles, v: Doubles, kv_bits: int, window: int, cap: float = 0.0) -> Doubles:
    """q [n, heads, d], k and v [n, kv_heads, d] → [n, heads * d]; every value as the cache keeps it."""
    n, heads, d = q.shape
    if kv_bits == 8:
        q, k, v = rounded(turned(q), d) / (d & -d), rounded(turned(k), d), rounded(v, d)
    elif kv_bits == 4:
        q, k, v = rounded(turned(q), d) / (d & -d), rounded_to_4(turned(k)), rounded_to_4(v)
    else:
        k, v = k.astype(np.float16).astype(np.float64), v.astype(np.float16).astype(np.float64)
    shared = heads // k.shape[1]
    scores = np.einsum("ihd,jhd->hij", q, np.repeat(k, shared, axis=1)) / np.sqrt(d)
    scores = cap * np.tanh(scores / cap) if cap else scores
    ahead = np.arange(n)[None, :] - np.arange(n)[:, None]
    hidden = (ahead > 0) | ((ahead <= -window) if window else False)
    scores = np.where(hidden, -np.inf, scores)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    out: Doubles = np.einsum("hij,jhd->ihd", p, np.repeat(v, shared, axis=1)).reshape(n, heads * d)
    return out


def activate(x: Doubles, activation: str) -> Doubles:
    if activation == "silu":
        y: Doubles = x / (1 + np.exp(-x))
        return y
    z: Doubles = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return z


def run_layer(layer: Layer, s: Shape, x: Doubles, inv_freq: Doubles, kv_bits: int) -> Doubles:
    n = len(x)
    extra = layer.extra
    before = x
    h = stream_norm(x, layer.norm, extra.get("norm_bias", 0.0), s) if s.pre_norm else x
    whole = np.concatenate([linear(m, h) for m in layer.qkv], axis=1) + extra.get("bias", 0.0)
    cut = np.cumsum([s.heads * s.head_dim, s.kv_heads * s.head_dim])
    parts = np.split(whole, cut, axis=1)
    if s.norm_all_heads:
        parts[:2] = [rms_norm(part, extra[f"{name}_norm"], s.eps) for part, name in zip(parts, "qk", strict=False)]
    q, k, v = (part.reshape(n, -1, s.head_dim) for part in parts)

    def by_head(q: Doubles, k: Doubles) -> tuple[Doubles, Doubles]:
        if not s.qk_norm or s.norm_all_heads:
            return q, k
        return rms_norm(q, extra["q_norm"], s.eps), rms_norm(k, extra["k_norm"], s.eps)

    q, k = (q, k) if s.norm_after_rope else by_head(q, k)
    q, k = rope(q, inv_freq, s.growth), rope(k, inv_freq)
    q, k = by_head(q, k) if s.norm_after_rope else (q, k)
    y = attention(q, k, v, kv_bits, layer.window, s.score_cap)
    y = linear(layer.o, y) + extra.get("o_bias", 0.0)
    x = x + (rms_norm(y, extra["post_norm"], s.eps) if s.post_norm else y)
    seen = before if s.beside else x
    h = stream_norm(seen, layer.mlp_norm, extra.get("mlp_norm_bias", 0.0), s) if s.pre_norm else seen
    up = linear(layer.up, h) + extra.get("up_bias", 0.0)
    if s.gated:
        up = activate(linear(layer.gate, h) + extra.get("gate_bias", 0.0), s.activation) * up
    else:
        up = activate(up, s.activation)
    y = linear(layer.down, up) + extra.get("down_bias", 0.0)
    return x + (rms_norm(y, extra["mlp_post_norm"], s.eps) if s.post_norm else y)


def embedded(model: Model, tokens: NDArray[np.int32]) -> Doubles:
    return model.embed.values[tokens] * model.shape.embed_scale


def through(model: Model, x: Doubles, kv_bits: int, layers: int) -> Doubles:
    """The residual stream `x` of one sequence that starts at position 0, after the first `layers` layers."""
    for layer in model.layers[:layers]:
        x = run_layer(layer, model.shape, x, model.inv_freq, kv_bits)
    return x


def headed(model: Model, x: Doubles) -> Doubles:
    s = model.shape
    y = linear(model.head, stream_norm(x, model.norm, model.norm_bias, s))
    return s.softcap * np.tanh(y / s.softcap) if s.softcap else y


def logits(model: Model, tokens: NDArray[np.int32], kv_bits: int) -> Doubles:
    """[n, vocab] of one sequence that starts at position 0."""
    return headed(model, through(model, embedded(model, tokens), kv_bits, len(model.layers)))
