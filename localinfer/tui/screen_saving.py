"""What of the screen is kept from run to run: panes, theme, and prompts that were not sent."""

import threading
from collections.abc import Sequence
from pathlib import Path

from localinfer.chats.screen_state import PaneState, ScreenState, read, write
from localinfer.errors import LocalInferError
from localinfer.tui.tiling import Tiling, to_plain
from localinfer.tui.widgets.pane import ChatPane

NEW = 0
"""Stands for chats in which nothing was said; no chat has this number."""


class ScreenWriter:
    """Reads what was kept, and writes what is there now. Without a file it keeps texts as long as the app runs."""

    def __init__(self, file: Path | None = None, *, restored: ScreenState | None = None) -> None:
        """`restored` are the panes that the app begins with, if they are those of an earlier run."""
        self.restored = restored
        self._file = file
        self._before = read(file) if file else ScreenState()
        self.first_theme = self._before.theme
        """What the app begins with; it is not kept unless another one is chosen."""
        self._unsent = dict(self._before.unsent)
        for pane in self._before.panes:
            if pane.chat_id or not restored:  # else the pane itself gets it
                self.put_aside(pane.chat_id, pane.unsent)
        self._seen: set[int] = set()
        self._written: ScreenState | None = None
        self._lock = threading.Lock()
        self.problem: LocalInferError | None = None
        """Why nothing could be written; None while all is well."""

    @property
    def theme(self) -> str:
        """The theme that was chosen last; empty if none was."""
        return self._before.theme

    def put_aside(self, chat_id: int | None, text: str) -> None:
        """This was typed in a chat that is on no pane any more."""
        key = chat_id or NEW
        if text.strip():
            self._unsent[key] = "\n\n".join(dict.fromkeys(filter(None, (self._unsent.get(key, ""), text))))

    def take(self, chat_id: int | None) -> str:
        """What was typed in this chat and not sent; from now on its pane has it."""
        self._seen.add(chat_id or NEW)
        return self._unsent.pop(chat_id or NEW, "")

    def now(self, tiling: Tiling, panes: Sequence[ChatPane], focused: ChatPane, theme: str) -> ScreenState:
        """The screen as it is."""
        indices = {pane.number: index for index, pane in enumerate(panes)}
        self._seen |= {pane.session.chat_id or NEW for pane in panes}
        return ScreenState(
            theme=self.theme if theme == self.first_theme else theme,
            panes=tuple(PaneState(pane.session.model, pane.session.chat_id, pane.unsent) for pane in panes),
            tree=to_plain(tiling.root, indices),
            focused=indices[focused.number],
            unsent=dict(self._unsent),
        )

    def save(self, screen: ScreenState) -> None:
        """Write it, with the unsent texts that other processes have kept meanwhile. From any thread."""
        with self._lock:
            if self._file is None or screen == self._written:
                return
            theirs = {chat: text for chat, text in _texts(read(self._file)).items() if chat not in self._seen}
            try:
                merged = ScreenState(
                    screen.theme, screen.panes, screen.tree, screen.focused, theirs | dict(screen.unsent)
                )
                write(self._file, merged)
                self._written, self.problem = screen, None
            except LocalInferError as error:
                self.problem = error


def _texts(screen: ScreenState) -> dict[int, str]:
    shown = {pane.chat_id: pane.unsent for pane in screen.panes if pane.chat_id and pane.unsent}
    return dict(screen.unsent) | shown
