"""Where the user types. Enter sends; Ctrl+J begins a new line; long pastes are folded into one word."""

import asyncio
import re
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widgets import TextArea

from localinfer.text import clean
from localinfer.tui.commands import Completion, Match, is_call
from localinfer.tui.labels import cut_label
from localinfer.tui.widgets.hints import Hints

FOLD_CHARACTERS, FOLD_LINES = 4000, 40
"""A paste of more than this is shown as one word; typing beside it stays fast, and it is sent whole."""

PASTE_LIMIT = 16_000_000
"""Characters taken from one paste: more than any context holds."""

JOINERS = ("\u200c", "\u200d")
"""They join letters or emoji and are typed like these; a text area takes what is printable by itself only."""

QUOTES = '"""'
"""Between two of these, Enter begins a new line."""


class PromptBox(TextArea):
    """A text area of several lines that grows with its text, up to a third of the pane."""

    hint_text = "Enter send · Ctrl+J new line · / commands · F1 help"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+j,shift+enter,alt+enter", "new_line", "New line", show=False),
    ]

    @dataclass
    class Sent(Message):
        """The user pressed Enter, and the box is empty. `line` is what was typed, and goes back into the box if it
        cannot be sent; `text` is what it says. `calls`: may it be a command, since it stood on one line?"""

        box: "PromptBox"
        text: str
        line: str
        calls: bool = True

        @property
        def control(self) -> "PromptBox":
            return self.box

    @dataclass
    class PasteCut(Message):
        """A paste was longer than `PASTE_LIMIT` and was cut."""

        length: int

    @dataclass
    class Recall(Message):
        """Up at the first line (`by` is 1) or Down at the last one (-1)."""

        by: int

    def __init__(self, text: str, completion: Completion, hints: Hints) -> None:
        self._folded: dict[str, str] = {}
        self._completion = completion
        self._hints = hints
        self._brought_back = self._rest = ""
        super().__init__(self._fold(clean(text)), placeholder="Message", highlight_cursor_line=False)
        self.border_subtitle = self.hint_text

    def action_new_line(self) -> None:
        self.insert("\n")

    @property
    def whole(self) -> str:
        """The text with all that is folded in it."""
        words = "|".join(map(re.escape, self._folded))
        return re.sub(words, lambda found: self._folded[found[0]], self.text) if words else self.text

    def put(self, text: str) -> None:
        """Put `text` before what is there, and the cursor at the end."""
        self.load_text("\n\n".join(part for part in (self._fold(clean(text)), self.text) if part))
        self.move_cursor(self.document.end)

    def replace_all(self, text: str) -> None:
        """Put `text` in place of what is there."""
        self.load_text("")
        self._folded.clear()
        self.put(text)

    def bring_back(self, text: str) -> None:
        """Put a line of before in place of what is there; arrows go on from it, not into the list of commands."""
        self.load_text("")
        self._folded.clear()
        self._brought_back = text
        self.put(text)

    def render_lines(self, crop: Region) -> list[Strip]:
        if not self.is_attached:  # its pane was closed, and the screen is drawn before it is laid out anew
            return [Strip.blank(crop.width)] * crop.height
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        if self.content_size.width < 1:  # Textual cannot wrap a placeholder into no columns
            return Strip.blank(self.size.width)
        return super().render_line(y)

    def update_suggestion(self) -> None:
        line = self.text
        if line != self._brought_back:
            self._brought_back = ""
        asks = is_call(line) and not self._brought_back
        at_end = self.cursor_location == self.document.end
        self._rest = self._completion.complete(line) if asks and at_end else ""
        self.suggestion = cut_label(self._rest, max(2, self.content_size.width - cell_len(line) - 1))
        self._hints.show(self._completion.matches(line) if asks else [], first=" " not in line)

    async def on_key(self, event: events.Key) -> None:
        by = {"up": -1, "down": 1}.get(event.key)
        if event.key == "enter":
            self._enter()
        elif by and self._hints.display:
            self._hints.move(by)
        elif by and self._is_at_edge(by):
            self.post_message(self.Recall(-by))
        elif event.character in JOINERS:
            self.insert(event.character)
        elif not await self._edit(event.key):
            return
        event.stop()
        event.prevent_default()

    async def _edit(self, key: str) -> bool:
        """Do what the key is bound to here. Textual would do it after keys that were typed later."""
        for binding in self._bindings.key_to_bindings.get(key, ()):
            if not binding.priority and await self.app.run_action(binding.action, self):
                return True
        return False

    async def complete(self) -> bool:
        """Write what Tab completes, once all that was typed before it stands here. False if that is nothing."""
        done = asyncio.Event()
        if self.call_later(done.set):
            await done.wait()
        if not (self.suggestion or self._hints.moved):
            return False
        self._tab()
        return True

    def close_list(self) -> bool:
        """Hide the list of commands. False if there is none."""
        shown = self._hints.display
        self._hints.show([])
        return shown

    def take(self, match: Match) -> None:
        """What was chosen in the list: done at once if it is whole."""
        self.replace_all(match.line)
        if match.whole:
            self._send()

    def _is_at_edge(self, by: int) -> bool:
        """Is the cursor on the first line, or on the last?"""
        navigator, place = self.navigator, self.cursor_location
        return navigator.is_first_wrapped_line(place) if by < 0 else navigator.is_last_wrapped_line(place)

    def _tab(self) -> None:
        if self._hints.moved and (chosen := self._hints.chosen):
            self.replace_all(chosen.line)
        else:
            self.insert(self._rest)

    def action_cursor_right(self, select: bool = False) -> None:
        if self.suggestion:
            self.insert(self._rest)
        else:
            super().action_cursor_right(select)

    def _enter(self) -> None:
        if self.text.startswith(QUOTES) and not _closed(self.text):
            self.action_new_line()
            return
        chosen = self._hints.chosen if self._hints.display else None
        match = self._completion.taken(self.text, chosen, moved=self._hints.moved)
        if match.line != self.text:
            self.take(match)
        else:
            self._send()

    def _send(self) -> None:
        """Empty the box at once: what is typed from here on is the next prompt."""
        line, calls = self.whole, "\n" not in self.text
        self.replace_all("")
        self.post_message(self.Sent(self, _unquoted(line), line, calls))

    def on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        text = clean(event.text.replace("\r\n", "\n").replace("\r", "\n"))
        if len(text) > PASTE_LIMIT:
            self.post_message(self.PasteCut(len(text)))
        self.insert(self._fold(text[:PASTE_LIMIT]))
        self.scroll_cursor_visible()

    def _fold(self, text: str) -> str:
        """`text`, or the word that stands for it if it is long."""
        lines = text.count("\n") + 1
        if len(text) <= FOLD_CHARACTERS and lines <= FOLD_LINES:
            return text
        word = f"[text {len(self._folded) + 1}: {len(text)} characters, {lines} line{'s' * (lines > 1)}]"
        self._folded[word] = text
        return word


def _closed(text: str) -> bool:
    return len(text) >= 2 * len(QUOTES) and text.rstrip().endswith(QUOTES)


def _unquoted(text: str) -> str:
    """The text between the quotes, if it begins with them."""
    if text.startswith(QUOTES) and _closed(text):
        return text.rstrip().removeprefix(QUOTES).removesuffix(QUOTES).strip("\n")
    return text
