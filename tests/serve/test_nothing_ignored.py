"""What a request says and nothing here does is a 400, in every protocol; what programs send beside is taken."""

import gzip
import json
from typing import Any

import httpx2
import pytest

from tests.serve.conftest import Server
from tests.serve.test_tools import caller, models

pytestmark = pytest.mark.xdist_group("serve")
__all__ = ["caller", "models"]

HELLO: Any = [{"role": "user", "content": "hello"}]
RESPONSES, MESSAGES, OLLAMA, GENERATE = "/v1/responses", "/v1/messages", "/api/chat", "/api/generate"

Model = dict[str, str]


def ask(server: Server, path: str, model: str, more: dict[str, Any]) -> httpx2.Response:
    usual: dict[str, Any] = {"input": "hello"} if path == RESPONSES else {"messages": HELLO}
    usual |= {"max_tokens": 3} if path == MESSAGES else {}
    if path in (OLLAMA, GENERATE):
        usual |= {"stream": False}
    return server.post(path, {"model": model, **usual, **more})


def said(role: str, **more: Any) -> Any:
    return {"messages": [{"role": role, **more}]}


PART = {"type": "input_text", "text": "x"}

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (RESPONSES, {"input": [{"role": "user", "content": "x", "name": "bob"}]}, "input.0.name"),
    (
        RESPONSES,
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x", "zz": 1}]}]},
        "content.0.zz",
    ),
    (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_image", "text": "x"}]}]}, "no text"),
    (RESPONSES, {"input": [*HELLO, {"type": "reasoning", "encrypted_content": "abc"}]}, "encrypted_content"),
    (RESPONSES, {"metadata": "x"}, "metadata"),
    (RESPONSES, {"reasoning": {"effort": "low"}}, "`reasoning.effort`: this model"),
    (MESSAGES, said("user", content=[{"type": "text", "text": "x", "zz": 1}]), "messages.0.content.0.zz"),
    (MESSAGES, {"system": [{"type": "text", "text": "x", "zz": 1}]}, "system.zz"),
    (MESSAGES, {"metadata": 5}, "metadata"),
    (OLLAMA, said("user", content="x", name="bob"), "does not read the `name`"),
    (OLLAMA, {"options": {"num_keep": 3}}, "options.num_keep"),
    (OLLAMA, {"options": {"num_thread": "all"}}, "options.num_thread"),
    (OLLAMA, {"options": {"use_mmap": 1}}, "options.use_mmap"),
    (GENERATE, {"messages": None, "prompt": "x", "raw": True, "think": True}, "think"),
    (GENERATE, {"messages": None, "prompt": "x", "raw": True, "options": {"num_ctx": 1 << 20}}, "the context is"),
    ("/tokenize", said("user", content="x", name="bob"), "does not read the `name`"),
]


@pytest.mark.parametrize(("path", "more", "told"), REFUSED)
def test_what_would_be_ignored_is_refused(
    caller: Server, models: Model, path: str, more: dict[str, Any], told: str
) -> None:
    answer = ask(caller, path, models["hermes"], more)
    assert answer.status_code == 400, answer.text
    assert told in json.dumps(answer.json(), ensure_ascii=False)


def test_what_programs_send_beside_is_taken(caller: Server, models: Model) -> None:
    text = {"type": "output_text", "text": "Yes.", "annotations": [], "logprobs": []}
    back: Any = [
        {
            "type": "reasoning",
            "id": "r",
            "summary": [{"type": "summary_text", "text": "Hm."}],
            "encrypted_content": None,
        },
        {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [text]},
        {"role": "user", "content": [{"type": "input_text", "text": "And?"}]},
    ]
    cached = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
    use = {"type": "tool_use", "id": "c", "name": "weather", "input": {"city": "Paris"}, "caller": None}
    result = {"type": "tool_result", "tool_use_id": "c", "content": [cached], "is_error": True}
    turns = [{"role": "user", "content": [cached]}, {"role": "assistant", "content": [use]}]
    taken: list[tuple[str, dict[str, Any]]] = [
        (RESPONSES, {"include": ["reasoning.encrypted_content"], "input": [*HELLO, *back]}),
        (MESSAGES, {"system": [cached], "messages": [*turns, {"role": "user", "content": [result]}]}),
        (OLLAMA, {"options": {"num_keep": 4, "num_thread": 8, "use_mmap": True, "num_gpu": 1.0}}),
    ]
    for path, more in taken:
        answer = ask(caller, path, models["hermes"], more)
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("path", "more", "field"),
    [
        (MESSAGES, {"thinking": {"type": "enabled", "budget_tokens": 5}}, "thinking"),
        (OLLAMA, {"think": True}, "think"),
        (OLLAMA, {"think": "high"}, "think"),
        (MESSAGES, {"output_config": {"effort": "low"}}, "output_config.effort"),
        ("/v1/chat/completions", {"reasoning_effort": "low"}, "reasoning_effort"),
    ],
)
def test_a_model_that_cannot_think_says_so_in_the_words_of_the_request(
    server: Server, tiny: Any, path: str, more: dict[str, Any], field: str
) -> None:
    answer = ask(server, path, str(tiny), more)
    assert answer.status_code == 400
    assert f"`{field}`" in answer.text or field == "reasoning_effort"
    assert "--think" not in answer.text


@pytest.mark.parametrize("path", ["/v1/chat/completions", MESSAGES, OLLAMA, "/tokenize", "/v1/embeddings"])
def test_a_body_that_is_packed_is_refused(caller: Server, path: str) -> None:
    for body in (b"{}", gzip.compress(b"{}")):
        answer = caller.post_bytes(path, body, **{"content-encoding": "gzip"})
        assert answer.status_code == 415
        assert "encoding is `gzip`" in answer.text
    assert caller.post_bytes(path, b"{}", **{"content-encoding": "identity"}).status_code == 400
