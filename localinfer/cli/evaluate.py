"""`eval`: what a smaller model lost, against the original."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from localinfer.cli import options as o
from localinfer.cli.telling import Terminal
from localinfer.config import KvBits
from localinfer.errors import UsageError
from localinfer.hub.model import LocalModel

if TYPE_CHECKING:
    from localinfer.evaluate import Quality

Models = Annotated[list[str], typer.Argument(metavar="MODEL…", help="The models to measure: references or GGUF files.")]


def evaluate(
    models: Models,
    *,
    against: o.Against,
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
    """
    from localinfer.cli.progress import Progress
    from localinfer.evaluate import evaluate as measure
    from localinfer.evaluate import held_out_text, read_text
    from localinfer.evaluate.plot import require_plot
    from localinfer.loading.opening import find
    from localinfer.quantize.from_gguf import GgufImporter

    if plot is not None and against is None:
        raise UsageError("`--plot` draws divergences, and there is nothing to compare with", hint="add `--against REF`")
    picture = Path(plot).expanduser() if plot is not None else None
    if picture is not None:
        require_plot(picture)
    found = [find(ref, revision=revision, offline=offline, tell=Terminal(quiet)) for ref in models]
    reference = original_of(against, revision=revision, offline=offline, quiet=quiet) if against else None
    words = "".join(read_text(Path(file).expanduser()) for file in text) if text else held_out_text()
    said: list[str] = []
    with Progress(quiet=quiet, long=True) as progress:
        qualities = measure(
            [model.path for model in found],
            reference.path if reference else None,
            words,
            names=[model.ref for model in found],
            reference_name=reference.ref if reference else "",
            ctx=ctx,
            chunks=chunks,
            kv_bits=cast(KvBits, int(kv_bits)),
            threads=threads or 0,
            on_progress=progress,
            convert=None if backend == "llamacpp" else GgufImporter().convert,
            on_note=said.append,
        )
    if backend == "cuda":
        said.append("`eval` runs on the processor")
    _show(qualities, said, picture, json=json, quiet=quiet)


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
