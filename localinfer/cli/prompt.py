"""The prompt of `run`: files, then standard input, then the argument. Read as bytes, bounded, checked."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from localinfer.cli.output import is_terminal, note
from localinfer.errors import ContextOverflow, NotFound, UsageError, size

BYTES_PER_TOKEN = 256
"""No vocabulary in use has longer tokens, so text beyond context x this cannot fit whatever it says."""

CHUNK = 1 << 16


def read_prompt(argument: str | None, files: Sequence[str], *, lossy: bool, context: int) -> str:
    """All parts of the prompt, an empty line between them.

    Standard input is read when something is piped in, or when the argument or a file is `-`. Raises `UsageError` for
    no prompt, an empty one, or one that is not UTF-8 (unless `lossy`), `NotFound` for a file that cannot be read, and
    `ContextOverflow` for more bytes than `context` tokens could ever hold; no more than that is ever read.
    """
    limit = context * BYTES_PER_TOKEN
    wants_stdin = argument == "-" or "-" in files
    parts = [_file(name, limit, context, lossy) for name in files if name != "-"]
    if wants_stdin or _is_piped():
        if is_terminal(sys.stdin):
            note("reading the prompt from the terminal; Ctrl-D ends it")
        parts.append(_stdin(limit, context, lossy))
    if argument is not None and argument != "-":
        parts.append(_decode(os.fsencode(argument), "the prompt", lossy))
    if not parts:
        raise UsageError("there is no prompt", hint='give one: `localinfer run starter "Hello"`, or pipe one in')
    prompt = "\n\n".join(part for part in parts if part)
    if not prompt.strip():
        raise UsageError("the prompt is empty", hint='give one: `localinfer run starter "Hello"`, or pipe one in')
    return prompt


def _is_piped() -> bool:
    return sys.stdin is not None and not is_terminal(sys.stdin)


def _stdin(limit: int, context: int, lossy: bool) -> str:
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("standard input is closed", hint="pipe the prompt in, or give it as an argument")
    try:
        data = _read(sys.stdin.buffer, limit)
    except OSError as error:
        raise UsageError(f"standard input cannot be read: {error.strerror}", hint="pipe text in") from None
    return _checked(data, "standard input", limit, context, lossy)


def _file(name: str, limit: int, context: int, lossy: bool) -> str:
    try:
        with Path(name).expanduser().open("rb") as file:
            data = _read(file, limit)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NotFound(f"{name}: {reason.lower()}", hint="check the path after `-f`") from None
    return _checked(data, name, limit, context, lossy)


def _read(stream: BinaryIO, limit: int) -> bytes:
    """At most `limit` + 1 bytes, in pieces: memory stays near what is kept, and Ctrl-C is seen between pieces."""
    data = bytearray()
    while len(data) <= limit:
        piece = stream.read(min(CHUNK, limit + 1 - len(data)))
        if not piece:
            break
        data += piece
    return bytes(data)


def _checked(data: bytes, what: str, limit: int, context: int, lossy: bool) -> str:
    if len(data) > limit:
        raise ContextOverflow(
            f"{what} has more than {size(limit)}, too much for a context of {context} tokens",
            hint="send a part of it, or raise `--ctx-size`",
        )
    text = _decode(data, what, lossy).removeprefix("\ufeff")
    return text.removesuffix("\n").removesuffix("\r")


def _decode(data: bytes, what: str, lossy: bool) -> str:
    try:
        return data.decode("utf-8", "replace" if lossy else "strict")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{what} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}",
            hint="convert it with `iconv -t utf-8`, or add `--lossy`",
        ) from None
