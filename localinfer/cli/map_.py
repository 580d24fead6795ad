"""`map`: a line of JSON in, a line of JSON out, many at once."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from localinfer.cli import options as o
from localinfer.cli.bundles import EndpointFlags, EngineFlags, FormFlags, SamplingFlags, ThinkingFlags, WhereFlags
from localinfer.cli.command import TYPED
from localinfer.cli.lines import of_model
from localinfer.cli.telling import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import ExitStack

    from localinfer.chats.mapping import Manner
    from localinfer.chats.row_file import Done
    from localinfer.chats.rows import Line
    from localinfer.loading.opening import Opened
    from localinfer.protocols.batch import OtherModels

Ref = Annotated[str, typer.Argument(metavar="MODEL", help="The model.")]
Lines = Annotated[
    str | None, typer.Argument(metavar="[FILE]", help="A line of JSON for each prompt; `-` or none: standard input.")
]


def map_(
    ctx: typer.Context,
    ref: Ref,
    lines: Lines = None,
    *,
    in_column: o.InColumn,
    output: o.Output,
    resume: o.Resume,
    system: o.System,
    raw: o.Raw,
    special: o.Special,
    ignore_unknown: o.IgnoreUnknown,
    form: FormFlags,
    thinking: ThinkingFlags,
    sampling: SamplingFlags,
    logprobs: o.Logprobs,
    parallel: o.Parallel,
    engine: EngineFlags,
    where: WhereFlags,
    endpoints: EndpointFlags,
    quiet: o.Quiet,
) -> None:
    """Answer many prompts together: JSON lines in, JSON lines out, in their order.

    A line has `prompt` or `messages` (roles system, user, assistant and tool; texts or lists of text parts; a last one
    of the assistant's is gone on with), and what it wants of `id`, `system`, `tools`, `seed`, `max_tokens`, `stop`,
    `raw`, `special`, `logprobs`, `temperature`, `top_k` and all other settings of sampling, named as OpenAI and `run`
    name them. What cannot be answered becomes a row with `error`, and the exit code is the first one's; so does a line
    with other keys, unless they are to be ignored.
    A line in OpenAI's batch form (`custom_id` and a request to `/v1/chat/completions`, `/v1/completions`,
    `/v1/responses` or `/v1/embeddings`) may say all that `serve` takes there, but `stream`, and gets a row in that
    form. The seed of a line that names none comes of `--seed` and its `id`, or of the line itself where it has none.
    A row has the number of its line in the input, as `line`, calls of the line's tools as `tool_calls`, and what the
    model thought as `reasoning`, unless the text shows it. Eight are answered together unless `--parallel` says
    otherwise; no answer depends on it. `-o -` is standard output. `--resume` answers what has no row yet, and tries
    errors again. A table is made at the end; until then, and while a row holds an error, rows are in `FILE.rows.jsonl`.
    With `--endpoint` MODEL is a model of that server, which is told what lines and flags say of sampling, and a seed.
    """
    from contextlib import ExitStack

    from localinfer.chats.mapping import Manner
    from localinfer.chats.rows import lines_of
    from localinfer.cli.elsewhere import elsewhere, is_elsewhere, other_models
    from localinfer.cli.lines import LINE_BYTES, Job, opened_lines, opened_rows, together_of
    from localinfer.cli.run import require_raw

    require_raw(raw=raw, special=special, think=thinking.wanted())
    together, tell = together_of(parallel), Terminal(quiet)
    manner = Manner(system, raw, special, form.form(), logprobs, thinking.wanted(), thinking.show_thinking)
    with ExitStack() as held:
        stream, total = opened_lines(lines, held, in_column)
        more, rows = (sampling, manner, together), opened_rows(output, held, resume=resume)
        if is_elsewhere(endpoints, ctx.meta[TYPED]):
            context, answers = elsewhere(held, endpoints, ref, rows, *more, ignore_unknown=ignore_unknown, quiet=quiet)
        else:
            model, context = where.found(ref, tell), f"{sampling!r} {manner!r} {ignore_unknown}"
            others = other_models(held, [ref, model.ref], quiet=quiet)
            opening, context = partial(where.opened, model, engine, together, tell), of_model(model, engine, context)
            answers = partial(_answers, held, opening, *more, others, ignore_unknown)
        Job(rows, total, together, answers, quiet).run(lines_of(stream, LINE_BYTES, context))


def _answers(
    held: "ExitStack",
    opening: "Callable[[], Opened]",
    sampling: SamplingFlags,
    manner: "Manner",
    together: int,
    others: "OtherModels",
    ignore_unknown: bool,
    lines: "Iterator[Line]",
) -> "Iterator[Done]":
    """The answers of a model that is opened for them, and which `held` closes."""
    from localinfer.chats.files import BYTES_PER_TOKEN
    from localinfer.cli.lines import by_engine
    from localinfer.protocols import batch

    running = held.enter_context(opening().engine)
    limit = running.context_size * BYTES_PER_TOKEN
    usual = sampling.over(running.default_sampling)
    reader = batch.Reader(manner, usual, limit, ignore_unknown, others=others)
    begin, row_of = partial(batch.begin, manner=manner), partial(batch.row_of, model=running.info.model)
    return by_engine(running, map(reader.understood, lines), begin, row_of, together)
