"""`score`: how likely a model holds given texts to be."""

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


def score(
    ref: Ref,
    lines: Lines = None,
    *,
    in_column: o.InColumn,
    output: o.Output,
    resume: o.Resume,
    special: o.Special,
    logprobs: o.Logprobs,
    parallel: o.Parallel,
    engine: EngineFlags,
    revision: o.Revision,
    offline: o.Offline,
    quiet: o.Quiet,
) -> None:
    """Tell how likely the model holds given texts to be: JSON lines in, JSON lines out, in their order.

    A line has `text`, or `context` and the `continuation` that is scored behind it, and perhaps `id` and `logprobs`. A
    row has the `logprob` of all scored `tokens` together (natural logarithm), their `perplexity`, and whether each was
    the likeliest one (`greedy`). The first token of a text is not scored, but behind the token that the model begins
    texts with, if it has one. Texts stand as they are, without the chat template.
    """
    from contextlib import ExitStack
    from dataclasses import replace
    from functools import partial

    from localinfer.chats.files import BYTES_PER_TOKEN
    from localinfer.chats.rows import lines_of
    from localinfer.chats.scoring import begin_score, score_row, understood_score
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
            understood = partial(understood_score, limit=running.context_size * BYTES_PER_TOKEN)
            begin = partial(begin_score, special=special, logprobs=logprobs)
            return by_engine(running, map(understood, asked), begin, score_row, together)

        context = of_model(found, engine, f"score {special} {logprobs}")
        Job(rows, total, together, answers, quiet).run(lines_of(stream, LINE_BYTES, context))
