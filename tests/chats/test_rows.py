"""A line of JSON: what it asks for, and every way in which it may not."""

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localinfer.chats.rows import Asked, Line, lines_of, seed_of, understood
from localinfer.chats.template import Message
from localinfer.config import SamplingParams

USUAL = SamplingParams(temperature=0.5, max_tokens=9, seed=3)


def ask(row: Any, *, context: str = "", limit: int = 1 << 16) -> Asked:
    line = row if isinstance(row, bytes) else json.dumps(row).encode()
    return understood(Line.of(7, 9, line, context), limit=limit, sampling=USUAL)


def test_a_prompt_and_what_it_wants() -> None:
    found = ask({"id": [1, "x"], "prompt": "hello", "system": "be brief", "temperature": 0, "top_k": 5, "stop": "\n"})
    assert (found.index, found.id, found.system, found.turns) == (7, [1, "x"], "be brief", (Message("user", "hello"),))
    seed = seed_of(3, '[1, "x"]')
    assert found.sampling == SamplingParams(temperature=0.0, top_k=5, stop=("\n",), max_tokens=9, seed=seed)
    assert (found.error, found.line) == (None, 9)


def test_messages() -> None:
    turns = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")]
    found = ask({"messages": [{"role": role, "content": text} for role, text in turns]})
    assert found.system == "s"
    assert found.turns == (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))


def test_parts_tools_and_a_turn_to_go_on_with() -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    rows = [
        {"role": "user", "content": [{"type": "text", "text": "one"}, "two"]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": "c1", "name": "add"},
        {"role": "assistant", "content": "It is"},
    ]
    found = ask({"messages": rows, "tools": [{"type": "function", "function": {"name": "add"}}]})
    assert found.error is None
    assert [(turn.role, turn.content) for turn in found.turns] == [
        ("user", "one\ntwo"),
        ("assistant", ""),
        ("tool", "2"),
        ("assistant", "It is"),
    ]
    assert found.turns[0].fields["content"] == [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert found.turns[1].fields["tool_calls"] == [call]
    assert found.turns[1].fields["content"] is None
    assert ask({"messages": [rows[0], {"role": "assistant", "content": None}, rows[3]]}).error is not None
    assert (found.turns[2].fields["name"], found.turns[2].fields["tool_call_id"]) == ("add", "c1")
    assert found.tools == ({"type": "function", "function": {"name": "add"}},)


def test_what_means_nothing_is_an_error_unless_it_is_to_be_ignored() -> None:
    """A misspelled key would change the answer in silence."""
    row = {"prompt": "x", "max_token": 1, "zzz": "y", "\x1b[31m": 1}
    error = ask(row).error
    assert error is not None
    assert (error.exit_code, "`max_token`" in error.message, "\x1b" in error.message) == (2, True, False)
    assert "`--ignore-unknown`" in str(error.hint)
    assert "did you mean `max_tokens`?" in str(ask({"prompt": "x", "max_token": 1}).error.hint)  # type: ignore[union-attr]
    line = json.dumps(row).encode()
    found = understood(Line.of(0, 1, line, ""), limit=1 << 16, sampling=USUAL, ignore_unknown=True)
    assert (found.error, found.turns) == (None, (Message("user", "x"),))


def test_raw_and_special_are_said_line_by_line() -> None:
    assert (ask({"prompt": "x"}).raw, ask({"prompt": "x"}).special) == (None, None)
    found = ask({"prompt": "x", "raw": True, "special": False})
    assert (found.raw, found.special) == (True, False)


USER = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (b"nope", "not JSON: Expecting value at character 0"),
        (b'{"prompt": "\xff"}', "not UTF-8: byte 0xff at offset 12"),
        (b'{"prompt": "x", "temperature": NaN}', "the line is not JSON: NaN is no number"),
        (b"[" * 60_000, "the line has more than 100 brackets in each other"),
        (b'{"prompt": "x", "id": ' + b"[" * 100 + b"]" * 100 + b"}", "more than 100 brackets"),
        (b'{"prompt": "x", "top_k": ' + b'{"a": ' * 400 + b"1" + b"}" * 400 + b"}", "more than 100 brackets"),
        (b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}", "the line has a whole number of more than 4300 digits"),
        ([1], "no JSON object"),
        ({}, "the line has neither `prompt` nor `messages`"),
        ({"prompt": "x", "messages": [USER]}, "both `prompt` and `messages`"),
        ({"prompt": ""}, "`prompt` is empty"),
        ({"prompt": " \n"}, "`prompt` is empty but for white space"),
        ({"prompt": "x", "messages": []}, "both `prompt` and `messages`"),
        ({"prompt": 5}, "`prompt` is no text"),
        ({"prompt": "\ud800"}, "half a character"),
        ({"prompt": "x", "system": 5}, "`system` is no text"),
        ({"messages": []}, "`messages` is empty"),
        ({"messages": 5}, "no list of messages"),
        ({"messages": [{"role": "reader", "content": "x"}]}, "message 0 has no role"),
        ({"messages": [{"role": "user", "content": 5}]}, "message 0 has content that is no text"),
        ({"messages": [{"role": "user"}]}, "message 0 has content that is no text"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "text": "x"}]}]}, "message 0 has content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "\ud800"}]}]}, "half a character"),
        ({"messages": [{**USER, "colour": 1}]}, "`colour` means nothing"),
        ({"messages": [USER, {"role": "assistant", "content": ""}]}, "nothing to go on with"),
        ({"messages": [{"role": "system", "content": "x"}]}, "more than the system's"),
        ({"messages": [USER, {"role": "system", "content": "x"}, USER]}, "may only be the first"),
        ({"prompt": "x", "tools": ["a"]}, "`tools` is no list of objects"),
        ({"prompt": "x", "temperature": "hot"}, "`temperature` is 'hot'"),
        ({"prompt": "x", "top_k": 1.5}, "`top_k` is '1.5', but must be a whole number"),
        ({"prompt": "x", "top_k": True}, "`top_k` is 'True'"),
        ({"prompt": "x", "temperature": -1}, "temp is -1.0"),
        ({"prompt": "x", "temp": 1, "temperature": 1}, "are the same"),
        ({"prompt": "x", "repeat_penalty": 1, "repetition_penalty": 1}, "are the same"),
        ({"prompt": "x", "logit_bias": {"a": 1}}, "no object of numbers by tokens"),
        ({"prompt": "x", "logit_bias": {"1": 200}}, "must lie between -100.0 and 100.0"),
        ({"prompt": "x", "max_tokens": 0}, "max-tokens is 0"),
        ({"prompt": "x", "seed": 10**30}, "seed is 1000"),
        ({"prompt": "x", "stop": 5}, "`stop` is neither"),
        ({"prompt": "x", "raw": 1}, "`raw` is neither true nor false"),
        ({"prompt": "x", "special": "yes"}, "`special` is neither true nor false"),
        ({"prompt": "x", "stop": [""]}, "a stop string is empty"),
        (b"x" * 70000, "more than 65536 bytes"),
    ],
)
def test_what_cannot_be_answered(row: Any, words: str) -> None:
    error = ask(row).error
    assert error is not None
    assert error.exit_code == 2
    assert words in error.message
    assert error.hint


@pytest.mark.parametrize(
    "line", [b'{"prompt": "a", "prompt": "b"}', b'{"messages": [{"role": "user", "role": "user"}]}']
)
def test_a_key_that_stands_twice_is_named(line: bytes) -> None:
    found = ask(line)
    assert found.error is not None
    assert ("`prompt`" in found.error.message) or ("`role`" in found.error.message)
    assert "twice" in found.error.message


def test_brackets_that_can_be_followed_are_no_matter() -> None:
    assert ask(b'{"prompt": "x", "id": ' + b"[" * 99 + b"1" + b"]" * 99 + b"}").error is None


@given(st.binary(max_size=60))
def test_any_bytes_become_a_row(line: bytes) -> None:
    assert ask(line).error is not None or ask(line).turns


def test_the_digest_follows_all_that_decides_the_answer() -> None:
    one = ask({"prompt": "x"}).digest
    assert one == ask({"prompt": "x"}).digest
    assert len({one, ask({"prompt": "y"}).digest, ask({"prompt": "x"}, context="other").digest}) == 3


def test_lines_are_bounded_and_blank_ones_left_out() -> None:
    text = b"\n  \na\r\n" + b"b" * 50 + b"\n" + b"c" * 10 + b"\nd"
    found = [(line.index, line.number, line.data) for line in lines_of(io.BytesIO(text), 10)]
    assert found == [(0, 3, b"a"), (1, 4, b"b" * 11), (2, 5, b"c" * 10), (3, 6, b"d")]
