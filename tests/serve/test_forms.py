"""Answers that keep a form, as each protocol asks for one; the text is that of `run`."""

import json
import re
from pathlib import Path
from typing import Any

import ollama
import openai
import pydantic
import pytest

from localinfer.chats.chat import Chat
from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.grammar import Grammar
from localinfer.engine.opening import open_engine
from localinfer.events import Text
from tests.serve.conftest import PATIENCE_S, Server

pytestmark = pytest.mark.xdist_group("serve")

HELLO: Any = [{"role": "user", "content": "hello"}]


class Point(pydantic.BaseModel):
    x: int = pydantic.Field(ge=0, le=99)
    up: bool


def test_openai_parses_what_it_asked_for(server: Server, tiny: Path) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0, timeout=PATIENCE_S) as client:
        for seed in range(4):
            asked: Any = {"model": str(tiny), "messages": HELLO, "seed": seed, "temperature": 1}
            parsed = client.chat.completions.parse(**asked, response_format=Point).choices[0].message
            assert isinstance(parsed.parsed, Point)
            with client.chat.completions.stream(**asked, response_format=Point) as stream:
                streamed = stream.get_final_completion().choices[0].message
            assert streamed.content == parsed.content
        response = client.responses.parse(model=str(tiny), input="hello", text_format=Point, temperature=1)
        assert isinstance(response.output_parsed, Point)
        free = client.chat.completions.create(
            model=str(tiny), messages=HELLO, response_format={"type": "json_object"}, max_tokens=8
        )
        assert (free.choices[0].message.content or "").lstrip().startswith("{")


def test_ollama_too(server: Server, tiny: Path) -> None:
    with ollama.Client(host=server.url, timeout=PATIENCE_S) as client:
        schema = Point.model_json_schema()
        said = client.chat(str(tiny), messages=HELLO, format=schema, options={"temperature": 1, "seed": 3})
        Point.model_validate_json(said.message.content or "")
        assert (
            client.generate(str(tiny), prompt="x", format="json", options={"num_predict": 4}).response.lstrip()[0]
            == "{"
        )


def test_the_text_is_what_run_says(server: Server, tiny: Path) -> None:
    schema = json.dumps(Point.model_json_schema())
    with open_engine(tiny, EngineConfig(draft="off")) as engine:
        sampling = SamplingParams(temperature=1, seed=5)
        chat = Chat(engine, sampling=sampling, grammar=Grammar("json_schema", schema))
        wanted = "".join(event.text for event in chat.reply("hello") if isinstance(event, Text))
    form = {"type": "json_schema", "json_schema": {"name": "point", "schema": json.loads(schema)}}
    body = {"model": str(tiny), "messages": HELLO, "seed": 5, "temperature": 1, "response_format": form}
    answer = server.post("/v1/chat/completions", body).json()
    assert answer["choices"][0]["message"]["content"] == wanted


GBNF = 'root ::= "(" [0-9] ("," [0-9])* ")"'
FORMS: list[tuple[dict[str, Any], str]] = [
    ({"structured_outputs": {"regex": "[ab]{3}c"}}, "[ab]{3}c"),
    ({"structured_outputs": {"choice": ["so - so", "a\nb", "é?", "{x}"]}}, r"so - so|a\nb|é\?|\{x\}"),
    ({"structured_outputs": {"grammar": 'start: "<" /[0-9]{2}/ ">"'}}, "<[0-9]{2}>"),
    ({"structured_outputs": {"json": '{"type": "boolean"}'}}, "true|false"),
    ({"grammar": GBNF}, r"\([0-9](,[0-9])*\)"),
    ({"json_schema": {"enum": ["x", 7]}}, '"x"|7'),
    ({"response_format": {"type": "json_object", "schema": {"const": [1]}}}, r"\[\s*1\s*\]"),
]


@pytest.mark.parametrize(("more", "wanted"), FORMS, ids=lambda value: str(value)[:40])
def test_forms_as_vllm_and_llama_cpp_spell_them(server: Server, tiny: Path, more: Any, wanted: str) -> None:
    for seed in range(3):
        body = {"model": str(tiny), "messages": HELLO, "temperature": 1, "seed": seed, "max_tokens": 300, **more}
        answer = server.post("/v1/chat/completions", body).json()["choices"][0]
        assert re.fullmatch(wanted, answer["message"]["content"]) or answer["finish_reason"] == "length", answer
    prompt = server.post("/v1/completions", {"model": str(tiny), "prompt": "x", "max_tokens": 300, **more}).json()
    assert re.fullmatch(wanted, prompt["choices"][0]["text"]) or prompt["choices"][0]["finish_reason"] == "length"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"grammar": "nonsense"}, "grammar"),
    ({"grammar": "root ::= nowhere"}, "grammar"),
    ({"json_schema": {"not": {}}}, "json_schema"),
    ({"structured_outputs": {"regex": "(a{1000}){1000}"}}, "structured_outputs.regex"),
    ({"structured_outputs": {"json": {"type": "wat"}}}, "structured_outputs.json"),
    ({"structured_outputs": {}}, "structured_outputs.json"),
    ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs.json"),
    ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
    ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
    ({"structured_outputs": {"regex": ""}}, "structured_outputs.regex"),
    ({"structured_outputs": {"grammar": ""}}, "structured_outputs.grammar"),
    ({"structured_outputs": {"json": ""}}, "structured_outputs.json"),
    ({"grammar": GBNF, "response_format": {"type": "json_object"}}, "response_format"),
    ({"guided_json": {}}, "guided_json"),
]


@pytest.mark.parametrize(("more", "field"), WRONG, ids=lambda value: str(value)[:40])
def test_a_form_that_is_none_is_refused_by_name(server: Server, tiny: Path, more: Any, field: str) -> None:
    for path, asked in (("/v1/chat/completions", {"messages": HELLO}), ("/v1/completions", {"prompt": "x"})):
        answer = server.post(path, {"model": str(tiny), **asked, **more})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field), answer.text


def test_a_form_without_an_end_or_without_room_is_refused(server: Server, tiny: Path) -> None:
    for schema, most, told in (
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, None, "no text with an end"),
        ({"type": "array", "minItems": 100_000}, None, "the context has left"),
        ({"type": "array", "minItems": 40}, 30, "the most that were asked for"),
    ):
        body = {"model": str(tiny), "messages": HELLO, "json_schema": schema, "max_tokens": most}
        answer = server.post("/v1/chat/completions", body)
        assert (answer.status_code, told in answer.json()["error"]["message"]) == (400, True), answer.text


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"type": "json_schema"}, "response_format.json_schema"),
    ({"type": "json_schema", "json_schema": {"name": "x"}}, "response_format.json_schema.schema"),
    ({"type": "json_schema", "json_schema": {"schema": {"type": "wat"}}}, "response_format.json_schema.schema"),
    ({"type": "json_schema", "json_schema": {"schema": {"not": {}}}}, "response_format.json_schema.schema"),
    ({"type": "json_object", "more": 1}, "response_format.more"),
    ({}, "response_format.type"),
]


@pytest.mark.parametrize(("form", "field"), REFUSED, ids=str)
def test_a_form_that_cannot_be_kept_is_refused(server: Server, tiny: Path, form: dict[str, Any], field: str) -> None:
    body = {"model": str(tiny), "messages": HELLO, "response_format": form, "stream": True}
    answer = server.post("/v1/chat/completions", body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
