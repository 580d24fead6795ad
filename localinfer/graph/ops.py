"""What a model is made of: four fused operations over named tensors. Plain frozen data, read by two executors.

`x` is the residual stream, [rows, hidden]. norm(x) is RMSNorm; a linear layer computes x @ W.T + bias, W [rows, cols].
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from localinfer.graph.rope import Rope
from localinfer.graph.spec import Activation, ModelSpec


@dataclass(frozen=True, slots=True)
class Linear:
    """The matrix `name`.weight [rows, cols], maybe stored quantized, and with `bias` the vector `name`.bias [rows]."""

    name: str
    rows: int
    cols: int
    bias: bool = False


@dataclass(frozen=True, slots=True)
class Norm:
    """RMSNorm: x / sqrt(mean(x^2) + eps) * (w + offset), w the vector `name`.weight [size]. Gemma's offset is 1."""

    name: str
    size: int
    eps: float
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Embed:
    """x = table[token] * scale."""

    table: Linear
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attend:
    """x = x + post_norm(o(attention(norm(x)))); queries and keys are normed by head (if at all), then rotated.

    score = scale * q.k; with `window` w > 0, position p sees p-w+1..p, else 0..p.
    """

    norm: Norm
    q: Linear
    k: Linear
    v: Linear
    o: Linear
    heads: int
    kv_heads: int
    head_dim: int
    rope: Rope
    scale: float
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    post_norm: Norm | None = None
    window: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedMLP:
    """x = x + post_norm(down(activation(gate(norm(x))) * up(norm(x))))."""

    norm: Norm
    gate: Linear
    up: Linear
    down: Linear
    activation: Activation = "silu"
    post_norm: Norm | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """logits = table @ norm(x); with `softcap` c > 0, c * tanh(logits / c)."""

    norm: Norm
    table: Linear
    softcap: float = 0.0


Op = Embed | Attend | GatedMLP | Head


@dataclass(frozen=True, slots=True)
class Graph:
    """The operations in the order they run: Embed, then Attend and GatedMLP a layer, then Head."""

    spec: ModelSpec
    ops: tuple[Op, ...] = field(repr=False)

    def linears(self) -> Iterator[Linear]:
        """Every matrix once, in the order of use; a tied head is the embedding's own matrix."""
        seen: set[str] = set()
        for op in self.ops:
            for linear in _linears(op):
                if linear.name not in seen:
                    seen.add(linear.name)
                    yield linear

    def norms(self) -> Iterator[Norm]:
        """Every norm, in the order of use."""
        for op in self.ops:
            match op:
                case Attend(norm=norm, q_norm=q_norm, k_norm=k_norm, post_norm=post_norm):
                    yield from (n for n in (norm, q_norm, k_norm, post_norm) if n is not None)
                case GatedMLP(norm=norm, post_norm=post_norm):
                    yield from (n for n in (norm, post_norm) if n is not None)
                case Head(norm=norm):
                    yield norm

    def vectors(self) -> Iterator[tuple[str, int]]:
        """Every norm weight and bias as (tensor name, size)."""
        for norm in self.norms():
            yield f"{norm.name}.weight", norm.size
        for linear in self.linears():
            if linear.bias:
                yield f"{linear.name}.bias", linear.rows

    def parameters(self) -> int:
        """How many numbers the model holds."""
        return sum(m.rows * m.cols for m in self.linears()) + sum(size for _, size in self.vectors())


def _linears(op: Op) -> tuple[Linear, ...]:
    match op:
        case Embed(table=table) | Head(table=table):
            return (table,)
        case Attend(q=q, k=k, v=v, o=o):
            return (q, k, v, o)
        case GatedMLP(gate=gate, up=up, down=down):
            return (gate, up, down)
