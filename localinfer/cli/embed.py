"""`embed`: texts as vectors."""

from typing import TYPE_CHECKING, Annotated

import typer

from localinfer.cli import options as o
from localinfer.cli.bundles import EngineFlags
from localinfer.cli.telling import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localinfer.chats.row_file import Done
    from localinfer.chats.rows import Line

Ref = Annotated[str, typer.Argument(metavar="MODEL", help="The model.")]
Lines = Annotated[
    str | None, typer.Argument(metavar="[FILE]", help="A line of JSON for each text; `-` or none: standard input.")
]


def embed(
    ref: Ref,
    lines: Lines = None,
    *,
    in_column: o.InColumn,
    output: o.Output,
    resume: o.Resume,
    pool: o.PoolOf,
    unscaled: o.Unscaled,
    parallel: o.Parallel,
    engine: EngineFlags,
    revision: o.Revision,
    offline: o.Offline,
    quiet: o.Quiet,
) -> None:
    """Turn texts into vectors: JSON lines in, JSON lines out, in their order.

    A line has `text`, and perhaps `id`; a row has the `embedding`, of length 1 unless `--unscaled`, and the `tokens`
    that were read. It is made of what the model holds behind its last layer: of the last token, or of the mean of all.
    Models that were made for this, such as Qwen3-Embedding, want `last`, and an instruction before a query. Texts
    stand as they are, without the chat template.
    """
    from contextlib import ExitStack
    from dataclasses import replace
    from functools import partial

    from localinfer.chats.embedding import begin_vector, understood_text, vector_row
    from localinfer.chats.files import BYTES_PER_TOKEN
    from localinfer.chats.rows import lines_of
    from localinfer.cli.lines import LINE_BYTES, Job, by_engine, of_model, opened_lines, opened_rows, together_of
    from localinfer.loading.opening import find, open_model

    together = together_of(parallel)
    with ExitStack() as held:
        stream, total = opened_lines(lines, held, in_column, "text")
        found = find(ref, revision=revision, offline=offline, tell=Terminal(quiet))
        rows = opened_rows(output, held, resume=resume)
        config = replace(engine.config(draft="off"), parallel=together)

        def answers(asked: "Iterator[Line]") -> "Iterator[Done]":
            opened = open_model(found, config, backend=engine.backend, tell=Terminal(quiet))
            running = held.enter_context(opened.engine)
            understood = partial(understood_text, limit=running.context_size * BYTES_PER_TOKEN)
            begin = partial(begin_vector, pool=pool)
            return by_engine(running, map(understood, asked), begin, partial(vector_row, raw=unscaled), together)

        context = of_model(found, engine, f"embed {pool} {unscaled}")
        Job(rows, total, together, answers, quiet).run(lines_of(stream, LINE_BYTES, context))
