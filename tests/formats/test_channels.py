"""Answers in channels: read as reasoning, answer and calls, however far they come."""

import json
from pathlib import Path

import pytest

from localinfer.chats.call_ways import way_of
from localinfer.chats.calls import Calls
from localinfer.chats.saying import Said, Saying
from localinfer.chats.template import Message, render
from localinfer.chats.thinking import Thinking
from localinfer.chats.thinking_switch import thinking_variables
from localinfer.errors import NotSupported
from localinfer.formats.channels import MARKS
from localinfer.formats.tokenizer import Tokenizer
from tests.tiny import make_checkpoint, write_json

TEMPLATES = Path(__file__).parent.parent / "chats" / "templates"
OTHERS = ("<|return|>", "<|constrain|>")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """The tiny tokenizer with harmony's marks as special tokens."""
    path = make_checkpoint(tmp_path_factory.mktemp("channels") / "m", "gpt_oss")
    document = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
    like = document["added_tokens"][0]
    document["added_tokens"] += [like | {"id": 320 + i, "content": mark} for i, mark in enumerate((*MARKS, *OTHERS))]
    write_json(path / "tokenizer.json", document)
    return Tokenizer(path)


def read(tokenizer: Tokenizer, answer: str) -> str:
    stream = tokenizer.stream(continues=True)
    return "".join([stream.push(token) for token in tokenizer.encode_rendered(answer)]) + stream.finish()


ANALYSIS = "<|channel|>analysis<|message|>The user says hi.<|end|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>Hello – you!"
CALL = '<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Bern"}'


@pytest.mark.parametrize(
    ("answer", "meant"),
    [
        ("Just a text, as after a raw prompt.", "Just a text, as after a raw prompt."),
        (" to the point", " to the point"),
        (" to=nobody", " to=nobody"),
        ("<|channel|>final<|message|>Hello.", "Hello."),
        (ANALYSIS + FINAL, "<think>\nThe user says hi.\n</think>\n\nHello – you!"),
        (ANALYSIS + "<|start|>assist", "<think>\nThe user says hi."),
        (
            ANALYSIS + "<|start|>assistant" + ANALYSIS + FINAL,
            "<think>\nThe user says hi.\n\nThe user says hi.\n</think>\n\nHello – you!",
        ),
        ("<|channel|>commentary<|message|>I look.<|end|>" + FINAL, "I look.\n\nHello – you!"),
        (
            ANALYSIS + CALL,
            "<think>\nThe user says hi.\n</think>\n\n"
            '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Bern"}}\n</tool_call>',
        ),
        (
            " to=functions.f<|channel|>commentary json<|message|>{}<|call|>",
            '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>',
        ),
        ("<|channel|>" + "x" * 600, " " + "x" * 600),
        ("<|message|><|end|><|channel|>", ""),
    ],
)
def test_is_read_as_other_models_write(tokenizer: Tokenizer, answer: str, meant: str) -> None:
    assert read(tokenizer, answer) == meant


def test_without_its_marks_nothing_is_a_channel(tmp_path: Path) -> None:
    plain = Tokenizer(make_checkpoint(tmp_path / "m", "gpt_oss"))
    assert read(plain, ANALYSIS) == ANALYSIS


def test_asked_for_they_are_seen(tokenizer: Tokenizer) -> None:
    stream = tokenizer.stream(specials=True, continues=True)
    assert "".join(map(stream.push, tokenizer.encode_rendered(ANALYSIS))) == ANALYSIS


def test_a_call_is_found(tokenizer: Tokenizer) -> None:
    way = way_of(None, tokenizer.special_strings)
    assert way is not None
    saying, stream, said = (
        Saying(Thinking(), Calls(way, lambda name, arguments: True)),
        tokenizer.stream(continues=True),
        list[Said](),
    )
    for token in tokenizer.encode_rendered(ANALYSIS + CALL):
        said.append(saying.push(stream.push(token)))
    said += [saying.push(stream.finish()), saying.finish()]
    assert "".join(one.reasoning for one in said) == "The user says hi."
    assert "".join(one.content for one in said) == ""
    assert [(call.name, dict(call.arguments)) for one in said for call in one.calls] == [
        ("get_weather", {"city": "Bern"})
    ]


def test_it_always_thinks() -> None:
    template = (TEMPLATES / "trl/gptoss.jinja").read_text(encoding="utf-8")
    assert thinking_variables(template, True) == {}
    with pytest.raises(NotSupported, match="always thinks"):
        thinking_variables(template, False)


@pytest.mark.parametrize("file", ["trl/gptoss.jinja", "xinference/gpt-oss.jinja"])
def test_reasoning_of_earlier_answers_is_left_out(file: str) -> None:
    """As the template has it: only the answer is read again."""
    turns = [
        Message("user", "Hi"),
        Message("assistant", "<think>\nThe user says hi.\n</think>\n\nHello!"),
        Message("user", "And now?"),
    ]
    text = render((TEMPLATES / file).read_text(encoding="utf-8"), turns, special_strings=MARKS).plain
    assert "<|start|>assistant<|channel|>final<|message|>Hello!<|end|><|start|>user<|message|>And now?<|end|>" in text
    assert "The user says hi" not in text
    assert text.rstrip().endswith("<|start|>assistant")
