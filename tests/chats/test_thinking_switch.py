"""The switch of each template: tried out, never guessed from a name that it mentions."""

from pathlib import Path

import pytest

from localinfer.chats.template import Message, render
from localinfer.chats.thinking_switch import switch_of, thinking_variables
from localinfer.errors import NotSupported
from tests.tiny import CHATML

FOLDER = Path(__file__).parent / "templates"
ON_OFF = (
    "{% for m in messages %}{{ m.content }}{% endfor %}"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>{% endif %}"
)
KNOWN = sorted(path for path in FOLDER.rglob("*.jinja") if "enable_thinking" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", KNOWN, ids=lambda path: path.stem)
def test_a_switch_that_is_found_changes_what_is_asked(path: Path) -> None:
    template = path.read_text(encoding="utf-8")
    switch = switch_of(template)
    if switch is None:
        return
    texts = {
        render(template, [Message("user", "Hello")], variables=thinking_variables(template, think)).plain
        for think in (True, False)
    }
    assert len(texts) == 2


def test_most_templates_with_the_word_have_the_switch() -> None:
    found = [switch_of(path.read_text(encoding="utf-8")) for path in KNOWN]
    assert sum(one is not None for one in found) > len(KNOWN) // 2


@pytest.mark.parametrize(
    ("template", "name", "off"),
    [
        (ON_OFF, "enable_thinking", False),
        ("{{ messages[0].content }}{% if thinking %}<think>{% endif %}", "thinking", False),
        ("{{ reasoning_effort or 'none' }} {{ messages[0].content }}", "reasoning_effort", "none"),
    ],
)
def test_switches(template: str, name: str, off: object) -> None:
    assert thinking_variables(template, False) == {name: off}
    assert thinking_variables(template, None) == {}
    assert thinking_variables(template, True)[name] != off


def test_without_a_switch() -> None:
    assert thinking_variables(CHATML, False) == {}
    with pytest.raises(NotSupported, match="does not think"):
        thinking_variables(CHATML, True)
    always = CHATML + "{# </think> #}"
    assert thinking_variables(always, True) == {}
    with pytest.raises(NotSupported, match="always thinks"):
        thinking_variables(always, False)
    mentions = "{# enable_thinking, thinking #}" + CHATML
    assert switch_of(mentions) is None


def test_a_broken_template_has_none() -> None:
    assert switch_of("{% if enable_thinking %") is None
    assert switch_of("{{ raise_exception('enable_thinking') }}") is None
