"""What stands on the screen is what was said: by panes that write at once, at any speed, while the terminal changes."""

import random
import time
from pathlib import Path

import pytest
from textual.pilot import Pilot

from localinfer.tui.app import ChatApp
from localinfer.tui.widgets.answer import Answer
from localinfer.tui.widgets.pane import ChatPane
from tests.tui.conftest import quiet_app, settle
from tests.tui.scripted import ScriptedEngine
from tests.tui.writing import Writer, misdrawn, text_on, words_of

FINAL = (200, 60)
SIZES = ((80, 24), (60, 18), (200, 60), (120, 40), (33, 12), (140, 50))


def engine_of(writer: Writer, answers: int, blocks: int) -> ScriptedEngine:
    """An engine that writes at a speed that changes all the time."""
    engine = ScriptedEngine(*(writer.pieces(writer.answer(blocks)) for _ in range(answers)), context=100_000)
    chance = random.Random(writer.chance.random())

    def wait(_index: int) -> None:
        time.sleep(chance.choice((0, 0, 0, 0.0005, 0.003)))

    engine.before_piece = wait
    return engine


async def split_into(app: ChatApp, panes: int) -> None:
    """Halve every pane, by turns across and down, until there are so many."""
    across = True
    while len(app.chats.panes) < panes:
        for pane in app.chats.panes:
            await app.chats.split(pane, across=across)
        across = not across


async def write_all(app: ChatApp, pilot: Pilot[None], chance: random.Random) -> None:
    """All panes answer at once; some are stopped, and the terminal changes its size meanwhile."""
    for pane in app.chats.panes:
        await pane.send("go on")
    while any(pane.busy for pane in app.chats.panes):
        await pilot.pause(chance.random() / 10)
        if chance.random() < 0.3:
            await pilot.resize_terminal(*chance.choice(SIZES))
        if chance.random() < 0.05:
            chance.choice(app.chats.panes).stop()
    await pilot.resize_terminal(*FINAL)
    await settle(pilot)


def wrong_in(app: ChatApp, pane: ChatPane) -> list[str]:
    """How the pane differs from what is stored; empty if it does not."""
    stored = [turn.content for turn in pane.session.turns if turn.role == "assistant"]
    answers = list(pane.query(Answer))
    wrong = [] if len(answers) == len(stored) else [f"{len(answers)} answers drawn, {len(stored)} stored"]
    for answer, text in zip(answers, stored, strict=False):
        if answer.source != text:
            wrong.append(f"source {answer.source!r} is not {text!r}")
        said, drawn = words_of(text), [word for word in words_of(text_on(answer)) if word != "copy"]
        if said != drawn:
            at = next(
                (i for i, pair in enumerate(zip(said, drawn, strict=False)) if pair[0] != pair[1]),
                min(len(said), len(drawn)),
            )
            wrong.append(f"word {at} of {len(said)}: said {said[at : at + 8]}, drawn {drawn[at : at + 8]}")
        wrong += misdrawn(app, answer, pane.transcript.content_region)
    if (pane.status.phase, pane.status.percent, pane.status.elapsed) != ("ready", None, None):
        wrong.append(f"status {pane.status.phase_text!r}")
    return wrong


async def wrong_at_last(app: ChatApp, pilot: Pilot[None]) -> dict[int, list[str]]:
    """What is still wrong when all had time to be drawn, by pane."""
    for _ in range(20):
        wrong = {pane.number: found for pane in app.chats.panes if (found := wrong_in(app, pane))}
        if not wrong:
            break
        await pilot.pause(0.1)
    return wrong


@pytest.mark.parametrize("panes", [1, 2, 4, 8])
async def test_all_panes_draw_what_is_stored(store_path: Path, panes: int) -> None:
    writer = Writer(panes)
    engine = engine_of(writer, 2 * panes, blocks=10)
    app = quiet_app(lambda _: engine, store_path, clock=time.monotonic, tick_s=0.05)
    async with app.run_test(size=FINAL) as pilot:
        await split_into(app, panes)
        await settle(pilot)
        for _ in range(2):
            await write_all(app, pilot, writer.chance)
            wrong = await wrong_at_last(app, pilot)
            assert wrong == {}


async def test_an_answer_grows_though_another_layout_came_between(store_path: Path) -> None:
    app = quiet_app(lambda _: ScriptedEngine(["one"]), store_path)
    async with app.run_test() as pilot:
        await settle(pilot)
        await app.pane.send("a")
        await settle(pilot)
        answer = app.pane.query_one(Answer)
        answer.write("\n\ntwo")
        app.pane.transcript._clear_arrangement_cache()  # as for another widget there
        app.screen._refresh_layout()
        answer.write("\n\nthree")
        await settle(pilot)
        assert text_on(answer).split() == ["one", "two", "three"]
