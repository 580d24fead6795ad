"""Many requests on one engine, read as they are needed, answered together, given back in their order."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Protocol

from localinfer.chats.apart import Apart, written_by
from localinfer.chats.calls import Call, Calls
from localinfer.chats.chat import Chat
from localinfer.chats.checks import checker
from localinfer.chats.forms import thinks
from localinfer.chats.names import require_names_read
from localinfer.chats.ordering import Ordering
from localinfer.chats.rows import Asked
from localinfer.chats.saying import Saying
from localinfer.chats.thinking import Thinking
from localinfer.chats.thinking_switch import thinking_variables
from localinfer.errors import ContextOverflow, LocalInferError, NotSupported, UsageError
from localinfer.events import Event, Finished, Progress, Scored, Stats, Text

if TYPE_CHECKING:
    from localinfer.engine.grammar import Grammar
    from localinfer.engine.protocol import Engine
    from localinfer.engine.request import Request

AHEAD = 4
"""Times as many lines as run together are taken in at most, counted from the oldest that is not answered."""

_SHORTER = "shorten the line, or raise `--ctx-size` as far as the model allows"


class Listens(Protocol):
    """Hears the events of a text."""

    def hear(self, events: list[Event], /) -> object: ...


@dataclass(slots=True)
class Answered:
    """One line's answer, whole when `reason` is there; or `error`."""

    asked: Asked
    index: int = field(default_factory=count().__next__)
    """Of those that are answered, unlike any other's."""
    request: "Request | None" = None
    """What the engine is asked."""
    read: int = 0
    """Tokens of its prompt that are in the cache."""
    shorter: str = _SHORTER
    """What to do where it is too long."""
    text: list[str] = field(default_factory=list)
    token_ids: tuple[int, ...] = ()
    scores: list[Scored] = field(default_factory=list)
    """Of the tokens, where they were asked for."""
    vector: tuple[float, ...] | None = None
    """Of the text, where that was asked for."""
    wants_scores: bool = False
    """Whether those of single tokens are told where a text is scored."""
    reason: str | None = None
    stop: str | None = None
    """The stop string that ended it, if one did."""
    stats: Stats | None = None
    thinking: Thinking | None = None
    """What leaves the thinking out of the text; None: all is text."""
    reasoning: list[str] = field(default_factory=list)
    apart: Apart | None = None
    """What finds calls of tools in it, where there are tools and the model's way to call them is known."""
    calls: list[Call] = field(default_factory=list)
    parts: "Sequence[Answered]" = ()
    """The texts of a line that asks for several, which are answered instead of it."""
    listener: "Listens | None" = None
    """Who else hears what is said."""
    error: LocalInferError | None = None

    @property
    def done(self) -> bool:
        if self.parts and self.error is None:
            return all(part.done for part in self.parts)
        return self.reason is not None or self.error is not None

    @property
    def prompt(self) -> tuple[int, ...]:
        """The tokens that the engine reads; none for what is not asked."""
        return self.request.prompt if self.request else ()

    def keep(self, text: str) -> None:
        """The next piece of what the model says."""
        self._add(*(self.thinking.push(text) if self.thinking else ("", text)))

    def end(self) -> None:
        """Nothing follows."""
        self._add(*(self.thinking.finish() if self.thinking else ("", "")))

    def gather(self) -> None:
        """All parts are done: their tokens, and the first error."""
        for part in self.parts:
            self.token_ids += part.token_ids
            self.error = self.error or part.error

    def _add(self, reasoning: str, content: str) -> None:
        self.reasoning.append(reasoning)
        self.text.append(content)


@dataclass(frozen=True, slots=True)
class Manner:
    """How prompts are given to the model where a line says nothing of it; see `Chat`."""

    system: str | None = None
    raw: bool = False
    special: bool = False
    grammar: "Grammar | None" = None
    logprobs: int | None = None
    think: bool | None = None
    """None: as the model's chat template has it."""
    show_thinking: bool = False


USUAL = Manner()
Begin = Callable[["Engine", Asked], Answered]
"""Says what is to be asked for a line, or why it cannot be."""


class Reader:
    """Takes lines in on a thread of its own, so that waiting for one keeps nobody from being answered; never more than
    `most` ahead, so that whoever writes them waits, too."""

    def __init__(self, lines: Iterator[Asked], most: int) -> None:
        self._lines, self._queue = lines, queue.Queue[Asked | BaseException | None](most)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            for asked in self._lines:
                self._queue.put(asked)
            self._queue.put(None)
        except BaseException as error:
            self._queue.put(error)

    def next(self, *, wait: bool) -> Asked | None:
        """The next line; None after the last one. Raises `queue.Empty` if there is none yet and we do not `wait`, and
        whatever reading raised."""
        found = self._queue.get(block=wait)
        if isinstance(found, BaseException):
            raise found
        return found


def answer_all(engine: "Engine", lines: Iterator[Asked], *, parallel: int, begin: "Begin") -> Iterator[Answered]:
    """The answer to each of `lines`, in their order, `parallel` of them together; `begin` says what is asked. Lines
    that begin alike are asked one behind the other, once what they share is read."""
    reader, most, ordering = Reader(lines, AHEAD * parallel), AHEAD * parallel, Ordering[Answered](parallel)
    waiting, fresh, running, ended = deque[Answered](), list[Answered](), list[Answered](), False
    with engine.driver.here() as driver:
        while waiting or not ended:
            while not ended and len(waiting) < most and len(fresh) < most:
                try:
                    asked = reader.next(wait=not waiting)
                except queue.Empty:
                    break
                if asked is None:
                    ended = True
                else:
                    waiting.append(begin(engine, asked))
                    fresh += [one for one in waiting[-1].parts or [waiting[-1]] if not one.done]
            while len(running) < parallel and (one := ordering.next(fresh[:most], running)) is not None:
                fresh.remove(one)
                _submit(engine, one)
                running.append(one)
            driver.turn()
            for one in running:
                if one.done:
                    ordering.ended(one)
            running = [one for one in running if not one.done]
            while waiting and waiting[0].done:
                waiting[0].gather()
                yield waiting.popleft()


def _submit(engine: "Engine", answered: Answered) -> None:
    assert answered.request is not None
    try:
        engine.driver.submit(answered.request, partial(hear, answered))
    except ContextOverflow as error:
        answered.error = ContextOverflow(error.message, hint=answered.shorter)
    except LocalInferError as error:
        answered.error = error


def begin_chat(engine: "Engine", asked: Asked, manner: Manner = USUAL) -> Answered:
    """What is asked for the answer to a line."""
    from localinfer.engine.protocol import Request

    answered = Answered(asked, error=asked.error)
    if asked.error is None:
        raw = manner.raw if asked.raw is None else asked.raw
        special = manner.special if asked.special is None else asked.special
        try:
            if special and not raw:
                raise UsageError("`special` goes with `raw`", hint='add `"raw": true`, or leave `special` out')
            system = asked.system or manner.system
            variables = {} if raw else thinking_variables(engine.chat_template, manner.think)
            chat = Chat(engine, system=system, raw=raw, special=special, grammar=manner.grammar, variables=variables)
            prompt = chat.tokens_of_turns(asked.turns, asked.tools)
            require_names_read(chat, asked.turns, asked.tools, prompt)
            marks, constraint = chat.marks(asked.turns, prompt), chat.constraint(asked.turns, prompt)
            logprobs = manner.logprobs if asked.logprobs is None else asked.logprobs
            answered.request = Request(
                tuple(prompt), asked.sampling, marks=marks, constraint=constraint, logprobs=logprobs
            )
            begun = None if raw or manner.show_thinking else thinks(engine, prompt)
            answered.thinking = None if begun is None else Thinking(begun=begun)
            answered.apart = None if raw else _apart(engine, asked)
        except ContextOverflow as error:
            answered.error = ContextOverflow(error.message, hint=answered.shorter)
        except LocalInferError as error:
            answered.error = error
    return answered


def hear(answered: Answered, events: list[Event]) -> None:
    """Keep what was said of a line's answer."""
    if answered.listener is not None:
        answered.listener.hear(events)
    for event in events:
        if isinstance(event, Progress):
            answered.read = event.done
        elif isinstance(event, Text):
            answered.read = len(answered.prompt)
            answered.keep(event.text)
            answered.scores += [event.score] if event.score else []
            if answered.apart is not None:
                answered.calls += answered.apart.push(event).calls
        elif isinstance(event, Finished):
            answered.token_ids, answered.reason, answered.stats = event.token_ids, event.reason, event.stats
            answered.stop, answered.error, answered.vector = event.stop, event.error, event.vector
            answered.end()
            if answered.apart is not None:
                answered.calls += answered.apart.finish(event).calls


def _apart(engine: "Engine", asked: Asked) -> Apart | None:
    """What finds the calls in an answer; None without tools, and where the model's way to call them is not known.
    Raises `UsageError` where the model's template takes no tools."""
    if not asked.tools:
        return None
    check = checker(asked.tools)
    try:
        written = written_by(engine)
    except NotSupported:
        return None
    return Apart(engine, Saying(Thinking(), Calls(written.way, check)), asked.sampling.stop, written.hidden)
