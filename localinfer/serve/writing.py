"""The texts of one request while the engine writes them: what they say, in pieces, and how each ended."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter

from localinfer.chats.apart import joined
from localinfer.chats.calls import Call
from localinfer.chats.saying import Said
from localinfer.engine.protocol import Engine
from localinfer.events import Event, Finished, FinishReason, Progress, Scored, Stats, Text
from localinfer.serve.asking import Task


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


class Writing:
    """Submits texts to an engine, at once, and is then read by `pieces`. Raises as `Engine.add` does.

    `close` ends what is not finished: its place is free with the next step.
    """

    def __init__(self, engine: Engine, tasks: Sequence[Task], *, one_call: bool = False) -> None:
        self._engine = engine
        self._one_call = one_call
        self._heard: asyncio.Queue[tuple[int, list[Event] | BaseException]] = asyncio.Queue()
        self._handles: dict[int, int] = {}
        self._tasks = tasks
        self._cut = set[int]()
        """Texts that have said enough, and are only waited for to end."""
        self.answers = [_begun(engine, task) for task in tasks]
        self._pending: list[list[Scored]] = [[] for _ in tasks]
        """Scores of tokens whose text is held back."""
        self._begun = perf_counter()
        loop = asyncio.get_running_loop()

        def put(index: int, said: list[Event] | BaseException) -> None:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                loop.call_soon_threadsafe(self._heard.put_nowait, (index, said))

        try:
            for index, task in enumerate(tasks):
                hear = partial(put, index)
                self._handles[index] = engine.driver.submit(task.request, hear, hear)
        except BaseException:
            self.close()
            raise

    async def pieces(self) -> AsyncGenerator[tuple[int, Said], None]:
        """What the texts say, each piece with the number of its text; an empty one when a text has ended, or more of
        its prompt was read. Raises what broke a step, and `NotFinite`."""
        while self._handles:
            index, heard = await self._heard.get()
            if isinstance(heard, BaseException):
                self._handles.pop(index, None)
                raise heard
            calls = self._tasks[index].calls
            said = await asyncio.to_thread(self._read, index, heard) if calls else self._read(index, heard)
            ended = self.answers[index].reason is not None
            if not ended and any(isinstance(one, Progress) for one in heard):
                yield index, Said()
            if said:
                yield index, said
            if ended:
                yield index, Said()

    def close(self) -> None:
        """End all that has not ended."""
        for handle in list(self._handles.values()):
            self._engine.cancel(handle)
        self._handles.clear()

    def _read(self, index: int, events: list[Event]) -> Said:
        """What `events` of a text say, joined."""
        answer, apart = self.answers[index], self._tasks[index].apart
        parts = list[Said]()
        for event in events:
            match event:
                case Progress():
                    answer.found = answer.found if answer.read else event.done - event.computed
                    answer.read, answer.read_s = event.done, perf_counter() - self._begun
                case Text() if index not in self._cut:
                    reasons = apart.saying.reasons
                    answer.reasoning_tokens += len(event.token_ids) if reasons else 0
                    parts.append(apart.push(event))
                    if event.score:
                        answer.scores.append(event.score)
                        self._pending[index] += [] if reasons else [event.score]
                        self._give_out(index, parts[-1])
                    if self._one_call and parts[-1].calls:
                        self._cut.add(index)
                        self._engine.cancel(event.handle)
                case Stats():
                    answer.stats = event
                case Finished():
                    self._handles.pop(index, None)
                    event.raise_error()
                    if index not in self._cut:
                        parts.append(apart.finish(event))
                        self._give_out(index, parts[-1])
                    answer.reason = "stop" if index in self._cut else event.reason
                    answer.token_ids, answer.stats, answer.stop = event.token_ids, event.stats, event.stop
        said = joined(parts)
        if self._one_call:
            said = replace(said, calls=said.calls[: 1 - len(answer.calls)])
        answer.add(said)
        return said

    def _give_out(self, index: int, said: Said) -> None:
        """Count the scores that wait as those of the content, where the piece that they have come to is content."""
        if said:
            self.answers[index].content_scores += self._pending[index] if said.content else []
            self._pending[index] = []


def _begun(engine: Engine, task: Task) -> Answer:
    """An answer that says nothing yet; one that only scores its prompt begins with the prompt's first token."""
    request = task.request
    echoed = engine.tokenizer.decode(request.prompt, specials=True) if request.forced else ""
    return Answer(request.sampling.seed, len(request.prompt), echoed)
