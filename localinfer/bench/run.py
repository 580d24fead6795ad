"""`bench` from a model's path to a report."""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from localinfer.bench.against import Runner, run_tests
from localinfer.bench.llamacpp import best_llamacpp, gguf_parameters
from localinfer.bench.measure import Clock, measure_step
from localinfer.bench.plan import BenchTest, context_for
from localinfer.bench.report import BenchModel, BenchReport, StepRow
from localinfer.bench.rows import BenchRow, Contender
from localinfer.bench.system import describe_machine, forget_peak, peak_bytes, share_stolen, stolen_ticks
from localinfer.config import EngineConfig, in_range
from localinfer.cost.energy import start_meter, with_card
from localinfer.cost.machine import read_bandwidth
from localinfer.cost.prices import USUAL, Tariff
from localinfer.cost.roofline import gguf_traffic, traffic
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Engine
from localinfer.errors import LocalInferError
from localinfer.events import OnProgress
from localinfer.graph.memory import weights_bytes
from localinfer.graph.weights import Checkpoint

STEPS = 32
"""Steps timed for each number of rows."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured, and how to open it."""

    path: Path
    name: str
    backend: str = "auto"
    revision: str | None = None

    def parameters(self) -> int:
        return Checkpoint(self.path).graph.parameters() if self.path.is_dir() else gguf_parameters(self.path)

    @contextmanager
    def open(self, config: EngineConfig, clock: Clock, on_progress: OnProgress | None = None) -> Iterator[Runner]:
        is_ours = self.path.is_dir()
        forget_peak()
        started = clock()
        with open_engine(self.path, config, backend=self.backend, name=self.name, on_progress=on_progress) as engine:
            load_s = clock() - started
            nbytes = weights_bytes(Checkpoint(self.path)) if is_ours else engine.info.weight_bytes
            bits = engine.info.kv_layers or config.kv_bits
            reads = traffic(self.path, bits) if is_ours else gguf_traffic(self.path, config.kv_bits)
            yield Runner(
                engine,
                Contender(
                    engine.info,
                    config.draft,
                    reads,
                    bits_per_weight=8 * nbytes / self.parameters(),
                    load_s=load_s,
                ),
            )


def run_bench(
    path: Path,
    config: EngineConfig,
    tests: Sequence[BenchTest],
    *,
    name: str,
    revision: str | None = None,
    backend: str = "auto",
    repetitions: int = 5,
    seed: int = 0,
    rows: Sequence[int] = (),
    against: Path | None = None,
    peers: Sequence[str] = ("llamacpp",),
    ways: Mapping[str, EngineConfig] | None = None,
    refresh: bool = True,
    tariff: Tariff = USUAL,
    on_progress: OnProgress | None = None,
    clock: Clock = time.perf_counter,
) -> BenchReport:
    """Measure the model at `path`, and `peers` (of `bench.llamacpp.LIBRARIES`) on the GGUF file `against` in turn with
    it.

    Tests of as many streams share an engine with room for them; a context that `config` leaves open is as long as the
    longest of them. `rows` are numbers of sequences moved together (1 to 64). With `refresh` the memory is measured
    again first. Raises what `open_engine` raises, and `UsageError`.
    """
    in_range("repetitions", repetitions, 1, 1000)
    for count in rows:
        in_range("rows", count, 1, 64)
    subject = Subject(path, name, backend, revision)
    bandwidth = read_bandwidth(config.threads, refresh=refresh).bytes_per_s
    before = stolen_ticks()
    found: dict[str, list[BenchRow]] = {}
    model: BenchModel | None = None
    for streams in sorted({test.streams for test in tests}):
        chosen = [test for test in tests if test.streams == streams]
        ours, kinds = _for_streams(config, chosen, streams), sorted({test.kind for test in chosen})
        with (
            subject.open(ours, clock, on_progress) as runner,
            _others(subject, ways or {}, chosen, streams, clock) as others,
            _peers(against, peers, ours, kinds, seed, clock) as rivals,
        ):
            model = model or _model(subject, runner)
            turns = {test.name: [runner, *others, *(rival[test.kind] for rival in rivals)] for test in chosen}
            how: dict[str, Any] = {"repetitions": repetitions, "seed": seed, "on_progress": on_progress, "clock": clock}
            info = runner.engine.info
            meter = with_card(start_meter(tariff.watts), info.card)
            new_rows = run_tests(chosen, turns, bandwidth=bandwidth, meter=meter, tariff=tariff, **how)
            found |= {test.name: lines for test, lines in zip(chosen, new_rows, strict=True)}
    assert model is not None
    steps = _steps(subject, config, rows, seed, clock) if rows else []
    isa, steal = info.isa if info.backend == "cpu" else "", share_stolen(before, stolen_ticks())
    machine = describe_machine(isa, info.threads, bandwidth, steal)
    ours_, theirs = _told_apart([found[test.name] for test in tests], max(1, len(ways or {})))
    shares = [_with_share(row, subject, machine.int8_tops) for row in ours_]
    return BenchReport(machine=machine, model=model, rows=shares, peers=theirs, steps=steps)


def _told_apart(lines: Sequence[Sequence[BenchRow]], count: int) -> tuple[list[BenchRow], list[BenchRow]]:
    """The rows of our own engines, at most `count` a test, and those of others; drafts changed no token."""
    mine = [row for line in lines for row in _ours(line, count)]
    _require_same(mine)
    return mine, [row for line in lines for row in line[len(_ours(line, count)) :]]


def _ours(line: Sequence[BenchRow], count: int) -> Sequence[BenchRow]:
    """The rows of one test that our own engines made."""
    return [row for row in line[:count] if row.backend == line[0].backend]


def _require_same(rows: Sequence[BenchRow]) -> None:
    """Raise `LocalInferError` where drafts changed what came out."""
    first = {row.test: row for row in reversed(rows)}
    for row in rows:
        if row.output_hash != first[row.test].output_hash:
            raise LocalInferError(
                f"{row.test}: with drafts by {row.draft} other tokens came out than with {first[row.test].draft}",
                hint="this is a bug of ours; please report it with the model and this command",
            )


@contextmanager
def _others(
    subject: Subject, ways: Mapping[str, EngineConfig], tests: Sequence[BenchTest], streams: int, clock: Clock
) -> Iterator[list[Runner]]:
    """Engines for the ways of drafting after the first; several streams are measured without drafts only."""
    with ExitStack() as stack:
        more = list(ways.values())[1:] if streams == 1 else []
        yield [stack.enter_context(subject.open(_for_streams(way, tests, streams), clock)) for way in more]


@contextmanager
def _peers(
    against: Path | None, names: Sequence[str], config: EngineConfig, kinds: Sequence[str], seed: int, clock: Clock
) -> Iterator[list[dict[str, Runner]]]:
    """Each other engine by kind of test; nobody when there is no file for them."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(best_llamacpp(against, config, kinds, library=name, seed=seed, clock=clock))
            for name in names
            if against is not None
        ]


def _for_streams(config: EngineConfig, tests: Sequence[BenchTest], streams: int) -> EngineConfig:
    """`config` with room for `streams` sequences, as long as `tests` need them. Several have no drafts."""
    context = context_for(tests) if config.context is None else config.context
    return replace(
        config,
        context=context,
        parallel=streams,
        kv_tokens=pool_for(context, streams),
        draft="off" if streams > 1 else config.draft,
    )


def pool_for(context: int, streams: int) -> int:
    """Tokens of cache in which so many whole contexts run at once, with what the scheduler keeps in reserve."""
    return (context + 64) * streams * 21 // 20


def _model(subject: Subject, runner: Runner) -> BenchModel:
    info, reads = runner.engine.info, runner.who.traffic
    return BenchModel(
        name=subject.name,
        revision=subject.revision,
        bits=info.bits,
        bits_per_weight=runner.who.bits_per_weight,
        parameters=subject.parameters(),
        size_bytes=info.weight_bytes,
        bytes_per_token=reads.bytes_per_token() if reads else 0,
        load_s=runner.who.load_s,
        peak_bytes=peak_bytes(),
    )


def _with_share(row: BenchRow, subject: Subject, tops: float | None) -> BenchRow:
    """`row` of a prompt with the share of `tops` that the layers' integer products use; attention is not counted."""
    if not row.test.startswith("pp") or not subject.path.is_dir() or not tops:
        return row
    checkpoint = Checkpoint(subject.path)
    body = checkpoint.graph.body
    bits = {checkpoint.form(linear.name)[0] for op in body for linear in op.linears()}
    if 16 in bits:
        return row  # those are products of floats
    planes = 2 if bits == {8} else 1  # activations of 16 bits are two planes of 8
    flops = planes * sum(op.flops(1) for op in body)
    return replace(row, peak_share=flops * row.tok_s / (tops * 1e12))


def _steps(subject: Subject, config: EngineConfig, rows: Sequence[int], seed: int, clock: Clock) -> list[StepRow]:
    """The times of steps of `rows` sequences, in an engine with room for all of them."""
    context, most = STEPS + 128, max(rows)
    wide = replace(config, parallel=most, context=context, kv_tokens=pool_for(context, most), draft="off")
    found: list[StepRow] = []
    one: float | None = None
    with subject.open(wide, clock) as runner:
        _warm(runner.engine, max(rows), seed, clock)
        for count in rows:
            step = statistics.median(measure_step(runner.engine, count, STEPS, seed, clock))
            one = step if count == 1 else one
            found.append(
                StepRow(
                    n_rows=count,
                    step_ms=1e3 * step,
                    tok_s=count / step if step > 0 else 0.0,
                    step_over_one=step / one if one else None,
                )
            )
    return found


def _warm(engine: Engine, rows: int, seed: int, clock: Clock) -> None:
    measure_step(engine, rows, 4, seed - 1, clock)
