"""`bench` from a model's path to a report."""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from localinfer.bench.against import OnProgress, Runner, run_tests
from localinfer.bench.llamacpp import best_llamacpp
from localinfer.bench.measure import Clock, measure_step
from localinfer.bench.plan import BenchTest, context_for
from localinfer.bench.report import BenchMachine, BenchModel, BenchReport, StepRow
from localinfer.bench.rows import Contender
from localinfer.config import EngineConfig, in_range
from localinfer.cost.energy import start_meter
from localinfer.cost.machine import cpu_model, read_bandwidth
from localinfer.cost.prices import USD_PER_KWH
from localinfer.cost.roofline import Traffic, gguf_traffic, traffic
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Engine, EngineInfo

STEPS = 32
"""Steps timed for each number of rows."""


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
    refresh: bool = True,
    usd_per_kwh: float = USD_PER_KWH,
    on_progress: OnProgress | None = None,
    clock: Clock = time.perf_counter,
) -> BenchReport:
    """Measure the model at `path`, and llama.cpp on the GGUF file `against` in turn with it.

    A context that `config` leaves open is as long as the longest test; `rows` are numbers of sequences moved together
    (1 to 64). With `refresh` the memory is measured again first. Raises what `open_engine` raises, and `UsageError`.
    """
    in_range("repetitions", repetitions, 1, 1000)
    for count in rows:
        in_range("rows", count, 1, 64)
    if config.context is None:
        config = replace(config, context=context_for(tests))
    with ExitStack() as stack:
        ours = stack.enter_context(_open(path, config, name, backend, on_progress))
        kinds = sorted({test.kind for test in tests})
        peers = stack.enter_context(best_llamacpp(against, config, kinds, seed=seed, clock=clock)) if against else {}
        bandwidth = read_bandwidth(ours.engine.info.threads, refresh=refresh).bytes_per_s
        before = _steal()
        found = run_tests(
            tests,
            lambda test: [ours, peers[test.kind]] if peers else [ours],
            repetitions=repetitions,
            seed=seed,
            bandwidth=bandwidth,
            meter=start_meter(),
            usd_per_kwh=usd_per_kwh,
            on_progress=on_progress,
            clock=clock,
        )
        steal = _share_stolen(before, _steal())
        info, read = ours.engine.info, ours.who.traffic
    isa, gb_s = info.isa, bandwidth / 1e9
    return BenchReport(
        machine=BenchMachine(cpu=cpu_model(), cores=_cores(), isa=isa, read_gb_s=gb_s, int8_tops=None, steal=steal),
        model=_model(path, name, revision, info, read),
        rows=[here[0] for here in found],
        peers=[peer for here in found for peer in here[1:]],
        steps=_steps(path, config, name, backend, rows, seed, clock) if rows else [],
    )


def _model(path: Path, name: str, revision: str | None, info: EngineInfo, read: Traffic | None) -> BenchModel:
    return BenchModel(
        name=name,
        revision=revision,
        bits=info.bits,
        parameters=_parameters(path),
        size_bytes=info.weight_bytes,
        bytes_per_token=read.bytes_per_token() if read else 0,
    )


@contextmanager
def _open(
    path: Path, config: EngineConfig, name: str, backend: str, on_progress: OnProgress | None
) -> Iterator[Runner]:
    reads = traffic(path, config.kv_bits) if path.is_dir() else gguf_traffic(path, config.kv_bits)
    with open_engine(path, config, backend=backend, name=name, on_progress=on_progress) as engine:
        yield Runner(engine, Contender(engine.info, config.draft, reads))


def _steps(
    path: Path, config: EngineConfig, name: str, backend: str, rows: Sequence[int], seed: int, clock: Clock
) -> list[StepRow]:
    """The times of steps of `rows` sequences, in an engine with room for all of them."""
    wide = replace(config, parallel=max(rows), context=STEPS + 128, draft="off")
    found: list[StepRow] = []
    one: float | None = None
    with open_engine(path, wide, backend=backend, name=name) as engine:
        _warm(engine, max(rows), seed, clock)
        for count in rows:
            step = statistics.median(measure_step(engine, count, STEPS, seed, clock))
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


def _parameters(path: Path) -> int:
    if path.is_dir():
        from localinfer.graph.weights import Checkpoint

        return Checkpoint(path).graph.parameters()
    from math import prod

    from localinfer.formats.gguf import GgufFile

    return sum(prod(tensor.shape) for tensor in GgufFile(path).tensors.values())


def _cores() -> int:
    from localinfer import native

    return native.physical_cores()


def _steal() -> tuple[int, int] | None:
    """(ticks taken by the host, all ticks) since the start of this machine."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
        ticks = [int(field) for field in fields]
    except (OSError, ValueError, IndexError):
        return None
    return (ticks[7], sum(ticks)) if len(ticks) == 8 else None


def _share_stolen(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    if before is None or after is None or after[1] <= before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])
