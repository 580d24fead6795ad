"""The batch form takes what a server takes: every field at every address, by the same answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from localinfer.chats.mapping import USUAL, Manner
from localinfer.chats.rows import Asked, Line
from localinfer.config import SamplingParams
from localinfer.errors import LocalInferError
from localinfer.protocols import vectors
from localinfer.protocols.batch import CHAT, EMBEDDINGS, RESPONSES, TEXT, TEXTS, Reader, Request
from localinfer.protocols.fields import Fields
from tests.cli.conftest import Cli
from tests.serve.conftest import serving
from tests.serve.scripts import make_caller

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "weather", "parameters": CITY}
TOOL = {"type": "function", "function": FUNCTION}
SCHEMA = {"name": "a", "schema": {"type": "object"}}

SAMPLING: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 3,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "dry_multiplier": 0.8,
    "dry_base": 1.75,
    "dry_allowed_length": 2,
    "top_n_sigma": 1,
    "typical_p": 0.9,
    "xtc_probability": 0.1,
    "xtc_threshold": 0.1,
    "logit_bias": {"5": -1},
    "ignore_eos": True,
    "seed": 7,
    "stop": ["x"],
}
LABELS: dict[str, Any] = {"user": "u", "metadata": {"a": "b"}, "safety_identifier": "s", "prompt_cache_key": "k"}
SHARED: dict[str, Any] = {**SAMPLING, **LABELS, "model": "m", "store": False, "service_tier": "auto"}
FORMS: dict[str, Any] = {
    "response_format": {"type": "json_object"},
    "structured_outputs": {"regex": "a+"},
    "grammar": 'start: "a"',
    "json_schema": {"type": "object"},
}
TOOLS: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}
FIELDS: dict[str, dict[str, Any]] = {
    CHAT: {
        **SHARED,
        **FORMS,
        **TOOLS,
        "messages": [{"role": "developer", "content": "s"}, {"role": "user"}],
        "n": 3,
        "logprobs": True,
        "top_logprobs": 2,
        "modalities": ["text"],
        "verbosity": "medium",
        "max_tokens": 4,
        "max_completion_tokens": 4,
        "reasoning_effort": "low",
        "chat_template_kwargs": {"a": 1},
        "thinking_token_budget": 5,
        "thinking_budget_tokens": 5,
    },
    TEXT: {
        **SHARED,
        **FORMS,
        "prompt": ["a", "b"],
        "n": 2,
        "best_of": 3,
        "echo": True,
        "logprobs": 1,
        "suffix": "",
        "max_tokens": 4,
        "special": True,
    },
    RESPONSES: {
        **SHARED,
        "input": "hi",
        "instructions": "s",
        "max_output_tokens": 4,
        "top_logprobs": 1,
        "tools": [{"type": "function", **FUNCTION}],
        "tool_choice": {"type": "function", "name": "weather"},
        "parallel_tool_calls": False,
        "background": False,
        "truncation": "disabled",
        "include": ["message.output_text.logprobs"],
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_schema", **SCHEMA}},
    },
    EMBEDDINGS: {
        "model": "m",
        "input": ["a", [1, 2]],
        "encoding_format": "base64",
        "dimensions": 4,
        "pool": "mean",
        "user": "u",
    },
}
BESIDE: dict[str, dict[str, Any]] = {
    "top_logprobs": {"logprobs": True},
    "echo": {"logprobs": 1, "max_tokens": 0},
    "tool_choice": {"tools": FIELDS[CHAT]["tools"]},
    "parallel_tool_calls": {"tools": FIELDS[CHAT]["tools"]},
}
"""Fields that another goes with."""

STREAMED = {"stream", "stream_options", "return_progress"}
"""What a row cannot be."""

LEAST: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "hi"}]},
    TEXT: {"prompt": "hi"},
    RESPONSES: {"input": "hi"},
    EMBEDDINGS: {"input": "hi"},
}


def batched(url: str, body: object, **more: Any) -> Asked:
    row = {"custom_id": "a", "method": "POST", "url": url, "body": body}
    reader = Reader(USUAL, SamplingParams(seed=3), 1 << 16, **more)
    return reader.understood(Line.of(0, 1, json.dumps(row).encode(), ""))


def served(url: str, body: dict[str, Any]) -> tuple[Any, set[str]]:
    """What a server understands, and the fields that it asked for."""
    fields = Fields(body)
    found = TEXTS[url](fields)[0] if url in TEXTS else vectors.understand(fields)
    fields.done()
    return found, set(fields.known)


@pytest.mark.parametrize("url", FIELDS)
def test_every_field_that_a_server_takes_is_taken(url: str) -> None:
    """A field that is new in a server must be added above."""
    known = served(url, {"model": "m"} | LEAST[url])[1]
    assert known - STREAMED == FIELDS[url].keys()
    for name, value in FIELDS[url].items():
        beside = BESIDE.get(name, {}) if url == CHAT or name == "echo" else {}
        if url == RESPONSES and name in ("tool_choice", "parallel_tool_calls"):
            beside = {"tools": FIELDS[url]["tools"]}
        body = {"model": "m"} | LEAST[url] | beside | {name: value}
        if name == "messages":
            body["messages"] = [{"role": "developer", "content": "s"}, {"role": "user", "content": "x"}]
        asked = batched(url, body)
        assert asked.error is None, (name, asked.error)
        assert isinstance(asked.batch, Request)
        wanted = asked.batch.wanted
        assert (wanted[0] if isinstance(wanted, tuple) else wanted) == served(url, body)[0], name


def refused(url: str, body: dict[str, Any]) -> LocalInferError | None:
    try:
        served(url, body)
    except LocalInferError as error:
        return error
    return None


def words(error: LocalInferError | None) -> tuple[str, str | None] | None:
    return None if error is None else (error.message, error.hint)


@pytest.mark.parametrize("url", FIELDS)
def test_what_a_server_refuses_is_refused_by_the_same_words(url: str) -> None:
    for wrong in ({"tempo": 1}, {"model": 5}, {"user": 5, "seed": -1}, {"stop": 5}, {"n": 99}, {"dimensions": 0}):
        body = {"model": "m"} | LEAST[url] | wrong
        assert words(batched(url, body).error) == words(refused(url, body)), body
    assert batched(url, LEAST[url] | {"tempo": 1}, ignore_unknown=True).error is None
    assert batched(url, LEAST[url] | {"stream": True}).error is not None
    odd: list[object] = [None, [], "x", 5]
    assert all(batched(url, body).error is not None for body in odd)


def test_what_the_command_says_holds_where_a_body_says_nothing() -> None:
    reader = Reader(Manner(logprobs=2), SamplingParams(max_tokens=40), 1 << 16)
    for url, more, wanted in (
        (TEXT, {}, (40, 2)),
        (TEXT, {"max_tokens": 3, "logprobs": 0}, (3, 0)),
        (CHAT, {}, (None, 2)),
        (CHAT, {"logprobs": False}, (None, None)),
        (RESPONSES, {}, (None, 2)),
    ):
        row = {"custom_id": "a", "method": "POST", "url": url, "body": {**LEAST[url], **more}}
        asked = reader.understood(Line.of(0, 1, json.dumps(row).encode(), ""))
        assert isinstance(asked.batch, Request)
        assert isinstance(asked.batch.wanted, tuple)
        ask = asked.batch.wanted[0]
        assert (ask.sampling.get("max_tokens"), ask.logprobs) == wanted
        assert asked.sampling.max_tokens == 40


def test_the_envelope_is_looked_at() -> None:
    for more in (
        {"url": "/v1/images"},
        {"url": ["x"]},
        {"url": None},
        {"method": "GET"},
        {"custom_id": 5},
        {"id": "x"},
    ):
        row = {"custom_id": "a", "method": "POST", "url": CHAT, "body": LEAST[CHAT]} | more
        reader = Reader(USUAL, SamplingParams(), 1 << 16)
        asked = reader.understood(Line.of(0, 1, json.dumps(row).encode(), ""))
        assert asked.error is not None
        assert isinstance(asked.batch, Request)


ASKED: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"messages": [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "x"}], "n": 2}),
    (CHAT, {"messages": [{"role": "user", "content": "x"}], "logprobs": True, "structured_outputs": {"regex": "ab+c"}}),
    (CHAT, {"messages": [{"role": "user", "content": "x"}], "tools": [TOOL], "service_tier": "auto"}),
    (CHAT, {"messages": [{"role": "user", "content": "x"}], "tools": [TOOL], "tool_choice": "required"}),
    (CHAT, {"messages": [{"role": "user", "content": "x"}], "tools": [TOOL], "tool_choice": "none"}),
    (CHAT, {"messages": [{"role": "user", "content": "x"}], "reasoning_effort": "low"}),
    (TEXT, {"prompt": ["one", "two"], "n": 2, "best_of": 3, "logprobs": 1}),
    (TEXT, {"prompt": [5, 6, 7], "echo": True, "max_tokens": 0, "logprobs": 2}),
    (RESPONSES, {"input": "hi", "instructions": "be brief", "top_logprobs": 1}),
    (RESPONSES, {"input": "hi", "tools": [{"type": "function", **FUNCTION}], "parallel_tool_calls": False}),
    (EMBEDDINGS, {"input": ["one", "two three"], "dimensions": 8}),
    (EMBEDDINGS, {"input": "one", "encoding_format": "base64", "pool": "mean"}),
    (EMBEDDINGS, {"input": "one", "dimensions": 1 << 19}),
]


def test_answers_are_those_of_a_server(cli: Cli, tmp_path: Path) -> None:
    model = str(make_caller(tmp_path / "caller", "hermes"))
    seeds = {CHAT: {"seed": 5}, TEXT: {"seed": 5}, RESPONSES: {"seed": 5}, EMBEDDINGS: {}}
    bodies = [(url, {"model": model, **seeds[url], **body}) for url, body in ASKED]
    lines = [
        {"custom_id": f"c{at}", "method": "POST", "url": url, "body": body} for at, (url, body) in enumerate(bodies)
    ]
    ran = cli("map", model, "-q", "--draft", "off", stdin="".join(json.dumps(line) + "\n" for line in lines).encode())
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert (ran.code, "2 of 13 lines could not be answered" in ran.err) == (2, True), ran.err
    assert [row["custom_id"] for row in rows] == [line["custom_id"] for line in lines]
    with serving(tmp_path, model, "--draft", "off") as server:
        for (url, body), row in zip(bodies, rows, strict=True):
            answer = server.post(url, body)
            assert answer.status_code == row["response"]["status_code"], (body, answer.text, row)
            assert plain(answer.json()) == plain(row["response"]["body"]), body
    assert {row["response"]["status_code"] for row in rows} == {200, 400}


def plain(value: Any) -> Any:
    """An answer without names, times, and what was cached."""
    if isinstance(value, dict):
        odd = {"id", "call_id", "created", "created_at", "cached_tokens", "model"}
        return {name: plain(one) for name, one in value.items() if name not in odd}
    return [plain(one) for one in value] if isinstance(value, list) else value


def test_lines_that_name_another_model_are_counted_and_answered(cli: Cli, tmp_path: Path) -> None:
    own = str(make_caller(tmp_path / "caller", "hermes"))
    models = ["gpt-4o-mini", "gpt-4o", None, own]
    bodies: list[dict[str, Any]] = [
        {"prompt": "a", "max_tokens": 2} | ({"model": one} if one else {}) for one in models
    ]
    lines = [{"custom_id": str(at), "method": "POST", "url": TEXT, "body": body} for at, body in enumerate(bodies)]
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    ran = cli("map", own, stdin=text)
    assert ran.code == 0, ran.err
    assert f"2 lines name another model (the first: `gpt-4o-mini`); {own} was asked" in ran.err.replace("\n", " ")
    answered = {json.loads(row)["response"]["body"]["model"] for row in ran.out.splitlines()}
    assert len(answered) == 1
    assert "another model" not in cli("map", own, "-q", stdin=text).err
    assert "another model" not in cli("map", own, stdin=text.splitlines()[2] + b"\n").err
