"""Prompts and answers: what is shown, what is kept, what comes back."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from localinfer.chats.store import ChatStore
from localinfer.chats.template import Message
from localinfer.config import SamplingParams
from localinfer.cost.apis import Offer
from localinfer.cost.energy import start_counters
from localinfer.engine.protocol import Engine
from localinfer.errors import ContextOverflow, DoesNotFit, NotFound
from localinfer.tui.app import ChatApp
from localinfer.tui.messages import LoadFailed
from localinfer.tui.widgets.answer import Answer
from localinfer.tui.widgets.transcript import Note, Prompt
from localinfer.tui.workers import LoadProgress
from tests.tui.app_state import Hold, box, drawn, marks, said, saved, status, turns
from tests.tui.conftest import press, quiet_app, say, screen_text, settle
from tests.tui.scripted import ScriptedEngine

Scripted = Callable[..., ChatApp]


async def test_a_reply_is_shown_and_saved(scripted: Scripted, store_path: Path) -> None:
    app = scripted(["Hello. ", "How ", "are you?"])
    async with app.run_test() as pilot:
        await settle(pilot)
        await say(pilot, "hi")
        assert turns(app) == ["hi", "Hello. How are you?"]
        assert "Hello. How are you?" in screen_text(app)
        assert box(app).text == ""
        assert status(app).phase == "ready"
    assert saved(store_path) == [["hi", "Hello. How are you?"]]


async def test_a_prompt_sent_while_the_model_loads_waits(store_path: Path) -> None:
    loaded, engine = threading.Event(), ScriptedEngine(["answer"])

    def slow(progress: LoadProgress) -> Engine:
        progress("weights", 1, 4)
        assert loaded.wait(60)
        return engine

    app = quiet_app(slow, store_path)
    async with app.run_test() as pilot:
        await pilot.press(*"early", "enter")
        await pilot.pause(0.1)
        assert status(app).phase_text == "loading weights 25%"
        assert [str(prompt.content) for prompt in app.query(Prompt)] == ["early"]
        await pilot.press(*"next", "enter")
        assert box(app).text == "next"  # one waits already
        assert "when the model is loaded" in said(app)
        loaded.set()
        await settle(pilot)
        assert turns(app) == ["early", "answer"]
        assert len(app.query(Prompt)) == 1


async def test_a_model_that_cannot_be_loaded(store_path: Path) -> None:
    def fail(_progress: LoadProgress) -> Engine:
        raise NotFound("no model `m`", hint="pull it")

    app = quiet_app(fail, store_path)
    async with app.run_test() as pilot:
        await pilot.press(*"hi", "enter")
        await settle(pilot)
        text = screen_text(app)
        assert "no model `m`" in text
        assert "pull it" in text
        assert status(app).phase == "failed"
        box(app).load_text("typed")
        await pilot.press("enter")
        assert box(app).text == "typed"
        await pilot.press("ctrl+q")
    assert app.return_code == 4
    assert saved(store_path) == []


async def test_the_waiting_prompt_comes_back_when_loading_fails(store_path: Path) -> None:
    sent = threading.Event()

    def fail(_progress: LoadProgress) -> Engine:
        assert sent.wait(60)
        raise RuntimeError("odd [/] thing")

    said: list[object] = []
    app = quiet_app(fail, store_path)
    async with app.run_test(message_hook=said.append) as pilot:
        await pilot.press(*"hi", "enter")
        sent.set()
        await settle(pilot)
        assert box(app).text == "hi"
        assert not app.query(Prompt)
        assert "RuntimeError: odd [/] thing" in screen_text(app)
        assert "report" in screen_text(app)
    assert [message.error.exit_code for message in said if isinstance(message, LoadFailed)] == [1]


async def test_escape_takes_back_a_prompt_that_waits_for_the_model(store_path: Path) -> None:
    engine, there = ScriptedEngine(["one"]), threading.Event()

    def slow(_progress: LoadProgress) -> Engine:
        assert there.wait(60)
        return engine

    app = quiet_app(slow, store_path)
    async with app.run_test() as pilot:
        await pilot.press(*"hi", "enter")
        await pilot.pause(0.1)
        assert [str(prompt.content) for prompt in app.query(Prompt)] == ["hi"]
        await pilot.press("escape")
        await pilot.pause(0.1)
        assert (box(app).text, len(app.query(Prompt))) == ("hi", 0)
        there.set()
        await settle(pilot)
        assert (turns(app), engine.requests) == ([], [])
        await press(pilot, "enter")
        assert turns(app) == ["hi", "one"]


async def test_only_the_last_answer_offers_to_go_on(scripted: Scripted, store_path: Path) -> None:
    engine = ScriptedEngine(["one"], ["two"])
    engine.reason = "length"
    app = scripted(engine=engine)
    async with app.run_test() as pilot:
        await settle(pilot)
        await say(pilot, "a")
        (first,) = marks(app)
        assert "Ctrl+L" in first
        hold = Hold(engine, -1)
        await pilot.press("b", "enter")
        await pilot.pause(0.1)
        assert hold.reached.wait(60)
        assert marks(app) == [first.partition(" · ")[0]]
        hold.go_on.set()
        await settle(pilot)
        assert marks(app) == [first.partition(" · ")[0], first]
    again = scripted(resume=True)
    async with again.run_test() as pilot:
        await settle(pilot)
        assert marks(again) == [first.partition(" · ")[0], first]


async def test_stop_keeps_what_was_written(scripted: Scripted, store_path: Path) -> None:
    engine = ScriptedEngine(["one ", "two ", "three ", "four"])
    hold = Hold(engine, 2)
    app = scripted(engine=engine)
    async with app.run_test() as pilot:
        await settle(pilot)
        await pilot.press(*"count", "enter")
        await pilot.pause(0.1)
        assert hold.reached.wait(60)
        await pilot.pause(0.1)
        assert status(app).phase == "decode"
        await pilot.press("escape")
        assert status(app).phase == "stopping"
        assert engine.cancelled.wait(60)
        hold.go_on.set()
        await settle(pilot)
        assert turns(app) == ["count", "one two "]
        assert marks(app) == ["cut off: stopped · Ctrl+L (/continue) goes on"]
    assert saved(store_path) == [["count", "one two "]]


async def test_stop_before_the_first_word_puts_the_prompt_back(scripted: Scripted) -> None:
    engine = ScriptedEngine(["one"], ["two"])
    hold = Hold(engine, -1)
    app = scripted(engine=engine)
    async with app.run_test() as pilot:
        await settle(pilot)
        await pilot.press(*"count", "enter")
        await pilot.pause(0.1)
        assert hold.reached.wait(60)
        await pilot.press(*"next", "escape")
        hold.go_on.set()
        await settle(pilot)
        assert box(app).text == "count\n\nnext"
        assert turns(app) == []
        assert not app.query(Prompt)


async def test_while_an_answer_is_written_the_next_prompt_can_be_typed(scripted: Scripted) -> None:
    engine = ScriptedEngine(["one ", "two"], ["three"])
    hold = Hold(engine, 1)
    app = scripted(engine=engine)
    async with app.run_test() as pilot:
        await settle(pilot)
        await pilot.press(*"a", "enter")
        await pilot.pause(0.1)
        assert hold.reached.wait(60)
        await pilot.press(*"b", "enter", "ctrl+r", "ctrl+n")
        assert box(app).text == "b"
        assert turns(app) == []
        hold.go_on.set()
        await settle(pilot)
        await pilot.press("enter")
        await settle(pilot)
        assert turns(app) == ["a", "one two", "b", "three"]


async def test_an_error_puts_the_prompt_back(scripted: Scripted, store_path: Path) -> None:
    app = scripted([ContextOverflow("too long by 7", hint="send less")], ["ok"])
    async with app.run_test() as pilot:
        await settle(pilot)
        await say(pilot, "long")
        assert box(app).text == "long"
        assert box(app).cursor_location == (0, 4)
        assert not app.query(Prompt)
        assert "too long by 7" in screen_text(app)
        assert "send less" in screen_text(app)
        await pilot.press("enter")
        await settle(pilot)
        assert turns(app) == ["long", "ok"]
    assert saved(store_path) == [["long", "ok"]]


async def test_an_error_after_some_words_keeps_them(scripted: Scripted) -> None:
    app = scripted(["one ", DoesNotFit("no memory left", hint="close something")])
    async with app.run_test() as pilot:
        await settle(pilot)
        await say(pilot, "a")
        assert turns(app) == ["a", "one "]
        assert box(app).text == ""
        assert said(app) == "no memory left · close something"


async def test_resume_shows_the_chat_and_goes_on(scripted: Scripted, store_path: Path) -> None:
    with ChatStore(store_path) as store:
        chat = store.create("m", system="be kind")
        for i in range(100):
            store.append(chat, Message("user", f"question {i}"))
            store.append(chat, Message("assistant", f"answer {i}"))
        store.append(chat, Message("user", "never answered"))
    engine = ScriptedEngine(["the end"], context=100_000)
    app = scripted(engine=engine, resume=True)
    async with app.run_test() as pilot:
        await settle(pilot)
        assert box(app).text == "never answered"
        assert "answer 99" in screen_text(app)
        assert len(app.query(Answer)) <= 60
        assert "earlier turns" in str(app.query(Note).first().content)
        await pilot.press("enter")
        await settle(pilot)
        assert turns(app)[-2:] == ["never answered", "the end"]
    prompt = engine.tokenizer.decode(engine.requests[0].prompt)
    assert prompt.startswith("<system>be kind<user>question 0<assistant>answer 0")
    assert saved(store_path)[0][-3:] == ["answer 99", "never answered", "the end"]


async def test_a_chat_that_cannot_be_saved_is_told(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    app = scripted(["one"], ["two"])

    def full(*_args: object, **_more: object) -> int:
        raise DoesNotFit("disk full", hint="free some")

    async with app.run_test() as pilot:
        await settle(pilot)
        monkeypatch.setattr(app.pane.session.store, "begin", full)
        await say(pilot, "a")
        await say(pilot, "b")
        assert turns(app) == ["a", "one", "b", "two"]
        assert drawn(app) == ["a", "one", "b", "two"]
        assert said(app) == "disk full · free some · this chat is not saved"


async def test_the_system_prompt_and_sampling_reach_the_engine(store_path: Path) -> None:
    engine = ScriptedEngine(["ok"])
    app = quiet_app(
        lambda _: engine,
        store_path,
        system="be kind",
        sampling=SamplingParams(temperature=0.1, seed=5),
        on_overflow="shift",
    )
    async with app.run_test() as pilot:
        await settle(pilot)
        await say(pilot, "a")
    request = engine.requests[0]
    assert engine.tokenizer.decode(request.prompt) == "<system>be kind<user>a"
    assert (request.sampling.temperature, request.sampling.seed, request.on_overflow) == (0.1, 5, "shift")
    assert request.keep == len("<system>be kind<user>")


async def test_an_empty_answer_is_told(scripted: Scripted) -> None:
    app = scripted([])
    async with app.run_test() as pilot:
        await settle(pilot)
        await say(pilot, "a")
        assert box(app).text == "a"
        assert said(app) == "the model answered nothing"


async def test_limits_of_an_answer_are_told(scripted: Scripted) -> None:
    engine = ScriptedEngine(["one"], ["two"])
    app = scripted(engine=engine)
    async with app.run_test() as pilot:
        await settle(pilot)
        engine.reason = "length"
        await say(pilot, "a")
        engine.reason = "overflow"
        await say(pilot, "b")
        notes = marks(app)
        assert "limit of new tokens" in notes[0]
        assert "context was full" in notes[1]
        assert "--ctx-size" in said(app)


async def test_energy_and_its_price_are_told_where_they_can_be_measured(store_path: Path, tmp_path: Path) -> None:
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for name, value in (("name", "package-0"), ("max_energy_range_uj", "262143328850"), ("energy_uj", "1000000")):
        (zone / name).write_text(value)
    engine = ScriptedEngine(["one ", "two"])

    def count(_index: int) -> None:
        (zone / "energy_uj").write_text("7000000")

    engine.before_piece = count
    app = quiet_app(lambda _: engine, store_path, start_meter=lambda: start_counters(tmp_path))
    async with app.run_test(size=(120, 24)) as pilot:
        await settle(pilot)
        assert "energy" not in screen_text(app)
        await say(pilot, "a")
        assert "energy 3.00 J/token   electricity $0.17/M tokens" in screen_text(app)


async def test_each_model_of_a_chat_is_charged_at_its_own_price(store_path: Path) -> None:
    prices = {"a": Offer("p/a", 1.0, 1.0, "a test"), "b": Offer("p/b", 1000.0, 1000.0, "a test")}
    engine = ScriptedEngine(["one"], ["two"])
    app = quiet_app(lambda _: engine, store_path, "a", offer_for=prices.get, name_of=lambda ref: ref)
    async with app.run_test(size=(120, 24)) as pilot:
        await settle(pilot)
        await say(pilot, "x")
        await say(pilot, "/model b")
        await say(pilot, "y")
        used = app.pane.running.used
        assert used.keys() == {"a", "b"}
        wanted = (sum(used["a"]) + 1000 * sum(used["b"])) / 1e6
        for _ in range(100):  # prices are looked up in a thread
            app.chats._account()
            if status(app).api_usd == pytest.approx(wanted):
                break
            await pilot.pause(0.02)
        assert status(app).api_usd == pytest.approx(wanted)
