"""One chat on the screen: what is sent from its box, what is asked, and what comes of it.

`view` has its parts, `facts` its model, `running` the reply that is being written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from textual import on
from textual.message import Message
from textual.widgets import OptionList

from localinfer.chats.session import ChatSession
from localinfer.errors import LocalInferError
from localinfer.events import Stats
from localinfer.text import clean
from localinfer.tui.commands import Completion, escaped
from localinfer.tui.earlier import Earlier
from localinfer.tui.messages import EngineSaid
from localinfer.tui.reply import Asked
from localinfer.tui.widgets.answer import Answer
from localinfer.tui.widgets.facts import PaneFacts
from localinfer.tui.widgets.prompt_box import PromptBox
from localinfer.tui.widgets.running import RunningReply
from localinfer.tui.widgets.transcript import Mark, Prompt


class ChatPane(PaneFacts):
    """A chat with its box. A thread answers; it only posts messages."""

    @dataclass
    class Said(Message):
        """The user sent this from the box of `pane`, see `PromptBox.Sent`."""

        pane: "ChatPane"
        text: str
        line: str
        calls: bool

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
        super().__init__(session, completion)
        self.number = number
        self.label = 1
        """The number that the user sees; it stays the same whatever other panes do."""
        self.earlier = Earlier(self)
        self.running = RunningReply(
            self, clock=clock, wake=lambda: self.post_message(EngineSaid()), taken=self._tell_running
        )
        self._heard = heard
        self._waiting: str | None = None  # a prompt that was sent before the model was there

    async def on_mount(self) -> None:
        self.open = True
        self.box.cursor_blink = self.app.animation_level != "none"
        self.show_turns()
        if self.slot is not None:
            self.show_slot(self.slot)

    def on_unmount(self) -> None:
        self.running.forget()

    # --- asking

    @on(PromptBox.Sent)
    def pass_on(self, message: PromptBox.Sent) -> None:
        message.stop()
        self.post_message(self.Said(self, message.text, message.line, message.calls))

    async def send(self, text: str, *, files: Sequence[tuple[str, str]] | None = None) -> bool:
        """Ask this, with the files that are attached. False, and said, when it cannot be asked now. With `files` it
        was typed in another pane: these go with it, and all that is begun here stays."""
        own = files is None
        files = self.attached if files is None else files
        if not (text.strip() or files) or self.occupied():
            return False
        if self.slot is not None and self.slot.error is not None and not self.coming:
            offer = f"{self.offer} · " if self.offer else ""
            self.message.tell(self.slot.error, f"{offer}/model takes another one, Ctrl+Q quits")
            return False
        if not self.may_write():
            return False
        prompt = "\n\n".join([*(part for _, part in files), *([text] if text.strip() else [])])
        asked = Asked(prompt, self.earlier.place if own else None)
        if asked.place is not None and self._has_no_model():
            return False
        if own:
            self.attached = []
            self.earlier.sent(escaped(text))
            self.show_attached()
        self.message.clear()
        if asked.place is not None:
            self.transcript.sync(self.session.turns[: asked.place])
        await self.transcript.add(Prompt(prompt))
        if self.session.chat is None or self.coming:
            self._waiting = prompt  # sent as soon as the model is there
        else:
            self.running.begin(asked)
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
            self.running.begin(Asked(goes_on=goes_on))

    def ask_waiting(self) -> None:
        if self._waiting is not None:
            prompt, self._waiting = self._waiting, None
            self.running.begin(Asked(prompt))

    def give_back_waiting(self) -> None:
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self.put_back(waiting)

    def _has_no_model(self) -> bool:
        """True, and said, while no model can answer."""
        if self.session.chat is None or self.coming:
            self.say("the model is not loaded yet")
        return self.session.chat is None or bool(self.coming)

    def occupied(self) -> bool:
        """True, and said, while a prompt waits or is answered."""
        if self.busy:
            self.say("an answer is being written; Esc stops it")
        elif self._waiting is not None:
            self.say("your prompt will be sent when the model is loaded; Esc takes it back")
        return self.busy or self._waiting is not None

    def may_write(self) -> bool:
        """False, and said, if another process writes into this chat, or has until now."""
        claim = self.session.claim()
        if claim == "taken":
            self.say(f"this chat is open in {self.session.holder}: Ctrl+T goes on in a copy of it")
        elif claim == "changed":
            self.earlier.leave()
            self.show_turns()
            self.say("this chat went on in another process; it is shown as it is now, and yours from here on")
        return claim == "ours"

    def follow(self) -> None:
        """Show what another process has written into this chat meanwhile."""
        free = self.session.free
        if self.open and self.session.follow():
            self.transcript.sync(self.session.turns)
            if self.session.free and not free:
                self.say("no other process has this chat open any more: your next prompt goes on with it")

    # --- the reply

    @on(EngineSaid)
    def listen(self) -> None:
        self._heard()

    def paint(self) -> None:
        """Show the reply as it is now. Nothing in here waits, so nothing can come between."""
        self.running.paint()
        over = self.running.reply.over
        if over is not None and self.busy and self.open:
            self._end(over.error)

    def stop(self) -> None:
        """Stop the answer; what was written stays."""
        self.running.stop()

    def _tell_running(self) -> None:
        if self.open:
            self.post_message(self.Running(self))

    def _end(self, error: LocalInferError | None) -> None:
        asked, answer = self.running.reply.asked, self.running.answer
        self.running.end()
        self.show_turns()
        if answer is None and asked.prompt is not None:
            self.put_back(asked.prompt)
            if asked.place is not None:
                self.earlier.mark(asked.place)
        self._tell_end(error)
        self.post_message(self.Ended(self))

    def _tell_end(self, error: LocalInferError | None) -> None:
        """What the user should know of the reply that is over."""
        finished = self.running.reply.finished
        reason = finished.reason if finished else None
        for warning in self.session.warnings:
            self.note_once(warning)
        if error is not None:
            self.message.tell(error)
        elif self.session.problem is not None:
            self.message.tell(self.session.problem, "this chat is not saved")
        elif reason == "overflow":
            self.say("the context is full: Ctrl+N begins a new chat; --ctx-size raises it, up to the model's limit")
        elif self.running.answer is None and reason not in ("cancelled", None):
            self.say("the model answered nothing")

    @property
    def busy(self) -> bool:
        """Is an answer being written?"""
        return self.running.busy

    @property
    def stats(self) -> Stats | None:
        """Of the answer that is written or was last written here, or else what the chat has kept of its last one."""
        figures = self.session.turns[-1].figures if self.session.turns else None
        return self.status.stats if self.busy or self.status.stats or not figures else figures.stats

    @property
    def stopping(self) -> bool:
        return self.running.stopping

    @property
    def answered(self) -> str:
        """The answer that is being written, or else the last one."""
        return clean(self.running.text or self.session.last_answer or "")

    @property
    def unsent(self) -> str:
        """What would be lost with the pane: a prompt that waits for the model, and what stands in the box."""
        return "\n\n".join(filter(None, (escaped(self._waiting or ""), self.box.whole)))

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
        self.show_nothing()
        self.transcript.clear()
        self.show_turns()
        self.box.replace_all(escaped(session.unsent))
        self.title_line.show(session.model, None)
        self.set_status(context_size=None)

    async def start_anew(self) -> None:
        """An empty chat; the old one is kept."""
        self.earlier.leave()
        self.session.start_anew()
        self.show_nothing()
        await self.transcript.clear()
        self.set_status(context_used=None)

    def leave(self) -> None:
        """The pane is about to go: its answer stops, and nothing is shown any more."""
        self.stop()
        if not self.busy:  # else it is let go of when the answer has ended
            self.session.close()
        self.open = False

    # --- keys and clicks

    @on(PromptBox.Recall)
    def recall(self, message: PromptBox.Recall) -> None:
        self.earlier.recall(message.by)

    @on(OptionList.OptionSelected)
    def take_command(self, message: OptionList.OptionSelected) -> None:
        """A click on a line of the list of commands."""
        message.stop()
        self.box.take(self.hints.matches[message.option_index])

    @on(Mark.Pressed)
    def page_marked(self, message: Mark.Pressed) -> None:
        self.page(message.by, message.message_id)

    def page(self, by: int, message_id: int | None = None) -> None:
        """Show another variant: of this message, of the one that is written anew, or of the last that has several."""
        if not self.occupied() and self.may_write():
            self.earlier.page(by, message_id)

    def escape(self) -> None:
        """Esc: the list of commands goes, or the answer stops, or a prompt that waits for the model comes back, or an
        earlier prompt is left, or the message goes."""
        if self.box.close_list():
            return
        if self.busy:
            self.stop()
        elif self._waiting is not None:
            self.give_back_waiting()
            self.message.clear()
        elif not self.earlier.leave():
            self.message.clear()
