"""`eval`: what a smaller model lost, against the original: in likelihoods, or in right answers."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from localinfer.cli import options as o
from localinfer.cli.command import TYPED
from localinfer.cli.telling import Terminal
from localinfer.config import KvBits
from localinfer.errors import UsageError
from localinfer.hub.model import LocalModel

if TYPE_CHECKING:
    from collections.abc import Collection

    from localinfer.evaluate import Quality

Models = Annotated[list[str], typer.Argument(metavar="MODEL…", help="The models to measure: references or GGUF files.")]

OF_TEXTS = ("text", "ctx", "chunks", "plot")
"""Flags of what reads a text, which tasks do not."""


def evaluate(
    context: typer.Context,
    models: Models,
    *,
    against: o.Against,
    tasks: o.Tasks,
    items: o.Items,
    text: o.Text,
    ctx: o.Ctx,
    chunks: o.Chunks,
    plot: o.Plot,
    backend: o.Backend,
    kv_bits: o.KvBits,
    threads: o.Threads,
    revision: o.Revision,
    offline: o.Offline,
    json: o.Json,
    quiet: o.Quiet,
) -> None:
    """Measure perplexity, and with `--against REF` the KL divergence and agreement with the original.

    All models read the text together, through the kernels that serve them. Of each chunk the second half is scored, as
    llama-perplexity does. GGUF files run as `import` would make them, in llama.cpp where it cannot, or with `--backend
    llamacpp`.
    With `--tasks` the models answer questions of our own instead, up to a hundred of each kind: `arithmetic`, `code`
    (functions in Python, run where they can do no harm), `needle` (a code in a diary of 8192 tokens) and `json` (an
    object that keeps a schema). It tells how many answers are right, and which were lost and won beside the original.
    """
    from localinfer.cli.evaluate_tasks import Engines, chosen_tasks, evaluate_tasks
    from localinfer.loading.opening import find

    _refuse_mixed(context.meta[TYPED], tasks=bool(tasks))
    wanted = chosen_tasks(tasks) if tasks else ()
    picture = _picture(plot, against)
    found = [find(ref, revision=revision, offline=offline, tell=Terminal(quiet)) for ref in models]
    reference = original_of(against, revision=revision, offline=offline, quiet=quiet) if against else None
    bits = cast(KvBits, int(kv_bits))
    if wanted:
        engines = Engines(wanted, items, bits, threads, backend, Terminal(quiet))
        evaluate_tasks(engines, found, reference, json=json)
        return
    reader = Texts(text, ctx, chunks, bits, threads or 0, backend)
    qualities, said = reader.measured(found, reference, quiet=quiet)
    _show(qualities, said, picture, json=json, quiet=quiet)


@dataclass(frozen=True, slots=True)
class Texts:
    """What is read, and how."""

    files: list[str]
    ctx: int
    chunks: int
    kv_bits: KvBits
    threads: int
    backend: str

    def measured(
        self, models: list[LocalModel], reference: LocalModel | None, *, quiet: bool
    ) -> "tuple[list[Quality], list[str]]":
        """The figures of `models`, and what is to be noted."""
        from localinfer.cli.progress import Progress
        from localinfer.evaluate import evaluate as measure
        from localinfer.evaluate import held_out_text, read_text
        from localinfer.quantize.from_gguf import GgufImporter

        parts = [read_text(Path(file).expanduser()) for file in self.files]
        said: list[str] = []
        with Progress(quiet=quiet, long=True) as progress:
            qualities = measure(
                [model.path for model in models],
                reference.path if reference else None,
                "".join(parts) if parts else held_out_text(),
                names=[model.ref for model in models],
                reference_name=reference.ref if reference else "",
                ctx=self.ctx,
                chunks=self.chunks,
                kv_bits=self.kv_bits,
                threads=self.threads,
                on_progress=progress,
                convert=None if self.backend == "llamacpp" else GgufImporter().convert,
                on_note=said.append,
            )
        if self.backend == "cuda":
            said.append("`eval` runs on the processor")
        return qualities, said


def _picture(plot: str | None, against: str | None) -> Path | None:
    """Where the picture goes, if one is wanted. Raises what would keep it from being drawn."""
    from localinfer.evaluate.plot import require_plot

    if plot is None:
        return None
    if against is None:
        raise UsageError("`--plot` draws divergences, and there is nothing to compare with", hint="add `--against REF`")
    require_plot(picture := Path(plot).expanduser())
    return picture


def _refuse_mixed(typed: "Collection[str]", *, tasks: bool) -> None:
    """Raise `UsageError` for a flag on the command line that means nothing with tasks, or without."""
    odd = [flag for flag in (OF_TEXTS if tasks else ("items",)) if flag in typed]
    if odd and tasks:
        raise UsageError(f"`--{odd[0]}` does not go with `--tasks`, which reads no text", hint="leave one of them out")
    if odd:
        raise UsageError("`--items` counts those of tasks", hint="add `--tasks all`, or leave it out")


def _show(qualities: "list[Quality]", said: list[str], picture: Path | None, *, json: bool, quiet: bool) -> None:
    from localinfer.cli.output import line, note, show_json
    from localinfer.evaluate.plot import plot
    from localinfer.evaluate.report import table, to_json

    for one in said if not quiet else ():
        note(one)
    if picture is not None:
        plot(qualities, picture)
    if json:
        show_json(to_json(qualities))
    else:
        line(table(qualities).rstrip("\n"))


def original_of(ref: str, *, revision: str | None, offline: bool, quiet: bool) -> LocalModel:
    """The model that `--against` means: of an alias, the original and not its best small form."""
    from localinfer.hub import catalogue
    from localinfer.loading.opening import find

    entry = catalogue.find(ref)
    return find(entry.repo if entry else ref, revision=revision, offline=offline, tell=Terminal(quiet))
