"""The chat app: `run_app` for people, `make_app` for tests."""

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import App

from localinfer.chats.session import ChatSession
from localinfer.chats.store import ChatStore
from localinfer.config import Overflow, SamplingParams
from localinfer.cost.energy import start_meter
from localinfer.tui.screens.chat import ChatScreen
from localinfer.tui.theme import CALM
from localinfer.tui.workers import OpenEngine, StartMeter

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine

INTERRUPTED = 130
_TWICE_SECONDS = 2.0
_HEIGHTS = [(0, "-flat"), (9, "-low"), (14, "-tall")]
_END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if hasattr(signal, "SIGHUP") else (signal.SIGINT,)


class ChatApp(App[None]):
    """One pane, one chat. The engine is opened after the first paint and belongs to the app."""

    CSS_PATH = "app.tcss"
    TITLE = "localinfer"
    ENABLE_COMMAND_PALETTE = False
    VERTICAL_BREAKPOINTS = _HEIGHTS

    def __init__(
        self,
        session: ChatSession,
        open_engine: OpenEngine,
        *,
        clock: Callable[[], float],
        start_meter: StartMeter,
        animate: bool,
    ) -> None:
        super().__init__()
        self.engine: Engine | None = None
        self._clock = clock
        self._warned_at: float | None = None
        self._chat = ChatScreen(session, open_engine, clock=clock, start_meter=start_meter)
        self.register_theme(CALM)
        self.theme = CALM.name
        if not animate:
            self.animation_level = "none"

    def get_default_screen(self) -> ChatScreen:
        return self._chat

    def on_mount(self) -> None:
        if not self.is_headless:
            loop = asyncio.get_running_loop()
            for number in _END_SIGNALS:
                loop.add_signal_handler(number, self.exit, None, 128 + number)

    def action_help_quit(self) -> None:
        """Ctrl+C with nothing selected."""
        self._chat.stop_or(self._quit_if_twice)

    async def action_quit(self) -> None:
        """Ctrl+Q; a model that could not be loaded decides the exit code."""
        error = self._chat.load_error
        self.exit(return_code=error.exit_code if error else 0)

    def _quit_if_twice(self) -> None:
        now = self._clock()
        if self._warned_at is not None and now - self._warned_at < _TWICE_SECONDS:
            self.exit(return_code=INTERRUPTED)
        else:
            self._warned_at = now
            self.notify("press Ctrl+C again to quit; the chat is kept", markup=False, timeout=_TWICE_SECONDS)


def make_app(
    open_engine: OpenEngine,
    *,
    model: str,
    store: ChatStore | Path,
    resume: bool | int = False,
    system: str | None = None,
    sampling: SamplingParams | None = None,
    on_overflow: Overflow = "error",
    clock: Callable[[], float] = time.monotonic,
    start_meter: StartMeter = start_meter,
    animate: bool = True,
) -> ChatApp:
    """The app, not yet running.

    `open_engine(progress)` is called in a thread after the first paint; it reports `progress(stage, done, total)`.
    `resume`: False is a new chat, True the latest one, a number that one. Raises `NotFound` if it is not there, and
    what `ChatStore` raises for a file that cannot be used.
    """
    session = ChatSession(
        store if isinstance(store, ChatStore) else ChatStore(store),
        model=model,
        system=system,
        sampling=sampling,
        on_overflow=on_overflow,
        resume=resume,
    )
    return ChatApp(session, open_engine, clock=clock, start_meter=start_meter, animate=animate)


def run_app(
    open_engine: OpenEngine,
    *,
    model: str,
    store: ChatStore | Path,
    resume: bool | int = False,
    system: str | None = None,
    sampling: SamplingParams | None = None,
    on_overflow: Overflow = "error",
) -> int:
    """Run the app in this terminal until the user quits; see `make_app`. Returns the exit code.

    0 after Ctrl+Q, 130 after Ctrl+C, 128 + n after signal n, and the error's own code if the model never loaded.
    """
    app = make_app(
        open_engine,
        model=model,
        store=store,
        resume=resume,
        system=system,
        sampling=sampling,
        on_overflow=on_overflow,
    )
    try:
        app.run()
    finally:
        if app.engine is not None:
            app.engine.close()
    return app.return_code or 0
