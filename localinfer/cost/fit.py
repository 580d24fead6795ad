"""What a model will take in memory, from its config.json and the headers of its weights alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from localinfer.cost.machine import available_bytes
from localinfer.graph.ops import Attend, Embed, GatedMLP, Graph, Head, Linear
from localinfer.graph.weights import Checkpoint

DEFAULT_CONTEXT = 8192
"""Context when none is asked for, unless the model's own is shorter; as the engine takes it."""

PANEL_ROWS = 32
KV_BLOCK = 32
STEP_ROWS = 256
"""Rows of activations that exist at once."""

RUNTIME_BYTES = 45 * 10**6
"""Python and the libraries, measured and rounded up."""

TOKEN_BYTES = 1200
"""What the tokenizer keeps for each entry of the vocabulary, measured."""


Form = Callable[[str], tuple[int, int]]
"""(bits, group) of the matrix of this name."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Bytes that a run will take, and whether they are there."""

    total_bytes: int
    weights_bytes: int
    """Packed for the kernels, padding included."""
    kv_bytes: int
    """Keys and values of all tokens that the cache holds."""
    other_bytes: int
    """Activations, logits, RoPE tables, the largest matrices while they are packed, and the program itself."""
    free_bytes: int
    context: int
    """Tokens of one sequence."""

    @property
    def fits(self) -> bool:
        return self.total_bytes <= self.free_bytes


def estimate(
    path: Path,
    *,
    context: int | None = None,
    parallel: int = 1,
    kv_tokens: int | None = None,
    kv_bits: int | Sequence[int] = 8,
    free_bytes: int | None = None,
    form: Form | None = None,
) -> Fit:
    """What the checkpoint at `path` needs; reads no weights.

    `context` None is what the engine takes then, and `kv_tokens` None the context for each of `parallel` sequences;
    `free_bytes` None asks the machine. `kv_bits` may be given layer by
    layer; with 4 for all, layers that will keep 8 bits are not known yet and come on top. `form` stands for the
    widths that matrices would have after quantizing.
    Raises what opening a checkpoint raises: `NotFound`, `NotSupported`, `Corrupt`.
    """
    checkpoint = Checkpoint(path)
    spec = checkpoint.spec
    tokens = context or min(spec.max_context, DEFAULT_CONTEXT)
    each = -(-tokens // KV_BLOCK)
    blocks = parallel * each if kv_tokens is None else -(-kv_tokens // KV_BLOCK)
    weights = weights_bytes(checkpoint, form)
    kv = blocks * KV_BLOCK * spec.kv_bytes_per_token(kv_bits)
    other = _activations(checkpoint.graph, parallel) + _ropes(checkpoint.graph, tokens) + _loading(checkpoint, form)
    other += RUNTIME_BYTES + TOKEN_BYTES * spec.vocab_size
    free = available_bytes() if free_bytes is None else free_bytes
    return Fit(weights + kv + other, weights, kv, other, free, tokens)


def context_of(path: Path, asked: int | None) -> int:
    """Tokens of context that the engine takes for the checkpoint at `path`: `asked`, or else its own choice."""
    return asked or min(Checkpoint(path).spec.max_context, DEFAULT_CONTEXT)


def packed_bytes(linear: Linear, bits: int, group: int) -> int:
    """Bytes of a matrix in panels of 32 rows: its values, and one float16 scale a row and group."""
    rows = -(-linear.rows // PANEL_ROWS) * PANEL_ROWS
    row = linear.cols * 2 if bits == 16 else linear.cols // group * (2 + group * bits // 8)
    return rows * row


def weights_bytes(checkpoint: Checkpoint, form: Form | None = None) -> int:
    """Bytes of all weights as the kernels hold them; vectors are float32."""
    of = form or checkpoint.form
    matrices = sum(packed_bytes(linear, *of(linear.name)) for linear in checkpoint.graph.linears())
    return matrices + 4 * sum(size for _, size in checkpoint.graph.vectors())


def _activations(graph: Graph, parallel: int) -> int:
    """Float32 rows of the widest op, their int8 copies, and the logits of the rows that are sampled."""
    widest = 0
    for op in graph.ops:
        match op:
            case Attend(q=q, k=k, v=v):
                widest = max(widest, 2 * q.rows + k.rows + v.rows)
            case GatedMLP(gate=gate):
                widest = max(widest, 2 * gate.rows)
            case _:
                continue
    rows = STEP_ROWS * (3 * graph.spec.hidden_size + widest) * 5
    return rows + 4 * graph.spec.vocab_size * (parallel + 16)


def _ropes(graph: Graph, tokens: int) -> int:
    ropes = {(op.rope, op.head_dim) for op in graph.ops if isinstance(op, Attend)}
    return sum(4 * head_dim * tokens for _, head_dim in ropes)


def _loading(checkpoint: Checkpoint, form: Form | None) -> int:
    """Bytes read from disk but not yet packed, at worst: those of one fused op, and again while widened."""

    def reading(linear: Linear) -> int:
        return packed_bytes(linear, *form(linear.name)) if form else checkpoint.reading_bytes(linear.name)

    return max(sum(map(reading, fused)) for fused in _fused(checkpoint.graph))


def _fused(graph: Graph) -> Iterator[tuple[Linear, ...]]:
    for op in graph.ops:
        match op:
            case Embed(table=table) | Head(table=table):
                yield (table,)
            case Attend(q=q, k=k, v=v, o=o):
                yield from ((q, k, v), (o,))
            case GatedMLP(gate=gate, up=up, down=down):
                yield from ((gate, up), (down,))
