"""The keys of the chat: what they do, and how the help card says it.

Only what every terminal sends: of Alt with letters and digits, many send what cannot be told from other keys.
"""

from textual.binding import Binding, BindingType

_ARROWS = ("left", "right", "up", "down")

BINDINGS: list[BindingType] = [
    Binding("escape", "escape", "Stop the answer"),
    *(
        Binding(key, f"command('{line}')", priority=True)
        for key, line in {
            "ctrl+r": "regen",
            "ctrl+l": "continue",
            "ctrl+y": "copy",
            "ctrl+s": "copy code",
            "ctrl+n": "clear",
            "ctrl+g": "editor",
            "ctrl+b": "edit",
            "ctrl+up": "variant previous",
            "ctrl+down": "variant next",
            "f1": "help",
            "f2": "tints",
            "f3": "details",
            "f4": "zoom",
            "f5": "split right",
            "f6": "split down",
            "f7": "compare",
            "f8": "broadcast",
            "f9": "chats",
            "f10": "close",
            "ctrl+t": "fork",
            "ctrl+o": "resize",
        }.items()
    ),
    Binding("pageup", "page(-1)", "Scroll", priority=True, show=False),
    Binding("pagedown", "page(1)", "Scroll", priority=True, show=False),
    Binding("tab", "tab", "Other pane", priority=True, show=False),
    Binding("shift+tab", "next_pane(-1)", "Other pane", priority=True, show=False),
    *(Binding(f"alt+{way}", f"go('{way}')", "Other pane", priority=True, show=False) for way in _ARROWS),
    *(Binding(f"alt+shift+{way}", f"move('{way}')", "Move", priority=True, show=False) for way in _ARROWS),
]

KEYS = (
    ("Enter", "send"),
    ("Ctrl+J", 'new line (in many terminals also Shift+Enter); `"""` begins and ends a text of many lines'),
    ("Esc", "stop, and keep what was written; take back a prompt that waits for its model"),
    ("Up  Down", "earlier prompts; in the list that / opens, the line to take"),
    ("Ctrl+B", "write an earlier prompt anew and go on from there; again: the one before it"),
    ("Ctrl+Up  Ctrl+Down", "page through the variants of an answer or prompt"),
    ("Ctrl+R  Ctrl+L", "answer again, with another seed; go on with an answer that was cut off"),
    ("Ctrl+Y  Ctrl+S", "copy the last answer; copy its last block of code"),
    ("Ctrl+N", "new chat; this one is kept"),
    ("Ctrl+G", "write the prompt in $EDITOR"),
    ("F5  F6  Ctrl+T", "one more pane: to the right, below, or with a copy of this chat"),
    ("Alt+arrows  Tab  Shift+Tab", "go to another pane (also a click)"),
    ("Alt+Shift+arrows", "move the pane (or drag its title)"),
    ("Ctrl+O", "resize the pane with arrows, = makes all equal (or drag what lies between two)"),
    ("F4  F10", "this pane alone, or all again; close it"),
    ("F8  F7", "send prompts to all panes; compare their answers"),
    ("F9", "earlier chats"),
    ("F2  F3", "who guessed each token; plots and figures"),
    ("PgUp  PgDn", "scroll"),
    ("F1  Ctrl+P", "all keys and commands; find a command by its name"),
    ("Ctrl+C", "copy the selection, or stop; twice quits"),
    ("Ctrl+Q", "quit; chat --continue comes back here"),
)
