"""What of a chat is on the screen: its title, what was said, the message line, the box, the status line."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from textual import events, on
from textual.app import ComposeResult
from textual.widget import AwaitMount, Widget

from localinfer.chats.given_forms import title_of
from localinfer.chats.session import ChatSession
from localinfer.text import one_line
from localinfer.tui.commands import Completion, escaped
from localinfer.tui.widgets.answer import Drawn
from localinfer.tui.widgets.hints import Hints
from localinfer.tui.widgets.message_line import MessageLine
from localinfer.tui.widgets.prompt_box import PASTE_LIMIT, PromptBox
from localinfer.tui.widgets.status import Status, StatusLine
from localinfer.tui.widgets.title import TitleLine
from localinfer.tui.widgets.transcript import Note, Transcript
from localinfer.tui.widgets.welcome import Welcome

_NARROW = 60


class PaneView(Widget):
    """The parts of a pane and how they are filled; it asks nothing of anyone."""

    def __init__(self, session: ChatSession, completion: Completion, welcome: Callable[[], Welcome]) -> None:
        super().__init__()
        self.session = session
        self.open = False
        """Is it on the screen? Nothing may be shown before that, and after it was closed."""
        self.attached: list[tuple[str, str]] = []
        """Files that go with the next prompt: their names and texts."""
        self.title_line = TitleLine(session.model)
        self.transcript = Transcript(welcome)
        self.hints = Hints()
        self.box = PromptBox(escaped(session.unsent), completion, self.hints)
        self.message = MessageLine()
        self._line = StatusLine()
        self._noted: set[str] = set()  # warnings that were shown already

    def compose(self) -> ComposeResult:
        yield from (self.title_line, self.transcript, self.message, self.hints, self.box, self._line)

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.height < 9, "-flat")
        self.set_class(9 <= event.size.height < 14, "-low")
        self.set_class(event.size.height < 5, "-bare")
        self.box.border_subtitle = "/ commands · F1 help" if event.size.width < _NARROW else self.box.hint_text

    # --- what is shown

    @property
    def status(self) -> Status:
        """What the status line shows."""
        return self._line.status

    def set_status(self, **changes: Any) -> None:
        """Change some of what the status line shows."""
        if self.open:
            self._line.status = replace(self._line.status, **changes)

    def show_turns(self) -> None:
        """What was said, as it is kept."""
        self.transcript.sync(self.session.turns)
        self.show_form()
        if self.session.held_by is not None and not self.session.free:
            self.say(f"this chat is open in {self.session.holder}: it can be read here, Ctrl+T goes on in a copy of it")

    def show_form(self) -> None:
        """Which form answers keep, on the status line."""
        self.set_status(form=title_of(self.session.form))

    def show_attached(self) -> None:
        """What goes with the next prompt, on the frame of the box."""
        names = ", ".join(f"{one_line(name, 30)} ({len(text)} characters)" for name, text in self.attached)
        self.box.border_title = f"+ {names}" if names else ""

    def show_nothing(self) -> None:
        """The chat that was shown here is another one from now on."""
        self._noted.clear()
        self.message.clear()
        self.set_status(stats=None, speeds=(), joules_per_token=None)

    def say(self, text: str) -> None:
        """Tell the user, on the line above the box."""
        self.message.say(text)

    def note(self, text: str) -> AwaitMount:
        """Tell the user, to stay in the transcript."""
        return self.transcript.add(Note(text))

    def note_once(self, text: str) -> None:
        """The same, unless this chat was told so already."""
        if text not in self._noted:
            self._noted.add(text)
            self.note(text)

    # --- the box

    def put_back(self, prompt: str) -> None:
        """Nothing came of `prompt`: out of the transcript, back into the box."""
        self.transcript.sync(self.session.turns)
        self.box.put(escaped(prompt))

    def put_unsent(self, text: str) -> None:
        """What was typed here and not sent, back into the box; what stands there already is not said twice."""
        if text.strip() and text not in self.box.whole:
            self.box.put(text)

    @on(PromptBox.PasteCut)
    def tell_cut(self, message: PromptBox.PasteCut) -> None:
        self.say(f"the paste has {message.length} characters; the first {PASTE_LIMIT} were taken")

    # --- clicks on an answer

    @on(Drawn.Address)
    def show_link(self, message: Drawn.Address) -> None:
        """A link is shown, never opened: its text may say one thing and its address another."""
        self.say(one_line(message.address, 300))

    @on(Drawn.Copied)
    def copy_code(self, message: Drawn.Copied) -> None:
        self.app.copy_to_clipboard(message.code)
        self.say(f"copied {len(message.code)} characters")
