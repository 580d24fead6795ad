"""Answers that keep a form, as each protocol asks for one; the text is that of `run`."""

import json
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


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"type": "json_schema"}, "response_format.json_schema"),
    ({"type": "json_schema", "json_schema": {"name": "x"}}, "response_format.json_schema.schema"),
    ({"type": "json_schema", "json_schema": {"schema": {"type": "wat"}}}, "response_format"),
    ({"type": "json_schema", "json_schema": {"schema": {"not": {}}}}, "response_format"),
    ({"type": "json_object", "more": 1}, "response_format.more"),
    ({}, "response_format.type"),
]


@pytest.mark.parametrize(("form", "field"), REFUSED, ids=str)
def test_a_form_that_cannot_be_kept_is_refused(server: Server, tiny: Path, form: dict[str, Any], field: str) -> None:
    body = {"model": str(tiny), "messages": HELLO, "response_format": form, "stream": True}
    answer = server.post("/v1/chat/completions", body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
