"""Models and their reference read the same text in lockstep, chunk by chunk; nothing is kept but the measures."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.config import KvBits, in_range
from localinfer.cost.machine import available_bytes
from localinfer.errors import DoesNotFit, NotFound, NotSupported, UsageError, size
from localinfer.evaluate.files import Convert, as_checkpoints
from localinfer.evaluate.measures import Logits, Measured, join, measure
from localinfer.evaluate.models import NativeReader, Reader, open_reader, require_finite, require_same_words, size_of
from localinfer.evaluate.quality import Quality, figures_of
from localinfer.evaluate.text import cut, held_out_text
from localinfer.events import OnProgress

CTX = 512
CHUNKS = 24
ROWS = 64
"""Rows whose logits exist at once; those of 512 rows would be half a gigabyte for large vocabularies."""

FLOOR_CHUNKS = 4
"""Enough for the floor, whose spread is small; it costs one more pass of the reference."""


@dataclass(slots=True)
class _Contender:
    name: str
    reader: Reader
    kv_bits: KvBits
    parts: list[Measured] = field(default_factory=list)
    seconds: float = 0.0

    def read(self, first: int, last: int, chunk: int) -> Logits:
        before = time.perf_counter()
        logits = self.reader.logits(first, last)
        self.seconds += time.perf_counter() - before
        require_finite(logits, self.name, f"at token {first} to {last - 1} of chunk {chunk + 1}")
        return logits


def evaluate(
    models: Sequence[Path],
    reference: Path | None,
    text: str,
    *,
    names: Sequence[str] = (),
    reference_name: str = "",
    ctx: int = CTX,
    chunks: int = CHUNKS,
    kv_bits: KvBits = 8,
    threads: int = 0,
    seconds_left: Callable[[], float] = lambda: math.inf,
    clock: Callable[[], float] = time.perf_counter,
    on_progress: OnProgress | None = None,
    convert: Convert | None = None,
    on_note: Callable[[str], None] = lambda text: None,
) -> list[Quality]:
    """Measure each of `models` (checkpoint directories or GGUF files) on the first `chunks` chunks of `text` (0: all).

    GGUF files run in our engine as what `convert` makes of them, in llama.cpp without it or where it cannot, which
    `on_note` is told.
    Of each chunk of `ctx` tokens the second half is scored, but for the last token, after which nothing comes. The
    models' caches have `kv_bits`, the reference's has 16. Tokens are the reference's, or the first model's. Fewer
    chunks are read, but at least one, where another would not end in `seconds_left`, going by those before it.
    Raises `UsageError` (text too short, chunks too long for a model, vocabularies that differ), `DoesNotFit`, `Corrupt`
    (NaN or infinite logits), and what opening a model raises.
    """
    if not models:
        raise UsageError("there is no model to measure", hint="name at least one")
    in_range("chunks", chunks, 0, 1 << 20)
    progress = on_progress or (lambda what, done, total: None)
    names = list(names) or [path.name for path in models]
    everything = [*models, *([reference] if reference else [])]
    _must_exist(everything)
    with ExitStack() as stack, ExitStack() as before_the_floor:
        paths_of_models = stack.enter_context(as_checkpoints(everything, convert, on_note))
        _must_fit(paths_of_models, ctx)
        reference_path = paths_of_models[-1] if reference else None

        def opened(path: Path, name: str, bits: KvBits, until: ExitStack) -> _Contender:
            progress(f"loading {name}", 0, 0)
            reader = open_reader(path, ctx=ctx, kv_bits=bits, threads=threads)
            return _Contender(name, until.enter_context(closing(reader)), bits)

        teacher = None
        if reference is not None and reference_path is not None:
            teacher = opened(reference_path, reference_name or reference.name, 16, stack)
        ours = zip(paths_of_models[: len(models)], names, strict=True)
        students = [opened(path, name, kv_bits, before_the_floor) for path, name in ours]
        first, *others = [*([teacher] if teacher else []), *students]
        tokens = cut(text, first.reader.words, ctx=ctx, chunks=chunks)
        for other in others:
            require_same_words(other.reader, first.reader, (other.name, first.name), tokens[0].tolist())
        tokens = tokens[: _read_chunks(teacher, students, tokens, seconds_left, clock, progress)]
        progress("reading", len(tokens), len(tokens))
        before_the_floor.close()  # gives room for the reference's second program
        floor = None
        if teacher is not None and reference_path is not None:
            floor = _floor(teacher, reference_path, tokens, kv_bits, threads, progress)
    return [_quality(path, student, teacher, tokens, floor) for path, student in zip(models, students, strict=True)]


def report_on(
    made: Path,
    source: Path,
    *,
    names: tuple[str, str],
    threads: int = 0,
    seconds_left: Callable[[], float] = lambda: math.inf,
    on_progress: OnProgress | None = None,
) -> Quality:
    """The quality of a model that was just made, against its source, on the text of our own: on all of it, or on as
    much as can be read in `seconds_left`."""
    from localinfer.graph.weights import Checkpoint

    ctx = min(CTX, Checkpoint(source).spec.max_context)
    return evaluate(
        [made],
        source,
        held_out_text(),
        names=names[:1],
        reference_name=names[1],
        ctx=ctx,
        chunks=0,
        threads=threads,
        seconds_left=seconds_left,
        on_progress=on_progress,
    )[0]


@dataclass(frozen=True, slots=True)
class CacheLoss:
    """What a cache of `kv_bits` loses against one of 16: mean KL divergence of a model from itself, in nats a token."""

    kv_bits: int
    kld_mean: float
    kld_se: float
    ctx: int
    tokens: int
    """Scored positions."""
    layers: tuple[int, ...]
    """Bits of each layer's cache."""


def cache_losses(
    path: Path, *, bits: Sequence[KvBits] = (8, 4), on_progress: OnProgress | None = None
) -> list[CacheLoss]:
    """Measure the checkpoint at `path` on the first `FLOOR_CHUNKS` chunks of the text of our own. 4 bits are left out
    where heads cannot be grouped. Raises what opening a model raises, and `Corrupt` as `evaluate`."""
    from localinfer.graph.weights import Checkpoint

    progress = on_progress or (lambda what, done, total: None)
    ctx = min(CTX, Checkpoint(path).spec.max_context)
    found: list[CacheLoss] = []
    with closing(open_reader(path, ctx=ctx, kv_bits=16)) as wide:
        teacher = _Contender(path.name, wide, 16)
        tokens = cut(held_out_text(), wide.words, ctx=ctx, chunks=FLOOR_CHUNKS)
        for one in bits:
            try:
                narrow = NativeReader(path, ctx, one)
            except NotSupported:
                continue
            with closing(narrow):
                student = _Contender(path.name, narrow, one)
                for number, chunk in enumerate(tokens):
                    progress(f"a {one}-bit cache", number, len(tokens))
                    _read_chunk(teacher, [student], chunk, number)
                kld = join(student.parts).kld
                error = float(kld.std() / math.sqrt(len(kld)))
                found.append(CacheLoss(one, float(kld.mean()), error, ctx, len(kld), narrow.kv_layers))
    return found


def _read_chunks(
    teacher: _Contender | None,
    students: Sequence[_Contender],
    tokens: NDArray[np.int32],
    seconds_left: Callable[[], float],
    clock: Callable[[], float],
    progress: OnProgress,
) -> int:
    """Read chunks until another, and those of the floor, would not end in time; how many there were."""
    slowest, floor_chunks = 0.0, FLOOR_CHUNKS if teacher else 0
    for number, chunk in enumerate(tokens):
        if number and seconds_left() < slowest * (1 + min(floor_chunks, number + 1)):
            return number
        progress("reading", number, len(tokens))
        begun = clock()
        _read_chunk(teacher, students, chunk, number)
        slowest = max(slowest, clock() - begun)
    return len(tokens)


def _read_chunk(
    teacher: _Contender | None, students: Sequence[_Contender], chunk: NDArray[np.int32], number: int
) -> None:
    """One chunk through all, piece by piece, the reference first."""
    for one in [*([teacher] if teacher else []), *students]:
        one.reader.start(chunk)
    first, end = len(chunk) // 2, len(chunk) - 1
    for start in range(first, end, ROWS):
        last = min(end, start + ROWS)
        targets = chunk[start + 1 : last + 1]
        before = teacher.read(start, last, number) if teacher else None
        for student in students:
            student.parts.append(measure(student.read(start, last, number), before, targets))


def _floor(
    teacher: _Contender,
    path: Path,
    tokens: NDArray[np.int32],
    kv_bits: KvBits,
    threads: int,
    progress: OnProgress,
) -> float:
    """The reference against itself with the models' cache. With its own cache it gives the same bits again."""
    if kv_bits == teacher.kv_bits:
        return 0.0
    with closing(open_reader(path, ctx=tokens.shape[1], kv_bits=kv_bits, threads=threads)) as reader:
        again = _Contender(teacher.name, reader, kv_bits)
        part = tokens[:FLOOR_CHUNKS]
        for number, chunk in enumerate(part):
            progress("the cache alone", number, len(part))
            _read_chunk(teacher, [again], chunk, number)
        progress("the cache alone", len(part), len(part))
    return float(join(again.parts).kld.mean())


def _quality(
    path: Path, student: _Contender, teacher: _Contender | None, tokens: NDArray[np.int32], floor: float | None
) -> Quality:
    stored = size_of(path)
    said: dict[str, Any] = figures_of(join(student.parts), compared=teacher is not None)
    return Quality(
        model=student.name,
        reference=teacher.name if teacher else None,
        bits_per_weight=stored.bits_per_weight,
        body_bits_per_weight=stored.body_bits_per_weight,
        size_bytes=stored.nbytes,
        ctx=tokens.shape[1],
        chunks=len(tokens),
        kv_bits=student.kv_bits,
        kld_floor=floor,
        seconds=student.seconds,
        **said,
    )


def _must_exist(paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.exists():
            raise NotFound(f"{path}: no such file or directory", hint="check the path; see `localinfer list`")


def _must_fit(paths: Sequence[Path], ctx: int) -> None:
    """Raise `DoesNotFit` when all models together, each with its cache, are larger than the free memory."""
    from localinfer.cost.fit import estimate

    need = sum(
        estimate(path, context=ctx, rows=ctx, kv_bits=16).total_bytes if path.is_dir() else path.stat().st_size
        for path in paths
    )
    free = available_bytes()
    if need > free:
        raise DoesNotFit(
            f"these {len(paths)} models need {size(need)} together, but {size(free)} is free",
            hint="compare fewer models at a time, or close a program",
        )
