"""Taking text out of an answer: its code, and what is selected."""

from collections.abc import Callable

from textual.geometry import Offset
from textual.selection import Selection

from localinfer.tui.app import ChatApp
from localinfer.tui.widgets.answer import Answer
from tests.tui.conftest import say, settle

TEXT = "first\n\n```python\nx = 1\ny = 2\n```\n\n```\nlast\n```\n"


async def test_code_is_copied_by_its_key_and_by_a_command(scripted: Callable[..., ChatApp]) -> None:
    app = scripted([TEXT])
    async with app.run_test() as pilot:
        await settle(pilot)
        await say(pilot, "a")
        answer = app.query_one(Answer)
        await pilot.click(answer, offset=(answer.size.width - 2, 2))
        await pilot.pause()
        assert app.clipboard == "x = 1\ny = 2"
        await say(pilot, "/copy code")
        assert app.clipboard == "last"
        await say(pilot, "/copy")
        assert app.clipboard == TEXT
        await pilot.press("ctrl+s")
        assert app.clipboard == "last"


async def test_a_selection_has_the_line_ends_of_the_text_only(scripted: Callable[..., ChatApp]) -> None:
    text = "word " * 40 + "end\n\nnext"
    app = scripted([text])
    async with app.run_test(size=(60, 24)) as pilot:
        await settle(pilot)
        await say(pilot, "a")
        answer = app.query_one(Answer)
        taken = answer.get_selection(Selection(None, None))
        assert taken is not None
        assert taken[0] == text
        part = answer.get_selection(Selection(Offset(5, 0), Offset(4, 1)))
        assert part is not None
        assert text.startswith("word " + part[0])
