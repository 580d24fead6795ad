"""What a model is made of: a few fused operations over named tensors. Plain frozen data, read by several executors.
Long because all operations stand side by side here.

`x` is the residual stream, [rows, hidden]. A linear layer computes x @ W.T + bias, W [rows, cols]. A norm that is None
leaves its input alone. Each operation answers the same questions about itself (`Facts`), so that only executors ask
which one it is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from localinfer.graph.rope import Rope
from localinfer.graph.spec import Activation, Routing
from localinfer.graph.states import KvState, SlotState, State


@dataclass(frozen=True, slots=True)
class Linear:
    """The matrix `name`.weight [rows, cols], maybe stored quantized, and with `bias` the vector `name`.bias [rows]."""

    name: str
    rows: int
    cols: int
    bias: bool = False


@dataclass(frozen=True, slots=True)
class Norm:
    """RMSNorm: x / sqrt(mean(x^2) + eps) * (w + offset), w the vector `name`.weight [size]. Gemma's offset is 1.
    Without a name there is no w: x / sqrt(mean(x^2) + eps).

    `centered` makes it LayerNorm: x - mean(x) for x. With `bias` `name`.bias [size] is added.
    """

    name: str
    size: int
    eps: float
    offset: float = 0.0
    centered: bool = False
    bias: bool = False

    def vectors(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Its tensors with their shapes."""
        if not self.name:
            return ()
        weight = (f"{self.name}.weight", (self.size,))
        return (weight, (f"{self.name}.bias", (self.size,))) if self.bias else (weight,)


@dataclass(frozen=True, slots=True)
class DepthwiseConv:
    """A causal convolution of each column: `name`.weight [channels, 1, length], with `bias` `name`.bias [channels].

    Row t of the result is the sum over j of weight[:, 0, j] * x[t - length + 1 + j]; rows before the text are zeros.
    """

    name: str
    channels: int
    length: int
    bias: bool = False

    def vectors(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Its tensors, which no quantizer touches, with their shapes."""
        taps = (f"{self.name}.weight", (self.channels, 1, self.length))
        return (taps, (f"{self.name}.bias", (self.channels,))) if self.bias else (taps,)


def numbers(linears: Iterable[Linear]) -> int:
    return sum(linear.rows * linear.cols for linear in linears)


class Facts:
    """What every operation says of itself; an operation overrides what is otherwise."""

    __slots__ = ()

    def fused(self) -> tuple[tuple[Linear, ...], ...]:
        """Its matrices in the order of use, those together that read one input and are packed as one."""
        raise NotImplementedError

    def linears(self) -> tuple[Linear, ...]:
        """Its matrices in the order of use."""
        return tuple(chain(*self.fused()))

    def norms(self) -> tuple[Norm, ...]:
        """Its norms that have weights, in the order of use."""
        return ()

    def unquantized(self) -> tuple[Linear, ...]:
        """Those of its matrices that stay floats in a quantized model: small ones that decide much."""
        return ()

    def vectors(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Its tensors that are neither matrices nor norms nor biases of matrices, with their shapes."""
        return ()

    def input_norm(self) -> Norm | None:
        """The norm of the residual stream that it reads."""
        return None

    def reads_before(self) -> bool:
        """Whether it reads the residual stream that the operation before it reads."""
        return False

    def output_norm(self) -> Norm | None:
        """The norm of what it adds to the residual stream."""
        return None

    def stream_scale(self) -> str:
        """The tensor [1] that the residual stream is multiplied by once the operation has added to it; "": there is
        none."""
        return ""

    def not_on_cards(self) -> str:
        """What of it cards have no kernels for, or ""."""
        return "numbers on the residual stream" if self.stream_scale() else ""

    def borrows(self) -> bool:
        """Whether it reads keys and values that another operation keeps."""
        return False

    def state(self) -> State | None:
        """What a sequence keeps for it from step to step."""
        return None

    def ropes(self) -> tuple[Rope, ...]:
        """The rotations of its heads."""
        return ()

    def traffic(self, rows: int) -> tuple[tuple[Linear, float], ...]:
        """Its matrices, each with the part of it that a step of so many rows reads."""
        return tuple((linear, 1.0) for linear in self.linears())

    def flops(self, rows: int) -> int:
        """Multiplications and additions of its matrices in a step of so many rows."""
        return 2 * rows * numbers(self.linears())

    def width(self) -> int:
        """Values of a row that it holds at once, beside the residual stream."""
        return 0


@dataclass(frozen=True, slots=True)
class Embed(Facts):
    """x = table[token] * scale."""

    table: Linear
    scale: float = 1.0

    def fused(self) -> tuple[tuple[Linear, ...], ...]:
        return ((self.table,),)

    def traffic(self, rows: int) -> tuple[tuple[Linear, float], ...]:
        return ((self.table, min(1.0, rows / self.table.rows)),)

    def flops(self, rows: int) -> int:
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerInputs(Facts):
    """What a token gives to each layer beside the stream: of layer i, part i of
    (norm(project(x) * project_scale) + table[token] * table_scale) * scale, x the embedding, parts of the norm's size
    (Gemma 3n; Gemma Team, 2025)."""

    table: Linear
    table_scale: float
    project: Linear
    project_scale: float
    norm: Norm
    scale: float

    def fused(self) -> tuple[tuple[Linear, ...], ...]:
        return (self.table,), (self.project,)

    def norms(self) -> tuple[Norm, ...]:
        return (self.norm,)

    def unquantized(self) -> tuple[Linear, ...]:
        return (self.project,)

    def traffic(self, rows: int) -> tuple[tuple[Linear, float], ...]:
        return (self.table, min(1.0, rows / self.table.rows)), (self.project, 1.0)

    def flops(self, rows: int) -> int:
        return 2 * rows * numbers((self.project,))

    def not_on_cards(self) -> str:
        return "inputs by layer"

    def width(self) -> int:
        return 2 * self.table.cols


@dataclass(frozen=True, slots=True, kw_only=True)
class Attend(Facts):
    """x = x + post_norm(o(attention(norm(x)))); queries and keys are normed (if at all), then rotated.

    Their norms are of each head, or, with the size of all heads together, of all at once; `norm_after_rope`: they are
    normed after they are rotated. Without `v` values are the keys before both; `v_norm` norms each head of them.
    Without `k` keys and values are those of number `kv_of` of the operations that keep some. score = scale * q.k; with
    `softcap` c > 0, c * tanh(score / c). With `window` w > 0, position p sees p-w+1..p, else 0..p. `sinks` names a
    vector [heads]: of each head one more score in the softmax, which has no value (gpt-oss; OpenAI, 2025). `gated`: q
    has twice the rows, of each head its query and then its gates, whose sigmoid multiplies what o reads (Qwen3-Next;
    Qwen team, 2025).
    """

    norm: Norm | None
    q: Linear
    k: Linear | None
    v: Linear | None
    o: Linear
    heads: int
    kv_heads: int
    head_dim: int
    rope: Rope
    scale: float
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    v_norm: Norm | None = None
    post_norm: Norm | None = None
    kv_of: int = -1
    norm_after_rope: bool = False
    softcap: float = 0.0
    window: int = 0
    sinks: str = ""
    gated: bool = False

    def fused(self) -> tuple[tuple[Linear, ...], ...]:
        return self.qkv(), (self.o,)

    def not_on_cards(self) -> str:
        if self.v is None or self.v_norm is not None:
            return "keys and values that are shared, or values that are normed,"
        return "gates of attention" if self.gated else ""

    def borrows(self) -> bool:
        return self.k is None

    def qkv(self) -> tuple[Linear, ...]:
        """Those that there are of the matrices of queries, keys and values."""
        return tuple(linear for linear in (self.q, self.k, self.v) if linear is not None)

    def norms(self) -> tuple[Norm, ...]:
        every = (self.norm, self.q_norm, self.k_norm, self.post_norm)
        return tuple(norm for norm in every if norm is not None)

    def input_norm(self) -> Norm | None:
        return self.norm

    def output_norm(self) -> Norm | None:
        return self.post_norm

    def vectors(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return ((self.sinks, (self.heads,)),) if self.sinks else ()

    def state(self) -> KvState | None:
        return None if self.k is None else KvState(self.kv_heads, self.head_dim, self.window)

    def ropes(self) -> tuple[Rope, ...]:
        return (self.rope,)

    def width(self) -> int:
        return 2 * self.q.rows + 2 * self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedMLP(Facts):
    """x = x + post_norm(down(activation(gate(norm(x))) * up(norm(x)))); without a gate, activation(up(norm(x))).

    `beside`: the x that is normed is that of the attention before it, to whose sum the result is added. `scale`:
    a tensor [1] that x is multiplied by last of all.
    """

    norm: Norm | None
    gate: Linear | None
    up: Linear
    down: Linear
    activation: Activation = "silu"
    post_norm: Norm | None = None
    beside: bool = False
    scale: str = ""

    def fused(self) -> tuple[tuple[Linear, ...], ...]:
        return (self.up,) if self.gate is None else (self.gate, self.up), (self.down,)

    def stream_scale(self) -> str:
        return self.scale

    def vectors(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return ((self.scale, (1,)),) if self.scale else ()

    def reads_before(self) -> bool:
        return self.beside

    def norms(self) -> tuple[Norm, ...]:
        return tuple(n for n in (self.norm, self.post_norm) if n is not None)

    def input_norm(self) -> Norm | None:
        return self.norm

    def output_norm(self) -> Norm | None:
        return self.post_norm

    def width(self) -> int:
        return 2 * self.up.rows


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerInput(Facts):
    """x = (x + post_norm(project(activation(gate(x)) * part))) * scale; `part` is number `layer` of `LayerInputs`,
    `scale` a tensor [1]."""

    layer: int
    gate: Linear
    project: Linear
    activation: Activation
    post_norm: Norm
    scale: str

    def fused(self) -> tuple[tuple[Linear, ...], ...]:
        return (self.gate,), (self.project,)

    def norms(self) -> tuple[Norm, ...]:
        return (self.post_norm,)

    def unquantized(self) -> tuple[Linear, ...]:
        return self.linears()

    def output_norm(self) -> Norm:
        return self.post_norm

    def stream_scale(self) -> str:
        return self.scale

    def vectors(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return ((self.scale, (1,)),)

    def not_on_cards(self) -> str:
        return "inputs by layer"

    def width(self) -> int:
        return self.gate.rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortConv(Facts):
    """x = x + out_proj(c * conv(b * u)); b, c and u are the three parts of in_proj(norm(x)) (LFM2; Liquid AI, 2025)."""

    norm: Norm
    in_proj: Linear
    conv: DepthwiseConv
    out_proj: Linear

    def fused(self) -> tuple[tuple[Linear, ...], ...]:
        return (self.in_proj,), (self.out_proj,)

    def norms(self) -> tuple[Norm, ...]:
        return (self.norm,)

    def input_norm(self) -> Norm:
        return self.norm

    def vectors(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return self.conv.vectors()

    def state(self) -> SlotState:
        return SlotState((self.conv.length - 1) * self.conv.channels, self.conv.channels)

    def not_on_cards(self) -> str:
        return "recurrent layers"

    def width(self) -> int:
        return 4 * self.conv.channels


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaNet(Facts):
    """x = x + out_proj(out_norm(o) * silu(z)), o by the gated delta rule (Yang et al., 2025); rows of `inputs` are q,
    k, v and z, those of `gates` b and a, of norm(x). With `by_key_head` the rows of each lie key head by key head.

    q, k and v go through a causal convolution of each column and SiLU; q and k of a head are divided by their length, q
    also by sqrt(key_dim). Value head h has a state S [key_dim, value_dim] and the key head h // (value_heads / heads):
    S = decay * S; S = S + k (beta * (v - k S))'; o = q S. beta = beta_scale * sigmoid(b); decay = exp(-exp(`rates`) *
    softplus(a + `dt_bias`)).
    """

    norm: Norm
    inputs: tuple[Linear, ...]
    gates: tuple[Linear, ...]
    convs: tuple[DepthwiseConv, ...]
    """That of q, k and v together, or one of each."""
    rates: str
    dt_bias: str
    out_norm: Norm
    out_proj: Linear
    heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    beta_scale: float = 1.0
    by_key_head: bool = False

    def fused(self) -> tuple[tuple[Linear, ...], ...]:
        return self.inputs, self.gates, (self.out_proj,)

    def norms(self) -> tuple[Norm, ...]:
        return (self.norm, self.out_norm)

    def unquantized(self) -> tuple[Linear, ...]:
        return self.gates

    def input_norm(self) -> Norm:
        return self.norm

    def vectors(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        taps = chain(*(conv.vectors() for conv in self.convs))
        return (*taps, (self.rates, (self.value_heads,)), (self.dt_bias, (self.value_heads,)))

    def state(self) -> SlotState:
        rows = self.value_heads * self.value_dim
        matrices = rows * self.key_dim
        kept = self.channels + self.heads * self.key_dim + rows + self.value_heads
        return SlotState((self.convs[0].length - 1) * self.channels + matrices, kept)

    def not_on_cards(self) -> str:
        return "recurrent layers"

    def width(self) -> int:
        return self.channels + 2 * self.out_proj.cols + 2 * self.value_heads

    @property
    def channels(self) -> int:
        """Columns of q, k and v together."""
        return 2 * self.heads * self.key_dim + self.value_heads * self.value_dim


@dataclass(frozen=True, slots=True)
class Expert:
    """down(activation(gate(x)) * up(x)), one of many."""

    gate: Linear
    up: Linear
    down: Linear

    def linears(self) -> tuple[Linear, Linear, Linear]:
        return self.gate, self.up, self.down


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture(Facts):
    """x = x + the sum over the `chosen` experts of weight * expert(norm(x)), in ascending order of the experts.

    Scores are softmax or sigmoid of router(norm(x)), and the largest are chosen, of equal ones the lower; `routing`
    says more. The shared expert, if there is one, is added last for every row, times sigmoid(shared_gate(norm(x)))
    where it has a gate (Qwen1.5-MoE; Qwen team, 2024).
    """

    norm: Norm
    router: Linear
    experts: tuple[Expert, ...]
    chosen: int
    routing: Routing
    choice_bias: tuple[str, tuple[int, ...]] | None = None
    """Name and shape of what is added to the scores where experts are chosen, not where they are weighed."""
    activation: Activation = "silu"
    clamp: tuple[float, float] | None = None
    """(limit, alpha): an expert is down(g * sigmoid(alpha * g) * (u + 1)) instead, g = min(gate(x), limit), u = up(x)
    within +-limit (gpt-oss; OpenAI, 2025)."""
    shared: Expert | None = None
    shared_gate: Linear | None = None

    def fused(self) -> tuple[tuple[Linear, ...], ...]:
        every = (*self.experts, *((self.shared,) if self.shared else ()))
        return self.unquantized(), *chain(*(((one.gate, one.up), (one.down,)) for one in every))

    def norms(self) -> tuple[Norm, ...]:
        return (self.norm,)

    def input_norm(self) -> Norm:
        return self.norm

    def vectors(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return () if self.choice_bias is None else (self.choice_bias,)

    def unquantized(self) -> tuple[Linear, ...]:
        return (self.router,) if self.shared_gate is None else (self.router, self.shared_gate)

    def traffic(self, rows: int) -> tuple[tuple[Linear, float], ...]:
        """Each expert with the chance that one of so many rows goes there, were all experts as likely."""
        part = 1.0 - float((1.0 - self.chosen / len(self.experts)) ** rows)
        experts = ((linear, part) for one in self.experts for linear in one.linears())
        always = (*self.unquantized(), *(self.shared.linears() if self.shared else ()))
        return (*((linear, 1.0) for linear in always), *experts)

    def flops(self, rows: int) -> int:
        always = (*self.unquantized(), *(self.shared.linears() if self.shared else ()))
        one, used = (numbers(linears) for linears in (self.experts[0].linears(), always))
        return 2 * rows * (self.chosen * one + used)

    def not_on_cards(self) -> str:
        return "mixtures of experts"

    def width(self) -> int:
        inner = self.chosen * (self.experts[0].gate.rows + self.router.cols)  # what goes in and what is made of it
        return self.router.rows + inner + (2 * self.shared.gate.rows if self.shared else 0)


@dataclass(frozen=True, slots=True)
class Head(Facts):
    """logits = table @ norm(x) * scale; with `softcap` c > 0, c * tanh(logits / c)."""

    norm: Norm
    table: Linear
    softcap: float = 0.0
    scale: float = 1.0

    def fused(self) -> tuple[tuple[Linear, ...], ...]:
        return ((self.table,),)

    def norms(self) -> tuple[Norm, ...]:
        return (self.norm,)


LayerOp = Attend | GatedMLP | ShortConv | DeltaNet | Mixture | LayerInput
"""What adds to the residual stream; a layer is two of them, or three."""

Op = Embed | LayerInputs | LayerOp | Head
