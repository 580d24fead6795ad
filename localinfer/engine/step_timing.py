"""What a step of n rows costs, measured when a model is first loaded on a machine, and how it gets cheap there: on how
many threads, and how far ahead of their use one row asks memory for weights.

No answer depends on it: the same bits come out whatever is chosen. It is cached in `step_timing_file()`
under all that could change it, and measured again when any of that changes.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from localinfer.errors import Corrupt, LocalInferError
from localinfer.formats.durable import write_json
from localinfer.formats.json_files import read_object
from localinfer.kv.blocks import BLOCK_TOKENS
from localinfer.paths import step_timing_file

if TYPE_CHECKING:
    from localinfer import native
    from localinfer.engine.cuda import Card
    from localinfer.graph.weights import Checkpoint

ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 32)
"""Rows of the steps that are measured."""

BUDGET_S = 0.7
"""Seconds that measuring may take, after a first step that touches all weights; a step that would end later is left
out."""

SLOW_S = 3.0
"""From here on that first step counts: its time is the reading of weights, and another would take as long."""

FASTER = 0.95
"""Fewer threads must take this part of the time of all, or less, to be chosen: prefill wants them all."""

PREFETCH = (1024, 0, 2048, 4096, 8192, 16384)
"""Bytes ahead that are tried; what is best differs by the processor's own prefetcher and its memory."""

NEARER = 0.97
"""Another distance must take this part of the time of the kernels' own, or less, to be chosen."""

DEEP_ROWS, DEPTH, DEEP_BUDGET_S = (1, 8), 2048, 0.15
"""Rows of the steps that are measured after a context, its tokens at most, and the seconds that this may take. Nothing
was ever written there, so it is the arithmetic of attention that is measured, not its memory."""

FORMAT = 3
MOST_CACHED = 100
_HINT = "run `localinfer doctor --recalibrate`; models are then measured again when they are loaded"


@dataclass(frozen=True, slots=True)
class Key:
    """All that a measurement depends on."""

    model: str
    files: str
    """Hash of the names, sizes and times of the model's files."""
    cpu: str
    """The processor; or the card, by name and uuid."""
    isa: str
    cores: int
    build: str
    """Which kernels: the version, and size and time of the extension."""
    threads: int
    """As asked for; 0: to be chosen."""
    kv_bits: int


@dataclass(frozen=True, slots=True)
class StepTiming:
    """Seconds of a step by its rows, on `threads` threads, after a context of nothing."""

    threads: int
    step_s: Mapping[int, float]
    """Ascending rows, 1 among them; a slow model has fewer of `ROWS`."""
    tried: Mapping[int, float]
    """Seconds of a step of one row by number of threads, for all that were compared."""
    measured: float
    """When, seconds since 1970."""
    prefetch: int = 0
    """Bytes ahead of their use that one row asks memory for weights; 0: it does not."""
    tried_prefetch: Mapping[int, float] = field(default_factory=dict)
    """Seconds of a step of one row by such a distance; empty where there was no time, or no choice."""
    deep_s: Mapping[int, float] = field(default_factory=dict)
    """Seconds of a step by its rows after `depth` tokens; empty where the context is too short for that."""
    depth: int = 0
    note: str = ""
    """One line for the person who waits, when there is something to say."""


def key_for(
    checkpoint: "Checkpoint", name: str, *, isa: str, threads: int, kv_bits: int, card: "Card | None" = None
) -> Key:
    """The key of this model here, or on `card`; `threads` 0 when none are asked for."""
    from localinfer import __version__, native

    extension = native.extension_file().stat()
    return Key(
        model=name,
        files=checkpoint.identity,
        cpu=f"{card.name} {card.uuid}" if card else str(native.cpu()["model"]),
        isa=card.kernels if card else native.choose_isa(isa),
        cores=native.physical_cores(),
        build=f"{__version__} {extension.st_size} {extension.st_mtime_ns}",
        threads=threads,
        kv_bits=kv_bits,
    )


def cached_or_measured(
    program: "native.Program", key: Key, cached: StepTiming | None, context: int, *, on_card: bool = False
) -> StepTiming:
    """`cached`, or else a measurement, which is cached; the program is left with the threads it names. `on_card`:
    threads do not compute, and are left as they are."""
    if cached is not None and cached.step_s:
        if program.takes_prefetch:
            program.set_prefetch(cached.prefetch)
        return cached
    found = measure(program, choose=key.threads == 0 and not on_card, context=context)
    _write(key, found)
    return found if cached is None else replace(found, note=cached.note)


def measure(
    program: "native.Program",
    *,
    choose: bool,
    context: int = ROWS[-1],
    clock: Callable[[], float] = time.perf_counter,
    budget: float = BUDGET_S,
) -> StepTiming:
    """Run steps of one sequence on an empty cache; leave the program with the fastest prefetch distance, and with
    `choose` on the fastest number of threads.

    The least of several times counts: a busy machine makes a step slower, and nothing makes it faster than it is.
    """
    time_step = _stepper(program, clock)
    first = time_step(1)  # pages are touched for the first time: counted only where another would take too long
    stop = clock() + budget
    times = {1: first}
    if first < SLOW_S:
        times[1] = time_step(1)
        if clock() + times[1] < stop:
            times[1] = min(time_step(1), times[1])
    tried = {program.threads: times[1]}
    if choose:
        _choose(program, tried, time_step, clock, stop - 2 * budget / 3)
        times[1] = tried[program.threads]
    distances = _choose_prefetch(program, times, time_step, clock, stop - budget / 3) if program.takes_prefetch else {}
    for _ in range(5):
        for rows in (n for n in ROWS if n <= context):
            expected = times.get(rows) or 2 * times[max(times)]
            if clock() + expected > stop:
                break
            times[rows] = min(time_step(rows), times.get(rows, math.inf))
    depth = min(DEPTH, context - ROWS[-1])
    deep = _deep(time_step, times, depth, clock) if depth >= DEPTH // 8 else {}
    return StepTiming(
        program.threads,
        dict(sorted(times.items())),
        tried,
        time.time(),
        prefetch=program.prefetch if program.takes_prefetch else 0,
        tried_prefetch=distances,
        deep_s=deep,
        depth=depth if deep else 0,
    )


def _deep(
    time_step: "TimeStep", times: Mapping[int, float], depth: int, clock: Callable[[], float]
) -> dict[int, float]:
    """The same after `depth` tokens, for as many of `DEEP_ROWS` as there is time for."""
    stop, found = clock() + DEEP_BUDGET_S, dict[int, float]()
    for rows in (n for n in DEEP_ROWS if n in times):
        for _ in range(3):
            if clock() + 2 * found.get(rows, 2 * times[rows]) > stop:
                break
            found[rows] = min(time_step(rows, depth), found.get(rows, math.inf))
    return found


def _choose(
    program: "native.Program",
    tried: dict[int, float],
    time_step: Callable[[int], float],
    clock: Callable[[], float],
    stop: float,
) -> None:
    """Try fewer threads as long as that helps; the program is left with the best."""
    most = program.threads
    for threads in sorted({most * 3 // 4, most // 2, most // 4, 1} - {0, most}, reverse=True):
        fastest = min(tried.values())
        if clock() + 2 * fastest * most / threads > stop:
            break
        program.set_threads(threads)
        tried[threads] = min(time_step(1), time_step(1))
        if tried[threads] > 1.1 * fastest:
            break
    best = min(tried, key=lambda threads: tried[threads])
    chosen = best if tried[best] <= FASTER * tried[most] else most
    if chosen != program.threads:
        program.set_threads(chosen)


def _choose_prefetch(
    program: "native.Program",
    times: dict[int, float],
    time_step: Callable[[int], float],
    clock: Callable[[], float],
    stop: float,
) -> dict[int, float]:
    """Try all distances by turns, as often as there is time; the program is left with the best, `times` with what a
    step of one row takes then. Gives what was seen; nothing if there was no time for each."""
    own, seen = program.prefetch, dict[int, float]()
    distances = [own, *(n for n in PREFETCH if n != own)]
    for _ in range(3):
        if clock() + len(distances) * times[1] > stop:
            break
        for distance in distances:
            program.set_prefetch(distance)
            seen[distance] = min(time_step(1), seen.get(distance, math.inf))
    best = min(seen, key=lambda distance: seen[distance], default=own)
    chosen = best if seen and seen[best] <= NEARER * seen[own] else own
    program.set_prefetch(chosen)
    times[1] = min(seen.get(chosen, math.inf), times[1])
    return seen


class TimeStep(Protocol):
    """Seconds of one step of so many rows of one sequence, `depth` tokens before them."""

    def __call__(self, rows: int, depth: int = 0) -> float: ...


def _stepper(program: "native.Program", clock: Callable[[], float]) -> TimeStep:
    """Steps in the first blocks of the cache."""
    import mmap

    import numpy as np

    most = max(ROWS)
    tokens = (np.arange(most, dtype=np.int32) * 7919 + 1) % np.int32(program.vocab)
    count, sequence = np.arange(most, dtype=np.int32), np.zeros(most, np.int32)
    # A map of its own: malloc would keep the megabytes for later.
    logits = np.frombuffer(mmap.mmap(-1, 4 * most * program.vocab), np.float32).reshape(most, program.vocab)
    pools = np.array(program.kv_blocks, np.int32)[:, None, None]

    def time_step(rows: int, depth: int = 0) -> float:
        # A group of layers with a window has fewer blocks than the text; those it no longer sees are used again.
        table = np.arange((depth + rows - 1) // BLOCK_TOKENS + 1, dtype=np.int32) % pools
        if program.states:
            program.clear_state(0, depth)
        started = clock()
        program.step(tokens[:rows], count[:rows] + depth, sequence[:rows], table, count[:rows], logits[:rows])
        return max(clock() - started, 1e-9)

    return time_step


def known(key: Key) -> StepTiming | None:
    """What is cached under `key`. A file that cannot be read gives one without times, whose note says so."""
    try:
        return next((found for cached, found in entries() if cached == key), None)
    except LocalInferError as error:
        return StepTiming(0, {}, {}, 0, note=f"{error}; measuring the model again")


def entries() -> Iterator[tuple[Key, StepTiming]]:
    """All that is cached, newest first. Raises `Corrupt` for a file or an entry that makes no sense."""
    for entry in _stored():
        try:
            key = Key(**entry["key"])
            threads, cores = int(entry["threads"]), int(key.cores)
            found = StepTiming(
                threads,
                _times(entry["step_s"]),
                _times(entry["tried"]),
                float(entry["measured"]),
                prefetch=int(entry["prefetch"]),
                tried_prefetch=_times(entry["tried_prefetch"], least=0, most=max(PREFETCH)),
                deep_s=_times(entry["deep_s"]),
                depth=int(entry["depth"]),
            )
            if found.deep_s and not 0 < found.depth <= DEPTH:
                raise ValueError(f"{found.depth} tokens")
            if found.prefetch not in PREFETCH:
                raise ValueError(f"{found.prefetch} bytes ahead")
            if not 1 <= threads <= max(cores, int(key.threads)) or 1 not in found.step_s:
                raise ValueError(f"{threads} threads of {cores}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Corrupt(f"{step_timing_file()}: an entry makes no sense ({error!r})", hint=_HINT) from error
        yield key, found


def forget() -> int:
    """Delete all that is cached, and say how many models that were."""
    try:
        count = len(_stored())
    except LocalInferError:
        count = 0
    step_timing_file().unlink(missing_ok=True)
    return count


def _times(stored: Any, least: int = 1, most: int = 4096) -> dict[int, float]:
    times = {int(n): float(seconds) for n, seconds in stored.items()}
    if not all(least <= n <= most and 0 < seconds < math.inf for n, seconds in times.items()):
        raise ValueError(f"times {times}")
    return dict(sorted(times.items()))


def _stored() -> list[Any]:
    path = step_timing_file()
    if not path.exists():
        return []
    cached = read_object(path)
    if cached.get("format") == FORMAT - 1:  # the release before wrote it: measured anew
        return []
    models = cached.get("models")
    if cached.get("format") != FORMAT or not isinstance(models, list):
        raise Corrupt(f"{path}: is no list of measurements of format {FORMAT}", hint=_HINT)
    return models


def _write(key: Key, found: StepTiming) -> None:
    """Write it down before the others; a home that cannot be written only means to measure again."""
    try:
        others = [(cached, other) for cached, other in entries() if _replaced_key(cached) != _replaced_key(key)]
    except LocalInferError:
        others = []
    models = [
        {
            "key": asdict(cached),
            "threads": one.threads,
            "step_s": {str(rows): seconds for rows, seconds in one.step_s.items()},
            "tried": {str(threads): seconds for threads, seconds in one.tried.items()},
            "measured": one.measured,
            "prefetch": one.prefetch,
            "tried_prefetch": {str(distance): seconds for distance, seconds in one.tried_prefetch.items()},
            "deep_s": {str(rows): seconds for rows, seconds in one.deep_s.items()},
            "depth": one.depth,
        }
        for cached, one in [(key, found), *others[: MOST_CACHED - 1]]
    ]
    path = step_timing_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"format": FORMAT, "models": models})
    except (LocalInferError, OSError):
        return


def _replaced_key(key: Key) -> Key:
    """What a newer measurement replaces: the same model under the same name, however often it was made anew."""
    return replace(key, files="", build="")
