"""`map --endpoint`: lines that other servers answer."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

from localinfer.cli.progress import note_over
from localinfer.errors import UsageError

if TYPE_CHECKING:
    from contextlib import ExitStack

    from localinfer.chats.mapping import Manner
    from localinfer.chats.row_file import Done
    from localinfer.chats.rows import Line
    from localinfer.cli.bundles import EndpointFlags, SamplingFlags
    from localinfer.cli.lines import Answers, Rows
    from localinfer.protocols.batch import OtherModels, Reader
    from localinfer.remote.endpoints import Asking, Endpoints

OF_MODELS = {
    *("raw", "special", "ctx-size", "threads", "kv-bits", "backend", "draft", "draft-tokens", "prefill-chunk"),
    *("adapter", "kv-tokens", "latency-goal", "no-server", "revision", "offline", "show-thinking", "regex", "grammar"),
    "experts",
}
"""Flags that mean nothing where another server answers."""


OF_ENDPOINTS = {"endpoint-model", "endpoint-key-env", "endpoint-timeout"}
"""Flags that mean nothing where none answers."""


def is_elsewhere(flags: "EndpointFlags", typed: Any) -> bool:
    """Whether endpoints are to answer. Raises `UsageError` for a flag on the command line that means nothing then, or
    that means something only then."""
    if not flags.endpoint:
        if odd := sorted(OF_ENDPOINTS & set(typed)):
            raise UsageError(f"`--{odd[0]}` goes with `--endpoint`", hint="say which server is to answer")
        return False
    if odd := sorted(OF_MODELS & set(typed)):
        raise UsageError(f"`--{odd[0]}` does not go with `--endpoint`", hint="leave it out")
    return True


def elsewhere(
    held: "ExitStack",
    flags: "EndpointFlags",
    model: str,
    rows: "Rows | None",
    sampling: "SamplingFlags",
    manner: "Manner",
    together: int,
    *,
    ignore_unknown: bool,
    quiet: bool,
) -> "tuple[str, Answers]":
    """What decides an answer beside its line, and what answers lines, in their order where there are no `rows` to bring
    into it later. Of sampling, an endpoint is told what was given, and a seed."""
    from localinfer import __version__
    from localinfer.cli.lines import LINE_BYTES
    from localinfer.config import SamplingParams
    from localinfer.protocols import batch
    from localinfer.remote.endpoints import Endpoints
    from localinfer.remote.servers import Insistence

    usual, name = sampling.over(SamplingParams()), flags.endpoint_model or model
    given = [one.name for one in fields(usual) if getattr(usual, one.name) != getattr(SamplingParams(), one.name)]
    given += [one for one in sampling.given() if one not in given]
    context = f"endpoint {__version__} {name} {usual!r} {sorted(given)} {manner!r} {ignore_unknown}"
    others = other_models(held, [name], quiet=quiet)
    reader = batch.Reader(manner, usual, LINE_BYTES, ignore_unknown, is_elsewhere=True, others=others)
    asking = partial(batch.forwarded, model=name, manner=manner, given=tuple(given))
    told = None if quiet else note_over
    insistence = Insistence(silence=flags.timeout())
    key = _key(flags.endpoint_key_env)
    servers = Endpoints(list(flags.endpoint), key=key, together=together, insistence=insistence, tell=told)
    held.callback(servers.close)
    return context, partial(_answers, servers, reader, asking, rows is None)


def other_models(held: "ExitStack", own: list[str], *, quiet: bool) -> "OtherModels":
    """Counts requests that name another model than one of our `own`; when `held` is closed they are told."""
    from localinfer.cli.output import note
    from localinfer.protocols.batch import OtherModels

    others = OtherModels(own)
    if not quiet:
        held.callback(lambda: note(others.told()) if others.lines else None)
    return others


def _answers(
    servers: "Endpoints", reader: "Reader", asking: "Asking", in_order: bool, lines: "Iterator[Line]"
) -> "Iterator[Done]":
    from localinfer.chats.elsewhere import row_of
    from localinfer.chats.mapping import Answered
    from localinfer.chats.row_file import Done, head_of
    from localinfer.protocols.batch import error_row, response_row

    for one in servers.answer_all(map(reader.understood, lines), asking, in_order=in_order):
        answered = Answered(one.asked, error=one.error)
        if one.error is not None:
            yield Done(one.asked, error_row(answered), error=one.error)
        elif one.asked.batch is not None:
            yield Done(one.asked, response_row(one.asked, 200, one.body), _written(one.body))
        else:
            yield Done(one.asked, row_of(one.asked, one.body, head_of(answered)), _written(one.body))


def _written(body: "Mapping[str, Any]") -> int:
    """Tokens that were written."""
    usage = body.get("usage") or {}
    written = usage.get("completion_tokens", usage.get("output_tokens"))
    return written if type(written) is int else 0


def _key(variable: str | None) -> str:
    """The key in the environment's `variable`; empty where none is named."""
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key or not (key.isascii() and key.isprintable()):
        raise UsageError(f"the variable {variable[:60]} holds no key", hint=f"set it: `export {variable[:60]}=…`")
    return key
