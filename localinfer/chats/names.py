"""Names of who speaks, in messages: chat templates may read them, and most do not."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from localinfer.errors import UsageError

if TYPE_CHECKING:
    from localinfer.chats.chat import Chat
    from localinfer.chats.template import Message


def require_names_read(
    chat: "Chat", turns: "Sequence[Message]", tools: Sequence[Mapping[str, Any]], tokens: Sequence[int]
) -> None:
    """Raise `UsageError` for a `name` without which the prompt, which is `tokens`, would be the same. That of a tool is
    the function's, which templates know from the call as well."""
    if chat.raw:
        return
    for role in sorted({turn.role for turn in turns if turn.role != "tool" and "name" in turn.extra}):
        bare = [_without_name(turn) if turn.role == role else turn for turn in turns]
        if chat.tokens_of_turns(bare, tools) == list(tokens):
            raise UsageError(
                f"this model's chat template does not read the `name` of a message of role `{role}`",
                hint="leave it out, or say it in the text",
            )


def _without_name(turn: "Message") -> "Message":
    return replace(turn, extra={name: value for name, value in turn.extra.items() if name != "name"})
