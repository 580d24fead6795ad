"""What a model is made of: a few fused operations over named tensors. Plain frozen data, read by several executors.

`x` is the residual stream, [rows, hidden]. A linear layer computes x @ W.T + bias, W [rows, cols]. A norm that is None
leaves its input alone. Each operation answers the same questions about itself (`Facts`), so that only executors ask
which one it is.
"""

from dataclasses import dataclass
from itertools import chain

from localinfer.graph.facts import DepthwiseConv as DepthwiseConv
from localinfer.graph.facts import Facts as Facts
from localinfer.graph.facts import Linear as Linear
from localinfer.graph.facts import Norm as Norm
from localinfer.graph.facts import numbers as numbers
from localinfer.graph.recurrent import DeltaNet as DeltaNet
from localinfer.graph.recurrent import Mamba2 as Mamba2
from localinfer.graph.recurrent import ShortConv as ShortConv
from localinfer.graph.rope import Rope
from localinfer.graph.spec import Activation, Routing
from localinfer.graph.states import KvState


@dataclass(frozen=True, slots=True)
class Embed(Facts):
    """x = norm(table[token] * scale); the norm has no weight."""

    table: Linear
    scale: float = 1.0
    norm: Norm | None = None

    def not_on_cards(self) -> str:
        return "a norm of the embedding" if self.norm is not None else ""

    def fused(self) -> tuple[tuple[Linear, ...], ...]:
        return ((self.table,),)

    def traffic(self, rows: int) -> tuple[tuple[Linear, float], ...]:
        return ((self.table, min(1.0, rows / self.table.rows)),)

    def flops(self, rows: int) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Mix(Facts):
    """x = matrix([embedding_norm(embedding of the next token), stream_norm(what the model made of this one)]): where a
    head that guesses tokens ahead begins (multi-token prediction; DeepSeek-V3, 2024).

    With `back`, back(what is behind its own last norm) stands for what the model makes of the next one."""

    matrix: Linear
    embedding_norm: Norm | None = None
    stream_norm: Norm | None = None
    back: Linear | None = None

    def fused(self) -> tuple[tuple[Linear, ...], ...]:
        return ((self.matrix,),) if self.back is None else ((self.matrix,), (self.back,))

    def norms(self) -> tuple[Norm, ...]:
        return tuple(norm for norm in (self.embedding_norm, self.stream_norm) if norm is not None)


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

    def gathered(self) -> tuple[Linear, ...]:
        return (self.table,)

    def traffic(self, rows: int) -> tuple[tuple[Linear, float], ...]:
        return (self.table, min(1.0, rows / self.table.rows)), (self.project, 1.0)

    def flops(self, rows: int) -> int:
        return 2 * rows * numbers((self.project,))

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
    Qwen team, 2025); or `gate` is their matrix. What o reads is also multiplied by `out_scale`.
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
    gate: Linear | None = None
    out_scale: float = 1.0

    def fused(self) -> tuple[tuple[Linear, ...], ...]:
        return self.qkv(), (self.o,)

    def not_on_cards(self) -> str:
        return "gates or scales of what attention gives" if self.gated or self.out_scale != 1.0 else ""

    def borrows(self) -> bool:
        return self.k is None

    def qkv(self) -> tuple[Linear, ...]:
        """Those that there are of the matrices of queries, gates, keys and values."""
        return tuple(linear for linear in (self.q, self.gate, self.k, self.v) if linear is not None)

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
    a tensor [1] that x is multiplied by last of all. What down reads is multiplied by `inner_scale`.
    """

    norm: Norm | None
    gate: Linear | None
    up: Linear
    down: Linear
    activation: Activation = "silu"
    post_norm: Norm | None = None
    beside: bool = False
    scale: str = ""
    inner_scale: float = 1.0

    def not_on_cards(self) -> str:
        if self.activation == "relu2" or self.inner_scale != 1.0:
            return "relu2 or scales of MLPs"
        return ""

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

    def width(self) -> int:
        return self.gate.rows


@dataclass(frozen=True, slots=True)
class Expert:
    """down(activation(gate(x)) * up(x)), one of many; without a gate, down(activation(up(x)))."""

    gate: Linear | None
    up: Linear
    down: Linear

    def inputs(self) -> tuple[Linear, ...]:
        """The matrices that read x."""
        return (self.up,) if self.gate is None else (self.gate, self.up)

    def linears(self) -> tuple[Linear, ...]:
        return (*self.inputs(), self.down)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture(Facts):
    """x = x + the sum over the `chosen` experts of weight * expert(norm(x)), in ascending order of the experts.

    Scores are softmax or sigmoid of router(norm(x)), and the largest are chosen, of equal ones the lower; `routing`
    says more. The shared expert, if there is one, is added last for every row, times sigmoid(shared_gate(norm(x)))
    where it has a gate (Qwen1.5-MoE; Qwen team, 2024). With `latent` (into, out_of) the chosen experts read
    into(norm(x)), and out_of(their sum) is added (Nemotron 3; NVIDIA, 2025).

    With `beside_norm` x is that of the MLP before it: x = (x + beside_norm(what the MLP adds + post_norm(the sum))) *
    scale. Its router may have a norm of its own, and each expert a number that its weights are multiplied by,
    `expert_scale` (Gemma 4; Gemma Team, 2026).
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
    latent: tuple[Linear, Linear] | None = None
    router_norm: Norm | None = None
    expert_scale: str = ""
    """The name of a vector [experts]."""
    post_norm: Norm | None = None
    beside_norm: Norm | None = None
    scale: str = ""
    """Of a tensor [1], as in `GatedMLP`."""

    def fused(self) -> tuple[tuple[Linear, ...], ...]:
        every = (*self.experts, *((self.shared,) if self.shared else ()))
        around = ((linear,) for linear in self.latent or ())
        return self.unquantized(), *around, *chain(*((one.inputs(), (one.down,)) for one in every))

    def always(self) -> tuple[Linear, ...]:
        """The matrices that every row goes through."""
        return (*self.unquantized(), *(self.latent or ()), *(self.shared.linears() if self.shared else ()))

    def norms(self) -> tuple[Norm, ...]:
        every = (self.norm, self.router_norm, self.post_norm, self.beside_norm)
        return tuple(norm for norm in every if norm is not None)

    def input_norm(self) -> Norm:
        return self.norm

    def output_norm(self) -> Norm | None:
        return self.post_norm

    def reads_before(self) -> bool:
        return self.beside_norm is not None

    def joint_norm(self) -> Norm | None:
        return self.beside_norm

    def stream_scale(self) -> str:
        return self.scale

    def vectors(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        scales = ((self.expert_scale, (len(self.experts),)), (self.scale, (1,)))
        said = (*((self.choice_bias,) if self.choice_bias else ()), *scales)
        return tuple((name, shape) for name, shape in said if name)

    def unquantized(self) -> tuple[Linear, ...]:
        return (self.router,) if self.shared_gate is None else (self.router, self.shared_gate)

    def traffic(self, rows: int) -> tuple[tuple[Linear, float], ...]:
        """Each expert with the chance that one of so many rows goes there, were all experts as likely."""
        part = 1.0 - float((1.0 - self.chosen / len(self.experts)) ** rows)
        experts = ((linear, part) for one in self.experts for linear in one.linears())
        return (*((linear, 1.0) for linear in self.always()), *experts)

    def flops(self, rows: int) -> int:
        one, used = (numbers(linears) for linears in (self.experts[0].linears(), self.always()))
        return 2 * rows * (self.chosen * one + used)

    def not_on_cards(self) -> str:
        return "mixtures of experts"

    def width(self) -> int:
        up = self.experts[0].up
        inner = self.chosen * (up.rows + up.cols)  # what goes in and what is made of it
        return self.router.rows + inner + (2 * self.shared.up.rows if self.shared else 0)


@dataclass(frozen=True, slots=True)
class Head(Facts):
    """logits = table @ norm(x) * scale; with `softcap` c > 0, c * tanh(logits / c).

    With `clusters` the program scores these, and whoever runs it the tokens of the best ones."""

    norm: Norm
    table: Linear
    softcap: float = 0.0
    scale: float = 1.0
    clusters: Linear | None = None

    def fused(self) -> tuple[tuple[Linear, ...], ...]:
        return ((self.table,),) if self.clusters is None else ((self.table,), (self.clusters,))

    def norms(self) -> tuple[Norm, ...]:
        return (self.norm,)


LayerOp = Attend | GatedMLP | ShortConv | DeltaNet | Mamba2 | Mixture | LayerInput
"""What adds to the residual stream; a layer is one of them, two or three."""

Op = Embed | Mix | LayerInputs | LayerOp | Head
