"""`score`: how likely a model holds given texts to be."""

from typing import Annotated

import typer

from localinfer.cli import options as o
from localinfer.cli.bundles import EngineFlags
from localinfer.cli.telling import Terminal

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

    from localinfer import __version__
    from localinfer.chats.files import BYTES_PER_TOKEN
    from localinfer.chats.rows import lines_of
    from localinfer.chats.scoring import begin_score, score_row, understood_score
    from localinfer.cli.lines import Job, by_engine, opened_lines, opened_rows, together_of
    from localinfer.loading.opening import find, open_model

    together = together_of(parallel)
    with ExitStack() as held:
        stream, total = opened_lines(lines, held, in_column, "text")
        found = find(ref, revision=revision, offline=offline, tell=Terminal(quiet))
        rows = opened_rows(output, held, resume=resume)
        config = replace(engine.config(draft="off"), parallel=together)
        opened = open_model(found, config, backend=engine.backend, tell=Terminal(quiet))
        running = held.enter_context(opened.engine)
        info, limit = running.info, running.context_size * BYTES_PER_TOKEN
        decides = f"score {__version__} {found.ref} {found.revision} {info.kv_layers or info.kv_bits} {info.backend}"
        decides += f" {running.context_size} {special} {logprobs}"
        asked = (
            understood_score(line, index, number, limit=limit, context=decides)
            for index, (number, line) in enumerate(lines_of(stream, limit))
        )
        begin = partial(begin_score, special=special, logprobs=logprobs)
        Job(rows, total, together, by_engine(running, begin, score_row, together), quiet).run(asked)
