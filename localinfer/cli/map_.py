"""`map`: a line of JSON in, a line of JSON out, many at once."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from localinfer.cli import options as o
from localinfer.cli.bundles import EngineFlags, FormFlags, SamplingFlags, ThinkingFlags
from localinfer.cli.telling import Terminal

if TYPE_CHECKING:
    from localinfer.chats.rows import Asked, LineSource
    from localinfer.config import SamplingParams
    from localinfer.loading.opening import Opened

Ref = Annotated[str, typer.Argument(metavar="MODEL", help="The model.")]
Lines = Annotated[
    str | None, typer.Argument(metavar="[FILE]", help="A line of JSON for each prompt; `-` or none: standard input.")
]


def map_(
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
    no_server: o.NoServer,
    revision: o.Revision,
    offline: o.Offline,
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
    """
    from contextlib import ExitStack
    from dataclasses import replace
    from functools import partial

    from localinfer.chats.mapping import Manner, begin_chat
    from localinfer.chats.row_file import row_of
    from localinfer.cli.lines import Job, opened_lines, opened_rows, together_of
    from localinfer.cli.run import require_raw
    from localinfer.loading.connecting import connect_or_open
    from localinfer.loading.opening import find

    require_raw(raw=raw, special=special, think=thinking.wanted())
    grammar, together, tell = form.form(), together_of(parallel), Terminal(quiet)
    with ExitStack() as held:
        stream, total = opened_lines(lines, held, in_column)
        found, rows = find(ref, revision=revision, offline=offline, tell=tell), opened_rows(output, held, resume=resume)
        config = replace(engine.config(), parallel=together)
        where = partial(connect_or_open, server=not no_server, private=True, tell=tell)
        opened = where(found, config, backend=engine.backend)
        running = held.enter_context(opened.engine)
        usual, thinks = sampling.over(running.default_sampling), (thinking.wanted(), thinking.show_thinking)
        manner = Manner(system, raw, special, grammar, logprobs, *thinks)
        asked = _asked(stream, opened, usual, f"{manner!r} {ignore_unknown}", ignore_unknown=ignore_unknown)
        job = Job(running, rows, total, together, partial(begin_chat, manner=manner), row_of, quiet)
        job.run(asked)


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
