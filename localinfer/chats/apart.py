"""From the events of an answer to what it says: reasoning, text, and calls of tools in the family's own way."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localinfer.chats.call_ways import Way, way_of
from localinfer.chats.saying import Said, Saying
from localinfer.chats.template import takes_tools
from localinfer.engine.stopping import StopScanner
from localinfer.errors import NotSupported, UsageError
from localinfer.events import Finished, Text

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine


@dataclass(frozen=True, slots=True)
class Written:
    """How a model writes calls. `hidden` are the marks that are special tokens, which are no text."""

    way: Way
    hidden: Mapping[int, str]


def written_by(engine: "Engine") -> Written:
    """How this model writes calls of tools. Raises `UsageError` for a template that takes no tools, `NotSupported` for
    a way that is not known."""
    template = engine.tools_template or engine.chat_template
    if template and not takes_tools(template):
        raise UsageError("this model's chat template takes no tools", hint="leave them out, or choose another model")
    way = way_of(template, engine.tokenizer.special_strings)
    if way is None:
        raise NotSupported("how this model writes calls of tools is not known", hint="choose another model")
    return Written(way, _hidden((way.opening, way.closing, *way.marks), engine))


def _hidden(marks: Iterable[str], engine: "Engine") -> dict[int, str]:
    tokenizer, found = engine.tokenizer, dict[int, str]()
    for mark in marks:
        ids = tokenizer.encode_rendered(mark) if mark in tokenizer.special_strings else []
        if len(ids) == 1 and not tokenizer.decode(ids):
            found[ids[0]] = mark
    return found


class Apart:
    """Takes one answer apart, event by event. Hidden marks are read as they are spelled."""

    def __init__(self, engine: "Engine", saying: Saying, stop: Sequence[str], hidden: Mapping[int, str]) -> None:
        self.saying = saying
        self._hidden = hidden
        self._stream = engine.tokenizer.stream(continues=True)
        self._scanner = StopScanner(stop)

    def push(self, event: Text) -> Said:
        """What is now sure."""
        if not self._hidden:
            return self.saying.push(event.text)
        text = ""
        for token in event.token_ids:
            mark = self._hidden.get(token)
            text += self._stream.push(token) if mark is None else mark
        return self.saying.push(self._scanner.push(text)[0])

    def finish(self, event: Finished) -> Said:
        """What was held back."""
        if not self._hidden:
            return self.saying.finish()
        text, stop = self._scanner.push(self._stream.finish())
        if stop is None and event.stop is None:
            text += self._scanner.finish()
        return joined([self.saying.push(text), self.saying.finish()])


def joined(parts: Sequence[Said]) -> Said:
    """Several pieces as one."""
    if len(parts) == 1:
        return parts[0]
    return Said(
        "".join(part.content for part in parts),
        "".join(part.reasoning for part in parts),
        tuple(call for part in parts for call in part.calls),
    )
