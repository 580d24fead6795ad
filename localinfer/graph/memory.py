"""What a model holds while it runs, in bytes, from its config.json and the headers of its weights: on any device.

The native code, which allocates it, says how matrices and the KV cache lie; nothing here computes a layout again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from localinfer import native
from localinfer.config import BLOCK_TOKENS, MOST_DRAFTS
from localinfer.errors import LocalInferError
from localinfer.graph import stored
from localinfer.graph.graph import Graph
from localinfer.graph.kv_bits import require_4_bit
from localinfer.graph.ops import Linear, Mixture
from localinfer.graph.weights import Checkpoint

PAGE = 4096
"""An expert in a file begins at a multiple of this."""

STEP_ROWS = 256
"""Rows of activations that exist at once."""

LOGIT_ROWS = 32
"""Rows of logits that exist at once while steps are measured; more only with more sequences than half of them."""

MOST_SNAPSHOTS = 64
SNAPSHOT_BYTES = 256 << 20
"""Of all snapshots, where fewer than `MOST_SNAPSHOTS` take more."""

AHEAD_WINDOW = 2048
"""Positions that a head for guessing ahead looks back on at most."""

AHEAD_TOKENS = 1 << 15
"""Tokens that it scores: a vocabulary is made of the pieces of text that are most frequent, in this order, and a head
over 248,320 tokens would cost more than all the rest of it."""

Form = Callable[[str], stored.Form]
"""That of the matrix of this name."""


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes of a program that is ready to run."""

    weights: int
    """Packed for the kernels, padding included."""
    kv: int
    """Keys and values that the cache holds."""
    step: int
    """Activations and logits of a step."""
    ropes: int
    """Tables of angles."""
    states: int
    """Recurrent states of sequences, and their snapshots."""
    ahead: int = 0
    """The head that guesses tokens ahead, and its cache."""
    in_file: int = 0
    """Weights that take no memory: they stay in their file, and a step reads a row of them for each token."""

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.step + self.ropes + self.states + self.ahead


@dataclass(frozen=True, slots=True)
class Experts:
    """Bytes of the experts that rows choose among, as a file holds them."""

    nbytes: int = 0
    layer_bytes: int = 0
    """Of the layer that has the most."""
    token_bytes: int = 0
    """Of those that one token goes to."""


def experts(checkpoint: Checkpoint, form: Form | None = None) -> Experts:
    """The experts of a model, each in whole pages; `form` as in `held`."""
    of, sizes = form or checkpoint.form, list[tuple[int, int]]()
    for op in checkpoint.graph.ops:
        if isinstance(op, Mixture):
            one = sum(packed_bytes(linear, *of(linear.name)) for linear in op.experts[0].linears())
            each = -(-one // PAGE) * PAGE
            sizes.append((each * len(op.experts), each * op.chosen))
    return Experts(
        sum(every for every, _ in sizes), max((every for every, _ in sizes), default=0), sum(few for _, few in sizes)
    )


def held(
    checkpoint: Checkpoint,
    *,
    context: int,
    kv_blocks: Sequence[int],
    kv_bits: int | Sequence[int],
    parallel: int,
    form: Form | None = None,
    ahead: bool = True,
) -> Held:
    """For `parallel` sequences of at most `context` tokens, and a cache for all of them of `kv_blocks` for each of the
    graph's `kv_windows()`.

    `kv_bits` may be given layer by layer; `form` stands for the widths that matrices would have after quantizing.
    `ahead`: the head for guessing ahead runs, if the model brings one.
    """
    graph, vocab = checkpoint.graph, checkpoint.spec.vocab_size
    blocks = dict(zip(graph.kv_windows(), kv_blocks, strict=True))
    tokens = (blocks[state.window] * BLOCK_TOKENS for state in graph.kv())
    widest = max(op.width() for op in graph.ops)
    rows = STEP_ROWS * (3 * graph.spec.hidden_size + widest) * 5  # float32, and its int8 copy
    return Held(
        weights=weights_bytes(checkpoint, form),
        kv=sum(count * one for count, one in zip(tokens, kv_bytes(graph, kv_bits), strict=True)),
        step=rows + 4 * vocab * max(LOGIT_ROWS, parallel + 16),
        ropes=_ropes(graph, context),
        states=states_bytes(graph, parallel),
        ahead=ahead_bytes(checkpoint, parallel, quantized=form is not None) if ahead else 0,
        in_file=in_file_bytes(checkpoint, form),
    )


def ahead_bytes(checkpoint: Checkpoint, parallel: int, *, quantized: bool = False) -> int:
    """Bytes of the head for guessing ahead that the model brings, with a cache for `parallel` sequences; 0 where there
    is none that can run. `quantized`: as quantizing would make it."""
    if not checkpoint.has_ahead:
        return 0
    try:
        head = Checkpoint(checkpoint.path, ahead=True)
    except LocalInferError:
        return 0
    table, floats = head.graph.head.table, head.graph.unquantized
    total = 4 * head.graph.vector_values()
    for linear in head.graph.linears():
        form = (8, 32) if quantized and linear not in floats else head.form(linear.name)
        scored = min(linear.rows, AHEAD_TOKENS) if linear == table and linear.rows > 2 * AHEAD_TOKENS else linear.rows
        total += packed_bytes(replace(linear, rows=scored), *form)
    return total + parallel * AHEAD_WINDOW * sum(kv_bytes(head.graph, 8))


def snapshots(graph: Graph, parallel: int) -> int:
    """How many snapshots of recurrent states are held beside `parallel` sequences: two for each at least, more while
    they are small."""
    return max(2 * parallel, min(MOST_SNAPSHOTS, SNAPSHOT_BYTES // graph.slot_bytes)) if graph.slot_bytes else 0


def states_bytes(graph: Graph, parallel: int) -> int:
    """Bytes of the states of `parallel` sequences with their drafted rows, and of the snapshots."""
    rows = sum(state.bytes_per_row for state in graph.states())
    return parallel * (graph.slot_bytes + MOST_DRAFTS * rows) + snapshots(graph, parallel) * graph.slot_bytes


def packed_bytes(linear: Linear, bits: int, group: int, wide: int | Literal["mxfp4"] = 0) -> int:
    """Bytes of a matrix as the kernels hold it, padding included."""
    if wide == "mxfp4":
        return native.packed_bytes(bits, group, linear.cols, [linear.rows], mxfp4=True)
    return native.packed_bytes(bits, group, linear.cols, [linear.rows], wide)


def kv_bytes(graph: Graph, kv_bits: int | Sequence[int]) -> tuple[int, ...]:
    """Bytes a token of each of the graph's `kv()`; `kv_bits` of all, or one number for each.

    Raises `NotSupported` for 4 bits where the heads cannot have them.
    """
    states = graph.kv()
    bits = (kv_bits,) * len(states) if isinstance(kv_bits, int) else kv_bits
    if 4 in bits:
        require_4_bit(graph.spec)
    blocks = (native.kv_block_bytes(one.kv_heads, one.head_dim, n) for one, n in zip(states, bits, strict=True))
    return tuple(block // BLOCK_TOKENS for block in blocks)


def weights_bytes(checkpoint: Checkpoint, form: Form | None = None) -> int:
    """Bytes of all weights that are held, as the kernels hold them; vectors are float32."""
    matrices = sum(packed_bytes(linear, *(form or checkpoint.form)(linear.name)) for linear in packed(checkpoint, form))
    return matrices + 4 * checkpoint.graph.vector_values()


def packed(checkpoint: Checkpoint, form: Form | None = None) -> Iterator[Linear]:
    """The matrices that are held. What quantizing writes (`form`) lies as it must to stay in its file."""
    for linear in checkpoint.graph.linears():
        if not _stays(checkpoint, linear, form):
            yield linear


def in_file_bytes(checkpoint: Checkpoint, form: Form | None = None) -> int:
    """Bytes of the matrices that stay in their file."""
    kept = (linear for linear in checkpoint.graph.gathered if _stays(checkpoint, linear, form))
    if form is None:
        return sum(checkpoint.stored_bytes(linear.name) for linear in kept)
    return sum(packed_bytes(linear, *form(linear.name)) for linear in kept)


def _stays(checkpoint: Checkpoint, linear: Linear, form: Form | None) -> bool:
    return checkpoint.in_file(linear) if form is None else linear in checkpoint.graph.gathered


def _ropes(graph: Graph, tokens: int) -> int:
    ropes = {rope for op in graph.ops for rope in op.ropes()}
    return sum(8 * len(rope.inv_freq) * (2 if rope.growth else 1) * tokens for rope in ropes)  # one more for queries
