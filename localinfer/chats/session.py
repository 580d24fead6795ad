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

    @property
    def chat_id(self) -> int | None:
        """Its number in the store; None until something was said."""
        return self._recorder.chat_id

    def attach(self, engine: "Engine") -> None:
        """Give the chat its engine, or another one; what was said stays."""
        self._history = self.turns
        self.chat = Chat(
            engine,
            system=self.system,
            messages=self._history,
            sampling=self.sampling,
            on_overflow=self.on_overflow,
        )

    def use_model(self, model: str) -> None:
        """From here on this model answers, once `attach` brings its engine. Its own advice on sampling holds again."""
        self._history, self.chat, self.sampling = self.turns, None, None
        self.model = self._recorder.model = model
        if self.chat_id is not None:
            self.store.set_model(self.chat_id, model)

    def use_system(self, system: str | None) -> None:
        """From the next answer on, this is the system prompt."""
        self.system = system
        self._recorder.system = system
        if self.chat_id is not None:
            self.store.set_system(self.chat_id, system)
        if self.chat is not None:
            self.attach(self.chat.engine)

    def use_sampling(self, sampling: SamplingParams) -> None:
        """From the next answer on, tokens are chosen like this."""
        self.sampling = sampling
        self._attached().sampling = sampling

    def set_title(self, title: str) -> None:
        """Name the chat. Raises `UsageError` while there is nothing to name."""
        if self.chat_id is None:
            raise UsageError("nothing was said yet", hint="a chat is kept, and can be named, from its first prompt on")
        self.store.set_title(self.chat_id, title)

    def fork(self) -> "ChatSession":
        """A copy that goes its own way from here; kept in the store as a chat of its own."""
        copy: bool | int = False if self.chat_id is None else self.store.fork(self.chat_id)
        return self.sibling(copy, self.model)

    def sibling(self, resume: bool | int, model: str) -> "ChatSession":
        """Another chat of this store with the same settings."""
        return ChatSession(
            self.store,
            model=model,
            system=self.system if resume is False else None,
            sampling=self.sampling if model == self.model else None,
            on_overflow=self.on_overflow,
            resume=resume,
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
