"""`map --endpoint`: lines that other servers answer."""

import os
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

from localinfer.errors import UsageError

if TYPE_CHECKING:
    from contextlib import ExitStack

    from localinfer.chats.mapping import Manner
    from localinfer.chats.row_file import Done
    from localinfer.chats.rows import Asked, LineSource
    from localinfer.cli.bundles import EndpointFlags, SamplingFlags
    from localinfer.cli.lines import Answers

LINE_BYTES = 16 << 20
"""Most bytes of a line."""

OF_MODELS = {
    *("raw", "special", "ctx-size", "threads", "kv-bits", "backend", "draft", "draft-tokens", "prefill-chunk"),
    *("adapter", "kv-tokens", "latency-goal", "no-server", "revision", "offline", "show-thinking", "regex", "grammar"),
}
"""Flags that mean nothing where another server answers."""


def refuse_flags(typed: Any) -> None:
    """Raise `UsageError` for a flag on the command line that no endpoint can be told."""
    if odd := sorted(OF_MODELS & set(typed)):
        raise UsageError(f"`--{odd[0]}` does not go with `--endpoint`", hint="leave it out")


def elsewhere(
    held: "ExitStack",
    flags: "EndpointFlags",
    model: str,
    stream: "LineSource",
    sampling: "SamplingFlags",
    manner: "Manner",
    together: int,
    *,
    ignore_unknown: bool,
) -> "tuple[Iterator[Asked], Answers]":
    """What each line asks for, and what answers them. Of sampling, an endpoint is told what was given, and a seed."""
    from localinfer import __version__
    from localinfer.chats.elsewhere import body_of
    from localinfer.chats.rows import lines_of, understood
    from localinfer.config import SamplingParams
    from localinfer.remote.endpoints import Endpoints

    usual, name = sampling.over(SamplingParams()), flags.endpoint_model or model
    given = [one.name for one in fields(usual) if getattr(usual, one.name) != getattr(SamplingParams(), one.name)]
    given += [one for one in sampling.given() if one not in given]
    context = f"endpoint {__version__} {name} {usual!r} {sorted(given)} {manner!r} {ignore_unknown}"
    how: dict[str, Any] = {"limit": LINE_BYTES, "context": context, "sampling": usual}
    asked = (
        understood(line, index, number, **how, ignore_unknown=ignore_unknown)
        for index, (number, line) in enumerate(lines_of(stream, LINE_BYTES))
    )
    servers = Endpoints(list(flags.endpoint), key=_key(flags.endpoint_key_env), together=together)
    held.callback(servers.close)
    return asked, partial(_answers, servers, partial(body_of, model=name, manner=manner, given=tuple(given)))


def _answers(servers: Any, body: Any, lines: "Iterator[Asked]") -> "Iterator[Done]":
    from localinfer.chats.elsewhere import row_of
    from localinfer.chats.mapping import Answered
    from localinfer.chats.row_file import Done, error_row, head_of, response_row

    for one in servers.answer_all(lines, body):
        answered = Answered(one.asked, error=one.error)
        if one.error is not None:
            yield Done(one.asked, error_row(answered), error=one.error)
            continue
        batch = one.asked.batch
        row = response_row(one.asked, 200, one.body) if batch else row_of(one.asked, one.body, head_of(answered))
        written = (one.body.get("usage") or {}).get("completion_tokens")
        yield Done(one.asked, row, written if type(written) is int else 0)


def _key(variable: str | None) -> str:
    """The key in the environment's `variable`; empty where none is named."""
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key or not (key.isascii() and key.isprintable()):
        raise UsageError(f"the variable {variable[:60]} holds no key", hint=f"set it: `export {variable[:60]}=…`")
    return key
