"""Text from outside that goes into a prompt: bounded, checked, and said no to in words."""

from pathlib import Path
from typing import BinaryIO

from localinfer.errors import ContextOverflow, NotFound, UsageError, size

BYTES_PER_TOKEN = 256
"""No vocabulary in use has longer tokens, so text beyond context x this cannot fit whatever it says."""

CHUNK = 1 << 16


def read_file(name: str, context: int, *, lossy: bool = False, hint: str = "check the path") -> str:
    """The text of the file `name`. Raises `NotFound`, `ContextOverflow`, and `UsageError` for what is not UTF-8."""
    try:
        with Path(name).expanduser().open("rb") as file:
            return read_stream(file, name, context, lossy=lossy)
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NotFound(f"{name}: {reason.lower()}", hint=hint) from None


def read_stream(stream: BinaryIO, what: str, context: int, *, lossy: bool = False) -> str:
    """The text of `stream`, called `what`; raises as `read_file` does, but for `OSError`, which is the caller's."""
    limit = context * BYTES_PER_TOKEN
    data = _read(stream, limit)
    if len(data) > limit:
        raise ContextOverflow(
            f"{what} has more than {size(limit)}, too much for a context of {context} tokens",
            hint="send a part of it, or raise `--ctx-size`",
        )
    text = decode(data, what, lossy=lossy).removeprefix("\ufeff")
    return text.removesuffix("\n").removesuffix("\r")


def decode(data: bytes, what: str, *, lossy: bool = False) -> str:
    """`data` as UTF-8. Raises `UsageError` with the place of the first wrong byte, unless `lossy`."""
    try:
        return data.decode("utf-8", "replace" if lossy else "strict")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{what} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}",
            hint="convert it with `iconv -t utf-8`, or add `--lossy`",
        ) from None


def _read(stream: BinaryIO, limit: int) -> bytes:
    """At most `limit` + 1 bytes, in pieces: memory stays near what is kept, and Ctrl-C is seen between pieces."""
    data = bytearray()
    while len(data) <= limit:
        piece = stream.read(min(CHUNK, limit + 1 - len(data)))
        if not piece:
            break
        data += piece
    return bytes(data)
