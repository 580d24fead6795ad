"""The table of method x bits x group: ours, and llama.cpp's quants of the same fair source when its tools are given.

    python -m tools.quality.table FAIR --text FILE --work DIR [--ours 4:32:rtn …] [--llama BIN --types Q4_0 …]

FAIR is a folder of `fair_source`. Ours are BITS:GROUP:METHOD, or BITS:SIZE:METHOD for widths mixed to a SIZE like
`3.5bpw` (what `--bpw` takes) or `86.4MB` (`--target-size`). BIN holds `llama-quantize` and `llama-imatrix`; the
importance matrix is made of our own calibration text. Everything made stays in DIR and is used again. All models are
measured by `evaluate` against the same bf16 source, with a 16-bit cache; llama.cpp's run in llama.cpp, `F16` among them
shows how far the two engines are apart. Lines go to standard output as Markdown, and to DIR/table.jsonl.
"""

import argparse
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast

from localinfer.chats.template import conversation
from localinfer.errors import bytes_of
from localinfer.evaluate import Quality, evaluate, read_text
from localinfer.quantize import DEFAULT_TOKENS, CalibrationText, Method, checkpoint, quantize_checkpoint

DATA = Path(checkpoint.__file__).with_name("data")
TYPES = ("Q8_0", "Q4_K_M", "Q4_K_S", "Q4_0", "IQ4_XS", "Q3_K_M", "Q3_K_S", "IQ3_S")
OURS = ("8:32:rtn", "4:32:gptq", "4:32:rtn", "3:32:gptq", "3:32:rtn")
AT_ONCE = 5
"""Models measured together; each group reads the source once more."""


@dataclass(frozen=True)
class Entry:
    """One line: what was made, and in how many seconds of all processors together."""

    method: str
    path: Path
    seconds: float


def ours(fair: Path, work: Path, spec: str, threads: int = 0) -> Entry:
    """Our model of `bits:group:method` or `bits:size:method`, made if it is not there yet."""
    bits, form, method = spec.split(":")
    dest, clock = work / f"ours-{bits}-{form}-{method}", _Clock(work, f"ours-{spec}")
    bpw = float(form.removesuffix("bpw")) if form.endswith("bpw") else None
    group = int(form) if form.isdigit() else None
    if not dest.exists():
        text = CalibrationText(DEFAULT_TOKENS, 0, (), conversation)  # as the command line has it
        with clock:
            quantize_checkpoint(
                fair / "model",
                dest,
                bits=cast(Literal[8, 4, 3], int(bits)),
                group=group,
                method=cast(Method, method),
                text=text,
                bits_per_weight=bpw,
                target_bytes=bytes_of(form, "--ours") if group is None and bpw is None else None,
                threads=threads,
            )
    what = f"groups of {group}" if group else f"mixed for {form}"
    return Entry(f"INT{bits} {method}, {what}", dest, clock.seconds)


def theirs(fair: Path, work: Path, tools: Path, kind: str) -> Entry:
    """llama.cpp's quant of type `kind`, with an importance matrix, made if it is not there yet."""
    if kind == "F16":
        return Entry("llama.cpp F16", fair / "f16.gguf", 0.0)
    matrix, dest = work / "imatrix.gguf", work / f"{kind}.gguf"
    once, clock = _Clock(work, "imatrix"), _Clock(work, f"theirs-{kind}")
    source = str(fair / "f16.gguf")
    if not matrix.exists():
        text = work / "calibration.txt"
        text.write_text(calibration_text(), encoding="utf-8")
        with once:
            _run(tools / "llama-imatrix", "-m", source, "-f", str(text), "-c", "512", "--no-ppl", "-o", dest=matrix)
    if not dest.exists():
        with clock:
            _run(tools / "llama-quantize", "--imatrix", str(matrix), source, dest=dest, last=(kind,))
    return Entry(f"llama.cpp {kind}", dest, clock.seconds + once.seconds)


def calibration_text() -> str:
    """All of our calibration text; chats as what was said, a line each."""
    parts = [path.read_text(encoding="utf-8") for path in sorted(DATA.glob("*.txt"))]
    for line in (DATA / "chats.jsonl").read_text(encoding="utf-8").splitlines():
        parts.append("\n".join(turn["content"] for turn in json.loads(line)))
    return "\n\n".join(part.replace("\n---\n", "\n\n") for part in parts)


class _Clock:
    """Processor seconds that a part took, kept beside it: what is made once is not made again to be timed.

    They stay the same, nearly, when something else runs at the same time.
    """

    def __init__(self, work: Path, name: str) -> None:
        self._path = work / f"{name.replace(':', '-')}.seconds"

    @property
    def seconds(self) -> float:
        return float(self._path.read_text()) if self._path.exists() else 0.0

    def __enter__(self) -> None:
        self._started = _processor_seconds()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._path.write_text(f"{_processor_seconds() - self._started:.1f}")


def _processor_seconds() -> float:
    """Of this process and of the tools it has run."""
    return sum(os.times()[:4])


def _run(*command: str | Path, dest: Path, last: Sequence[str] = ()) -> None:
    """Run a tool that writes the file named after `command`; `dest` appears when it is whole."""
    part = dest.with_name(f"part-{dest.name}")
    words = [str(word) for word in (*command, part, *last)]
    ran = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    if ran.returncode:
        raise SystemExit(f"{command[0]} failed:\n{ran.stderr[-2000:]}")
    part.rename(dest)


def measure(
    entries: Sequence[Entry], fair: Path, text: str, ctx: int, chunks: int, threads: int = 0
) -> Iterator[tuple[Entry, Quality]]:
    """Every entry's quality, a few models at a time."""
    for first in range(0, len(entries), AT_ONCE):
        part = entries[first : first + AT_ONCE]
        paths, names = [entry.path for entry in part], [entry.method for entry in part]
        found = evaluate(paths, fair / "model", text, names=names, ctx=ctx, chunks=chunks, kv_bits=16, threads=threads)
        yield from zip(part, found, strict=True)


def row(entry: Entry, quality: Quality) -> str:
    """One line of the table."""
    cells = (
        entry.method,
        f"{quality.body_bits_per_weight:.2f}",
        f"{quality.bits_per_weight:.2f}",
        f"{quality.size_bytes / 1e6:.1f}",
        f"{quality.kld_mean:.4f} ± {quality.kld_se:.4f}",
        f"{quality.top1_agreement:.1%}",
        f"{quality.ppl:.2f}",
        f"{entry.seconds / 60:.1f}" if entry.seconds else "",
    )
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| method | bits, layers | bits, all | MB | mean KLD | top-1 | ppl | CPU minutes |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|"
)


def main() -> None:
    """Read the command line, make what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("fair", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--ours", nargs="*", default=OURS)
    parser.add_argument("--llama", type=Path)
    parser.add_argument("--types", nargs="*", default=("F16", *TYPES))
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--chunks", type=int, default=24)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    entries = [ours(given.fair, given.work, spec, given.threads) for spec in given.ours]
    if given.llama:
        entries += [theirs(given.fair, given.work, given.llama, kind) for kind in given.types]
    print(HEAD, flush=True)
    with (given.work / "table.jsonl").open("a", encoding="utf-8") as saved:
        text = read_text(given.text)
        for entry, quality in measure(entries, given.fair, text, given.ctx, given.chunks, given.threads):
            print(row(entry, quality), flush=True)
            saved.write(json.dumps({**asdict(quality), "made_in": entry.seconds}) + "\n")


if __name__ == "__main__":
    main()
