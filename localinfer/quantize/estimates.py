"""What the phases of quantizing will take here: counts of the work, by the machine's speeds. Seconds, on the safe side.

The counts are multiply-adds, weights and bytes, from headers alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from localinfer.graph.ops import LayerOp, Linear, Mixture
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.calibration import LEAST_SEQUENCES, LENGTH
from localinfer.quantize.plan import TABLES, Method
from localinfer.quantize.scales import HASTY, MEASURED_ROWS
from localinfer.quantize.schedule import SAFETY, START_S, largest
from localinfer.quantize.speeds import FIT_COLUMNS, Speeds

LEAST_TOKENS = LEAST_SEQUENCES * LENGTH

FIT = 6
"""Multiply-adds of a fit beside its loops, for each weight and column: feedback, descent, what is moved and what it
costs."""

TRIED_SCALES, TRIED_ROWS = 11, 256
"""Powers that `awq` tries for the channels of a stage, on so many rows."""

SQUARE = 0.55
"""Those of second moments for each token and pair of columns: half of a square is the other half's mirror image."""

BACKWARD = 5
"""Passes through the layers that a step of training takes: both models forward, and one backward."""

TORCH_S = 3.0
"""Seconds of one processor in which torch is loaded."""

LOADING = 3
"""Times that a model's bytes are gone over while it is loaded."""

PROBED_SEQUENCES, PROBED_ROWS = 4, 768
"""What `sensitivity` looks at to choose widths: sequences, and rows of a stage's matrices."""

TABLE_BYTES = 1.1
"""Bytes a weight of embedding and head in 8 bits; those of the layers take no more."""


@dataclass(frozen=True, slots=True)
class StageSize:
    """Matrices of `rows` in all and `cols`, rounded together: the `first` of an operation, or its last. `part` of the
    tokens come to them."""

    rows: int
    cols: int
    first: bool
    part: float = 1.0


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of each part for the model at `source`."""

    speeds: Speeds
    source_bytes: int
    made_bytes: int
    body: int
    """Weights of the layers' matrices."""
    head: int
    weights: int
    layers: int
    stages: tuple[StageSize, ...]
    """Those of one layer: of one with experts where there are such."""

    @classmethod
    def of(cls, source: Path, bits: int, speeds: Speeds) -> "Costs":
        """From the headers of `source`, for layers of `bits`."""
        checkpoint = Checkpoint(source)
        graph = checkpoint.graph
        body = sum(_weights(linear) for linear in graph.linears() if linear.name not in TABLES)
        head = checkpoint.spec.vocab_size * checkpoint.spec.hidden_size
        weights = graph.parameters()
        layer = next((ops for ops in graph.layers if any(isinstance(op, Mixture) for op in ops)), graph.layers[0])
        made = int(body * (bits + 0.5) / 8 + (weights - body) * TABLE_BYTES)
        stages = tuple(size for op in layer for size in _stages(op))
        return cls(speeds, checkpoint.nbytes, made, body, head, weights, checkpoint.spec.layers, stages)

    def beside(self) -> float:
        """What is not counted."""
        return START_S / self.speeds.share

    def torch(self) -> float:
        """Loading torch."""
        return TORCH_S / self.speeds.share

    def rounding(self, *, hasty: bool = False) -> float:
        """Everything rounded to the nearest and written, the source hashed before and the result after."""
        moved = 2 * self.source_bytes + 3 * self.made_bytes
        return SAFETY * ((HASTY if hasty else 1) * self.weights / self.speeds.rounding + moved / self.speeds.hashing)

    def layer(self, method: Method, tokens: int) -> float:
        """One layer by a calibrated method, beyond rounding it."""
        if method == "imatrix":
            return SAFETY * self.body / self.layers * (tokens / self.speeds.kernels + 1 / self.speeds.rounding)
        follows = method.endswith("gptq")
        stream = fits = 0.0
        for size in self.stages:
            rows, cols, first, seen = size.rows, size.cols, size.first, tokens * size.part
            stream += seen * (1 + follows) * rows * cols
            # the last stage of an operation has no moments where nothing is followed
            stream += seen * cols * SQUARE * cols * (first or follows)
            stream += seen * cols * (cols if first else rows) * follows
            exact = (FIT * rows * cols**2 + cols**3 / 2) * follows / self.speeds.multiply
            loops = self.speeds.fit_s * cols / FIT_COLUMNS if follows else 0.0
            fits += exact + loops + (1 + follows) * rows * cols / self.speeds.rounding
            fits += 2 * min(rows, MEASURED_ROWS) * cols**2 * (first and not follows) / self.speeds.multiply
        if method.startswith("awq"):
            fits += sum(self._scaled(size.cols) for size in self.stages if size.first and size.part == 1.0)
        return SAFETY * (stream / self.speeds.multiply + fits)

    def narrow_head(self, method: Method, tokens: int) -> float:
        """The head by a calibrated method, in fewer bits than tables have."""
        if method == "imatrix":
            return SAFETY * self.head / self.speeds.rounding
        follows, hidden = method.endswith("gptq"), self.stages[0].cols
        exact = FIT * self.head * hidden * follows + tokens * hidden**2 * (SQUARE + follows)
        return SAFETY * (exact / self.speeds.multiply + (1 + follows) * self.head / self.speeds.rounding)

    def _scaled(self, cols: int) -> float:
        """Trying channel scales for a stage of `cols` columns."""
        return TRIED_SCALES * TRIED_ROWS * cols * (1 / self.speeds.rounding + cols / self.speeds.multiply)

    def tokens(self, method: Method, wanted: int, seconds: float) -> int:
        """How many of `wanted` tokens can be calibrated on so that all layers fit into `seconds`; whole sequences."""

        def fits(sequences: int) -> bool:
            return self.layers * self.layer(method, sequences * LENGTH) <= seconds

        return LENGTH * largest(fits, LEAST_SEQUENCES, max(LEAST_SEQUENCES, wanted // LENGTH))

    def widths_chosen(self, forms: int) -> float:
        """The pass back through the layers that mixed widths are chosen by."""
        tokens = PROBED_SEQUENCES * LENGTH
        passes = 5 * tokens * (self.body + self.head)
        tried = forms * tokens * sum(min(size.rows, PROBED_ROWS) * size.cols for size in self.stages) * self.layers
        return SAFETY * ((passes + tried) / self.speeds.multiply + forms * self.body / 8 / self.speeds.rounding)

    def one_pass(self) -> float:
        """One sequence through a model in torch, head and all."""
        return SAFETY * LENGTH * (self.body + self.head) / self.speeds.multiply

    def one_read(self) -> float:
        """One sequence through a model in our kernels, as it is stored."""
        return SAFETY * LENGTH * (self.body + self.head) / self.speeds.kernels

    def loading(self, models: int = 2) -> float:
        """Models read for training or for a report."""
        return SAFETY * models * LOADING * self.source_bytes / self.speeds.hashing

    def refined(self, held_out: int, checks: int, sequences: int, judges: int, passes: int) -> float:
        """Refining without its training steps: what is loaded, looked at and written. With `sequences` the layers are
        trained one by one before, on so many, for so many `passes`."""
        looks = held_out * (2 + 1.5 * checks)
        one_by_one = 2 * (judges + sequences) + 2 * judges + 3 * passes * sequences if sequences else 0
        written = SAFETY * 3 * (self.source_bytes + 2 * self.made_bytes) / self.speeds.hashing
        return self.loading() + (looks + one_by_one) * self.one_pass() + written

    def step(self) -> float:
        """One step of training end to end."""
        return BACKWARD * self.one_pass()

    def report(self, chunks: int, floor: int) -> float:
        """Reading `chunks` with both models, and the first `floor` of them again."""
        again = 2 * min(floor, chunks)
        return self.loading(3) + (2 * chunks + again) * self.one_read()

    def speaking(self, tokens: int, together: int) -> float:
        """Loading the original, and letting it write `tokens`, some texts side by side."""
        step = max(
            self.source_bytes / (self.speeds.hashing * 4), together * (self.body + self.head) / self.speeds.kernels
        )
        return self.loading(1) + SAFETY * step * tokens / together


def _stages(op: LayerOp) -> Iterator[StageSize]:
    """The stages of `op` that calibration rounds."""
    if not isinstance(op, Mixture):
        first, *_, last = op.fused()
        yield from (_size(first, first=True), _size(last, first=False))
        return
    yield from (_size((linear,), first=True) for linear in op.latent or ())
    part = op.chosen / len(op.experts)
    for expert in (*op.experts, *((op.shared,) if op.shared else ())):
        seen = 1.0 if expert is op.shared else part
        yield from (_size(expert.inputs(), first=True, part=seen), _size((expert.down,), first=False, part=seen))


def _size(stage: tuple[Linear, ...], *, first: bool, part: float = 1.0) -> StageSize:
    return StageSize(sum(linear.rows for linear in stage), stage[0].cols, first, part)


def _weights(linear: Linear) -> int:
    return linear.rows * linear.cols
