"""`imatrix`: every matrix rounded with the mean squares of its inputs, as the original meets calibration text.

Our own engine reads the text, so nothing but the core is needed, and no number depends on the threads or the processor.
The original must fit into memory, 16 bits a weight, while it reads.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from localinfer import native
from localinfer.config import BLOCK_TOKENS
from localinfer.formats.compressed import dequantize, pack
from localinfer.graph.ops import LayerOp, Linear, Mixture, Norm
from localinfer.graph.program import load_program
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.layer import Made, copied, not_seen, stored, too_large
from localinfer.quantize.plan import HEAD, TABLE_BITS, Job, Plan, graph_name
from localinfer.quantize.scales import BAD_INPUTS, MEASURED_ROWS, Rounded, require_scalable, round_rows

PIECE = 1 << 20
"""Weights that one thread rounds at once."""

Squares = NDArray[np.float64]
Floats = NDArray[np.float32]


class Weighed:
    """Quantizes the units of `plan` that hold layers, and a narrow head, in any order.

    Opening reads `tokens` [sequences, length] with the original; `look` is called with each sequence, and ends that by
    raising. Raises `DoesNotFit` where memory runs out, and what reading weights raises.
    """

    def __init__(
        self, source: Path, plan: Plan, tokens: NDArray[np.int32], workers: int, look: Callable[[], None]
    ) -> None:
        self.checkpoint = Checkpoint(source)
        self._workers = workers
        names = {job.tensor.name: graph_name(self.checkpoint, job) for job in plan.jobs}
        self._jobs = {names[job.tensor.name].removesuffix(".weight"): job for job in plan.jobs if job.bits}
        wanted = [one for op in self.checkpoint.graph.body for one in op.linears() if one.name in self._jobs]
        narrow = HEAD in self._jobs and self._jobs[HEAD].bits < TABLE_BITS
        self._squares = mean_squares(self.checkpoint, wanted, tokens, head=narrow, threads=workers, look=look)

    def ops(self, unit: Sequence[Job]) -> list[LayerOp]:
        """The operations whose matrices lie in `unit`; none if it is no layer."""
        jobs_of_unit = {id(job) for job in unit}
        return [op for op in self.checkpoint.graph.body if id(self._jobs[op.fused()[-1][0].name]) in jobs_of_unit]

    def quantize(
        self, unit: Sequence[Job], ops: Sequence[LayerOp], on_weights: Callable[[int], None], look: Callable[[], None]
    ) -> Made:
        """Quantize one layer. Raises `Corrupt` for NaN, infinity and huge weights, and what `look` raises."""
        parts = [
            self._rounded(self._jobs[linear.name], linear.name, linear.name, on_weights, look)
            for op in ops
            for linear in op.linears()
            if linear.name in self._jobs
        ]
        made = _joined(unit, parts, on_weights)
        downs = [expert.down.name for op in ops if isinstance(op, Mixture) for expert in op.experts]
        unread = [name.rpartition(".")[0] for name in downs if not self._squares[name].any()]
        return replace(made, notes=(*made.notes, not_seen(unread, 1))) if unread else made

    def quantize_head(self, job: Job, on_weights: Callable[[int], None], look: Callable[[], None]) -> Made:
        """Quantize the head for what comes out of the layers. Raises as `quantize`."""
        return self._rounded(job, HEAD, self.checkpoint.graph.head.table.name, on_weights, look)

    def pass_over(self, ops: Sequence[LayerOp], file: Path) -> None:
        """A layer that is quantized already: nothing depends on it."""

    def _rounded(
        self, job: Job, name: str, matrix: str, on_weights: Callable[[int], None], look: Callable[[], None]
    ) -> Made:
        look()
        squares = self._squares[name]
        usable, read = bool(np.isfinite(squares).all()), bool(squares.any())
        importance = squares.astype(np.float32) if usable else np.ones(len(squares), np.float32)
        weights = self.checkpoint.matrix(matrix)
        try:
            require_scalable(weights, job.bits)
            rounded = self._side_by_side(weights, job, importance if usable and read else None)
        except OverflowError as error:
            raise too_large(job, error) from error
        on_weights(job.weights)
        some = slice(None, None, -(-len(weights) // MEASURED_ROWS))
        off = weights[some] - dequantize(rounded.values[some], rounded.scales[some])
        key = job.tensor.name
        return Made(
            stored(job, pack(rounded.values, job.bits), rounded.scales),
            {key: _ratio(rounded.error, rounded.power)},
            {key: _ratio(float((off**2 @ importance).sum()), float((weights[some] ** 2 @ importance).sum()))},
            () if usable else (f"`{key}`: {BAD_INPUTS}",),
        )

    def _side_by_side(self, weights: Floats, job: Job, importance: Floats | None) -> Rounded:
        """Rows do not depend on each other."""
        step = max(1, PIECE // weights.shape[1])
        pieces = [weights[first : first + step] for first in range(0, len(weights), step)]
        with ThreadPoolExecutor(self._workers, thread_name_prefix="round") as pool:
            parts = list(pool.map(lambda piece: round_rows(piece, job.bits, job.group, importance), pieces))
        return Rounded(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.scales for part in parts]),
            sum(part.error for part in parts),
            sum(part.power for part in parts),
        )


def mean_squares(
    checkpoint: Checkpoint,
    linears: Sequence[Linear],
    tokens: NDArray[np.int32],
    *,
    head: bool = False,
    threads: int = 0,
    look: Callable[[], None] = lambda: None,
) -> Mapping[str, Squares]:
    """Of each matrix, and with `head` of what comes to the head, the mean square of each column of its inputs while the
    model reads `tokens` [sequences, length], each alone."""
    sequences, length = tokens.shape
    packed: dict[str, native.Weight] = {}
    blocks = -(-length // BLOCK_TOKENS)
    program = load_program(checkpoint, threads=threads, context=length, kv_blocks=blocks, kv_bits=16, packed=packed)
    for weight in {id(packed[linear.name]): packed[linear.name] for linear in linears}.values():
        program.watch(weight)
    table, positions = np.arange(blocks, dtype=np.int32)[None], np.arange(length, dtype=np.int32)
    alone, nobody = np.zeros(length, np.int32), np.zeros(0, np.int32)
    hidden, logits = np.empty((length, program.hidden), np.float32), np.empty((0, program.vocab), np.float32)
    of_head = np.zeros(program.hidden)
    for sequence in np.ascontiguousarray(tokens, np.int32):
        look()
        program.step(sequence, positions, alone, table, nobody, logits, hidden=hidden)
        if head:
            of_head += np.square(normed(checkpoint, checkpoint.graph.head.norm, hidden), dtype=np.float64).sum(axis=0)
    count = sequences * length
    found = {linear.name: program.squares(packed[linear.name]) / count for linear in linears}
    return found | ({HEAD: of_head / count} if head else {})


def normed(checkpoint: Checkpoint, norm: Norm, x: Floats) -> Floats:
    """Rows [n, columns] behind `norm`."""
    if norm.centered:
        x = x - x.mean(axis=1, keepdims=True)
    scaled: Floats = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(norm.eps))
    if norm.name:
        scaled = scaled * (checkpoint.vector(f"{norm.name}.weight") + np.float32(norm.offset))
    return scaled + checkpoint.vector(f"{norm.name}.bias") if norm.name and norm.bias else scaled


def _joined(unit: Sequence[Job], parts: Sequence[Made], on_weights: Callable[[int], None]) -> Made:
    """All that a file holds: what was rounded, and the tensors that stay as they are."""
    made = Made({}, {}, {}, tuple(note for part in parts for note in part.notes))
    for part in parts:
        made.tensors.update(part.tensors)
        made.errors.update(part.errors)
        made.output_errors.update(part.output_errors)
    for job in unit:
        if not job.bits:
            made.tensors[job.tensor.name] = copied(job)
            on_weights(job.weights)
    return made


def _ratio(error: float, power: float) -> float:
    return float(np.sqrt(error / power)) if power > 0 else 0.0
