"""`bench`: how fast a model runs here, alone or turn by turn with another engine."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localinfer.cli import options as o
from localinfer.cli.bench_history import Keep, earlier_report, keep_result, show_history
from localinfer.cli.bench_modes import mode_of, refuse_others
from localinfer.cli.bundles import (
    AblationFlags,
    EngineFlags,
    HistoryFlags,
    RandomFlags,
    RivalFlags,
    TariffFlags,
    WorkloadFlags,
)
from localinfer.cli.command import TYPED
from localinfer.cli.counts import counts
from localinfer.cli.random_weights import random_weights
from localinfer.cli.telling import Terminal
from localinfer.cli.workloads import run_workload
from localinfer.config import EngineConfig, one_of
from localinfer.errors import NotFound, UsageError
from localinfer.hub.model import LocalModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from localinfer.bench.compare import Report
    from localinfer.bench.plan import BenchTest
    from localinfer.bench.prompts import TaskPrompt
    from localinfer.bench.report import BenchReport

MOST_TOKENS = 256
"""Tokens of an answer, if nothing else is asked for."""

ModelArg = Annotated[str | None, typer.Argument(metavar="MODEL", help="The model to measure.")]


def bench(
    ctx: typer.Context,
    name: ModelArg = None,
    *,
    model: o.Model,
    weights: RandomFlags,
    test: o.Tests,
    parallel: o.Parallel,
    rows: o.Rows,
    workload: WorkloadFlags,
    tasks: o.Tasks,
    prompts: o.Prompts,
    ladder: AblationFlags,
    max_tokens: o.MaxTokens,
    reps: o.Reps,
    rival: RivalFlags,
    history: HistoryFlags,
    seed: o.Seed,
    engine: EngineFlags,
    cost: TariffFlags,
    revision: o.Revision,
    offline: o.Offline,
    json: o.Json,
    quiet: o.Quiet,
) -> None:
    """Measure tokens a second, latency, and the share of the memory's bandwidth.

    Prompts are random tokens, the same for the same seed; with `--tasks` or `--prompts` they are real ones, answered to
    the end, with drafts and without in turn. Each line ends with a hash of the tokens that came out.
    """
    name, streams, seed = name or model, counts("parallel", parallel), seed or 0
    answers, keep = bool(tasks or prompts), partial(keep_result, no_history=history.no_history)
    mode = mode_of(history.history, ladder.ladder, workload.startup, answers, workload.workload)
    refuse_others(mode, ctx.meta[TYPED])
    if history.history:
        show_history(name, json=json)
        return
    if ladder.ladder:
        settings = {"seed": seed, "revision": revision, "offline": offline, "json": json, "quiet": quiet, "keep": keep}
        show_ablation(name, weights, ladder, streams, max_tokens, reps, engine, cost, settings)
        return
    found = subject(name, weights, revision=revision, offline=offline, quiet=quiet)
    if workload.startup:
        show_startup(found, reps if "reps" in ctx.meta[TYPED] else 10, json=json, quiet=quiet)
        return
    ways = drafting_ways(engine, typed="draft" in ctx.meta[TYPED] or engine.draft != "auto")
    if answers:
        some = chosen_prompts(tasks, prompts)
        answer_prompts(found, some, ways, max_tokens, engine.backend, keep, json=json, quiet=quiet)
        return
    peers, peer = peer_names(rival.against, workload.workload), peer_file(found, rival.against, rival.against_file)
    if workload.workload is not None:
        run_workload(found, ways, workload, streams, reps, seed, peer, cost, keep, json=json)
        return
    how = {"backend": engine.backend, "repetitions": reps, "seed": seed, "tariff": cost.tariff()}
    tests, steps = usual_tests(test, streams), counts("rows", rows)
    earlier = earlier_report(rival.compare, rival.max_drop, found.ref, names_of(tests, ways, steps))
    report = measured(found, tests, ways, peer, how | {"rows": steps, "peers": peers}, quiet=quiet)
    show_report(report, keep, json=json)
    say_changes(report, earlier, rival.compare or "", rival.max_drop)


def show_startup(model: LocalModel, processes: int, *, json: bool, quiet: bool) -> None:
    """`--startup`: seconds of new processes, a line for each command."""
    from localinfer.bench.startup import time_startup
    from localinfer.cli.output import line, show_json
    from localinfer.cli.progress import Progress

    with Progress(quiet=quiet) as progress:
        found = time_startup(model, processes, progress)
    if json:
        show_json({"startup": [one.to_json() for one in found]})
        return
    for one in found:
        least, most = min(one.seconds), max(one.seconds)
        line(f"{one.median:.2f} s ({least:.2f} to {most:.2f}, {len(one.seconds)} processes)  {one.command}")


def usual_tests(test: list[str], streams: list[int]) -> "list[BenchTest]":
    """The tests that were asked for, or the usual ones; of generation also with several streams."""
    from localinfer.bench.plan import DEFAULT_TESTS, parse_tests, with_streams

    return with_streams(parse_tests(test or DEFAULT_TESTS), streams)


def names_of(tests: "Sequence[BenchTest]", ways: dict[str, EngineConfig], steps: list[int]) -> list[str]:
    """What the rows of the report will be called."""
    from localinfer.bench.rows import row_name

    plain = [row_name({"test": test.name, "draft": "off"}) for test in tests if test.streams > 1]
    drafted = [row_name({"test": test.name, "draft": way}) for test in tests if test.streams == 1 for way in ways]
    return [*plain, *drafted, *(f"{count} rows" for count in steps)]


def show_ablation(
    name: str | None,
    weights: RandomFlags,
    ladder: AblationFlags,
    streams: list[int],
    max_tokens: int | None,
    reps: int,
    engine: EngineFlags,
    cost: TariffFlags,
    how: dict[str, Any],
) -> None:
    """`--ladder`, with what it takes of the other flags; `how` goes to `ablate` as it is."""
    from localinfer.cli.ablation import ablate, base_of, kv_of

    if len(streams) > 1 or (streams and streams[0] < 2):
        raise UsageError("`--ladder` takes one number of streams, 2 or more", hint="write it like `-np 8`")
    if name is not None and weights.random is not None:
        raise UsageError(f"both `--random` and the model `{name}`", hint="leave one of them out")
    if weights.group or weights.head_bits:
        raise UsageError("`--ladder` takes the forms that `quantize` makes", hint="leave --group and --head-bits out")
    settings: dict[str, Any] = {"base": base_of(ladder.bits), "kv_bits": kv_of(engine.kv_bits), "rounds": reps}
    settings["streams"] = streams[0] if streams else 8
    if max_tokens is not None:
        settings["most"] = max_tokens
    if ladder.replay is not None:
        if weights.random is None:
            raise UsageError("`--replay` is for random weights", hint="leave it out: real text needs no replay")
        settings["recorded"] = Path(ladder.replay).expanduser()
    config = engine.config(draft="off")
    how |= {"cost": cost, "plot": ladder.plot}
    ablate(name or "starter", config, random=weights.random, settings=settings, **how)


def subject(name: str | None, weights: RandomFlags, *, revision: str | None, offline: bool, quiet: bool) -> LocalModel:
    """The model that is measured: one that is here, or one of random weights."""
    if weights.random is not None:
        return random_weights(weights.random, name, weights.group, weights.head_bits, quiet=quiet)
    odd = weights.group or weights.head_bits
    return known(name or "starter", odd, revision=revision, offline=offline, quiet=quiet)


def measured(
    model: LocalModel,
    tests: "Sequence[BenchTest]",
    ways: dict[str, EngineConfig],
    peer: Path | None,
    how: dict[str, Any],
    *,
    quiet: bool,
) -> "BenchReport":
    """Run `tests` each way, in turn with the other engine on `peer`; `how` goes to `run_bench` as it is."""
    from localinfer.bench.run import run_bench
    from localinfer.cli.progress import Progress

    config = next(iter(ways.values()))
    if model.kind == "checkpoint":
        ways = fitted_ways(model, ways, quiet=quiet)
        config = next(iter(ways.values()))
    with Progress(quiet=quiet) as progress:
        return run_bench(
            model.path,
            config,
            tests,
            name=model.ref,
            revision=model.revision,
            against=peer,
            ways=ways,
            refresh=True,
            on_progress=progress,
            **how,
        )


def fitted_ways(model: LocalModel, ways: dict[str, EngineConfig], *, quiet: bool) -> dict[str, EngineConfig]:
    """The same, each with experts where they go. Raises `DoesNotFit`."""
    from localinfer.loading.fitting import check_fit

    fitted = check_fit(model, next(iter(ways.values())))
    if fitted.note:
        Terminal(quiet).note(fitted.note)
    where, nbytes = fitted.config.experts, fitted.config.experts_bytes
    return {word: replace(way, experts=where, experts_bytes=nbytes) for word, way in ways.items()}


def show_report(report: "BenchReport", keep: Keep, *, json: bool) -> None:
    """Keep it, and show the table, or JSON."""
    from localinfer.bench.report import table
    from localinfer.cli.output import line, show_json

    keep(report.to_json())
    show_json(report.to_json()) if json else line(table(report).rstrip("\n"))


def drafting_ways(engine: EngineFlags, *, typed: bool) -> dict[str, EngineConfig]:
    """The configurations to measure, by the words of `--draft`; without drafts if that was not given."""
    from localinfer.cli.drafts import ways_of

    words = ways_of(engine.draft) if typed else ["off"]
    if not words:
        raise UsageError("`--draft` names nobody", hint="write it like `--draft off,suffix,auto`")
    return {word: engine.config(draft=word) for word in words}


def chosen_prompts(tasks: list[str], file: str | None) -> "list[TaskPrompt]":
    """Those of a file, or our own of `tasks`."""
    from localinfer.bench.prompts import bundled_prompts, parse_tasks, prompts_of

    if file is not None:
        if tasks:
            raise UsageError("both `--tasks` and `--prompts`", hint="leave one of them out")
        return prompts_of(Path(file).expanduser())
    return bundled_prompts(parse_tasks(tasks))


def answer_prompts(
    model: LocalModel,
    prompts: "list[TaskPrompt]",
    ways: dict[str, EngineConfig],
    max_tokens: int | None,
    backend: str,
    keep: Keep,
    *,
    json: bool,
    quiet: bool,
) -> None:
    """Answer all of them each way, in turn; keep the rows and show them."""
    from localinfer.bench.answers import answers_table, as_json, run_answers
    from localinfer.chats.chat import Chat
    from localinfer.cli.output import line, show_json
    from localinfer.cli.progress import Progress
    from localinfer.engine.opening import open_engine
    from localinfer.engine.protocol import Engine

    def to_tokens(engine: Engine, prompt: str) -> tuple[int, ...]:
        raw = engine.chat_template is None
        return tuple(Chat(engine, raw=raw).tokens_of(prompt))

    def opened(way: EngineConfig) -> Engine:
        return open_engine(model.path, way, backend=backend, name=model.ref)

    config = next(iter(ways.values()))
    if model.kind == "checkpoint":
        ways = fitted_ways(model, ways, quiet=quiet)
        config = next(iter(ways.values()))
    most = max_tokens or MOST_TOKENS
    with Progress(long=True, quiet=quiet) as progress:
        rows = run_answers(opened, config, prompts, ways, to_tokens, max_tokens=most, on_progress=progress)
    keep({"model": {"name": model.ref}, "answers": as_json(rows)})
    if json:
        show_json({"model": model.ref, "rows": as_json(rows)})
    else:
        line(answers_table(rows).rstrip("\n"))


def known(ref: str, odd: str | None, *, revision: str | None, offline: bool, quiet: bool) -> LocalModel:
    """The model that `ref` means; its weights are what they are."""
    from localinfer.loading.opening import find

    if odd is not None:
        raise UsageError("`--group` and `--head-bits` are for `--random`", hint="leave them out")
    return find(ref, revision=revision, offline=offline, tell=Terminal(quiet))


def say_changes(report: "BenchReport", earlier: "Report | None", file: str, max_drop: float | None) -> None:
    """What changed, on standard error, so that JSON stays alone; then fail if it is too much."""
    from localinfer.bench.compare import compare, comparison_table, fail_on_drops
    from localinfer.cli.output import note

    if earlier is None:
        return
    found = compare(earlier, report.to_json(), file)
    note(comparison_table(found, file).rstrip("\n"))
    if max_drop is not None:
        fail_on_drops(found, max_drop)


def peer_names(against: str | None, workload: str | None) -> tuple[str, ...]:
    """Which other engines run too: one, or several with commas between."""
    from localinfer.bench.llamacpp import LIBRARIES

    names = tuple(dict.fromkeys(against.split(","))) if against is not None else ()
    for name in names:
        one_of("--against", name, tuple(LIBRARIES))
    if workload is not None and set(names) - {"llamacpp"}:
        raise UsageError("`--workload` runs llama.cpp only", hint="use `--against llamacpp`")
    return names


def peer_file(model: LocalModel, against: str | None, file: str | None) -> Path | None:
    """The GGUF file that the other engine runs: the one named, else the one that the model was made from."""
    if against is None:
        if file is not None:
            raise UsageError("`--against-file` without `--against`", hint="add `--against llamacpp`")
        return None
    if file is not None:
        path = Path(file).expanduser()
        if not path.is_file():
            raise NotFound(f"no such file: {file}", hint="give the path of a `.gguf` file")
        return path
    if model.kind == "gguf":
        return model.path
    from localinfer.bench.random_gguf import is_random, random_gguf

    if is_random(model.path):
        return random_gguf(model.path)
    from localinfer.hub import catalogue
    from localinfer.hub.starter import package_file

    entry = catalogue.find(model.name)
    if entry is None or entry.package is None:
        raise UsageError(f"no GGUF file of `{model.name}` is known", hint="name one: `--against-file FILE.gguf`")
    return package_file(entry.package)
