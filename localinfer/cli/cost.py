"""`cost`: what a million tokens cost here, elsewhere, and at providers."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from localinfer.cli import options as o
from localinfer.cli.bundles import CostFlags, EngineFlags
from localinfer.cli.command import refuse_typed
from localinfer.cli.telling import Terminal
from localinfer.errors import NotSupported, UsageError

ModelArg = Annotated[str | None, typer.Argument(metavar="MODEL", help="The model. [default: starter]")]


def cost(
    ctx: typer.Context,
    name: ModelArg = None,
    *,
    model: o.Model,
    parallel: o.Parallel,
    tokens_per_day: o.TokensPerDay,
    engine: EngineFlags,
    costs: CostFlags,
    plot: o.Plot,
    revision: o.Revision,
    offline: o.Offline,
    json: o.Json,
    quiet: o.Quiet,
) -> None:
    """Show what a million tokens cost here, on machines to buy or rent, and at providers; and which pays when.

    Prices of providers are those of the genai-prices package, offline. Machines of your own go into `machines.toml`
    beside the settings file: a table each with name, kind (`own` or `rent`), backend (`cpu` or `cuda`), gb_s,
    int8_tops, memory_gb, source, date, and watts and usd, or
    usd_per_hour; `needs` says what is missing to run on it.
    """
    from localinfer.bench.measured import cost_of_model
    from localinfer.cli.counts import counts
    from localinfer.cli.output import line, show_json
    from localinfer.cost.costing import cost_table, draw
    from localinfer.loading.opening import find
    from localinfer.picture import require_picture

    refuse_typed(ctx, "backend", "draft", "draft-tokens", "prefill-chunk", "latency-goal", "experts")
    picture = Path(plot).expanduser() if plot is not None else None
    if picture is not None:
        require_picture(picture)
    streams = counts("parallel", parallel) or [1]
    if len(streams) > 1:
        raise UsageError("`cost` counts for one number of texts at once", hint="write it like `-np 8`")
    found = find(name or model or "starter", revision=revision, offline=offline, tell=Terminal(quiet))
    if found.kind == "gguf":
        raise NotSupported(
            f"{found.path.name} is a GGUF file, whose speed here is not known", hint="`localinfer import` it first"
        )
    config = replace(engine.config(draft="off"), parallel=streams[0])
    report = cost_of_model(found, config, costs.tariff(), api_model=costs.api_model, per_day=tokens_per_day)
    if picture is not None:
        draw(report, picture)
    show_json(report.to_json()) if json else line(cost_table(report).rstrip("\n"))
