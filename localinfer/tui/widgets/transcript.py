"""What was said so far: prompts, answers, notes and errors, the newest at the bottom."""

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Markdown, Static
from textual.widgets.markdown import MarkdownStream

from localinfer.chats.template import Message
from localinfer.errors import LocalInferError
from localinfer.text import StreamCleaner, clean
from localinfer.tui.markdown import parser

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


class Answer(Markdown):
    """What the model says, as Markdown, while it says it."""

    def __init__(self, text: str = "") -> None:
        super().__init__(clean(text) or None, parser_factory=parser, open_links=False)
        self._cleaner = StreamCleaner()
        self._stream: MarkdownStream | None = None

    async def write(self, piece: str, drafter: str | None = None) -> None:
        """Add a piece, whoever guessed it; pieces that come faster than they can be drawn are joined."""
        if self._stream is None:
            self._stream = Markdown.get_stream(self)
        await self._stream.write(self._cleaner.push(piece))

    async def finish(self) -> None:
        """No more pieces; returns when all is drawn."""
        if self._stream is not None:
            await self._stream.stop()
            self._stream = None


TINTS = {"suffix": "$primary", "lookup": "$accent", "head": "$success", "early": "$warning", "model": "$secondary"}
"""The colours of those who guess."""


class TintedAnswer(Static):
    """What the model says as it comes, no Markdown, each token in the colour of who guessed it."""

    def __init__(self) -> None:
        super().__init__(Content(""), markup=False)
        self._cleaner = StreamCleaner()
        self._shown = Content("")
        self.source = ""

    async def write(self, piece: str, drafter: str | None = None) -> None:
        """Add a piece that `drafter` guessed."""
        text = self._cleaner.push(piece)
        self.source += text
        tinted = Content.styled(text, f"underline {TINTS.get(drafter, '$error')}") if drafter else Content(text)
        self._shown = Content.assemble(self._shown, tinted)
        self.update(self._shown)

    async def finish(self) -> None:
        """No more pieces; it stays as it is."""


class Transcript(VerticalScroll, can_focus=False):
    """Follows the newest line, unless the user has scrolled up."""

    def on_mount(self) -> None:
        self.anchor()

    async def add(self, *widgets: Widget) -> None:
        """Put something at the end. The welcome goes with the first turn."""
        await self.query(Welcome).remove()
        await self.mount(*widgets)
        self.anchor()

    async def fill(self, turns: tuple[Message, ...]) -> None:
        """Show the turns of a chat, the latest ones if there are many."""
        widgets: list[Widget] = []
        if len(turns) > SHOWN_TURNS:
            widgets.append(Note(f"{len(turns) - SHOWN_TURNS} earlier turns are remembered, but not shown"))
        for turn in turns[-SHOWN_TURNS:]:
            widgets.append(Prompt(turn.content) if turn.role == "user" else Answer(turn.content))
        if widgets:
            await self.add(*widgets)

    async def drop_last(self, kind: type[Widget]) -> None:
        """Remove the newest widget of this kind."""
        for widget in list(self.query_children(kind))[-1:]:
            await widget.remove()

    async def drop_after_last(self, kind: type[Widget]) -> None:
        """Remove all that stands after the newest widget of this kind."""
        children = list(self.children)
        last = max((i for i, child in enumerate(children) if isinstance(child, kind)), default=len(children))
        await self.remove_children(children[last + 1 :])

    async def clear(self) -> None:
        """Back to an empty page."""
        await self.remove_children()
        await self.mount(Welcome())


class Welcome(Static):
    """What an empty chat shows."""

    def __init__(self) -> None:
        super().__init__(
            Content.assemble(
                Content.styled("Ask anything", "bold $primary"),
                Content("\n\nIt runs on this machine, and nothing leaves it."),
            ),
            markup=False,
        )
