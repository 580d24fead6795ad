"""The prompt of `run`: files, then standard input, then the argument. Read as bytes, bounded, checked."""

import os
import sys
from collections.abc import Sequence

from localinfer.chats.files import decode, read_file, read_stream
from localinfer.cli.output import is_terminal, note
from localinfer.errors import UsageError


def read_prompt(argument: str | None, files: Sequence[str], *, lossy: bool, context: int) -> str:
    """All parts of the prompt, an empty line between them.

    Standard input is read when something is piped in, or when the argument or a file is `-`. Raises `UsageError` for
    no prompt, an empty one, or one that is not UTF-8 (unless `lossy`), `NotFound` for a file that cannot be read, and
    `ContextOverflow` for more bytes than `context` tokens could ever hold; no more than that is ever read.
    """
    wants_stdin = argument == "-" or "-" in files
    hint = "check the path after `-f`"
    parts = [read_file(name, context, lossy=lossy, hint=hint) for name in files if name != "-"]
    if wants_stdin or _is_piped():
        if is_terminal(sys.stdin):
            note("reading the prompt from the terminal; Ctrl-D ends it")
        parts.append(_stdin(context, lossy))
    if argument is not None and argument != "-":
        parts.append(decode(os.fsencode(argument), "the prompt", lossy=lossy))
    if not parts:
        raise UsageError("there is no prompt", hint='give one: `localinfer run starter "Hello"`, or pipe one in')
    prompt = "\n\n".join(part for part in parts if part)
    if not prompt.strip():
        raise UsageError("the prompt is empty", hint='give one: `localinfer run starter "Hello"`, or pipe one in')
    return prompt


def _is_piped() -> bool:
    return sys.stdin is not None and not is_terminal(sys.stdin)


def _stdin(context: int, lossy: bool) -> str:
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("standard input is closed", hint="pipe the prompt in, or give it as an argument")
    try:
        return read_stream(sys.stdin.buffer, "standard input", context, lossy=lossy)
    except OSError as error:
        raise UsageError(f"standard input cannot be read: {error.strerror}", hint="pipe text in") from None
