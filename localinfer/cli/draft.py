"""`draft`: small models that guess for a large one, made, listed and deleted."""

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localinfer.cli import options as o
from localinfer.cli.telling import Terminal
from localinfer.errors import NotFound, UsageError, size

if TYPE_CHECKING:
    from localinfer.distill.train import Result
    from localinfer.engine.drafters import Trained

Ref = Annotated[str, typer.Argument(metavar="MODEL", help="The model to guess for, as it will run.")]
MaybeRef = Annotated[str | None, typer.Argument(metavar="[MODEL]", help="The model whose drafters are to go.")]


def train(
    ref: Ref,
    *,
    minutes: o.Minutes,
    text: o.Text,
    kind: o.DraftKind,
    seed: o.Seed,
    threads: o.Threads,
    offline: o.Offline,
    json: o.Json,
    quiet: o.Quiet,
) -> None:
    """Distil a small drafter from a model, on this machine, from what the model itself says.

    It is judged on text that it has not learned from, by this machine's step times, and kept only if it saves time. The
    minutes hold all of it; too few for any learning are refused, with the numbers.
    """
    from localinfer.cli.output import begun, note, show_json
    from localinfer.cli.progress import Progress
    from localinfer.distill.time_plan import FLAG, plan_training
    from localinfer.loading.opening import find
    from localinfer.loading.training import training_text
    from localinfer.quantize.schedule import too_long
    from localinfer.quantize.time_plan import workers_of

    files = [Path(name).expanduser() for name in text]
    missing = next((path for path in files if not path.is_file()), None)
    if missing is not None:
        raise NotFound(f"no such file: {missing}", hint="give the path of a text file")
    found = find(ref, offline=offline, tell=Terminal(quiet))
    if found.kind != "checkpoint":
        raise UsageError(f"`{ref}` is a GGUF file", hint=f"make a model of it first: `localinfer import {ref}`")
    plan = plan_training(found.path, 60 * minutes, workers=workers_of(threads or 0), started=begun)
    from localinfer.distill.train import train_drafter  # loads torch, so only once there is time for it

    with Progress(long=True, quiet=quiet) as progress:
        left = partial(plan.left, "writing")
        tokens, step_s = training_text(found, files, left, seed=seed or 0, threads=threads or 0, progress=progress)
        result = train_drafter(
            found.path,
            found.ref,
            tokens,
            step_s,
            kind=kind,
            seconds=max(1e-3, plan.left("learning")),
            seed=seed or 0,
            threads=threads or 0,
            on_progress=progress,
        )
    if json:
        show_json(as_json(result.trained) | {"kept": result.kept is not None, "guesses": result.length})
    else:
        _tell(result)
    late = too_long(time.monotonic() - begun, 60 * minutes, FLAG)
    if late and not quiet:
        note(late)
    if result.kept is None and not quiet:
        note("nothing was kept: it would not save time here. More minutes, or more text of your own, may help")


def _tell(result: "Result") -> None:
    from localinfer.cli.output import line

    one = result.trained
    line(
        f"{one.kind} for {one.model}: learned from {one.tokens} tokens in {one.seconds:.0f} s; held-out text: "
        f"{chances(one.acceptance)} of guesses right by position"
    )
    line(
        f"{1e3 * result.guess_s:.2f} ms a guess; with {result.length} guesses a step x{one.predicted:.2f} of plain "
        "decoding, replayed with the step times of this machine"
    )
    if result.kept is not None:
        line("kept: `--draft auto` uses it from now on" if one.kind == "head" else "kept: `--draft early` uses it")


def list_drafters(*, json: o.Json, quiet: o.Quiet) -> None:
    """List the drafters that were made here."""
    from localinfer.cli.output import note, show_json, table
    from localinfer.engine.drafters import known

    found = [trained for trained, _ in known()]
    if json:
        show_json([as_json(trained) for trained in found])
        return
    if not found:
        if not quiet:
            note("no drafters yet; `localinfer draft train MODEL` makes one")
        return
    rows = [
        [
            one.model,
            one.kind,
            size(one.size_bytes),
            chances(one.acceptance),
            f"x{one.predicted:.2f}",
            time.strftime("%Y-%m-%d", time.localtime(one.made)),
        ]
        for one in found
    ]
    table(["model", "kind", "size", "right, by position", "predicted", "made"], rows)


def rm(ref: MaybeRef = None, *, texts: o.Texts, json: o.Json, quiet: o.Quiet) -> None:
    """Delete the drafters of a model, and with `--texts` the earlier texts that are guessed from."""
    from localinfer.cli.output import line, show_json
    from localinfer.engine.drafters import key_of_model, known, remove
    from localinfer.engine.ngram_store import forget_all
    from localinfer.loading.opening import find

    if ref is None and not texts:
        raise UsageError("the model is missing", hint="`localinfer draft list` shows which there are")
    gone: list[Trained] = []
    if ref is not None:
        key = key_of_model(find(ref, offline=True, tell=Terminal(quiet=True)).path)
        for trained, folder in known():
            if trained.key == key:
                remove(folder)
                gone.append(trained)
        if not gone:
            raise NotFound(f"no drafter was made for `{ref}`", hint="`localinfer draft list` shows which there are")
    freed = forget_all() if texts else 0
    if json:
        show_json({"deleted": [as_json(one) for one in gone], "texts_bytes": freed})
    elif not quiet:
        for one in gone:
            line(f"deleted the {one.kind} for {one.model}, {size(one.size_bytes)}")
        if texts:
            line(f"deleted {size(freed)} of earlier texts")


def chances(acceptance: tuple[float, ...]) -> str:
    """`62 41 30 %`."""
    return " ".join(f"{100 * chance:.0f}" for chance in acceptance) + " %"


def as_json(trained: "Trained") -> dict[str, Any]:
    """One drafter, as scripts read it."""
    from dataclasses import asdict

    return asdict(trained)
