"""Reasoning and calls of tools, told from the answer however the text is cut; what is broken stays text."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localinfer.chats.call_ways import WAYS, way_of
from localinfer.chats.calls import Calls
from localinfer.chats.saying import Said, Saying
from localinfer.chats.thinking import Thinking

BY_NAME = {way.name: way for way in WAYS}

WRITTEN = {
    "hermes": [
        '<tool_call>\n{"name": "f", "arguments": {"a": 1, "b": "x"}}\n</tool_call>',
        '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1, \\"b\\": \\"x\\"}"}</tool_call>',
    ],
    "llama3": [
        '{"name": "f", "parameters": {"a": 1, "b": "x"}}',
        '<|python_tag|>{"name": "f", "parameters": {"a": 1, "b": "x"}}',
        '<|python_tag|>f.call(a=1, b="x")',
    ],
    "mistral": [
        '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1, "b": "x"}}]',
        '[TOOL_CALLS]f[ARGS]{"a": 1, "b": "x"}',
        '[TOOL_CALLS]f[CALL_ID]123456789[ARGS]{"a": 1, "b": "x"}',
    ],
    "lfm2": [
        '<|tool_call_start|>[f(a=1, b="x")]<|tool_call_end|>',
        "<|tool_call_start|>[f(b='x', a=1)]<|tool_call_end|>",
    ],
    "functiongemma": ["<start_function_call>call:f{a:1,b:<escape>x<escape>}<end_function_call>"],
    "gemma4": ['<|tool_call>call:f{a:1,b:<|"|>x<|"|>}<tool_call|>'],
}
"""What families write for `f` with `a` 1 and `b` "x"."""


def known(name: str, arguments: Mapping[str, Any]) -> bool:
    return name in ("f", "g") and all(key in ("a", "b", "c") for key in arguments)


def pieces(text: str, sizes: list[int]) -> Iterator[str]:
    at = 0
    for size in sizes:
        yield text[at : at + size]
        at += size
    yield text[at:]


def read(saying: Saying, text: str, sizes: list[int]) -> tuple[str, str, list[tuple[str, Any]]]:
    said: list[Said] = [*map(saying.push, pieces(text, sizes)), saying.finish()]
    calls = [(call.name, json.loads(call.arguments_json)) for one in said for call in one.calls]
    return "".join(one.reasoning for one in said), "".join(one.content for one in said), calls


CUTS = st.lists(st.integers(0, 5), max_size=60)


@pytest.mark.parametrize("way", WRITTEN)
@given(sizes=CUTS)
def test_a_call_is_found_however_it_is_cut(way: str, sizes: list[int]) -> None:
    for text in WRITTEN[way]:
        found = read(Saying(calls=Calls(BY_NAME[way], known)), text, sizes)
        assert found == ("", "", [("f", {"a": 1, "b": "x"})]), text


@given(sizes=CUTS)
def test_words_around_calls_are_the_answer(sizes: list[int]) -> None:
    text = 'Let me see.\n\n<tool_call>{"name": "f"}</tool_call>\n<tool_call>{"name": "g"}</tool_call>\n'
    found = read(Saying(calls=Calls(BY_NAME["hermes"], known)), text, sizes)
    assert found == ("", "Let me see.", [("f", {}), ("g", {})])


def test_several_calls_of_one_answer() -> None:
    for way, text in (
        ("llama3", '{"name": "f", "parameters": {"a": [1, null]}}; {"name": "g", "parameters": {}}'),
        ("mistral", '[TOOL_CALLS]f[ARGS]{"a": [1, null]}[TOOL_CALLS]g[ARGS]{}'),
        ("lfm2", "<|tool_call_start|>[f(a=[1, None]), g()]<|tool_call_end|>"),
        ("functiongemma", "<start_function_call>call:f{a:[1,null]}<end_function_call><start_function_call>call:g{}"),
    ):
        found = read(Saying(calls=Calls(BY_NAME[way], known)), text, [])
        assert found == ("", "", [("f", {"a": [1, None]}), ("g", {})]), way


BROKEN = {
    "hermes": [
        '<tool_call>{"name": "f", "arguments": {"a": 1</tool_call>',
        '<tool_call>{"name": "nobody", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"z": 1}}</tool_call>',
        '<tool_call>{"name": "f", "arg',
        "a <tool_call> is a mark ",
        "no call <tool_",
        "  \n",
        "<tool_call>" + "[" * 5000,
    ],
    "llama3": ['{"answer": 42}', '{"name": "f", "parameters": {}} and more', " {", "<|python_tag|>print(1)"],
    "mistral": ["[TOOL_CALLS] maybe", '[TOOL_CALLS][{"name": "f"}] and more'],
    "lfm2": [
        "<|tool_call_start|>[f(1)]<|tool_call_end|>",
        "<|tool_call_start|>[f(a=open('x'))]<|tool_call_end|>",
        "<|tool_call_start|>[f(**{})]<|tool_call_end|>",
        "<|tool_call_start|>[f(a=" + "-" * 9000 + "1)]<|tool_call_end|>",
    ],
    "functiongemma": ["<start_function_call>call:f{a:<escape>x}<end_function_call>", "<start_function_call>f{}"],
    "gemma4": ["<|tool_call>call:f{a:" + "[" * 2000 + "<tool_call|>"],
}


@pytest.mark.parametrize("way", BROKEN)
@given(sizes=CUTS)
def test_a_broken_call_is_text_and_all_of_it(way: str, sizes: list[int]) -> None:
    for text in BROKEN[way]:
        found = read(Saying(calls=Calls(BY_NAME[way], known)), text, sizes)
        assert found == ("", text, []), text


@given(sizes=CUTS, text=st.text("ab <tol_cal>/\n{}", max_size=60))
def test_no_text_is_lost_and_none_depends_on_the_cuts(sizes: list[int], text: str) -> None:
    for way in ("hermes", "llama3"):
        whole = read(Saying(Thinking(), Calls(BY_NAME[way], known)), text, [])
        assert read(Saying(Thinking(), Calls(BY_NAME[way], known)), text, sizes) == whole
        assert whole == ("", text, [])


@pytest.mark.parametrize(
    ("begun", "text", "expected"),
    [
        (False, "<think>\nhm\n</think>\n\nYes.", ("hm", "Yes.")),
        (False, "\n <think>hm</think>Yes.", ("hm", "Yes.")),
        (False, "<think>\n\n</think>\n\nYes.", ("", "Yes.")),
        (True, "hm\n\nso\n</think>\n\nYes.\n", ("hm\n\nso", "Yes.\n")),
        (True, "\nnever ends\n", ("never ends\n", "")),
        (False, "Yes <think>no</think>", ("", "Yes <think>no</think>")),
        (False, "  <thin", ("", "  <thin")),
        (True, "a </thin", ("a </thin", "")),
        (False, "\n\nYes", ("", "\n\nYes")),
    ],
)
@given(sizes=CUTS)
def test_reasoning_stands_apart(begun: bool, text: str, expected: tuple[str, str], sizes: list[int]) -> None:
    assert read(Saying(Thinking(begun=begun)), text, sizes)[:2] == expected


def test_the_way_is_told_by_the_marks() -> None:
    assert way_of("… <tool_call> …", []) == BY_NAME["hermes"]
    assert way_of("nothing", ["<|im_end|>", "[TOOL_CALLS]"]) == BY_NAME["mistral"]
    assert way_of(None, ["<|tool_call_start|>"]) == BY_NAME["lfm2"]
    assert way_of("Environment: ipython <|python_tag|>", []) == BY_NAME["llama3"]
    assert way_of("plain", ["<|im_end|>"]) is None
