"""What was said so far: prompts, answers, notes and errors, the newest at the bottom."""

from collections.abc import Callable, Sequence

from textual.await_remove import AwaitRemove
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import AwaitMount, Widget
from textual.widgets import Static

from localinfer.chats.turns import SavedTurn
from localinfer.errors import LocalInferError
from localinfer.text import clean
from localinfer.tui.widgets.answer import Answer
from localinfer.tui.widgets.welcome import Welcome

SHOWN_TURNS = 60
"""Turns of a resumed chat that are drawn; all of them are in the conversation."""


SHOWN_CHARACTERS = 4000
"""Of a long prompt, so much of its beginning is drawn; all of it is in the conversation."""


class Prompt(Static):
    """What the user said, as plain text."""

    def __init__(self, text: str) -> None:
        shown = clean(text[:SHOWN_CHARACTERS])
        rest = Content.styled(f"\n… {len(text)} characters in all", "dim italic")
        super().__init__(
            Content(shown) if len(text) <= SHOWN_CHARACTERS else Content.assemble(Content(shown), rest), markup=False
        )


class Note(Static):
    """One dim line of ours between the turns."""

    def __init__(self, text: str) -> None:
        super().__init__(Content(clean(text)), markup=False)


class ErrorNote(Static):
    """What went wrong, and what to do."""

    def __init__(self, error: LocalInferError) -> None:
        parts = [Content.styled(clean(error.message), "bold")]
        if error.hint:
            parts += [Content("\n"), Content.styled(clean(error.hint), "dim")]
        super().__init__(Content.assemble(*parts), markup=False)


class Transcript(VerticalScroll, can_focus=False):
    """Follows the newest line, unless the user has scrolled up. Each change is made at once; who likes may wait until
    it is on the screen."""

    def __init__(self, welcome: Callable[[], Welcome]) -> None:
        """`welcome` makes what stands here as long as nothing was said."""
        first = welcome()
        super().__init__(first)
        self._welcome = welcome
        self.items: list[Widget] = [first]
        """What stands here, from the top."""

    def on_mount(self) -> None:
        self.anchor()

    def add(self, *widgets: Widget) -> AwaitMount:
        """Put something at the end. The welcome goes with the first turn."""
        self._drop([item for item in self.items if isinstance(item, Welcome)])
        self.items.extend(widgets)
        mounted = self.mount(*widgets)
        self.anchor()
        return mounted

    def fill(self, turns: tuple[SavedTurn, ...]) -> AwaitMount:
        """Show the turns of a chat, the latest ones if there are many."""
        widgets: list[Widget] = []
        if len(turns) > SHOWN_TURNS:
            widgets.append(Note(f"{len(turns) - SHOWN_TURNS} earlier turns are remembered, but not shown"))
        for turn in turns[-SHOWN_TURNS:]:
            widgets.append(Prompt(turn.content) if turn.role == "user" else Answer(turn.content))
        return self.add(*widgets) if widgets else self.mount()

    def drop_last(self, kind: type[Widget]) -> AwaitRemove:
        """Remove the newest widget of this kind."""
        return self._drop([item for item in self.items if isinstance(item, kind)][-1:])

    def drop_after_last(self, kind: type[Widget]) -> AwaitRemove:
        """Remove all that stands after the newest widget of this kind."""
        last = max((i for i, item in enumerate(self.items) if isinstance(item, kind)), default=len(self.items))
        return self._drop(self.items[last + 1 :])

    def clear(self) -> AwaitMount:
        """Back to an empty page."""
        self._drop(self.items)
        welcome = self._welcome()
        self.items.append(welcome)
        return self.mount(welcome)

    def _drop(self, widgets: Sequence[Widget]) -> AwaitRemove:
        self.items = [item for item in self.items if item not in widgets]
        for widget in widgets:
            widget.display = False  # at once; it is removed when its own messages are done
        return self.remove_children(widgets)
