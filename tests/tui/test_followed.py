"""A chat that another process writes: its answer is followed, and a copy of it is ours."""

from pathlib import Path

from localinfer.chats.session import ChatSession
from localinfer.chats.store import ChatStore
from tests.tui.app_state import box, drawn, marks, said
from tests.tui.conftest import press, quiet_app, say, settle
from tests.tui.scripted import ScriptedEngine

SIZE = (100, 30)


def other_process(store: Path) -> ChatSession:
    """It has said something, and holds the chat."""
    other = ChatSession(ChatStore(store), model="m")
    other.attach(ScriptedEngine(["b"]))
    list(other.reply("a", cancelled=lambda: False))
    return other


async def test_an_answer_that_is_being_written_is_followed(store_path: Path) -> None:
    other = other_process(store_path)
    _, row = other.store.begin(1, "c", parent=other.turns[-1].id)
    other.store.update(row, "one\n\n", ending="writing")
    app = quiet_app(lambda _: ScriptedEngine(["D"]), store_path, resume=True)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert drawn(app) == ["a", "b", "c", "one\n\n"]
        assert marks(app) == ["being written in another process"]
        answer = app.pane.transcript.items[-2]
        other.store.update(row, "one\n\ntwo", ending="writing")
        app.pane.follow()
        await settle(pilot)
        assert drawn(app)[-1] == "one\n\ntwo"
        assert app.pane.transcript.items[-2] is answer
        other.close()
        app.pane.follow()
        await settle(pilot)
        assert "program ended" in marks(app)[0]
        assert "Ctrl+L" in marks(app)[0]


async def test_the_key_for_a_copy_keeps_what_was_typed(store_path: Path) -> None:
    other = other_process(store_path)
    app = quiet_app(lambda _: ScriptedEngine(["D"]), store_path, resume=True)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, "hello?")
        assert "Ctrl+T" in said(app)
        app.pane.attached.append(("notes", "text"))
        await press(pilot, "ctrl+t")
        assert (box(app).text, app.pane.attached) == ("hello?", [("notes", "text")])
        await press(pilot, "enter")
        assert drawn(app)[-1] == "D"
    other.close()
