"""A prompt written in the user's own editor."""

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from localinfer.errors import LocalInferError, NotFound, UsageError

_LIMIT = 16_000_000


def edited(text: str) -> str | None:
    """`text` as it comes back from $VISUAL or $EDITOR (`vi` without either); None if the editor failed or was left
    with an error. The terminal must be the editor's meanwhile. Raises `NotFound`, `UsageError`."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"$EDITOR is `{command}`: {error}", hint="mend its quotes") from None
    with tempfile.TemporaryDirectory(prefix="localinfer-") as folder:
        file = Path(folder) / "prompt.md"
        file.write_text(text, encoding="utf-8", errors="replace")
        try:
            done = subprocess.run([*words, str(file)], check=False)
        except OSError as error:
            raise NotFound(
                f"the editor `{command}`: {error.strerror}", hint="set $EDITOR to one that is here"
            ) from None
        if done.returncode != 0:
            return None
        return _read(file)


def _read(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise LocalInferError(f"the editor left no file: {error.strerror}", hint="save it under its own name") from None
    if len(data) > _LIMIT:
        raise UsageError(f"the prompt has {len(data)} bytes, more than {_LIMIT}", hint="attach a part of it as a file")
    return data.decode("utf-8", "replace").removesuffix("\n")
