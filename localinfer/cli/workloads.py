"""`bench --workload`: many requests of mixed lengths, all at once or as they arrive."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from localinfer.cli.bench_history import Keep
from localinfer.cli.bundles import TariffFlags, WorkloadFlags
from localinfer.config import EngineConfig
from localinfer.errors import UsageError
from localinfer.hub.model import LocalModel


def run_workload(
    model: LocalModel,
    ways: Mapping[str, EngineConfig],
    flags: WorkloadFlags,
    parallel: Sequence[int],
    repetitions: int,
    seed: int,
    peer: Path | None,
    cost: TariffFlags,
    keep: Keep,
    *,
    json: bool,
) -> None:
    """The workload that `flags` name, for one number of sequences; keeps it and shows it."""
    config = next(iter(ways.values()))
    if len(parallel) > 1 or (parallel and parallel[0] < 2):
        raise UsageError("`--workload` runs one number of sequences, 2 or more", hint="write it like `-np 8`")
    at_once = parallel[0] if parallel else 8
    if flags.workload == "poisson":
        if len(ways) > 1:
            raise UsageError("`--workload poisson` runs one way of guessing", hint="write it like `--draft auto`")
        _poisson(model, config, flags, at_once, seed, cost, keep, json=json)
    else:
        _mixed(model, config, at_once, repetitions, seed, peer, keep, json=json)


def _mixed(
    model: LocalModel,
    config: EngineConfig,
    at_once: int,
    repetitions: int,
    seed: int,
    peer: Path | None,
    keep: Keep,
    *,
    json: bool,
) -> None:
    import time

    from localinfer.bench.workload import as_json, run_workload, workload_table
    from localinfer.cli.output import line, show_json

    rows = run_workload(
        model.path,
        config,
        name=model.ref,
        parallel=at_once,
        repetitions=repetitions,
        seed=seed,
        against=peer,
        clock=time.perf_counter,
    )
    named = [{**row, "name": f"mixed, {row['engine']} {row['way']}"} for row in as_json(rows)]
    keep({"model": {"name": model.ref}, "parallel": at_once, "serving": named})
    report = {"model": model.ref, "parallel": at_once, "workload": as_json(rows)}
    show_json(report) if json else line(workload_table(rows, at_once).rstrip("\n"))


def _poisson(
    model: LocalModel,
    config: EngineConfig,
    flags: WorkloadFlags,
    at_once: int,
    seed: int,
    cost: TariffFlags,
    keep: Keep,
    *,
    json: bool,
) -> None:
    from localinfer.bench.arrivals import as_json, run_poisson, serving_table
    from localinfer.cli.output import line, show_json

    row = run_poisson(
        model.path,
        config,
        name=model.ref,
        parallel=at_once,
        rate=flags.rate,
        requests=flags.requests,
        seed=seed,
        tariff=cost.tariff(),
    )
    report = {"model": {"name": model.ref}, "parallel": at_once, "serving": [as_json(row)]}
    keep(report)
    show_json(report) if json else line(serving_table(row).rstrip("\n"))
