"""The running reply of a pane: asked in a thread, heard, drawn as it is, stopped."""

from collections.abc import Callable
from functools import partial
from itertools import groupby
from threading import Event as Flag

from localinfer.cost.energy import Source
from localinfer.events import Finished, Started, Stats
from localinfer.tui import workers
from localinfer.tui.reply import Asked, Inbox, Reply
from localinfer.tui.widgets.answer import Answer, TintedAnswer
from localinfer.tui.widgets.status import SPARKS
from localinfer.tui.widgets.transcript import Prompt
from localinfer.tui.widgets.view import PaneView


class RunningReply:
    """The one that runs in `view`, or else the last one."""

    def __init__(
        self,
        view: PaneView,
        *,
        clock: Callable[[], float],
        wake: Callable[[], object],
        taken: Callable[[], object],
    ) -> None:
        """`wake` is called by the thread that answers when there is something to hear; `taken` by the app's own when
        the engine has taken the prompt."""
        self.reply = Reply(Asked())
        self.busy = False
        self.tints = False
        self.answer: Answer | TintedAnswer | None = None
        """Where it is drawn; None as long as nothing is said."""
        self.used: dict[str, tuple[int, int]] = {}
        """Tokens read and written by the model that was used, as a provider would count them."""
        self._view = view
        self._clock = clock
        self._taken = taken
        self._inbox = Inbox(wake)
        self._stop = Flag()
        self._sent_at = 0.0
        self._begun = ""  # what is there of an answer that is gone on with
        self._shown = (0, 0)  # pieces and notes that are on the screen
        self._unpainted = False
        self._moved_before = 0
        self._stats_before: Stats | None = None
        self._joules_before = 0.0

    # --- its life

    def begin(self, asked: Asked) -> None:
        """Have this answered, in a thread."""
        view = self._view
        self.busy = True
        self._moved_before = self.moved
        self.reply, self.answer, self._shown = Reply(asked), None, (0, 0)
        self._begun = view.session.turns[-1].content if asked.goes_on else ""
        self._stop.clear()
        self._sent_at = self._clock()
        self._stats_before, self._joules_before = view.status.stats, view.status.joules
        view.set_status(phase="queued", percent=None, elapsed=0.0, stats=None, speeds=(), joules_per_token=None)
        work = partial(workers.answer, view.session, asked, self._inbox, self._stop.is_set)
        view.run_worker(work, group="reply", exit_on_error=False, thread=True)

    def stop(self) -> None:
        """Stop it; what was written stays."""
        if self.busy:
            self._stop.set()
            self.hear()  # what was asked before this moment did not see the stop, and has said its handle
            self._view.set_status(phase="stopping")
            chat = self._view.session.chat
            if self.reply.handle is not None and chat is not None:
                chat.engine.cancel(self.reply.handle)

    def forget(self) -> None:
        """The view is gone: the thread that answers ends as soon as it can."""
        self._stop.set()

    def end(self) -> None:
        """It is over: the answer gets no more text, and the line shows what is known of it."""
        if self.answer is not None:
            self.answer.finish()
        self.busy = False
        stats = self.reply.stats or self._stats_before
        self._view.set_status(phase="ready", percent=None, elapsed=None, stats=stats)

    # --- what is known of it

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    @property
    def moved(self) -> int:
        """Tokens computed for this pane so far, read and written."""
        return self._moved_before + self.reply.moved

    @property
    def handle(self) -> int | None:
        """What the engine calls it."""
        return self.reply.handle if self.busy else None

    @property
    def text(self) -> str:
        """What is written of it; empty if it does not run."""
        return self.answer.source if self.busy and self.answer is not None else ""

    # --- heard and drawn

    @property
    def waits(self) -> bool:
        """Is there something that `paint` has not shown yet?"""
        return bool(self._inbox) or self._unpainted

    @property
    def ends(self) -> bool:
        """Is that the end of the reply?"""
        return self._inbox.ends or (self.busy and self.reply.over is not None)

    def hear(self) -> None:
        """Let all that was said take effect, in order; `paint` shows it."""
        for event in self._inbox.take():
            self._unpainted = True
            self.reply.apply(event)
            if isinstance(event, Started):
                self._taken()
            elif isinstance(event, Finished):
                model = self._view.session.model
                read, written = self.used.get(model, (0, 0))
                self.used[model] = (read + event.stats.prompt_tokens, written + len(event.token_ids))

    def paint(self) -> None:
        """Show it as it is now. Nothing in here waits, so nothing can come between."""
        self.hear()
        self._unpainted = False
        view, reply = self._view, self.reply
        if not (self.busy and view.open):
            return
        pieces, notes = self._shown
        self._shown = len(reply.said), len(reply.notes)
        for drafter, run in groupby(reply.said[pieces:], key=lambda piece: piece[1] if self._tinted else None):
            self._write("".join(text for text, _ in run), drafter)
        for text in reply.notes[notes:]:
            view.note(text)
        view.set_status(
            phase="stopping" if self.stopping else reply.phase,
            percent=reply.percent,
            stats=reply.stats,
            context_used=reply.stats.context_used if reply.stats else view.status.context_used,
            context_size=reply.context_size or view.status.context_size,
        )

    @property
    def _tinted(self) -> bool:
        return isinstance(self.answer, TintedAnswer) if self.answer is not None else self.tints

    def _write(self, text: str, drafter: str | None) -> None:
        """Show a piece of the answer; the first one takes the place of an older answer to the same prompt."""
        if self.answer is None:
            transcript = self._view.transcript
            transcript.drop_after_last(Prompt)
            self.answer = TintedAnswer() if self.tints else Answer()
            transcript.add(self.answer)
            if self._begun:
                self.answer.write(self._begun)
        self.answer.write(text, drafter)

    # --- its figures

    def tick(self) -> None:
        """Half a second has gone by."""
        if self.busy:
            self._see_whether_it_begins()
            status = self._view.status
            speeds = status.speeds
            if status.phase == "decode" and status.tok_s is not None:
                speeds = (*speeds, status.tok_s)[-SPARKS:]
            self._view.set_status(elapsed=self._clock() - self._sent_at, speeds=speeds)

    def _see_whether_it_begins(self) -> None:
        """The engine says nothing of a prompt before the first part of it is read, which may take seconds."""
        chat, reply = self._view.session.chat, self.reply
        if reply.phase != "queued" or reply.handle is None or chat is None:
            return
        if reply.handle not in chat.engine.load().queued:
            reply.begin()
            self._view.set_status(phase="stopping" if self.stopping else reply.phase, percent=reply.percent)

    def add_joules(self, joules: float, source: Source, usd_per_kwh: float) -> None:
        """Energy that this pane took since it was last told."""
        total = self._view.status.joules + joules
        tokens = self.reply.stats.completion_tokens if self.reply.stats else 0
        each = (total - self._joules_before) / tokens if tokens else None
        self._view.set_status(joules=total, joules_per_token=each, source=source, usd_per_kwh=usd_per_kwh)
