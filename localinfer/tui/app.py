"""The chat app: `run_app` for people, `make_app` for tests."""

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar

from rich.console import RenderableType
from textual import events, on
from textual.app import App, SystemCommand
from textual.command import Provider
from textual.driver import Driver
from textual.notifications import SeverityLevel
from textual.screen import Screen

from localinfer.chats.screen_state import ScreenState
from localinfer.chats.session import ChatSession
from localinfer.chats.store import ChatStore
from localinfer.config import Overflow, SamplingParams
from localinfer.cost.energy import start_meter
from localinfer.cost.prices import USUAL, Tariff
from localinfer.engine.form import Grammar
from localinfer.errors import NotFound, UsageError
from localinfer.tui import handlers
from localinfer.tui.engines import OpenModel
from localinfer.tui.meter import Meter, OfferFor, StartMeter
from localinfer.tui.pacing import spare_pauses
from localinfer.tui.palette import CommandHits
from localinfer.tui.screen_saving import ScreenWriter
from localinfer.tui.screens.chat import ChatScreen
from localinfer.tui.theme import THEMES
from localinfer.tui.tiling import MOST_PANES
from localinfer.tui.widgets.pane import ChatPane

INTERRUPTED = 130
SWITCH_S = 0.0005
"""How long the engine's threads wait for the interpreter while the screen is drawn; Python's own 5 ms is a step."""

_THREADS = 2 * MOST_PANES
"""One for each answer, and some for models and chats; by itself asyncio has four more than processors."""

_TWICE_SECONDS = 2.0
_CATCH_UP_S = 1.0
_END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if hasattr(signal, "SIGHUP") else (signal.SIGINT,)


class ChatApp(App[None]):
    """One screen of panes. Engines are opened after the first paint and belong to it."""

    CSS_PATH = "app.tcss"
    TITLE = "localinfer"
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = App.COMMANDS | {CommandHits}

    def __init__(
        self,
        sessions: Sequence[ChatSession],
        open_model: OpenModel,
        *,
        models: Callable[[], list[str]],
        name_of: Callable[[str], str],
        theme: str | None,
        clock: Callable[[], float],
        meter: Meter,
        animate: bool,
        tick_s: float | None,
        writer: ScreenWriter,
    ) -> None:
        super().__init__()
        self._clock = clock
        self._warned_at: float | None = None
        self._said: dict[str, float] = {}
        self._early: list[events.Event] | None = []  # keys from before there is a box; None since then
        for one in THEMES:
            self.register_theme(one)
        if theme is not None and theme not in self.available_themes:
            raise UsageError(f"there is no theme `{theme}`", hint=", ".join(sorted(self.available_themes)))
        saved = writer.theme if writer.theme in self.available_themes else THEMES[0].name
        self.theme = writer.first_theme = theme or saved
        self.chats = ChatScreen(
            sessions,
            open_model,
            does=handlers.COMMANDS,
            clock=clock,
            meter=meter,
            models=models,
            name_of=name_of,
            tick_s=tick_s,
            writer=writer,
        )
        if not animate:
            self.animation_level = "none"

    @property
    def pane(self) -> ChatPane:
        """The pane that is written in."""
        return self.chats.pane

    def get_default_screen(self) -> ChatScreen:
        return self.chats

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Those of ours stand for themselves; of Textual's, the choice of colours."""
        yield SystemCommand("theme", "other colours", self.action_change_theme)

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = True,
    ) -> None:
        """What is still to be read is not said again below."""
        now = time.monotonic()
        self._said = {text: until for text, until in self._said.items() if until > now}
        if message not in self._said:
            self._said[message] = now + (self.NOTIFICATION_TIMEOUT if timeout is None else timeout)
            super().notify(message, title=title, severity=severity, timeout=timeout, markup=markup)

    def exit(self, result: None = None, return_code: int = 0, message: RenderableType | None = None) -> None:
        """Whatever ends the app, its panes and what was typed are kept."""
        if self.chats.is_attached:
            self.chats.keep()
        super().exit(result, return_code, message)

    def get_driver_class(self) -> type[Driver]:
        found = super().get_driver_class()
        if sys.platform == "win32":
            return found
        from localinfer.tui.terminal import LastingDriver

        return LastingDriver if issubclass(LastingDriver, found) else found

    async def on_event(self, event: events.Event) -> None:
        """Textual's own; keys that come before there is a box wait for it."""
        if self._early is not None and isinstance(event, events.Key | events.Paste):
            self._early.append(event)
        else:
            await super().on_event(event)

    @on(ChatScreen.Ready)
    async def type_early(self) -> None:
        """Let the keys that waited be pressed now."""
        early, self._early = self._early, None
        for event in early or ():
            await self.on_event(event)

    def on_mount(self) -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "chat"))
        self.app_resume_signal.subscribe(self, lambda _: self.screen.refresh())  # the terminal kept nothing of it
        if not self.is_headless:
            loop = asyncio.get_running_loop()
            for number in _END_SIGNALS:
                loop.add_signal_handler(number, self.exit, None, 128 + number)

    def action_help_quit(self) -> None:
        """Ctrl+C with nothing selected."""
        self.chats.stop_or(self._quit_if_twice)

    async def action_quit(self) -> None:
        """Ctrl+Q, once what was typed before it is where it belongs."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.chats.caught_up(), _CATCH_UP_S)
        self.chats.quit_app()

    def _quit_if_twice(self) -> None:
        now = self._clock()
        if self._warned_at is not None and now - self._warned_at < _TWICE_SECONDS:
            self.exit(return_code=INTERRUPTED)
        else:
            self._warned_at = now
            self.chats.say("press Ctrl+C again to quit; the chat is kept")


def make_app(
    open_model: OpenModel,
    *,
    models: Sequence[str],
    store: ChatStore | Path,
    resume: bool | int = False,
    system: str | None = None,
    sampling: SamplingParams | None = None,
    on_overflow: Overflow = "error",
    form: Grammar | None = None,
    installed: Callable[[], list[str]] = list,
    name_of: Callable[[str], str] = str,
    theme: str | None = None,
    state_file: Path | None = None,
    layout: ScreenState | None = None,
    clock: Callable[[], float] = time.monotonic,
    start_meter: StartMeter = start_meter,
    tariff: Tariff = USUAL,
    offer_for: OfferFor | None = None,
    animate: bool = True,
    tick_s: float | None = 0.5,
) -> ChatApp:
    """The app, not yet running: a pane for each of `models`, names that may repeat.

    `open_model(ref, progress)` is called in a thread after the first paint, once for each name; it reports
    `progress(stage, done, total)`. `resume`: False is a new chat, True the latest one, a number that one, in the first
    pane. `installed()` gives names of models to complete, `name_of` the one by which a model is known. Without `theme`,
    the one that was chosen last. `state_file` is where the screen is kept for the next run; `layout` is that of an
    earlier one, whose panes and their chats are opened, each with its model of `models`. Raises `NotFound` if the chat
    is not there, `UsageError` for an unknown theme or too many panes, and what `ChatStore` raises for a file that
    cannot be used.
    """
    if not 1 <= len(models) <= MOST_PANES:
        raise UsageError(f"{len(models)} models, but there can be {MOST_PANES} panes", hint="name fewer")
    chats = store if isinstance(store, ChatStore) else ChatStore(store)
    begin = partial(ChatSession, chats, system=system, sampling=sampling, on_overflow=on_overflow, form=form)
    if layout is not None:
        pairs = zip(models, layout.panes, strict=True)
        sessions = [begin(model=model, resume=_exists(chats, pane.chat_id)) for model, pane in pairs]
    else:
        sessions = [begin(model=model, resume=resume if i == 0 else False) for i, model in enumerate(models)]
    return ChatApp(
        sessions,
        open_model,
        models=installed,
        name_of=name_of,
        theme=theme,
        clock=clock,
        meter=Meter(start_meter, clock, tariff, offer_for),
        animate=animate,
        tick_s=tick_s,
        writer=ScreenWriter(state_file, restored=layout),
    )


def _exists(chats: ChatStore, chat_id: int | None) -> bool | int:
    """The chat, if it is still there."""
    if chat_id is None:
        return False
    try:
        chats.get(chat_id)
    except NotFound:
        return False
    return chat_id


def run_app(
    open_model: OpenModel,
    *,
    models: Sequence[str],
    store: ChatStore | Path,
    resume: bool | int = False,
    system: str | None = None,
    sampling: SamplingParams | None = None,
    on_overflow: Overflow = "error",
    form: Grammar | None = None,
    installed: Callable[[], list[str]] = list,
    name_of: Callable[[str], str] = str,
    theme: str | None = None,
    state_file: Path | None = None,
    layout: ScreenState | None = None,
    tariff: Tariff = USUAL,
    offer_for: OfferFor | None = None,
) -> int:
    """Run the app in this terminal until the user quits; see `make_app`. Returns the exit code.

    0 after Ctrl+Q, 130 after Ctrl+C, 128 + n after signal n, and the error's own code if no model ever loaded.
    """
    app = make_app(
        open_model,
        models=models,
        store=store,
        resume=resume,
        system=system,
        sampling=sampling,
        on_overflow=on_overflow,
        form=form,
        installed=installed,
        name_of=name_of,
        theme=theme,
        state_file=state_file,
        layout=layout,
        start_meter=lambda: start_meter(tariff.watts),
        tariff=tariff,
        offer_for=offer_for,
    )
    sys.setswitchinterval(SWITCH_S)
    spare_pauses()
    try:
        app.run()
    finally:
        app.chats.engines.close()
    return app.return_code or 0
