"""The chat: one conversation, the box to type in, and what the engine is doing."""

from collections.abc import Callable
from dataclasses import replace
from threading import Event as Flag
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Markdown

from localinfer.chats.session import ChatSession
from localinfer.errors import LocalInferError
from localinfer.events import Finished, FinishReason, Progress, Shifted, Started, Stats, Text
from localinfer.text import clean, one_line
from localinfer.tui import workers
from localinfer.tui.messages import EngineSaid, Loaded, LoadFailed, LoadMoved, ReplyEnded
from localinfer.tui.screens.help import HelpScreen
from localinfer.tui.widgets.prompt_box import PASTE_LIMIT, PromptBox
from localinfer.tui.widgets.status import Status, StatusLine
from localinfer.tui.widgets.title import TitleLine
from localinfer.tui.widgets.transcript import (
    TINTS,
    Answer,
    ErrorNote,
    Note,
    Prompt,
    TintedAnswer,
    Transcript,
    Welcome,
)
from localinfer.tui.workers import OpenEngine, StartMeter

_ENDINGS: dict[FinishReason, str] = {
    "length": "the answer reached the limit of new tokens",
    "overflow": "the context is full: start a new chat with Ctrl+N, or run with a larger --ctx-size",
    "cancelled": "stopped",
}


class ChatScreen(Screen[None]):
    """Two threads work for this screen, one that loads and one that answers; both only post messages."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop the answer"),
        Binding("ctrl+r", "regenerate", "Answer again", priority=True),
        Binding("ctrl+y", "copy_answer", "Copy the answer", priority=True),
        Binding("ctrl+n", "new_chat", "New chat", priority=True),
        Binding("f1", "help", "Help", priority=True),
        Binding("f2", "tints", "Show who guessed", priority=True),
        Binding("pageup", "page(-1)", "Scroll", priority=True, show=False),
        Binding("pagedown", "page(1)", "Scroll", priority=True, show=False),
    ]

    def __init__(
        self, session: ChatSession, open_engine: OpenEngine, *, clock: Callable[[], float], start_meter: StartMeter
    ) -> None:
        super().__init__()
        self._start_meter = start_meter
        self.session = session
        self._open_engine = open_engine
        self._clock = clock
        self._stop = Flag()
        self._leaving = False
        self._busy = False
        self._sent_at = 0.0
        self._waiting: str | None = None  # a prompt that was sent before the model was there
        self._answer: Answer | TintedAnswer | None = None
        self._tints = False
        self._stats_before: Stats | None = None
        self._noted: set[str] = set()  # warnings that were shown already
        self.load_error: LocalInferError | None = None

    def compose(self) -> ComposeResult:
        yield TitleLine(self.session.model)
        yield Transcript(Welcome())
        yield PromptBox(self.session.unsent)
        yield StatusLine()

    async def on_mount(self) -> None:
        box = self.query_one(PromptBox)
        box.cursor_blink = self.app.animation_level != "none"
        box.focus()
        await self.query_one(Transcript).fill(self.session.turns)
        self.set_interval(0.5, self._tick)
        self.call_after_refresh(self.load)  # paint first

    def on_unmount(self) -> None:
        self._leaving = True
        self._stop.set()

    # --- loading

    @work(thread=True, group="load", exit_on_error=False)
    def load(self) -> None:
        workers.load(self._open_engine, self.post_message, lambda: self._leaving)

    @on(LoadMoved)
    def show_load(self, message: LoadMoved) -> None:
        percent = 100 * message.done // message.total if message.total else None
        self._set(phase="loading", stage=message.stage, percent=percent)

    @on(Loaded)
    async def use_engine(self, message: Loaded) -> None:
        self.app.engine = message.engine  # type: ignore[attr-defined]
        self.session.attach(message.engine)
        self.query_one(TitleLine).info = message.engine.info
        self._set(phase="ready", stage="", percent=None, context_size=message.engine.context_size)
        if self._waiting is not None:
            prompt, self._waiting = self._waiting, None
            self._begin(prompt)

    @on(LoadFailed)
    async def show_load_failure(self, message: LoadFailed) -> None:
        self.load_error = message.error
        self._set(phase="failed", stage="", percent=None)
        if self._waiting is not None:
            await self._put_back(self._waiting)
            self._waiting = None
        await self.query_one(Transcript).add(ErrorNote(message.error))

    # --- asking

    @on(PromptBox.Sent)
    async def send(self, message: PromptBox.Sent) -> None:
        if not message.text.strip() or self._occupied():
            return
        if self.load_error is not None:
            self._say("the model is not loaded; Ctrl+Q quits")
            return
        self.query_one(PromptBox).load_text("")
        await self.query_one(Transcript).add(Prompt(message.text))
        if self.session.chat is None:
            self._waiting = message.text  # sent as soon as the model is there
        else:
            self._begin(message.text)

    def action_regenerate(self) -> None:
        if self._occupied():
            return
        if self.session.chat is None or self.session.last_answer is None:
            self._say("there is no answer to write anew")
        else:
            self._begin(None)

    def _begin(self, prompt: str | None) -> None:
        self._busy = True
        self._stop.clear()
        self._sent_at = self._clock()
        self._answer = None
        self._stats_before = self._status.stats
        self._set(phase="queued", percent=None, elapsed=0.0, stats=None, joules_per_token=None)
        self.generate(prompt)

    @work(thread=True, group="reply", exit_on_error=False)
    def generate(self, prompt: str | None) -> None:
        workers.answer(self.session, prompt, self.post_message, self._stop.is_set, self._start_meter)

    # --- answering

    @on(EngineSaid)
    async def show(self, message: EngineSaid) -> None:
        match message.event:
            case Started() as started:
                self._set(phase="prefill", percent=0, context_size=started.context_size)
            case Progress(done=done, total=total):
                self._set(phase="prefill", percent=100 * done // max(total, 1))
            case Text(text=text, drafter=drafter) if text:
                await self._write(text, drafter)
            case Shifted(dropped=dropped):
                await self._note(f"the oldest {dropped} tokens were forgotten, to make room in the context")
            case Stats() as stats:
                self._set(
                    phase=stats.phase, percent=None if stats.phase == "decode" else self._status.percent, stats=stats
                )
            case Finished() as finished:
                self._set(stats=finished.stats)
                await self._note_ending(finished.reason)

    @on(ReplyEnded)
    async def end(self, message: ReplyEnded) -> None:
        if self._answer is not None:
            await self._answer.finish()
        elif message.prompt is not None:
            await self._put_back(message.prompt)
        self._busy = False
        stats = self._status.stats or self._stats_before
        tokens = stats.completion_tokens if stats else 0
        joules = message.joules / tokens if message.joules is not None and tokens and self._answer else None
        self._set(phase="ready", percent=None, elapsed=None, stats=stats, joules_per_token=joules)
        if message.error is not None:
            await self.query_one(Transcript).add(ErrorNote(message.error))
        for warning in self.session.warnings:
            await self._note_once(warning)
        if self.session.problem is not None:
            await self._note_once(f"this chat is not saved: {self.session.problem.message}")

    async def _write(self, text: str, drafter: str | None) -> None:
        """Show a piece of the answer; the first one takes the place of an older answer to the same prompt."""
        transcript = self.query_one(Transcript)
        if self._answer is None:
            await transcript.drop_after_last(Prompt)
            self._answer = TintedAnswer() if self._tints else Answer()
            await transcript.add(self._answer)
        await self._answer.write(text, drafter)

    async def _note_ending(self, reason: FinishReason) -> None:
        if self._answer is None:
            if reason != "cancelled":  # then it is no news that nothing was written
                await self._note("the model answered nothing")
        elif reason in _ENDINGS:
            await self._note(_ENDINGS[reason])

    async def _put_back(self, prompt: str) -> None:
        """Nothing came of `prompt`: out of the transcript, back into the box."""
        await self.query_one(Transcript).drop_last(Prompt)
        self.query_one(PromptBox).put(prompt)

    # --- the other keys

    def action_stop(self) -> None:
        """Stop the answer; what was written stays."""
        if self._busy:
            self._stop.set()
            self._set(phase="stopping")

    async def action_new_chat(self) -> None:
        if not self._occupied():
            self.session.start_anew()
            await self.query_one(Transcript).clear()
            self._set(stats=None)

    def action_copy_answer(self) -> None:
        writing = self._answer.source if self._busy and self._answer is not None else None
        text = clean(writing or self.session.last_answer or "")
        if text:
            self.app.copy_to_clipboard(text)
            self._say(f"copied {len(text)} characters")
        else:
            self._say("there is no answer to copy")

    def action_help(self) -> None:
        self.app.push_screen(HelpScreen())

    def action_tints(self) -> None:
        """From the next answer on: as Markdown, or token by token in the colours of those who guessed them."""
        self._tints = not self._tints
        names = ", ".join(TINTS)
        self._say(f"the next answers show who guessed each token: {names}" if self._tints else "Markdown again")

    def action_page(self, direction: int) -> None:
        transcript = self.query_one(Transcript)
        move = transcript.scroll_page_down if direction > 0 else transcript.scroll_page_up
        move(animate=False)

    @on(Markdown.LinkClicked)
    def show_link(self, message: Markdown.LinkClicked) -> None:
        """A link is shown, never opened: its text may say one thing and its address another."""
        self._say(one_line(message.href, 300))

    @on(PromptBox.PasteCut)
    def tell_cut(self, message: PromptBox.PasteCut) -> None:
        self._say(f"the paste has {message.length} characters; the first {PASTE_LIMIT} were taken")

    # --- small things

    def stop_or(self, quit_app: Callable[[], None]) -> None:
        """Ctrl+C: first the answer stops; without one, the app may quit."""
        if self._busy and not self._stop.is_set():
            self.action_stop()
        else:
            quit_app()

    def _occupied(self) -> bool:
        """True, and said, while a prompt waits or is answered."""
        if self._busy:
            self._say("an answer is being written; Esc stops it")
        elif self._waiting is not None:
            self._say("your prompt will be sent when the model is loaded")
        return self._busy or self._waiting is not None

    def _tick(self) -> None:
        if self._busy:
            self._set(elapsed=self._clock() - self._sent_at)

    @property
    def _status(self) -> Status:
        return self.query_one(StatusLine).status

    def _set(self, **changes: Any) -> None:
        if self._stop.is_set() and changes.get("phase") in ("prefill", "decode"):
            changes["phase"] = "stopping"
        line = self.query_one(StatusLine)
        line.status = replace(line.status, **changes)

    def _say(self, text: str) -> None:
        self.notify(clean(text), markup=False)

    async def _note(self, text: str) -> None:
        await self.query_one(Transcript).add(Note(text))

    async def _note_once(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            await self._note(text)
