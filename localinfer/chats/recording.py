"""Writes a chat down while it is spoken, so that a kill at any time loses at most one second of it."""

import time
from collections.abc import Callable, Iterator

from localinfer.chats.store import ChatStore
from localinfer.chats.template import Message
from localinfer.errors import LocalInferError
from localinfer.events import Event, Finished, Text

SAVE_SECONDS = 1.0
"""Longest time that new text of a reply stays unsaved."""


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
        unanswered: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`unanswered`: the stored chat ends with a prompt that has no answer; the next prompt takes its place."""
        self.store = store
        self.model = model
        self.system = system
        self.chat_id = chat_id
        self.problem: LocalInferError | None = None
        self._unanswered = unanswered
        self._clock = clock

    def record(self, events: Iterator[Event], *, prompt: str | None = None) -> Iterator[Event]:
        """Pass `events` of one reply on, and save `prompt` and the answer. No prompt: the last answer is written anew.

        Nothing is saved before the first event, so a prompt that the engine refuses leaves no trace.
        """
        answer: int | None = None
        written: list[str] = []
        finished = False
        saved_at = self._clock()
        try:
            for event in events:
                if answer is None:
                    answer = self._try(lambda: self._begin(prompt)) or -1
                if isinstance(event, Text):
                    written.append(event.text)
                    if self._clock() - saved_at >= SAVE_SECONDS:
                        self._save(answer, written, finished=False)
                        saved_at = self._clock()
                finished = finished or isinstance(event, Finished)
                yield event
        finally:
            if answer is not None:
                self._save(answer, written, finished=finished)
                self._unanswered = prompt is not None and not any(written)

    def _begin(self, prompt: str | None) -> int:
        """Save the prompt and make place for the answer; returns the id of the answer's row."""
        if self.chat_id is None:
            self.chat_id = self.store.create(self.model, system=self.system)
        answer = Message("assistant", "")
        if prompt is None:
            return self.store.replace(self.chat_id, answer, finished=False)
        save = self.store.replace if self._unanswered else self.store.append
        save(self.chat_id, Message("user", prompt))
        return self.store.append(self.chat_id, answer, finished=False)

    def _save(self, answer: int, written: list[str], *, finished: bool) -> None:
        text = "".join(written)
        if answer < 0:
            return
        if text or not finished:
            self._try(lambda: self.store.update(answer, text, finished=finished))
        else:
            self._try(lambda: self.store.discard(answer))

    def _try(self, save: Callable[[], int | None]) -> int | None:
        try:
            return save()
        except LocalInferError as error:
            self.problem = error
            return None
