"""A chat as a file for other programs, or for people."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from localinfer.chats.store import SavedChat
from localinfer.chats.turns import Figures, SavedTurn
from localinfer.errors import UsageError
from localinfer.formats.durable import write_bytes


def export(path: Path, turns: Sequence[SavedTurn], *, model: str, system: str | None, saved: SavedChat | None) -> None:
    """Write the branch that is shown: JSON if the name ends in `.json`, else Markdown. `model` and `system` are those
    of the next answer; each turn knows its own. `saved` has title and dates; None for a chat that is not kept.

    Raises `UsageError` if the file is there already, and `NotFound` or `DoesNotFit` when it cannot be written.
    """
    if path.exists():
        raise UsageError(f"{path} is there already", hint="choose another name; nothing was written")
    text = _json(turns, model, system, saved) if path.suffix == ".json" else _markdown(turns, model, saved)
    write_bytes(path, text.encode("utf-8", "replace"))


def _json(turns: Sequence[SavedTurn], model: str, system: str | None, saved: SavedChat | None) -> str:
    chat = {
        "title": saved.title if saved else None,
        "created": _time(saved.created) if saved else None,
        "updated": _time(saved.updated) if saved else None,
        "model": model,
        "system": system,
        "form": json.loads(saved.form) if saved and saved.form else None,
        "messages": [_row(turn, model, new) for turn, new in _with_new_systems(turns)],
    }
    return json.dumps(chat, ensure_ascii=False, indent=2) + "\n"


def _row(turn: SavedTurn, model: str, new_system: bool) -> dict[str, Any]:
    """One message. `system` is there where it came into force, null where it was removed."""
    row: dict[str, Any] = {"role": turn.role, "content": turn.content, "created": _time(turn.created)}
    if new_system:
        row["system"] = turn.system
    if turn.variants > 1:
        row |= {"variant": turn.variant, "variants": turn.variants}
    if turn.role == "assistant":
        row |= {"model": turn.model or model, "ending": turn.ending}
        row["figures"] = asdict(turn.figures) | {"tok_s": turn.figures.tok_s} if turn.figures else None
    return row


def _markdown(turns: Sequence[SavedTurn], model: str, saved: SavedChat | None) -> str:
    parts = [f"# {saved.title if saved and saved.title else model}\n"]
    dates = f"begun {_day(saved.created)}, last written {_day(saved.updated)}, " if saved else ""
    parts.append(f"{dates}model {model}\n")
    for turn, new_system in _with_new_systems(turns):
        if new_system:
            parts.append(
                _quoted(f"System prompt from here on:\n\n{turn.system}" if turn.system else "No system prompt.")
            )
        parts.append(f"## {'You' if turn.role == 'user' else turn.model or model}\n\n{turn.content}\n")
        if about := ", ".join(_about(turn)):
            parts.append(f"*{about}*\n")
    return "\n".join(parts)


def _with_new_systems(turns: Sequence[SavedTurn]) -> Iterator[tuple[SavedTurn, bool]]:
    """Each turn, and whether another system prompt came into force with it."""
    before: str | None = None
    for turn in turns:
        yield turn, turn.system != before
        before = turn.system


def _about(turn: SavedTurn) -> Iterator[str]:
    """When it was said, what it took, and what is to be known of it."""
    if turn.created:
        yield _day(turn.created)
    if turn.variants > 1:
        yield f"variant {turn.variant} of {turn.variants}"
    if turn.figures:
        yield from _figures(turn.figures)
    if turn.elsewhere:
        yield "being written in another process"
    if turn.cut_off:
        yield f"cut off: {turn.cut_off}"


def _figures(figures: Figures) -> Iterator[str]:
    yield f"{figures.completion_tokens} tokens"
    if figures.ttft_s is not None:
        yield f"the first after {figures.ttft_s:.2f} s"
    if figures.tok_s:
        yield f"{figures.tok_s:.1f} tokens/s"


def _quoted(text: str) -> str:
    return "".join(f"> {line}".rstrip() + "\n" for line in text.splitlines())


def _time(seconds: float) -> str | None:
    """ISO 8601, with this machine's offset from UTC."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds") if seconds else None


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
