"""How answers in panes begin and end: all at once; stopped while they wait; with an error where scores are NaN."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from textual.pilot import Pilot

from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.load import Load
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Request
from localinfer.events import Event
from localinfer.tui.app import ChatApp
from localinfer.tui.tiling import MOST_PANES
from tests.engine.trap import make_trap
from tests.tiny import make_checkpoint
from tests.tui.app_state import said
from tests.tui.conftest import quiet_app, say, screen_text, settle
from tests.tui.scripted import ScriptedEngine

ENDLESS = SamplingParams(ignore_eos=True)


def app_of(model: Path, store: Path, sampling: SamplingParams, parallel: int) -> ChatApp:
    engine = EngineConfig(threads=1, parallel=parallel)
    return quiet_app(
        lambda progress: open_engine(model, engine, on_progress=progress),
        store,
        "m",
        "m",
        sampling=sampling,
        on_overflow="shift",
    )


class Queueing(ScriptedEngine):
    """Says nothing after `Started` until a prompt is read."""

    reads = threading.Event()
    queued: frozenset[int] = frozenset()

    def stream(self, request: Request) -> Iterator[Event]:
        events = super().stream(request)
        yield next(events)
        assert self.reads.wait(60)
        yield from events

    def load(self) -> Load:
        return replace(super().load(), queued=self.queued)


async def until_phase(pilot: Pilot[None], place: int, phase: str) -> None:
    assert isinstance(pilot.app, ChatApp)
    pane = pilot.app.chats.panes[place]
    for _ in range(1000):
        if pane.status.phase == phase:
            return
        await pilot.pause(0.02)
    raise AssertionError(f"pane {place + 1} is {pane.status.phase}, not {phase}")


async def test_an_answer_that_waits_for_its_turn_can_be_stopped(tmp_path: Path, store_path: Path) -> None:
    app = app_of(make_checkpoint(tmp_path / "m"), store_path, ENDLESS, parallel=1)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        first, second = app.chats.panes
        await first.send("one")
        await until_phase(pilot, 0, "decode")
        await second.send("two")
        while second.running.handle is None:  # until the engine knows it
            await pilot.pause(0.02)
        second.running.tick()
        assert (second.status.phase, second.status.percent) == ("queued", None)
        app.chats.go(second)
        await pilot.press("escape")
        await until_phase(pilot, 1, "ready")
        assert first.busy
        assert second.box.text == "two"
        app.chats.go(first)
        await pilot.press("escape")
        await settle(pilot)
        assert [turn.cut_off for turn in first.session.turns] == ["", "stopped"]


async def test_a_prompt_is_queued_until_its_prefill_begins(store_path: Path) -> None:
    """Also where nothing is said of it before its first part is read."""
    engine, begin = Queueing(["one"]), threading.Event()
    app = quiet_app(lambda _progress: engine, store_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        pane = app.chats.pane
        engine.reads = begin
        await pane.send("a")
        while pane.running.handle is None:
            await pilot.pause(0.02)
        for queued, phase in (({1}, "queued"), (set[int](), "prefill")):
            engine.queued = frozenset(queued)
            pane.running.tick()
            assert pane.status.phase == phase
        begin.set()
        await settle(pilot)
        assert pane.session.last_answer == "one"


async def test_scores_that_are_nan_end_one_answer_with_an_error(tmp_path: Path, store_path: Path) -> None:
    model = make_trap(tmp_path / "m", ord("Z"), head_dim=32)
    app = app_of(model, store_path, SamplingParams(max_tokens=20, ignore_eos=True, temperature=0), parallel=2)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        first, second = app.chats.panes
        await say(pilot, "a Z")
        assert "step 1 of the answer" in said(app)
        assert "NaN" in screen_text(app)
        assert (first.box.text, first.session.turns) == ("a Z", ())
        first.box.load_text("")
        await second.send("b")
        await first.send("a")
        await settle(pilot)
        assert [turn.content for turn in first.session.turns if turn.role == "user"] == ["a"]
        assert [turn.content for turn in second.session.turns if turn.role == "user"] == ["b"]


async def test_every_pane_is_answered_at_once_however_few_processors_there_are(store_path: Path) -> None:
    engine = ScriptedEngine(*[["one"]] * MOST_PANES)
    together = threading.Barrier(MOST_PANES)

    def meet(index: int) -> None:
        if index == 0:
            together.wait(60)

    engine.before_piece = meet
    app = quiet_app(lambda _progress: engine, store_path, *["m"] * MOST_PANES)
    async with app.run_test(size=(120, 60)) as pilot:
        await settle(pilot)
        for pane in app.chats.panes:
            await pane.send("a")
        await settle(pilot)
        assert [pane.session.last_answer for pane in app.chats.panes] == ["one"] * MOST_PANES


async def test_what_is_said_while_the_app_ends_does_no_harm(store_path: Path) -> None:
    """A signal may come at any moment, and messages that wait are still handled."""
    app = quiet_app(lambda _progress: ScriptedEngine(["one"]), store_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        pane = app.chats.pane
        app.exit()
        pane.note("too late")
        pane.transcript.clear()
        assert await app.chats.split(pane, across=True) is None
        await pane.send("hello")
