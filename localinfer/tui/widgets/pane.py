"""One chat on the screen: what was said, the box to type in, and what the engine does about it.

Long because all that happens to a chat on the screen meets here: models, prompts, replies, messages.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from threading import Event as Flag
from typing import TYPE_CHECKING, Any

from textual import events, on, work
from textual.app import ComposeResult
from textual.message import Message
from textual.widget import AwaitMount
from textual.widgets import OptionList

from localinfer.chats.session import ChatSession
from localinfer.cost.energy import Source
from localinfer.errors import LocalInferError
from localinfer.events import Finished, Started, Stats
from localinfer.text import clean, one_line
from localinfer.tui import workers
from localinfer.tui.commands import Completion, escaped
from localinfer.tui.earlier import Earlier
from localinfer.tui.engines import Slot
from localinfer.tui.messages import EngineSaid
from localinfer.tui.reply import Asked, Inbox, Reply
from localinfer.tui.widgets.answer import Answer, Drawn, TintedAnswer
from localinfer.tui.widgets.facts import PaneFacts
from localinfer.tui.widgets.hints import Hints
from localinfer.tui.widgets.message_line import MessageLine
from localinfer.tui.widgets.prompt_box import PASTE_LIMIT, PromptBox
from localinfer.tui.widgets.status import SPARKS, Status, StatusLine
from localinfer.tui.widgets.title import TitleLine
from localinfer.tui.widgets.transcript import Mark, Note, Prompt, Transcript
from localinfer.tui.widgets.welcome import Welcome

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine

_NARROW = 60


class ChatPane(PaneFacts):
    """A chat with its box. A thread answers; it only posts messages."""

    @dataclass
    class Said(Message):
        """The user sent this from the box of `pane`; `shown` is how it stood there."""

        pane: "ChatPane"
        text: str
        shown: str

    @dataclass
    class Ended(Message):
        """The reply in `pane` is over."""

        pane: "ChatPane"

    @dataclass
    class Running(Message):
        """The engine has taken the prompt of `pane`."""

        pane: "ChatPane"

    def __init__(
        self,
        number: int,
        session: ChatSession,
        *,
        clock: Callable[[], float],
        completion: Completion,
        heard: Callable[[], None],
    ) -> None:
        """`heard` is called when there is something to `paint`."""
        super().__init__()
        self._heard = heard
        self._inbox = Inbox(lambda: self.post_message(EngineSaid()))
        self.number = number
        self.label = 1
        """The number that the user sees; it stays the same whatever other panes do."""
        self.session = session
        self.busy = False
        self.open = False
        """Is it on the screen? Nothing may be shown before that, and after it was closed."""
        self.tints = False
        self.slot: Slot | None = None
        self.attached: list[tuple[str, str]] = []
        """Files that go with the next prompt: their names and texts."""
        self._clock = clock
        self.title_line = TitleLine(session.model)
        self.transcript = Transcript(lambda: Welcome(self.about, self.recent))
        self._hints = Hints()
        self.box = PromptBox(escaped(session.unsent), completion, self._hints)
        self.message = MessageLine()
        self.earlier = Earlier(self)
        self._line = StatusLine()
        self._stop = Flag()
        self._sent_at = 0.0
        self._waiting: str | None = None  # a prompt that was sent before the model was there
        self.coming = ""
        """The model that will answer here as soon as it is there."""
        self._reply = Reply(Asked())
        self._begun = ""  # what is there of an answer that is gone on with
        self._answer: Answer | TintedAnswer | None = None
        self._shown = (0, 0)  # pieces and notes of the reply that are on the screen
        self._unpainted = False
        self._moved_before = 0
        self._stats_before: Stats | None = None
        self._joules_before = 0.0
        self.used: dict[str, tuple[int, int]] = {}
        """Tokens read and written by the model that was used, as a provider would count them."""
        self._noted: set[str] = set()  # warnings that were shown already

    def compose(self) -> ComposeResult:
        yield from (self.title_line, self.transcript, self.message, self._hints, self.box, self._line)

    async def on_mount(self) -> None:
        self.open = True
        self.box.cursor_blink = self.app.animation_level != "none"
        self.show_turns()
        if self.slot is not None:
            self._show_slot(self.slot)

    def on_unmount(self) -> None:
        self._stop.set()

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.height < 9, "-flat")
        self.set_class(9 <= event.size.height < 14, "-low")
        self.set_class(event.size.height < 5, "-bare")
        self.box.border_subtitle = "/ commands · F1 help" if event.size.width < _NARROW else self.box.advice

    @property
    def status(self) -> Status:
        """What the status line shows."""
        return self._line.status

    # --- the model

    def show_slot(self, slot: Slot) -> None:
        """The model that this pane talks to: on its way, here, or impossible."""
        self.slot = slot
        if self.open:
            self._show_slot(slot)

    def _show_slot(self, slot: Slot) -> None:
        if slot.error is not None:
            self.set_status(phase="failed", stage="", percent=None)
            self.give_back_waiting()
        elif slot.engine is None:
            self.set_status(phase="loading", stage=slot.stage, percent=slot.percent)
        elif self.session.chat is None or self.session.chat.engine is not slot.engine:
            self.session.attach(slot.engine)
            self.show_engine(slot.engine)

    def show_engine(self, engine: "Engine") -> None:
        """This one answers from here on; what waited for it is asked."""
        self.title_line.show(self.session.model, engine.info)
        self.set_status(phase="ready", stage="", percent=None, context_size=engine.context_size)
        for shown in self.query(Welcome):
            shown.refresh()
        self.count_context()
        if self._waiting is not None:
            prompt, self._waiting = self._waiting, None
            self._begin(Asked(prompt))

    def give_back_waiting(self) -> None:
        """What waited for a model goes back into the box."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._put_back(waiting)

    # --- asking

    @on(PromptBox.Sent)
    def pass_on(self, message: PromptBox.Sent) -> None:
        message.stop()
        self.post_message(self.Said(self, message.text, message.shown))

    async def send(self, text: str) -> bool:
        """Ask this, with the files that are attached. False, and said, when it cannot be asked now."""
        if not (text.strip() or self.attached) or self.occupied():
            return False
        if self.slot is not None and self.slot.error is not None and not self.coming:
            self.message.tell(self.slot.error, "/model takes another one, Ctrl+Q quits")
            return False
        if not self.may_write():
            return False
        prompt = "\n\n".join([*(part for _, part in self.attached), *([text] if text.strip() else [])])
        asked = Asked(prompt, self.earlier.place)
        if asked.place is not None and self._has_no_model():
            return False
        self.attached = []
        self.earlier.sent(self.box.text)
        self.show_attached()
        self.message.clear()
        self.box.load_text("")
        if asked.place is not None:
            self.transcript.cut(asked.place)
        await self.transcript.add(Prompt(prompt))
        if self.session.chat is None or self.coming:
            self._waiting = prompt  # sent as soon as the model is there
        else:
            self._begin(asked)
        return True

    def answer_again(self, *, goes_on: bool = False) -> None:
        """Answer the last prompt once more, or go on with an answer that was cut off."""
        if self.occupied() or not self.may_write():
            return
        if self.session.last_answer is None:
            self.say("there is no answer yet")
        elif goes_on and not self.session.cut_off:
            self.say("the last answer is whole; ask for more of it in a prompt")
        elif not self._has_no_model():
            self.message.clear()
            self._begin(Asked(goes_on=goes_on))

    def _has_no_model(self) -> bool:
        """True, and said, while no model can answer."""
        if self.session.chat is None or self.coming:
            self.say("the model is not loaded yet")
        return self.session.chat is None or bool(self.coming)

    def may_write(self) -> bool:
        """False, and said, if another process writes into this chat, or has until now."""
        claim = self.session.claim()
        if claim == "taken":
            self.say(f"this chat is open in {self.session.holder}: /fork goes on in a copy of it")
        elif claim == "changed":
            self.earlier.leave()
            self.show_turns()
            self.say("this chat went on in another process; it is shown as it is now, and yours from here on")
        return claim == "ours"

    def _begin(self, asked: Asked) -> None:
        self.busy = True
        self._moved_before = self.moved
        self._reply, self._answer, self._shown = Reply(asked), None, (0, 0)
        self._begun = self.session.turns[-1].content if asked.goes_on else ""
        self._stop.clear()
        self._sent_at = self._clock()
        self._stats_before, self._joules_before = self.status.stats, self.status.joules
        self.set_status(phase="queued", percent=None, elapsed=0.0, stats=None, speeds=(), joules_per_token=None)
        self.generate(asked)

    @work(thread=True, group="reply", exit_on_error=False)
    def generate(self, asked: Asked) -> None:
        workers.answer(self.session, asked, self._inbox, self._stop.is_set)

    # --- answering

    @on(EngineSaid)
    def listen(self) -> None:
        self._heard()

    @property
    def moved(self) -> int:
        """Tokens computed for this pane so far, read and written."""
        return self._moved_before + self._reply.moved

    @property
    def handle(self) -> int | None:
        """What the engine calls the running reply."""
        return self._reply.handle if self.busy else None

    @property
    def waits(self) -> bool:
        """Is there something that `paint` has not shown yet?"""
        return bool(self._inbox) or self._unpainted

    @property
    def ends(self) -> bool:
        """Is that the end of the reply?"""
        return self._inbox.ends or (self.busy and self._reply.over is not None)

    def catch_up(self) -> None:
        """Let all that was said take effect, in order; `paint` shows it."""
        for event in self._inbox.take():
            self._unpainted = True
            self._reply.apply(event)
            if isinstance(event, Started) and self.open:
                self.post_message(self.Running(self))
            elif isinstance(event, Finished):
                read, written = self.used.get(self.session.model, (0, 0))
                now = (read + event.stats.prompt_tokens, written + len(event.token_ids))
                self.used[self.session.model] = now

    def paint(self) -> None:
        """Show the reply as it is now. Nothing in here waits, so nothing can come between."""
        self.catch_up()
        self._unpainted = False
        if not (self.busy and self.open):
            return
        reply = self._reply
        pieces, notes = self._shown
        self._shown = len(reply.said), len(reply.notes)
        for drafter, run in groupby(reply.said[pieces:], key=lambda piece: piece[1] if self._tinted else None):
            self._write("".join(text for text, _ in run), drafter)
        for text in reply.notes[notes:]:
            self.note(text)
        self.set_status(
            phase=reply.phase,
            percent=reply.percent,
            stats=reply.stats,
            context_used=reply.stats.context_used if reply.stats else self.status.context_used,
            context_size=reply.context_size or self.status.context_size,
        )
        if reply.over is not None:
            self._end(reply.over.error)

    def _end(self, error: LocalInferError | None) -> None:
        if self._answer is not None:
            self._answer.finish()
        self.busy = False
        self.set_status(phase="ready", percent=None, elapsed=None, stats=self._reply.stats or self._stats_before)
        self.show_turns()
        if self._answer is None and self._reply.asked.prompt is not None:
            self._put_back(self._reply.asked.prompt)
            if self._reply.asked.place is not None:
                self.earlier.mark(self._reply.asked.place)
        self._tell_end(error)
        self.post_message(self.Ended(self))

    def _tell_end(self, error: LocalInferError | None) -> None:
        """What the user should know of the reply that is over."""
        reason = self._reply.finished.reason if self._reply.finished else None
        for warning in self.session.warnings:
            self._note_once(warning)
        if error is not None:
            self.message.tell(error)
        elif self.session.problem is not None:
            self.message.tell(self.session.problem, "this chat is not saved")
        elif reason == "overflow":
            self.say("the context is full: Ctrl+N begins a new chat; --ctx-size raises it, up to the model's limit")
        elif self._answer is None and reason not in ("cancelled", None):
            self.say("the model answered nothing")

    def show_turns(self) -> None:
        """What was said, as it is kept."""
        self.transcript.sync(self.session.turns)
        if self.session.held_by is not None:
            self.say(f"this chat is open in {self.session.holder}: it can be read here, /fork goes on in a copy of it")

    @property
    def _tinted(self) -> bool:
        return isinstance(self._answer, TintedAnswer) if self._answer is not None else self.tints

    def _write(self, text: str, drafter: str | None) -> None:
        """Show a piece of the answer; the first one takes the place of an older answer to the same prompt."""
        if self._answer is None:
            self.transcript.drop_after_last(Prompt)
            self._answer = TintedAnswer() if self.tints else Answer()
            self.transcript.add(self._answer)
            if self._begun:
                self._answer.write(self._begun)
        self._answer.write(text, drafter)

    def _put_back(self, prompt: str) -> None:
        """Nothing came of `prompt`: out of the transcript, back into the box."""
        self.transcript.sync(self.session.turns)
        self.box.put(escaped(prompt))

    def leave(self) -> None:
        """The pane is about to go: its answer stops, and nothing is shown any more."""
        self.stop()
        if not self.busy:  # else it is let go of when the answer has ended
            self.session.close()
        self.open = False

    def stop(self) -> None:
        """Stop the answer; what was written stays."""
        if self.busy:
            self._stop.set()
            self.catch_up()  # what was asked before this moment did not see the stop, and has said its handle
            self.set_status(phase="stopping")
            if self._reply.handle is not None and self.session.chat is not None:
                workers.cancel(self.session.chat.engine, self._reply.handle)

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    @property
    def answered(self) -> str:
        """The answer that is being written, or else the last one."""
        writing = self._answer.source if self.busy and self._answer is not None else None
        return clean(writing or self.session.last_answer or "")

    def put_unsent(self, text: str) -> None:
        """What was typed here and not sent, back into the box; what stands there already is not said twice."""
        if text.strip() and text not in self.box.whole:
            self.box.put(text)

    @property
    def codes(self) -> list[str]:
        """The blocks of code in the last answer."""
        answers = list(self.query(Answer))
        return answers[-1].codes if answers else []

    # --- the chat as a whole

    async def use(self, session: ChatSession) -> None:
        """Show another chat here, with its model; `show_slot` brings the engine."""
        self.session.close()
        self.session = session
        self.attached, self.coming = [], ""
        self.earlier = Earlier(self)
        self.show_attached()
        self._noted.clear()
        self.message.clear()
        self.transcript.clear()
        self.show_turns()
        self.box.replace_all(escaped(session.unsent))
        self.title_line.show(session.model, None)
        self.set_status(stats=None, speeds=(), joules_per_token=None, context_size=None)

    async def start_anew(self) -> None:
        """An empty chat; the old one is kept."""
        self.earlier.leave()
        self.session.start_anew()
        self._noted.clear()
        self.message.clear()
        await self.transcript.clear()
        self.set_status(stats=None, speeds=(), joules_per_token=None, context_used=None)

    def show_attached(self) -> None:
        """What goes with the next prompt, on the frame of the box."""
        names = ", ".join(f"{one_line(name, 30)} ({len(text)} characters)" for name, text in self.attached)
        self.box.border_title = f"+ {names}" if names else ""

    # --- small things

    def occupied(self) -> bool:
        """True, and said, while a prompt waits or is answered."""
        if self.busy:
            self.say("an answer is being written; Esc stops it")
        elif self._waiting is not None:
            self.say("your prompt will be sent when the model is loaded")
        return self.busy or self._waiting is not None

    def tick(self) -> None:
        """Half a second has gone by."""
        if self.busy:
            speeds = self.status.speeds
            if self.status.phase == "decode" and self.status.tok_s is not None:
                speeds = (*speeds, self.status.tok_s)[-SPARKS:]
            self.set_status(elapsed=self._clock() - self._sent_at, speeds=speeds)

    def add_joules(self, joules: float, source: Source, usd_per_kwh: float) -> None:
        """Energy that this chat took since it was last told."""
        total = self.status.joules + joules
        tokens = self._reply.stats.completion_tokens if self._reply.stats else 0
        each = (total - self._joules_before) / tokens if tokens else None
        self.set_status(joules=total, joules_per_token=each, source=source, usd_per_kwh=usd_per_kwh)

    def set_status(self, **changes: Any) -> None:
        """Change some of what the status line shows."""
        if self._stop.is_set() and changes.get("phase") in ("queued", "prefill", "decode", "parked"):
            changes["phase"] = "stopping"
        if self.open:
            self._line.status = replace(self._line.status, **changes)

    def say(self, text: str) -> None:
        """Tell the user, on the line above the box."""
        self.message.say(text)

    def note(self, text: str) -> AwaitMount:
        """Tell the user, to stay in the transcript."""
        return self.transcript.add(Note(text))

    def _note_once(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self.note(text)

    @on(Drawn.Address)
    def show_link(self, message: Drawn.Address) -> None:
        """A link is shown, never opened: its text may say one thing and its address another."""
        self.say(one_line(message.address, 300))

    @on(Drawn.Copied)
    def copy_code(self, message: Drawn.Copied) -> None:
        self.app.copy_to_clipboard(message.code)
        self.say(f"copied {len(message.code)} characters")

    @on(PromptBox.PasteCut)
    def tell_cut(self, message: PromptBox.PasteCut) -> None:
        self.say(f"the paste has {message.length} characters; the first {PASTE_LIMIT} were taken")

    @on(PromptBox.Recall)
    def recall(self, message: PromptBox.Recall) -> None:
        self.earlier.recall(message.by)

    @on(OptionList.OptionSelected)
    def take_command(self, message: OptionList.OptionSelected) -> None:
        """A click on a line of the list of commands."""
        message.stop()
        self.box.take(self._hints.matches[message.option_index])

    @on(Mark.Pressed)
    def page_marked(self, message: Mark.Pressed) -> None:
        self.earlier.page(message.by, message.message_id)

    def escape(self) -> None:
        """Esc: the list of commands goes, or the answer stops, or an earlier prompt is left, or the message goes."""
        if self.box.close_list():
            return
        if self.busy:
            self.stop()
        elif not self.earlier.leave():
            self.message.clear()
