"""A chat as a file for other programs, or for people."""

import json
from collections.abc import Sequence
from pathlib import Path

from localinfer.chats.template import Message
from localinfer.errors import UsageError
from localinfer.formats.durable import write_bytes


def export(path: Path, turns: Sequence[Message], *, model: str, system: str | None) -> None:
    """Write a chat whole: JSON if the name ends in `.json`, else Markdown.

    Raises `UsageError` if the file is there already, and `NotFound` or `DoesNotFit` when it cannot be written.
    """
    if path.exists():
        raise UsageError(f"{path} is there already", hint="choose another name; nothing was written")
    text = _json(turns, model, system) if path.suffix == ".json" else _markdown(turns, model, system)
    write_bytes(path, text.encode("utf-8", "replace"))


def _json(turns: Sequence[Message], model: str, system: str | None) -> str:
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    return json.dumps({"model": model, "system": system, "messages": messages}, ensure_ascii=False, indent=2) + "\n"


def _markdown(turns: Sequence[Message], model: str, system: str | None) -> str:
    heads = {"user": "You", "assistant": model}
    parts = [f"## {heads[turn.role]}\n\n{turn.content}\n" for turn in turns]
    return "\n".join([f"# {model}\n", *([f"> {system}\n"] if system else []), *parts])
