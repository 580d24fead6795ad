"""All of one benchmark: as JSON, and as a table like llama-bench's."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from localinfer.bench.rows import BenchRow
from localinfer.errors import size


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchMachine:
    """Where it ran."""

    cpu: str
    cores: int
    isa: str
    read_gb_s: float | None
    int8_tops: float | None = None
    """10^12 operations a second of the INT8 kernel on weights that stay in the cache; a product and its sum are two."""
    steal: float | None = None
    """Part of the time that the host gave to others meanwhile; None where it is not told."""
    generation: str = ""
    """Family and model of the processor, which a virtual machine's name leaves out: `23.1`; empty where not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchModel:
    """What ran."""

    name: str
    revision: str | None
    bits: str
    bits_per_weight: float
    """As packed, embedding and head counted once."""
    parameters: int
    size_bytes: int
    """Weights in memory."""
    bytes_per_token: int
    """Bytes read to generate one token with an empty context."""
    load_s: float = 0.0
    """Seconds from opening to ready."""
    peak_bytes: int | None = None
    """Most memory of the process until the model was ready; None where the system does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """`n_rows` sequences moved forward by one token in one step."""

    n_rows: int
    step_ms: float
    """Median."""
    tok_s: float
    """All sequences together."""
    step_over_one: float | None
    """This step's time over that of one row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """One run of `bench`."""

    machine: BenchMachine
    model: BenchModel
    rows: Sequence[BenchRow]
    peers: Sequence[BenchRow] = ()
    steps: Sequence[StepRow] = ()
    ablation: Sequence[Any] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """`{machine, model, rows, peers, ladder}`; rows of steps follow the tests in `rows`."""
        return {
            "machine": asdict(self.machine),
            "model": asdict(self.model),
            "rows": [*map(asdict, self.rows), *map(asdict, self.steps)],
            "peers": [{**asdict(peer), "ratio": ratio(self.rows, peer)} for peer in self.peers],
            "ladder": list(self.ablation),
        }


def ratio(rows: Sequence[BenchRow], peer: BenchRow) -> float | None:
    """Our median speed over the peer's on the same test; None when we did not run it."""
    ours = next((row for row in rows if row.test == peer.test), None)
    return ours.tok_s_median / peer.tok_s_median if ours and peer.tok_s_median > 0 else None


def table(report: BenchReport) -> str:
    """Markdown, a line a test and engine; every line ends with a newline. Peers follow our line of the same test."""
    model = report.model
    head = [
        "model",
        "size",
        "bpw",
        "params",
        "backend",
        "threads",
        "kv",
        "test",
        "t/s",
        "GB/s",
        "of peak",
        "itl ms",
        "output",
    ]
    lines = []
    for row in report.rows:
        mine = f"{model.name} {row.bits}" if row.bits not in model.name else model.name
        lines.append(_cells(row, mine, size(model.size_bytes), model.parameters))
        lines += [
            _cells(peer, f"same, {peer.bits}", "", model.parameters) for peer in report.peers if peer.test == row.test
        ]
    text = _aligned([head, *lines], left={0, 4, 7, 12})
    if report.steps:
        steps = [["rows", "step ms", "t/s", "of one row"]]
        for step in report.steps:
            times = "" if step.step_over_one is None else f"{step.step_over_one:.2f}"
            steps.append([str(step.n_rows), f"{step.step_ms:.2f}", f"{step.tok_s:.1f}", times])
        text += "\n" + _aligned(steps, left=set())
    return text + _notes(report)


def _cells(row: BenchRow, name: str, bytes_: str, parameters: int) -> list[str]:
    return [
        name,
        bytes_,
        f"{row.bits_per_weight:.2f}",
        f"{parameters / 1e6:.0f} M" if parameters < 1e9 else f"{parameters / 1e9:.2f} B",
        f"{row.backend} {row.isa}",
        str(row.threads),
        str(row.kv_bits),
        row.test + (f" {row.draft}" if row.draft != "off" else ""),
        f"{row.tok_s:.2f} ± {row.tok_s_sd:.2f}",
        "" if row.gb_s is None else f"{row.gb_s:.1f}",
        "" if (used := row.bandwidth_share or row.peak_share) is None else f"{used:.0%}",
        "" if row.itl_p50_ms is None else f"{row.itl_p50_ms:.2f}",
        row.output_hash[:8],
    ]


def _notes(report: BenchReport) -> str:
    notes = []
    for peer in report.peers:
        times = ratio(report.rows, peer)
        if times is not None:
            notes.append(f"{peer.test}: {times:.2f} x {peer.backend} (medians, in turn; {peer.settings})")
    notes.append(_loading(report.model))
    machine = report.machine
    speed = "" if machine.read_gb_s is None else f", reads {machine.read_gb_s:.1f} GB/s"
    speed += "" if machine.int8_tops is None else f", {machine.int8_tops:.2f} int8 TOPS"
    stolen = f", {machine.steal:.1%} of the time taken by the host" if machine.steal else ""
    notes.append(f"{machine.cpu}, {machine.cores} cores{speed}{stolen}")
    return "\n" + "".join(note + "\n" for note in notes)


def _loading(model: BenchModel) -> str:
    peak = "" if model.peak_bytes is None else f", {size(model.peak_bytes)} of memory at most until then"
    return f"ready {model.load_s:.2f} s after opening{peak}"


def _aligned(cells: list[list[str]], left: set[int]) -> str:
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    rule = ["-" * w if i in left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = []
    for line in [cells[0], rule, *cells[1:]]:
        padded = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        lines.append("| " + " | ".join(padded) + " |\n")
    return "".join(lines)
