"""Writes a chat down while it is spoken, so that a kill at any time loses at most one second of it."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from localinfer.chats.store import ChatStore
from localinfer.chats.turns import Ending, Figures, SavedTurn
from localinfer.errors import LocalInferError
from localinfer.events import Event, Finished, Text

SAVE_SECONDS = 1.0
"""Longest time that new text of a reply stays unsaved."""


@dataclass(slots=True)
class Position:
    """Where an answer goes in the tree of messages."""

    parent: int | None = None
    """What the prompt follows; without a prompt, the prompt that is answered."""
    prompt: str | None = None
    replaces: int | None = None
    """An earlier prompt without an answer, which goes."""
    system: str | None = None
    """The system prompt, if another one comes into force here; '' is none."""
    begun: SavedTurn | None = None
    """The answer that was cut off and is gone on with."""
    attempt: int = 0


@dataclass(slots=True)
class _Answer:
    """What was said so far, and the row it is kept in."""

    row: int
    text: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    figures: Figures | None = None


class Recorder:
    """Keeps one chat of `store` up to date. The chat is created with its first prompt.

    A store that fails must not cost anyone their answer: the error waits in `problem`, and the reply goes on.
    """

    def __init__(
        self,
        store: ChatStore,
        *,
        model: str,
        system: str | None = None,
        chat_id: int | None = None,
        form: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.model = model
        self.system = system
        self.form = form
        self.chat_id = chat_id
        self.problem: LocalInferError | None = None
        self.unanswered: int | None = None
        """The prompt that was asked last, if it got no answer; the next one takes its place."""
        self._clock = clock

    def record(self, events: Generator[Event, None, None], position: Position) -> Generator[Event, None, None]:
        """Pass `events` of one reply on, and save the prompt and the answer.

        Nothing is saved before the first event, so a prompt that the engine refuses leaves no trace.
        """
        answer: _Answer | None = None
        ending: Ending = "error"
        saved_at = self._clock()
        try:
            for event in events:
                answer = answer or self._begin(position)
                match event:
                    case Text(text=text, token_ids=ids):
                        answer.text.append(text)
                        answer.tokens += ids
                        if text and self._clock() - saved_at >= SAVE_SECONDS:
                            self._save(answer, "writing")
                            saved_at = self._clock()
                    case Finished() as finished:
                        ending = finished.reason
                        answer.figures = _figures(finished, position)
                yield event
        except GeneratorExit:  # nobody listens any more
            ending = "cancelled"
            raise
        finally:
            events.close()
            if answer is not None:
                self._end(answer, ending, position)

    def _begin(self, position: Position) -> _Answer:
        """Save the prompt and make place for the answer."""
        begun = position.begun
        answer = _Answer(-1)
        if begun is not None:
            answer.text, answer.tokens = [begun.content], list(begun.tokens)
            answer.row = begun.id or -1
            self._save(answer, "writing")
        else:
            self._try(lambda: self._open_position(answer, position))
        return answer

    def _open_position(self, answer: _Answer, position: Position) -> None:
        if self.chat_id is None:
            self.chat_id = self.store.create(self.model, system=self.system, form=self.form)
        else:
            self.store.set_model(self.chat_id, self.model)
            self.store.set_form(self.chat_id, self.form)
        asked, answer.row = self.store.begin(
            self.chat_id,
            position.prompt,
            parent=position.parent,
            replaces=position.replaces,
            model=self.model,
            system=position.system,
        )
        self.unanswered = asked or self.unanswered

    def _save(self, answer: _Answer, ending: Ending) -> None:
        text = "".join(answer.text)
        tokens = () if ending == "stop" else answer.tokens
        if answer.row > 0:
            self._try(lambda: self.store.update(answer.row, text, ending=ending, tokens=tokens, figures=answer.figures))

    def _end(self, answer: _Answer, ending: Ending, position: Position) -> None:
        if any(answer.text):
            self._save(answer, ending)
            self.unanswered = None if position.prompt is not None else self.unanswered
        elif answer.row > 0:
            self._try(lambda: self.store.discard(answer.row))

    def _try(self, save: Callable[[], None]) -> None:
        try:
            save()
        except LocalInferError as error:
            self.problem = error


def _figures(finished: Finished, position: Position) -> Figures:
    now = Figures.of(finished.stats, position.attempt)
    before = position.begun.figures if position.begun else None
    return before.and_then(now) if before else now
