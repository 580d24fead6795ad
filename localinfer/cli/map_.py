"""`map`: a line of JSON in, a line of JSON out, many at once."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from localinfer.cli import options as o
from localinfer.cli.bundles import EndpointFlags, EngineFlags, FormFlags, SamplingFlags, ThinkingFlags, WhereFlags
from localinfer.cli.command import TYPED
from localinfer.cli.telling import Terminal

if TYPE_CHECKING:
    from contextlib import ExitStack

    from localinfer.chats.mapping import Manner
    from localinfer.chats.rows import Asked, LineSource
    from localinfer.cli.lines import Answers
    from localinfer.config import SamplingParams
    from localinfer.loading.opening import Opened

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
    A line in OpenAI's batch form (`custom_id` and a request to `/v1/chat/completions`) gets a row in that form. The
    seed of a line that names none comes of `--seed` and its `id`, or of the line itself where it has none.
    A row has the number of its line in the input, as `line`, calls of the line's tools as `tool_calls`, and what the
    model thought as `reasoning`, unless that is to be shown in the text.
    Eight are answered together unless `--parallel` says otherwise; no answer depends on it. `-o -` is standard output.
    With `--endpoint` MODEL is a model of that server, which is told what lines and flags say of sampling, and a seed.
    """
    from contextlib import ExitStack

    from localinfer.chats.mapping import Manner
    from localinfer.cli.elsewhere import elsewhere, refuse_flags
    from localinfer.cli.lines import Job, opened_lines, opened_rows, together_of
    from localinfer.cli.run import require_raw

    require_raw(raw=raw, special=special, think=thinking.wanted())
    together, thinks = together_of(parallel), (thinking.wanted(), thinking.show_thinking)
    manner = Manner(system, raw, special, form.form(), logprobs, *thinks)
    with ExitStack() as held:
        stream, total = opened_lines(lines, held, in_column)
        more = (stream, sampling, manner, together)
        rows = opened_rows(output, held, resume=resume)
        if endpoints.endpoint:
            refuse_flags(ctx.meta[TYPED])
            asked, answers = elsewhere(held, endpoints, ref, *more, ignore_unknown=ignore_unknown)
        else:
            opened = where.opened(ref, engine, together, Terminal(quiet))
            asked, answers = _here(held, opened, *more, ignore_unknown=ignore_unknown)
        Job(rows, total, together, answers, quiet).run(asked)


def _here(
    held: "ExitStack",
    opened: "Opened",
    stream: "LineSource",
    sampling: SamplingFlags,
    manner: "Manner",
    together: int,
    *,
    ignore_unknown: bool,
) -> "tuple[Iterator[Asked], Answers]":
    """What each line asks for, and the engine that answers them, which `held` closes."""
    from functools import partial

    from localinfer.chats.mapping import begin_chat
    from localinfer.chats.row_file import row_of
    from localinfer.cli.lines import by_engine

    running = held.enter_context(opened.engine)
    usual = sampling.over(running.default_sampling)
    asked = _asked(stream, opened, usual, f"{manner!r} {ignore_unknown}", ignore_unknown=ignore_unknown)
    return asked, by_engine(running, partial(begin_chat, manner=manner), row_of, together)


def _asked(
    stream: "LineSource", opened: "Opened", usual: "SamplingParams", more: str, *, ignore_unknown: bool
) -> "Iterator[Asked]":
    """What each line asks for. Whatever decides an answer is in its digest, so that a resumed run is one run."""
    from localinfer import __version__
    from localinfer.chats.files import BYTES_PER_TOKEN
    from localinfer.chats.rows import lines_of, understood

    running, model = opened.engine, opened.model
    limit = running.context_size * BYTES_PER_TOKEN
    context = f"{__version__} {model.ref} {model.revision} {running.info.kv_layers or running.info.kv_bits} "
    context += f"{running.context_size} {running.info.backend} {usual!r} {more}"
    for index, (number, line) in enumerate(lines_of(stream, limit)):
        yield understood(
            line, index, number, limit=limit, context=context, sampling=usual, ignore_unknown=ignore_unknown
        )
