"""One chat as an app holds it: the conversation, its place in the store, and the engine once it is there."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from localinfer.chats.chat import Chat
from localinfer.chats.recording import Recorder
from localinfer.chats.store import ChatStore
from localinfer.chats.template import Message
from localinfer.config import Overflow, SamplingParams
from localinfer.errors import LocalInferError, UsageError
from localinfer.events import Event

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine


class ChatSession:
    """A chat that is kept. `resume`: False starts a new one, True goes on with the latest, a number with that one."""

    def __init__(
        self,
        store: ChatStore,
        *,
        model: str,
        system: str | None = None,
        sampling: SamplingParams | None = None,
        on_overflow: Overflow = "error",
        resume: bool | int = False,
    ) -> None:
        """Raises `NotFound` if there is no chat of that number. With no chat yet, True starts a new one."""
        self.store = store
        self.model = model
        self.system = system
        self.sampling = sampling
        self.on_overflow = on_overflow
        self.unsent = ""
        """A prompt that was sent but never answered, because the program ended; it belongs back in the prompt box."""
        self.chat: Chat | None = None
        self._history: tuple[Message, ...] = ()
        self._recorder = Recorder(store, model=model, system=system)
        self._open(resume)

    @property
    def turns(self) -> tuple[Message, ...]:
        """Prompts and answers so far."""
        said = self._history if self.chat is None else self.chat.messages
        return tuple(message for message in said if message.role != "system")

    @property
    def last_answer(self) -> str | None:
        """The newest answer, raw."""
        return next((turn.content for turn in reversed(self.turns) if turn.role == "assistant"), None)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about the last reply's prompt."""
        return self.chat.warnings if self.chat else ()

    @property
    def problem(self) -> LocalInferError | None:
        """Why the chat could not be saved; None while it is."""
        return self._recorder.problem

    def attach(self, engine: "Engine") -> None:
        """Give the chat its engine."""
        self.chat = Chat(
            engine,
            system=self.system,
            messages=self._history,
            sampling=self.sampling,
            on_overflow=self.on_overflow,
        )

    def reply(self, prompt: str, *, cancelled: Callable[[], bool]) -> Iterator[Event]:
        """Answer `prompt`, saved as it is written. See `Chat.reply`."""
        return self._recorder.record(self._attached().reply(prompt, cancelled=cancelled), prompt=prompt)

    def regenerate(self, *, cancelled: Callable[[], bool]) -> Iterator[Event]:
        """Answer the last prompt once more. See `Chat.regenerate`."""
        return self._recorder.record(self._attached().regenerate(cancelled=cancelled))

    def start_anew(self) -> None:
        """Leave this chat, which stays in the store, and begin an empty one with the same settings."""
        engine = self.chat.engine if self.chat else None
        self._history, self.unsent, self.chat = (), "", None
        self._recorder = Recorder(self.store, model=self.model, system=self.system)
        if engine is not None:
            self.attach(engine)

    def _attached(self) -> Chat:
        if self.chat is None:
            raise UsageError("the model is not loaded yet", hint="wait until it is")
        return self.chat

    def _open(self, resume: bool | int) -> None:
        if resume is False:
            return
        latest = self.store.latest() if resume is True else None
        if resume is True and latest is None:
            return
        saved, turns = self.store.get(latest.id if latest else int(resume))
        self.system = self.system or saved.system
        unanswered = bool(turns) and turns[-1].role == "user"
        if unanswered:
            self.unsent, turns = turns[-1].content, turns[:-1]
        self._history = turns
        self._recorder = Recorder(
            self.store, model=self.model, system=self.system, chat_id=saved.id, unanswered=unanswered
        )
