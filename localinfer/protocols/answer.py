"""One text while the engine writes it: what it has said so far, and how it ended."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING

from localinfer.chats.apart import joined
from localinfer.chats.calls import Call
from localinfer.chats.saying import Said
from localinfer.events import Event, Finished, FinishReason, Progress, Scored, Stats, Text
from localinfer.protocols.asking import Task

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine


@dataclass(slots=True)
class Answer:
    """One text so far."""

    seed: int
    prompt_tokens: int
    echoed: str = ""
    """What of the prompt stands before the content."""
    content: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    reason: FinishReason | None = None
    """How it ended, if it has."""
    stop: str | None = None
    """The stop string that ended it."""
    token_ids: tuple[int, ...] = ()
    scores: list[Scored] = field(default_factory=list)
    """Of the tokens so far, where they were asked for."""
    content_scores: list[Scored] = field(default_factory=list)
    """Of the tokens that the content is made of."""
    read: int = 0
    """Tokens of the prompt that have been read or found."""
    found: int = 0
    """Of them, those that were found in the cache."""
    read_s: float = 0.0
    """Seconds from the request until so many had been read."""
    reasoning_tokens: int = 0
    stats: Stats | None = None

    def add(self, said: Said) -> None:
        self.content += said.content
        self.reasoning += said.reasoning
        self.calls += said.calls


class Listener:
    """Keeps in `answer` what the engine says of a text. With `one_call` the text ends behind its first call: the engine
    is told so, and what it says after that is not heard."""

    def __init__(self, engine: "Engine", task: Task, *, one_call: bool = False) -> None:
        self.answer = _begun(engine, task)
        self._apart, self._one_call, self._cancel = task.apart, one_call, engine.cancel
        self._cut = False
        self._pending = list[Scored]()  # of tokens whose text is held back
        self._begun = perf_counter()

    def hear(self, events: Sequence[Event]) -> Said:
        """What `events` say, joined."""
        answer, parts = self.answer, list[Said]()
        for event in events:
            match event:
                case Progress():
                    answer.found = answer.found if answer.read else event.done - event.computed
                    answer.read, answer.read_s = event.done, perf_counter() - self._begun
                case Text() if not self._cut:
                    self._take(event, parts)
                case Stats():
                    answer.stats = event
                case Finished():
                    if not self._cut:
                        parts.append(self._apart.finish(event))
                        self._give_out(parts[-1])
                    answer.reason = None if event.error else "stop" if self._cut else event.reason
                    answer.token_ids, answer.stats, answer.stop = event.token_ids, event.stats, event.stop
        said = joined(parts)
        if self._one_call:
            said = replace(said, calls=said.calls[: 1 - len(answer.calls)])
        answer.add(said)
        return said

    def _take(self, event: Text, parts: list[Said]) -> None:
        reasons = self._apart.saying.reasons
        self.answer.reasoning_tokens += len(event.token_ids) if reasons else 0
        parts.append(self._apart.push(event))
        if event.score:
            self.answer.scores.append(event.score)
            self._pending += [] if reasons else [event.score]
            self._give_out(parts[-1])
        if self._one_call and parts[-1].calls:
            self._cut = True
            self._cancel(event.handle)

    def _give_out(self, said: Said) -> None:
        """Count the scores that wait as those of the content, where the piece that they have come to is content."""
        if said:
            self.answer.content_scores += self._pending if said.content else []
            self._pending = []


def _begun(engine: "Engine", task: Task) -> Answer:
    """An answer that says nothing yet; one that only scores its prompt begins with the prompt's first token."""
    request = task.request
    echoed = engine.tokenizer.decode(request.prompt, specials=True) if request.forced else ""
    return Answer(request.sampling.seed, len(request.prompt), echoed)
