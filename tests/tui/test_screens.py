"""How each state of the screen looks. Read the pictures when one changes: they are the design."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.app import App

from localinfer.chats.store import ChatStore
from localinfer.chats.template import Message
from localinfer.chats.turns import Figures
from localinfer.engine.load import Load
from localinfer.errors import ContextOverflow, NotFound
from localinfer.tui.app import ChatApp
from localinfer.tui.meter import Sample
from localinfer.tui.screens.chat import ChatScreen
from tests.tui.conftest import press, quiet_app, say, screen_text, settle, still
from tests.tui.scripted import ScriptedEngine

SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
Scripted = Callable[..., ChatApp]
Golden = Callable[[App[None], str], None]

ANSWER = """The sky is blue because of **Rayleigh scattering**.

1. Sunlight holds all colours.
2. Air scatters *short* waves more, about `1/λ⁴`.

```python
def scatter(wavelength: float) -> float:
    return wavelength**-4
```

| colour | nm |
|---|---|
| blue | 450 |
| red | 700 |

> See [the article](https://example.org/sky) for more.
"""
PIECES = [ANSWER[i : i + 9] for i in range(0, len(ANSWER), 9)]


@SIZES
async def test_empty(scripted: Scripted, golden_svg: Golden, size: tuple[int, int]) -> None:
    app = scripted()
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        golden_svg(app, f"empty-{size[0]}x{size[1]}")


@SIZES
async def test_reply(scripted: Scripted, golden_svg: Golden, size: tuple[int, int]) -> None:
    app = scripted(PIECES)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        await say(pilot, "Why is the sky blue?")
        golden_svg(app, f"reply-{size[0]}x{size[1]}")


@SIZES
async def test_decoding(scripted: Scripted, golden_svg: Golden, size: tuple[int, int]) -> None:
    engine, reached, go_on = ScriptedEngine(PIECES), threading.Semaphore(0), threading.Semaphore(0)

    def hold(index: int) -> None:
        if index in {-1, 12}:  # in the prefill, and in the answer
            reached.release()
            go_on.acquire(timeout=60)

    engine.before_piece = hold
    app = scripted(engine=engine)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        await pilot.press(*"Why is the sky blue?", "enter")
        while not reached.acquire(blocking=False):
            await pilot.pause(0.01)
        await still(pilot)
        go_on.release()
        while not reached.acquire(blocking=False):
            await pilot.pause(0.01)
        await pilot.press(*"typing", "ctrl+j", *"ahead")
        await still(pilot)
        assert isinstance(app.screen, ChatScreen)
        app.screen.tick()  # no clock looks at the figures here
        await still(pilot)
        golden_svg(app, f"decoding-{size[0]}x{size[1]}")
        go_on.release()
        await settle(pilot)


@SIZES
async def test_loading(golden_svg: Golden, store_path: Path, size: tuple[int, int]) -> None:
    go_on = threading.Event()

    def slow(progress: Callable[[str, int, int], None]) -> ScriptedEngine:
        progress("weights", 40, 100)
        go_on.wait(60)
        return ScriptedEngine()

    app = quiet_app(slow, store_path, "org/name@main")
    async with app.run_test(size=size) as pilot:
        await pilot.press(*"already typing")
        await pilot.pause(0.1)
        golden_svg(app, f"loading-{size[0]}x{size[1]}")
        go_on.set()
        await settle(pilot)


@SIZES
async def test_load_failure(golden_svg: Golden, store_path: Path, size: tuple[int, int]) -> None:
    def fail(_progress: object) -> ScriptedEngine:
        raise NotFound("there is no model `org/name` on this machine", hint="run `localinfer pull org/name`")

    app = quiet_app(fail, store_path, "org/name")
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        golden_svg(app, f"load-failure-{size[0]}x{size[1]}")


@SIZES
async def test_error_and_note(scripted: Scripted, golden_svg: Golden, size: tuple[int, int]) -> None:
    overflow = ContextOverflow("the prompt has 9000 tokens, but the context holds 8192", hint="raise it (-c 9512)")
    app = scripted(["Short answer.\n", "Second line."], [overflow])
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        await say(pilot, "hi")
        await say(pilot, "and a longer question")
        golden_svg(app, f"error-{size[0]}x{size[1]}")


@SIZES
async def test_help(scripted: Scripted, golden_svg: Golden, size: tuple[int, int]) -> None:
    app = scripted()
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        await pilot.press("f1")
        await pilot.pause()
        golden_svg(app, f"help-{size[0]}x{size[1]}")
        await pilot.press("escape")
        assert app.screen is app.chats


@SIZES
async def test_panes(scripted: Scripted, golden_svg: Golden, size: tuple[int, int]) -> None:
    app = scripted(PIECES, ["Short."], ["Another."])
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        await say(pilot, "Why is the sky blue?")
        await pilot.press("f5")
        await settle(pilot)
        await say(pilot, "Be short.")
        await pilot.press("f6")
        await settle(pilot)
        await say(pilot, "Once more.")
        await pilot.press(*"/s")
        await pilot.pause()
        golden_svg(app, f"panes-{size[0]}x{size[1]}")


@SIZES
async def test_compare(scripted: Scripted, golden_svg: Golden, size: tuple[int, int]) -> None:
    app = scripted(["The same beginning, then this."], ["The same beginning, then that."])
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        await pilot.press("f5")
        await settle(pilot)
        await say(pilot, "Begin.")
        await pilot.press("alt+left")
        await say(pilot, "Begin.")
        await pilot.press("f7")
        await settle(pilot)
        golden_svg(app, f"compare-{size[0]}x{size[1]}")


@SIZES
async def test_chats(
    scripted: Scripted, golden_svg: Golden, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localinfer.tui.screens.chats.time.strftime", lambda *_: "2026-11-27 10:00")
    app = scripted(["A."], ["B."])
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        await say(pilot, "Which rivers?")
        await pilot.press("ctrl+n")
        await say(pilot, "Which hills?")
        await pilot.press("f9", *"which")
        await settle(pilot)
        golden_svg(app, f"chats-{size[0]}x{size[1]}")


@SIZES
async def test_details(scripted: Scripted, golden_svg: Golden, size: tuple[int, int]) -> None:
    app = scripted(["One."])
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        await say(pilot, "Go.")
        app.chats._meter.samples.clear()  # how many there are depends on the machine
        for i in range(100):
            app.chats._meter.samples.append(
                Sample(i / 2, 40 + i % 7, Load(decode_rows=1 + i % 4, draft_rows=i % 3, prefill_rows=i // 9, used=i))
            )
        await pilot.press("f3")
        await settle(pilot)
        golden_svg(app, f"details-{size[0]}x{size[1]}")


FOUR_SIZES = pytest.mark.parametrize("size", [(80, 24), (100, 30), (140, 40), (220, 60)], ids=str)


@FOUR_SIZES
async def test_the_last_chats_are_offered(
    scripted: Scripted,
    golden_svg: Golden,
    store_path: Path,
    size: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("localinfer.tui.widgets.welcome.time.strftime", lambda *_: "2026-11-27 10:00")
    with ChatStore(store_path) as store:
        for title in ("Which rivers flow north?", "A poem of forty lines about the sea in winter, in rhyme", "Hills"):
            store.append(store.create("m"), Message("user", title))
    app = scripted(["Fine."])
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        golden_svg(app, f"welcome-{size[0]}x{size[1]}")
        lines = screen_text(app).splitlines()
        row = next(i for i, line in enumerate(lines) if "Which rivers" in line)
        await pilot.click(offset=(lines[row].index("Which"), row))
        await settle(pilot)
        assert app.pane.session.chat_id == 1


@FOUR_SIZES
async def test_seven_panes(
    scripted: Scripted, golden_svg: Golden, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localinfer.tui.widgets.welcome.time.strftime", lambda *_: "2026-11-27 10:00")
    app = scripted(PIECES)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        await say(pilot, "Why is the sky blue?")
        for key in ["f5", "f6"] * 3:
            await pilot.press(key)
            await settle(pilot)
        await pilot.press("ctrl+o", "left")
        await settle(pilot)
        golden_svg(app, f"seven-{size[0]}x{size[1]}")


async def test_tiny(scripted: Scripted, golden_svg: Golden) -> None:
    app = scripted(["A few words that wrap."])
    async with app.run_test(size=(20, 5)) as pilot:
        await settle(pilot)
        await say(pilot, "hi")
        golden_svg(app, "tiny-20x5")


async def test_figures_of_an_answer_of_an_earlier_run_are_shown(store_path: Path) -> None:
    with ChatStore(store_path) as store:
        _, row = store.begin(store.create("m"), "why?", parent=None, model="m")
        store.update(row, "blue", ending="stop", figures=Figures(71, 43, 3.0, 0.25, 2.0))
    app = quiet_app(lambda _: ScriptedEngine(["red"]), store_path, resume=True)
    async with app.run_test(size=(200, 40)) as pilot:
        await settle(pilot)
        for key, kept in {"f7": ("43", "0.25 s", "21.5"), "f3": ("71", "43", "0.25 s", "21.5")}.items():
            await press(pilot, key)
            shown = next(line for line in screen_text(app).splitlines() if "0.25 s" in line)
            assert [word for word in kept if word not in shown] == []
            await press(pilot, "escape")
        await press(pilot, "ctrl+t")
        assert [pane.stats and pane.stats.completion_tokens for pane in app.chats.panes] == [43, 43]
        await say(pilot, "more")
        assert app.pane.stats is app.pane.status.stats
        await press(pilot, "ctrl+n")
        assert app.pane.stats is None
