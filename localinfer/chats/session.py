"""One chat as an app holds it: the conversation, its place in the store, and the engine once it is there."""

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Literal

from localinfer.chats.chat import Chat
from localinfer.chats.lease import Lease
from localinfer.chats.recording import Position, Recorder
from localinfer.chats.store import ChatStore, SavedChat
from localinfer.chats.thinking_switch import thinking_variables
from localinfer.chats.turns import SavedTurn, as_held
from localinfer.config import Overflow, SamplingParams
from localinfer.engine.form import Grammar
from localinfer.errors import LocalInferError, UsageError
from localinfer.events import Event

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine

Claim = Literal["ours", "changed", "taken"]


class ChatSession:
    """A chat that is kept. `resume`: False starts a new one, True goes on with the latest, a number with that one.

    Only one session, of whatever process, writes into a chat; others can read it, and fork it.
    """

    def __init__(
        self,
        store: ChatStore,
        *,
        model: str,
        system: str | None = None,
        sampling: SamplingParams | None = None,
        on_overflow: Overflow = "error",
        form: Grammar | None = None,
        resume: bool | int = False,
    ) -> None:
        """Raises `NotFound` if there is no chat of that number. With no chat yet, True starts a new one."""
        self.store = store
        self.model = model
        self.system = system
        self.sampling = sampling
        self.think: bool | None = None
        """Whether the model is to think before it answers; None: as its template has it."""
        self.on_overflow = on_overflow
        self.form = form
        """The form that answers keep, whatever model writes them."""
        self.unsent = ""
        """A prompt that was sent but never answered, because the program ended; it belongs back in the prompt box."""
        self.chat: Chat | None = None
        self.held_by: int | None = None
        """The process that writes into this chat, if it is another one; 0 if it does not say which it is."""
        self.free = False
        """Has that one let go of it? It is ours with the next `claim`."""
        self._turns: tuple[SavedTurn, ...] = ()
        self._lease: Lease | None = None
        self._recorder = self._new_recorder()
        self._open(resume)

    @property
    def turns(self) -> tuple[SavedTurn, ...]:
        """Prompts and answers of the branch that is shown; without the reply that is being written."""
        return self._turns

    @property
    def last_answer(self) -> str | None:
        """The newest answer, raw."""
        return next((turn.content for turn in reversed(self.turns) if turn.role == "assistant"), None)

    @property
    def cut_off(self) -> str:
        """Why the last answer is not whole; empty if it is, or there is none."""
        return self.turns[-1].cut_off if self.turns else ""

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

    @property
    def saved(self) -> SavedChat | None:
        """Its title and dates; None until something was said. Raises `NotFound` if it was deleted."""
        return None if self.chat_id is None else self.store.get(self.chat_id)[0]

    def attach(self, engine: "Engine") -> None:
        """Give the chat its engine, or another one; what was said stays."""
        self._recorder.model = self.model
        self.chat = self._chat_on(engine, self.turns)

    def detach(self) -> None:
        """No engine from now on, until one is attached; what was said stays."""
        self.chat = None

    def use_model(self, model: str, engine: "Engine") -> None:
        """From here on this model answers. Its own advice on sampling holds again."""
        self.sampling = self.think = None
        self.model = model
        self.attach(engine)

    def use_system(self, system: str | None) -> None:
        """From the next answer on, this is the system prompt."""
        self.system = system
        self._recorder.system = system
        if self.chat_id is not None:
            self.store.set_system(self.chat_id, system)
        if self.chat is not None:
            self.attach(self.chat.engine)

    def use_form(self, form: Grammar | None) -> None:
        """From the next answer on, answers keep this form."""
        self.form = form
        self._recorder.form = form.to_json() if form else None
        if self.chat_id is not None and self.held_by is None:
            self.store.set_form(self.chat_id, self._recorder.form)
        if self.chat is not None:
            self.chat.grammar = form

    def use_sampling(self, sampling: SamplingParams) -> None:
        """From the next answer on, tokens are chosen like this."""
        self.sampling = sampling
        self._attached().sampling = sampling

    def use_thinking(self, think: bool | None) -> None:
        """From the next answer on the model thinks first, or does not, or as its template has it. Raises
        `NotSupported` where its template has no switch for that."""
        chat = self._attached()
        chat.variables = thinking_variables(chat.engine.chat_template, think)
        self.think = think

    def set_title(self, title: str) -> None:
        """Name the chat. Raises `UsageError` while there is nothing to name."""
        if self.chat_id is None:
            raise UsageError("nothing was said yet", hint="a chat is kept, and can be named, from its first prompt on")
        self.store.set_title(self.chat_id, title)

    def fork(self) -> "ChatSession":
        """A copy that goes its own way from here; kept in the store as a chat of its own."""
        if self.chat_id is None:
            return self.sibling(False, self.model)
        return self.sibling(self.store.fork(self.chat_id, held=self._is_held), self.model)

    def sibling(self, resume: bool | int, model: str) -> "ChatSession":
        """Another chat of this store with the same settings."""
        return ChatSession(
            self.store,
            model=model,
            system=self.system if resume is False else None,
            sampling=self.sampling if model == self.model else None,
            on_overflow=self.on_overflow,
            form=self.form if resume is False else None,
            resume=resume,
        )

    # --- asking

    def reply(self, prompt: str, *, cancelled: Callable[[], bool]) -> Iterator[Event]:
        """Answer `prompt`, saved as it is written. See `Chat.reply`."""
        return self._recorded(self._asking().reply(prompt, cancelled=cancelled), self._after(self.turns, prompt))

    def edit(self, position: int, prompt: str, *, cancelled: Callable[[], bool]) -> Iterator[Event]:
        """Answer `prompt` in place of the one at `turns[place]`: a branch, beside what was said after that one."""
        if not (0 <= position < len(self.turns) and self.turns[position].role == "user"):
            raise UsageError("there is no such prompt", hint="choose one of those that are shown")
        before = self.turns[:position]
        self.chat = self._chat_on(self._asking().engine, before)
        return self._recorded(self.chat.reply(prompt, cancelled=cancelled), self._after(before, prompt))

    def regenerate(self, *, cancelled: Callable[[], bool]) -> Iterator[Event]:
        """Answer the last prompt once more, with another seed: one more variant. See `Chat.regenerate`."""
        if len(self.turns) < 2:
            raise UsageError("there is no answer to write anew", hint="send a prompt first")
        prompt, answer = self.turns[-2:]
        position = Position(prompt.id, attempt=answer.variants, system=self._new_system(self.turns[:-1]))
        return self._recorded(self._asking().regenerate(attempt=answer.variants, cancelled=cancelled), position)

    def go_on(self, *, cancelled: Callable[[], bool]) -> Iterator[Event]:
        """Go on with the last answer, which was cut off. See `Chat.go_on`."""
        if not self.cut_off:
            raise UsageError("the last answer is whole", hint="ask for more of it in a prompt")
        answer = self.turns[-1]
        attempt = answer.figures.attempt if answer.figures else 0
        tokens = answer.tokens if answer.model == self.model else ()
        said = self._asking().go_on(tokens=tokens, attempt=attempt, cancelled=cancelled)
        return self._recorded(said, Position(begun=answer, attempt=attempt))

    def page(self, position: int, by: int) -> bool:
        """Show another variant of `turns[place]`, with what was said after it. False if there is none."""
        turn = self.turns[position]
        if self.chat_id is None or turn.id is None or not self.store.page(self.chat_id, turn.id, by):
            return False
        self._reload()
        return True

    def start_anew(self) -> None:
        """Leave this chat, which stays in the store, and begin an empty one with the same settings."""
        engine = self.chat.engine if self.chat else None
        self.close()
        self._turns, self.unsent, self.chat, self.held_by, self.free = (), "", None, None, False
        self._recorder = self._new_recorder()
        if engine is not None:
            self.attach(engine)

    # --- other processes

    def claim(self) -> Claim:
        """May we write into the chat? `taken`: another process does. `changed`: it did until now, and what it said is
        in `turns` from now on."""
        if self.held_by is None:
            return "ours"
        self._take()
        if self.held_by is not None:
            return "taken"
        before = self.turns
        self._recorder.unanswered = None  # it may have got its answer
        self._reload()
        return "ours" if before == self.turns else "changed"

    def follow(self) -> bool:
        """Read what another process has written meanwhile, and whether it still holds the chat. False where nothing
        is new, as in a chat of ours."""
        if self.held_by is None or self.chat_id is None:
            return False
        before = self.turns, self.held_by, self.free
        try:
            holder = self.store.holder(self.chat_id)
            self.held_by, self.free = self.held_by if holder is None else holder, holder is None
            turns = self._answered(self.store.get(self.chat_id)[1])
        except LocalInferError:  # told when something is asked
            return False
        self._show(turns)
        return before != (self.turns, self.held_by, self.free)

    @property
    def _is_held(self) -> bool:
        return self.held_by is not None and not self.free

    @property
    def holder(self) -> str:
        """The process that writes into the chat, in words."""
        return f"another process ({self.held_by})" if self.held_by else "another process"

    def close(self) -> None:
        """Let others write into the chat. Nothing is lost without this."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def _take(self) -> None:
        """Become the one who writes into the chat, or learn who does."""
        if self.chat_id is None or self._lease is not None:
            return
        taken = self.store.take(self.chat_id)
        self.held_by, self.free = taken if isinstance(taken, int) else None, False
        self._lease = taken if isinstance(taken, Lease) else None

    def _recorded(self, events: Generator[Event, None, None], position: Position) -> Iterator[Event]:
        """The events of a reply; then `turns` are those that are kept."""
        saying = self._recorder.record(events, position)
        try:
            for first in saying:
                self._take()  # a new chat has its number now
                yield first
                break
            yield from saying
        finally:
            saying.close()
            self._reload()

    def _reload(self) -> None:
        """Turns as the store has them; as they were said where it failed."""
        turns = self._turns
        if self.chat_id is not None and self.problem is None:
            try:
                turns = self._answered(self.store.get(self.chat_id)[1])
            except LocalInferError as error:
                self._recorder.problem = error
        if self.problem is not None and self.chat is not None:
            turns = _as_said(self.chat, turns)
        self._show(turns)

    def _show(self, turns: tuple[SavedTurn, ...]) -> None:
        """These are the turns from now on, of the chat with the engine too."""
        chat, self._turns = self.chat, turns
        messages = [turn.message for turn in self._turns]
        if chat is not None and [one for one in chat.messages if one.role != "system"] != messages:
            self.attach(chat.engine)

    def _new_recorder(self, chat_id: int | None = None) -> Recorder:
        form = self.form.to_json() if self.form else None
        return Recorder(self.store, model=self.model, system=self.system, chat_id=chat_id, form=form)

    def _answered(self, turns: tuple[SavedTurn, ...]) -> tuple[SavedTurn, ...]:
        """Without a prompt at the end that got no answer; the next one takes its place. What another process writes
        is marked."""
        if turns and turns[-1].role == "user":
            self._recorder.unanswered = turns[-1].id
            return turns[:-1]
        return as_held(turns) if self._is_held else turns

    def _after(self, before: tuple[SavedTurn, ...], prompt: str) -> Position:
        """The place of a prompt that follows these turns."""
        parent = next((turn.id for turn in reversed(before) if turn.id is not None), None)
        return Position(parent, prompt, replaces=self._recorder.unanswered, system=self._new_system(before))

    def _new_system(self, before: tuple[SavedTurn, ...]) -> str | None:
        """The system prompt, if it was not in force before."""
        return None if before and before[-1].system == (self.system or None) else self.system or ""

    def _chat_on(self, engine: "Engine", turns: tuple[SavedTurn, ...]) -> Chat:
        return Chat(
            engine,
            system=self.system,
            messages=[turn.message for turn in turns],
            sampling=self.sampling,
            on_overflow=self.on_overflow,
            variables=thinking_variables(engine.chat_template, self.think),
            grammar=self.form,
        )

    def _asking(self) -> Chat:
        """For a reply. Raises `UsageError` when there can be none."""
        if self.held_by is not None:
            raise UsageError(f"this chat is open in {self.holder}", hint="Ctrl+T goes on in a copy of it")
        return self._attached()

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
        saved = self.store.get(latest.id if latest else int(resume))[0]
        self.system = self.system or saved.system
        self.form = self.form or Grammar.from_json(saved.form)
        self._recorder = self._new_recorder(saved.id)
        self._take()
        turns = self.store.get(saved.id)[1]  # once more: who has let go just now may have written
        self._turns = self._answered(turns)
        if len(self._turns) < len(turns) and self.held_by is None:
            self.unsent = turns[-1].content


def _as_said(chat: Chat, known: tuple[SavedTurn, ...]) -> tuple[SavedTurn, ...]:
    """What `chat` remembers; as it is `known` where that is the same."""
    said = [message for message in chat.messages if message.role != "system"]
    turns = []
    for i, message in enumerate(said):
        same = i < len(known) and known[i].message == message
        role: Literal["user", "assistant"] = "user" if message.role == "user" else "assistant"
        turns.append(known[i] if same else SavedTurn(role, message.content))
    return tuple(turns)
