"""What a model thinks is one line until someone unfolds it; `/think` turns the template's switch."""

from collections.abc import Callable

import pytest

from localinfer.tui.app import ChatApp
from localinfer.tui.widgets.answer import Answer
from tests.tui.app_state import said
from tests.tui.conftest import say, settle
from tests.tui.scripted import ScriptedEngine

MARKED = "<think>\nWell now.\n</think>\n\nParis it is."
SWITCH = "{% if enable_thinking is defined and not enable_thinking %}<quiet>{% endif %}"


@pytest.mark.parametrize("text", [MARKED, MARKED.removeprefix("<think>\n")], ids=["marked", "begun in the prompt"])
@pytest.mark.parametrize("pieces", [1, 1000], ids=["at once", "by letters"])
def test_a_thought_is_folded(text: str, pieces: int) -> None:
    answer = Answer()
    for piece in [text] if pieces == 1 else list(text):
        answer.write(piece)
    answer.finish()
    answer._page.lay_out(*answer.blocks(), 60)
    assert answer.drawn == "▸ thought, 2 words\n\nParis it is."
    answer.action_fold()
    answer._page.lay_out(*answer.blocks(), 60)
    assert answer.drawn == "▾ thought, 2 words\n  Well now.\n\nParis it is."
    assert answer.source == text


def test_while_it_thinks_the_words_are_counted() -> None:
    answer = Answer()
    answer.write("<think>\nfirst sec")
    answer.write("ond third ")
    answer._page.lay_out(*answer.blocks(), 60)
    assert answer.drawn == "▸ thinking, 3 words …"


def test_an_answer_without_a_thought_has_no_line_for_it() -> None:
    for text in ("Paris.", "<think>\n\n</think>\n\nParis.", "In HTML `</think>` is no tag."):
        answer = Answer()
        answer.write(text)
        answer.finish()
        answer._page.lay_out(*answer.blocks(), 60)
        assert "thought" not in answer.drawn
        assert answer.drawn


async def test_a_click_unfolds_it(scripted: Callable[..., ChatApp]) -> None:
    app = scripted([MARKED])
    async with app.run_test() as pilot:
        await settle(pilot)
        await say(pilot, "a")
        answer = app.query_one(Answer)
        assert "Well now." not in answer.drawn
        await pilot.click(answer, offset=(3, 0))
        await pilot.pause()
        assert answer.drawn.splitlines() == ["▾ thought, 2 words", "  Well now.", "", "Paris it is."]
        await pilot.click(answer, offset=(3, 0))
        await pilot.pause()
        assert answer.drawn.splitlines() == ["▸ thought, 2 words", "", "Paris it is."]


async def test_the_switch_is_the_templates(scripted: Callable[..., ChatApp]) -> None:
    engine = ScriptedEngine(["one"], ["two"], ["three"])
    engine.chat_template = (engine.chat_template or "") + SWITCH
    app = scripted(engine=engine)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await say(pilot, "/think off")
        assert "thinking off" in said(app)
        await say(pilot, "a")
        await say(pilot, "/think auto")
        await say(pilot, "b")
        prompts = [engine.tokenizer.decode(request.prompt) for request in engine.requests]
        assert prompts[0].endswith("<quiet>")
        assert not prompts[1].endswith("<quiet>")
        await say(pilot, "/think maybe")
        assert "on, off or auto" in said(app)
