"""What a model says, apart: reasoning, answer, and calls of tools."""

from dataclasses import dataclass

from localinfer.chats.calls import Call, Calls
from localinfer.chats.thinking import Thinking


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of it."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[Call, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.content or self.reasoning or self.calls)


class Saying:
    """Takes an answer apart that comes piece by piece; how it is cut does not matter."""

    def __init__(self, thinking: Thinking | None = None, calls: Calls | None = None) -> None:
        self._thinking, self._calls = thinking, calls

    @property
    def reasons(self) -> bool:
        """Is what comes now reasoning, as far as is known?"""
        return self._thinking is not None and self._thinking.inside

    def push(self, text: str) -> Said:
        """The next piece: what is now sure."""
        reasoning, content = self._thinking.push(text) if self._thinking else ("", text)
        if self._calls is None:
            return Said(content, reasoning)
        content, calls = self._calls.push(content)
        return Said(content, reasoning, calls)

    def finish(self) -> Said:
        """What was held back, now that nothing can follow it."""
        reasoning, content = self._thinking.finish() if self._thinking else ("", "")
        if self._calls is None:
            return Said(content, reasoning)
        before, calls = self._calls.push(content)
        after, more = self._calls.finish()
        return Said(before + after, reasoning, (*calls, *more))
