"""Calls of tools, by OpenAI's client, of models that write them in the ways of several families."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.serve.conftest import PATIENCE_S, Server, serving, until
from tests.serve.scripts import BROKEN, CALLS, make_caller, make_thinker

pytestmark = pytest.mark.xdist_group("serve")

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": CITY}}
ASKED: list[Any] = [{"role": "user", "content": "How is the weather in Paris?"}]


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str, str]:
    made = {way: make_caller(folder / "callers" / way, way) for way in CALLS}
    made["broken"] = make_caller(folder / "callers" / "broken", "hermes", BROKEN)
    made["thinker"] = make_thinker(folder / "callers" / "thinker")
    return {way: str(path) for way, path in made.items()}


@pytest.fixture(scope="module")
def caller(folder: Path, models: dict[str, str]) -> Iterator[Server]:
    with serving(folder, *models.values(), "--draft", "off") as server:
        yield server


@pytest.fixture
def client(caller: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{caller.url}/v1", api_key="x", max_retries=0, timeout=PATIENCE_S) as found:
        yield found


@pytest.mark.parametrize("way", CALLS)
def test_a_call_and_its_result(client: openai.OpenAI, models: dict[str, str], way: str) -> None:
    asked: Any = {"model": models[way], "tools": [WEATHER], "temperature": 0}
    first = client.chat.completions.create(**asked, messages=ASKED).choices[0]
    assert first.finish_reason == "tool_calls"
    assert first.message.tool_calls is not None
    (call,) = first.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Paris"})
    assert first.message.content == ("Let me look." if way == "hermes" else None)
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    later: Any = [*ASKED, first.message.model_dump(), result]
    last = client.chat.completions.create(**asked, messages=later).choices[0]
    assert (last.message.content, last.finish_reason) == ("It is sunny in Paris.", "stop")


@pytest.mark.parametrize("way", CALLS)
def test_a_call_in_a_stream(client: openai.OpenAI, models: dict[str, str], way: str) -> None:
    asked: Any = {"model": models[way], "tools": [WEATHER], "temperature": 0, "messages": ASKED}
    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls"
    assert final.message.tool_calls is not None
    (call,) = final.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Paris"})


def test_templates_see_the_call_and_who_answered(caller: Server, models: dict[str, str]) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    messages = [*ASKED, {"role": "assistant", "content": None, "tool_calls": [call]}]
    messages.append({"role": "tool", "tool_call_id": "c1", "content": "sunny"})
    body = {"model": models["hermes"], "messages": messages, "tools": [WEATHER]}
    tokens = caller.post("/tokenize", body).json()["tokens"]
    text = caller.post("/detokenize", {"model": models["hermes"], "tokens": tokens}).json()["prompt"]
    assert "call weather Paris" in text
    assert "weather said sunny" in text
    assert '"name": "weather"' in text


def test_a_broken_call_is_text_and_nothing_is_lost(client: openai.OpenAI, models: dict[str, str]) -> None:
    asked: Any = {"model": models["broken"], "tools": [WEATHER], "temperature": 0, "messages": ASKED}
    whole = client.chat.completions.create(**asked).choices[0]
    assert (whole.message.content, whole.message.tool_calls) == ("".join(BROKEN), None)
    assert whole.finish_reason == "stop"
    pieces = client.chat.completions.create(**asked, stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == "".join(BROKEN)


def test_no_tools_no_calls(client: openai.OpenAI, models: dict[str, str]) -> None:
    """The model thinks aloud where there are none; `none` is the same."""
    for more in ({}, {"tools": [WEATHER], "tool_choice": "none"}):
        asked: Any = {"model": models["hermes"], "temperature": 0, "messages": ASKED, **more}
        message = client.chat.completions.create(**asked).choices[0].message
        assert (message.content, message.tool_calls) == ("Good day.", None)
        assert message.model_extra == {"reasoning_content": "The user greets me."}
        pieces = [piece.choices[0].delta for piece in client.chat.completions.create(**asked, stream=True)]
        assert "".join(piece.content or "" for piece in pieces) == "Good day."
        reasoning = [(piece.model_extra or {}).get("reasoning_content", "") for piece in pieces]
        assert "".join(reasoning) == "The user greets me."


def test_reasoning_is_counted(client: openai.OpenAI, models: dict[str, str]) -> None:
    usage = client.chat.completions.create(model=models["hermes"], messages=ASKED, temperature=0).usage
    assert usage is not None
    assert usage.completion_tokens_details is not None
    assert 0 < (usage.completion_tokens_details.reasoning_tokens or 0) < usage.completion_tokens == 7


def test_one_call_where_one_is_wanted(client: openai.OpenAI, models: dict[str, str], caller: Server) -> None:
    asked: Any = {"model": models["hermes"], "tools": [WEATHER], "temperature": 0, "messages": ASKED}
    answer = client.chat.completions.create(**asked, parallel_tool_calls=False)
    (choice,) = answer.choices
    assert answer.usage is not None
    assert answer.usage.completion_tokens >= len(CALLS["hermes"])
    assert answer.usage.prompt_tokens > 0
    assert choice.finish_reason == "tool_calls"
    assert len(choice.message.tool_calls or []) == 1
    until(caller.is_idle)


CLOSED: Any = {**CITY, "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "additionalProperties": False}
FORCED: Any = {"type": "function", "function": {**WEATHER["function"], "parameters": CLOSED}}


@pytest.mark.parametrize("way", ["hermes", "mistral", "llama3", "broken"])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}], ids=str)
def test_a_call_can_be_forced(client: openai.OpenAI, models: dict[str, str], way: str, choice: Any) -> None:
    """These models call by script, which the schema does not take: the form leads them through it."""
    asked: Any = {"model": models[way], "tools": [FORCED], "temperature": 1, "messages": ASKED, "seed": 4}
    whole = client.chat.completions.create(**asked, tool_choice=choice, max_tokens=200).choices[0]
    with client.chat.completions.stream(**asked, tool_choice=choice, max_tokens=200) as stream:
        streamed = stream.get_final_completion().choices[0]
    for one in (whole, streamed):
        assert one.finish_reason == "tool_calls"
        (call,) = one.message.tool_calls or []
        assert call.type == "function"
        assert call.function.name == "weather"
        assert json.loads(call.function.arguments)["city"] in ("Rome", "Oslo")


@pytest.mark.parametrize(
    ("way", "choice"), [("lfm2", "required"), ("hermes", {"type": "function", "function": {"name": "nobody"}})], ids=str
)
def test_a_call_that_cannot_be_forced_is_refused(
    client: openai.OpenAI, models: dict[str, str], way: str, choice: Any
) -> None:
    asked: Any = {"model": models[way], "tools": [FORCED], "messages": ASKED}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**asked, tool_choice=choice)
    assert caught.value.param == "tool_choice"


def test_a_stop_string_within_a_call_cuts_it(client: openai.OpenAI, models: dict[str, str]) -> None:
    """What is left is no call, and is text; special tokens in it are spelled."""
    for way in ("hermes", "lfm2"):
        asked: Any = {"model": models[way], "tools": [WEATHER], "temperature": 0, "messages": ASKED}
        choice = client.chat.completions.create(**asked, stop=["ris"]).choices[0]
        whole = "".join(CALLS[way])
        assert (choice.message.content, choice.message.tool_calls) == (whole[: whole.index("ris")], None)
