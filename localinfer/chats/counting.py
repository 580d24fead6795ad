"""How much of the context a conversation takes before anything is asked."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from localinfer.chats.template import Message, render

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine

CHARS_PER_TOKEN = 256
"""No vocabulary has longer tokens in use; more text than this for each token of the context is not counted."""


def context_tokens(engine: "Engine", messages: Sequence[Message]) -> int | None:
    """Tokens that `engine` reads for these messages, the system prompt first if there is one; the whole context for a
    text that is far too long for it, None for none. Raises as `render` does."""
    if not any(message.role != "system" for message in messages):
        return None
    if sum(len(message.content) for message in messages) > CHARS_PER_TOKEN * engine.context_size:
        return engine.context_size
    tokenizer = engine.tokenizer
    rendered = render(
        engine.chat_template,
        messages,
        bos=tokenizer.bos_token or "",
        eos=tokenizer.eos_token or "",
        special_strings=tokenizer.special_strings,
        special_tokens=tokenizer.special_tokens,
        add_generation_prompt=False,
    )
    return len(tokenizer.encode_rendered(rendered.text, rendered.guard))
