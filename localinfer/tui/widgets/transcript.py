"""What was said so far: prompts, answers, notes and errors, the newest at the bottom."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from textual import events
from textual.await_remove import AwaitRemove
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widget import AwaitMount, Widget
from textual.widgets import Static

from localinfer.chats.turns import SavedTurn
from localinfer.text import StreamCleaner, clean
from localinfer.tui.widgets.answer import Answer, TintedAnswer
from localinfer.tui.widgets.welcome import Welcome

SHOWN_TURNS = 60
"""Turns of a resumed chat that are drawn; all of them are in the conversation."""


SHOWN_CHARACTERS = 4000
"""Of a long prompt, so much of its beginning is drawn; all of it is in the conversation."""


class Prompt(Static):
    """What the user said, as plain text."""

    def __init__(self, text: str) -> None:
        self.said = text
        shown = clean(text[:SHOWN_CHARACTERS])
        rest = Content.styled(f"\n… {len(text)} characters in all", "dim italic")
        super().__init__(
            Content(shown) if len(text) <= SHOWN_CHARACTERS else Content.assemble(Content(shown), rest), markup=False
        )


class Note(Static):
    """One dim line of ours between the turns."""

    def __init__(self, text: str) -> None:
        super().__init__(Content(clean(text)), markup=False)


class Mark(Static):
    """Under a message: which of its variants it is, and why it is not whole. A click on its arrows pages."""

    @dataclass
    class Pressed(Message):
        """Another variant of this message is wanted, `by` places further."""

        message_id: int
        by: int

    def __init__(self, turn: SavedTurn, *, last: bool) -> None:
        """`last`: can this message be gone on with?"""
        self._turn = turn
        super().__init__(Content(self.text_of(turn, last=last)), markup=False)

    def rest(self) -> None:
        """Other messages come after it."""
        self.update(Content(self.text_of(self._turn, last=False)))

    @staticmethod
    def text_of(turn: SavedTurn, *, last: bool) -> str:
        """What it says; nothing for most messages."""
        which = f"‹ {turn.variant}/{turn.variants} ›" if turn.variants > 1 else ""
        how = " · Ctrl+L (/continue) goes on" if last else ""
        why = f"cut off: {turn.cut_off}{how}" if turn.cut_off else ""
        busy = "being written in another process" if turn.elsewhere else ""
        return "   ".join(part for part in (which, why, busy) if part)

    def on_click(self, event: events.Click) -> None:
        arrows = len(f"‹ {self._turn.variant}/{self._turn.variants} ›")
        offset = event.get_content_offset(self)
        if self._turn.variants < 2 or self._turn.id is None or offset is None:
            return
        if offset.y == 0 and offset.x < arrows:
            self.post_message(self.Pressed(self._turn.id, -1 if offset.x < arrows // 2 else 1))


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
        self._first = 0  # the first turn that is drawn
        self._hidden: list[int | None] = []  # the turns before it
        self._turns: dict[Widget, SavedTurn] = {}
        self._marks: dict[Widget, Mark] = {}

    def on_mount(self) -> None:
        self.anchor()

    def add(self, *widgets: Widget) -> AwaitMount:
        """Put something at the end. The welcome goes with the first turn."""
        self._drop([item for item in self.items if isinstance(item, Welcome)])
        if any(isinstance(widget, Prompt) for widget in widgets):
            for mark in self._marks.values():
                mark.rest()
        self.items.extend(widgets)
        mounted = self._put(*widgets)
        self.anchor()
        return mounted

    def sync(self, turns: Sequence[SavedTurn]) -> None:
        """Show these turns, the latest ones if there are many, with their marks. What is drawn already, and is the
        same, stays."""
        hidden = [turn.id for turn in turns[: self._first]]
        if not turns or hidden != self._hidden or not self._said():
            self._begin(turns)
        said = self._said()
        shown = turns[self._first :]
        for drawn, turn in zip(said, shown, strict=False):
            self._grow(drawn, turn)
        pairs = zip(said, shown, strict=False)
        same = next(
            (i for i, (item, turn) in enumerate(pairs) if not self._shows(item, turn)), min(len(said), len(shown))
        )
        if same < len(said):
            self._drop(self.items[self.items.index(said[same]) :])
        new = [Prompt(turn.content) if turn.role == "user" else _answer(turn) for turn in shown[same:]]
        if new:
            self.add(*new)
        self._turns = dict(zip([*said[:same], *new], shown, strict=True))
        for item, turn in self._turns.items():
            self._mark(item, turn, last=turn is shown[-1])

    def _grow(self, item: Widget, turn: SavedTurn) -> None:
        """Write on with an answer that another process has written on."""
        known = self._turns.get(item)
        if known is None or not known.elsewhere or known.id != turn.id or not isinstance(item, Answer):
            return
        if turn.content.startswith(known.content):
            item.write(turn.content[len(known.content) :])
            if not turn.elsewhere:
                item.finish()
            self._turns[item] = turn

    def _begin(self, turns: Sequence[SavedTurn]) -> None:
        """Draw these turns from the beginning, or the welcome if there are none."""
        self._first = max(0, len(turns) - SHOWN_TURNS)
        self._hidden = [turn.id for turn in turns[: self._first]]
        if not turns and not any(isinstance(item, Welcome) for item in self.items):
            self.clear()
        elif self._said():
            self._drop(self.items)
        if self._first:
            self.add(Note(f"{self._first} earlier turns are remembered, but not shown"))

    def _said(self) -> list[Prompt | Answer | TintedAnswer]:
        """What shows turns, from the top."""
        return [item for item in self.items if isinstance(item, Prompt | Answer | TintedAnswer)]

    def reveal(self, offset: int) -> None:
        """Scroll to where this turn begins, unless it can be seen with the end."""
        for item, number in self._placed():
            if number == offset:
                self.call_after_refresh(item.scroll_visible, animate=False, top=True)

    def choose(self, offset: int | None) -> None:
        """Show which prompt is written anew."""
        for item, number in self._placed():
            item.set_class(number == offset, "-chosen")
            if number == offset:
                item.scroll_visible(animate=False)

    def _placed(self) -> list[tuple[Widget, int]]:
        """What shows a turn, with the turn's number."""
        return [(item, number) for number, item in enumerate(self._said(), self._first)]

    def _shows(self, item: Prompt | Answer | TintedAnswer, turn: SavedTurn) -> bool:
        known = self._turns.get(item)
        if known is not None and known.content == turn.content:
            return known.role == turn.role
        if isinstance(item, Prompt):
            return turn.role == "user" and item.said == turn.content
        return turn.role == "assistant" and item.source == StreamCleaner().push(turn.content)

    def _mark(self, item: Widget, turn: SavedTurn, *, last: bool) -> None:
        old, text = self._marks.get(item), Mark.text_of(turn, last=last)
        if old is not None and (text != str(old.content) or not text):
            self._drop([self._marks.pop(item)])
        item.set_class(bool(text), "-marked")
        if text and item not in self._marks:
            mark = self._marks[item] = Mark(turn, last=last)
            self.items.insert(self.items.index(item) + 1, mark)
            self._put(mark, after=item)

    def drop_after_last(self, kind: type[Widget]) -> AwaitRemove:
        """Remove all that stands after the newest widget of this kind."""
        last = max((i for i, item in enumerate(self.items) if isinstance(item, kind)), default=len(self.items))
        return self._drop([item for item in self.items[last + 1 :] if item is not self._marks.get(self.items[last])])

    def clear(self) -> AwaitMount:
        """Back to an empty page."""
        self._drop(self.items)
        self._first, self._hidden = 0, []
        welcome = self._welcome()
        self.items.append(welcome)
        return self._put(welcome)

    def _put(self, *widgets: Widget, after: Widget | None = None) -> AwaitMount:
        """Mount these; nothing any more once the app is about to end."""
        return self.mount(*widgets, after=after) if self.is_attached else AwaitMount(self, [])

    def _drop(self, widgets: Sequence[Widget]) -> AwaitRemove:
        self.items = [item for item in self.items if item not in widgets]
        self._turns = {item: turn for item, turn in self._turns.items() if item not in widgets}
        self._marks = {item: mark for item, mark in self._marks.items() if not {item, mark} & set(widgets)}
        for widget in widgets:
            widget.display = False  # at once; it is removed when its own messages are done
        return self.remove_children(widgets)


def _answer(turn: SavedTurn) -> Answer:
    """It may grow as long as another process writes it."""
    answer = Answer()
    answer.write(turn.content)
    if not turn.elsewhere:
        answer.finish()
    return answer
