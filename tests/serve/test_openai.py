"""OpenAI's own client, against a server in a process of its own."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import openai
import pytest

from localinfer.chats.chat import Chat
from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.opening import open_engine
from localinfer.events import Text
from tests.serve.conftest import PATIENCE_S, Server, until

pytestmark = pytest.mark.xdist_group("serve")

Messages = list[dict[str, Any]]
HELLO: Any = [{"role": "user", "content": "hello there"}]


def client_of(server: Server, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=PATIENCE_S)


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return client_of(server)


def said_by(path: Path, prompt: str, *, system: str | None = None, raw: bool = False, **sampling: Any) -> str:
    """What `run` answers."""
    with open_engine(path, EngineConfig(draft="off")) as engine:
        chat = Chat(engine, system=system, sampling=SamplingParams(**sampling), raw=raw)
        return "".join(event.text for event in chat.reply(prompt) if isinstance(event, Text))


def test_a_chat_is_what_run_says(client: openai.OpenAI, tiny: Path) -> None:
    model = str(tiny)
    wanted = said_by(tiny, "hello there", system="Be brief.", temperature=1.5, top_k=0, top_p=1, seed=7, max_tokens=40)
    asked: Any = {"model": model, "seed": 7, "temperature": 1.5, "top_p": 1, "max_tokens": 40}
    asked |= {"messages": [{"role": "system", "content": "Be brief."}, *HELLO], "extra_body": {"top_k": 0}}
    whole = client.chat.completions.create(**asked)
    assert whole.choices[0].message.content == wanted
    assert whole.model == model
    pieces = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == wanted
    assert [piece.choices[0].finish_reason for piece in pieces if piece.choices][-1] == whole.choices[0].finish_reason
    counted = pieces[-1].usage
    assert counted is not None
    assert whole.usage is not None
    assert counted.completion_tokens == whole.usage.completion_tokens
    assert counted.prompt_tokens == whole.usage.prompt_tokens
    assert counted.prompt_tokens_details is not None
    assert counted.prompt_tokens_details.cached_tokens == counted.prompt_tokens // 32 * 32 > 0


def test_several_answers_have_seeds_one_after_the_other(client: openai.OpenAI, tiny: Path) -> None:
    asked: Any = {"model": str(tiny), "messages": HELLO, "temperature": 2, "max_tokens": 12}
    three = client.chat.completions.create(**asked, n=3, seed=5)
    alone = [client.chat.completions.create(**asked, seed=5 + index) for index in range(3)]
    texts = [choice.message.content for choice in three.choices]
    assert texts == [one.choices[0].message.content for one in alone]
    assert len(set(texts)) == 3
    streamed = [""] * 3
    for piece in client.chat.completions.create(**asked, n=3, seed=5, stream=True):
        streamed[piece.choices[0].index] += piece.choices[0].delta.content or ""
    assert streamed == texts
    assert three.usage is not None
    assert alone[0].usage is not None
    assert three.usage.prompt_tokens == alone[0].usage.prompt_tokens


def test_no_seed_is_another_one_each_time_and_is_logged(server: Server, client: openai.OpenAI, tiny: Path) -> None:
    asked: Any = {"model": str(tiny), "messages": HELLO, "temperature": 2, "max_tokens": 20}
    before = len(server.log)
    first, second = (client.chat.completions.create(**asked).choices[0].message.content for _ in range(2))
    assert first != second
    until(lambda: len(server.log) == before + 2)
    seed = int(server.log[-1].partition("seed ")[2].partition(",")[0])
    assert client.chat.completions.create(**asked, seed=seed).choices[0].message.content == second


def test_stop_strings_and_limits(client: openai.OpenAI, tiny: Path) -> None:
    asked: Any = {"model": str(tiny), "messages": HELLO, "temperature": 2, "seed": 3}
    text = client.chat.completions.create(**asked, max_tokens=40).choices[0].message.content or ""
    stop = text[5:8]
    stopped = client.chat.completions.create(**asked, stop=[stop], max_completion_tokens=40).choices[0]
    assert stopped.message.content == text[: text.index(stop)]
    assert stopped.finish_reason == "stop"
    assert stopped.model_extra == {"stop_reason": stop}
    limited = client.chat.completions.create(**asked, max_tokens=2)
    assert limited.choices[0].finish_reason == "length"
    assert limited.usage is not None
    assert limited.usage.completion_tokens == 2


def test_the_end_of_the_context_is_told(client: openai.OpenAI, tiny: Path) -> None:
    full = client.chat.completions.create(model=str(tiny), messages=HELLO, extra_body={"ignore_eos": True})
    assert full.choices[0].finish_reason == "length"
    assert full.usage is not None
    assert full.usage.total_tokens >= 512
    with pytest.raises(openai.BadRequestError, match=r"\d+ tokens.*512") as caught:
        client.chat.completions.create(model=str(tiny), messages=[{"role": "user", "content": "word " * 900}])
    assert caught.value.code == "context_length_exceeded"


def test_texts_are_gone_on_with_as_they_are(client: openai.OpenAI, tiny: Path) -> None:
    wanted = said_by(tiny, "the cat", raw=True, temperature=0, max_tokens=16)
    done = client.completions.create(model=str(tiny), prompt="the cat", temperature=0)
    assert done.choices[0].text == wanted
    several: Any = ["the cat", [1, 2, 3]]
    many = client.completions.create(model=str(tiny), prompt=several, n=2, temperature=0, max_tokens=16)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in many.choices[:2]] == [wanted] * 2
    stream = client.completions.create(model=str(tiny), prompt="the cat", temperature=0, stream=True)
    assert "".join(piece.choices[0].text for piece in stream) == wanted


def test_models_are_listed_and_others_refused(client: openai.OpenAI, tiny: Path) -> None:
    assert [model.id for model in client.models.list()] == [str(tiny)]
    assert client.models.retrieve(str(tiny)).id == str(tiny)
    for name in ("nobody", str(tiny.parent), "../tiny"):
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model=name, messages=HELLO)


CALL: Any = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
REFUSED = [
    ({"logprobs": 3}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"presence_penalty": 2.5}, "presence_penalty"),
    ({"frequency_penalty": "much"}, "frequency_penalty"),
    ({"logit_bias": {"5": 101}}, "logit_bias"),
    ({"logit_bias": {"five": 1}}, "logit_bias"),
    ({"logit_bias": [5]}, "logit_bias"),
    ({"xtc_probability": 1.5}, "xtc_probability"),
    ({"n": 0}, "n"),
    ({"n": 1.5}, "n"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": "high"}, "top_p"),
    ({"seed": -5}, "seed"),
    ({"stop": [""]}, "stop"),
    ({"stop": ["\ud800"]}, "stop"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"more": 1}}, "stream_options.more"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": "perhaps"}, "tool_choice"),
    ({"functions": []}, "functions"),
    ({"temprature": 1}, "temprature"),
    ({"reasoning_effort": "low"}, "reasoning_effort"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "pirate", "content": "x"}]}, "messages.0"),
    ({"messages": [{"role": "user", "content": "x", "extra": 1}]}, "messages.0.extra"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages.0"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": 5}}}]}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": 5}}]}, "tools.0"),
    ({"model": ""}, "model"),
    ({"messages": [{"role": "user", "content": "x", "name": "bob"}]}, "messages"),
    ({"messages": [{"role": "system", "content": "x", "name": "bob"}, HELLO[0]]}, "messages"),
    ({"messages": [{"role": "user", "content": "x", "name": 5}]}, "messages.0"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "zz": 1}]}]}, "messages.0.content.0.zz"),
    ({"messages": [HELLO[0], {"role": "assistant", "tool_calls": [CALL | {"zz": 1}]}]}, "messages.1.tool_calls.0.zz"),
    ({"messages": [HELLO[0], {"role": "assistant", "tool_calls": [CALL | {"type": "custom"}]}]}, "messages.1"),
    ({"thinking_token_budget": 5}, "thinking_token_budget"),
    ({"thinking_budget_tokens": 5}, "thinking_budget_tokens"),
    ({"metadata": 5}, "metadata"),
    ({"user": ["me"]}, "user"),
    ({"prompt_cache_key": 5}, "prompt_cache_key"),
]


@pytest.mark.parametrize(("more", "field"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_not_supported_is_refused_by_name(server: Server, tiny: Path, more: dict[str, Any], field: str) -> None:
    body = json.dumps({"model": str(tiny), "messages": HELLO, **more}).encode()
    answer = server.post_bytes("/v1/chat/completions", body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == field
    assert error["type"] == "invalid_request_error"


def test_null_and_harmless_values_are_taken(server: Server, tiny: Path) -> None:
    harmless: dict[str, Any] = {
        "logprobs": None,
        "n": None,
        "presence_penalty": 0,
        "user": "me",
        "logit_bias": {},
        "stop": None,
    }
    body = {"model": str(tiny), "messages": HELLO, "max_tokens": 1, "tools": [], "store": False, **harmless}
    assert server.post("/v1/chat/completions", body).status_code == 200


def test_a_stream_tells_how_much_of_the_prompt_is_read(server: Server, tiny: Path) -> None:
    text = "word " * 150
    asked: Any = {"model": str(tiny), "max_tokens": 2, "stream": True, "return_progress": True}
    for path, more in (
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": text}]}),
        ("/v1/completions", {"prompt": text + "more"}),
    ):
        lines = server.post(path, asked | more).text.split("\n\n")
        rows = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        told = [row["prompt_progress"] for row in rows if "prompt_progress" in row]
        assert len(told) > 1
        assert all(set(one) == {"total", "cache", "processed", "time_ms"} for one in told)
        assert [one["processed"] for one in told] == sorted(one["processed"] for one in told)
        assert told[-1]["processed"] == told[-1]["total"]
        assert "prompt_progress" not in rows[-1]
    plain = server.post("/v1/chat/completions", asked | {"stream": False, "messages": HELLO})
    assert (plain.status_code, plain.json()["error"]["param"]) == (400, "return_progress")


def test_scores_whole_and_streamed(client: openai.OpenAI, tiny: Path) -> None:
    asked: Any = {"model": str(tiny), "messages": HELLO, "max_tokens": 6, "seed": 3, "extra_body": {"ignore_eos": True}}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=3).choices[0]
    assert whole.logprobs is not None
    assert whole.logprobs.content is not None
    assert [len(one.top_logprobs) for one in whole.logprobs.content] == [3] * 6
    spelled = b"".join(bytes(one.bytes or []) for one in whole.logprobs.content)
    assert spelled.decode("utf-8", "replace").rstrip("\ufffd") == (whole.message.content or "").rstrip("\ufffd")
    assert all(one.logprob < 0 for one in whole.logprobs.content)
    streamed = client.chat.completions.create(**asked, logprobs=True, top_logprobs=3, stream=True)
    pieces = [choice.logprobs.content or [] for chunk in streamed for choice in chunk.choices if choice.logprobs]
    assert [one for piece in pieces for one in piece] == whole.logprobs.content
    assert client.chat.completions.create(**asked).choices[0].logprobs is None


def test_prompts_are_scored_by_echo(client: openai.OpenAI, tiny: Path) -> None:
    text = "the cat sat"
    echoed = client.completions.create(model=str(tiny), prompt=[text, "abc"], max_tokens=0, echo=True, logprobs=1)
    assert [choice.text for choice in echoed.choices] == [text, "abc"]
    scores = echoed.choices[0].logprobs
    assert scores is not None
    assert scores.tokens is not None
    assert scores.token_logprobs is not None
    assert "".join(scores.tokens) == text
    assert scores.token_logprobs[0] is None
    assert all(one < 0 for one in scores.token_logprobs[1:])
    assert scores.text_offset == [len("".join(scores.tokens[:i])) for i in range(len(scores.tokens))]
    assert echoed.usage is not None
    other = echoed.choices[1].logprobs
    assert other is not None
    read = len(scores.tokens) + len(other.tokens or [])
    assert (echoed.usage.prompt_tokens, echoed.usage.completion_tokens) == (read, 0)
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=str(tiny), prompt=text, max_tokens=1, echo=True, logprobs=1)


def test_the_best_of_several(client: openai.OpenAI, tiny: Path) -> None:
    asked: Any = {"model": str(tiny), "prompt": "the cat", "max_tokens": 8, "seed": 5, "temperature": 1.5}
    asked["extra_body"] = {"ignore_eos": True}
    every = client.completions.create(**asked, n=5, logprobs=0).choices
    best = client.completions.create(**asked, n=2, best_of=5).choices
    means = {one.text: sum(one.logprobs.token_logprobs or []) for one in every if one.logprobs}
    assert [one.text for one in best] == sorted(means, key=lambda text: -means[text])[:2]
    assert best[0].logprobs is None
    with pytest.raises(openai.BadRequestError):
        client.completions.create(**asked, n=3, best_of=2)


def test_penalties_and_biases_change_the_answer(client: openai.OpenAI, server: Server, tiny: Path) -> None:
    def said(**more: Any) -> list[int]:
        text = client.completions.create(
            model=str(tiny), prompt="the cat", max_tokens=12, temperature=0, **more
        ).choices[0].text  # fmt: skip
        tokens: list[int] = server.post("/tokenize", {"model": str(tiny), "prompt": text}).json()["tokens"]
        return tokens

    assert said(logit_bias={"120": 100}) == [120] * 12  # letters are tokens here
    hindered = said(logit_bias={"120": 100}, frequency_penalty=2, extra_body={"ignore_eos": True})
    assert hindered == [120] * 12  # 24 of 100
    dry = said(logit_bias={"120": 50}, extra_body={"dry_multiplier": 100, "dry_allowed_length": 1})
    assert all(pair != (120, 120) for pair in pairwise(dry[2:]))
    beyond = server.post(
        "/v1/completions", {"model": str(tiny), "prompt": "x", "logit_bias": {"99999": 1}}
    )  # fmt: skip
    assert beyond.status_code == 400
    assert "99999" in beyond.json()["error"]["message"]


def test_tokens_there_and_back(server: Server, tiny: Path) -> None:
    found = server.post("/tokenize", {"model": str(tiny), "prompt": "the cat", "return_token_strs": True}).json()
    assert found["count"] == len(found["tokens"])
    assert "".join(found["token_strs"]) == "the cat"
    assert server.post("/detokenize", {"model": str(tiny), "tokens": found["tokens"]}).json() == {"prompt": "the cat"}
    chat = server.post("/tokenize", {"model": str(tiny), "messages": HELLO}).json()
    text = server.post("/detokenize", {"model": str(tiny), "tokens": chat["tokens"]}).json()["prompt"]
    assert text == "<|im_start|>user\nhello there<|im_end|>\n<|im_start|>assistant\n"
    assert server.post("/detokenize", {"model": str(tiny), "tokens": [-1]}).status_code == 400


def test_texts_become_vectors(client: openai.OpenAI, server: Server, tiny: Path) -> None:
    texts = ["the cat sat", "on the mat", "the cat sat"]
    found = client.embeddings.create(model=str(tiny), input=texts)
    vectors = [one.embedding for one in found.data]
    assert vectors[0] == vectors[2] != vectors[1]
    assert sum(value * value for value in vectors[0]) == pytest.approx(1)
    counts = [server.post("/tokenize", {"model": str(tiny), "prompt": text}).json()["count"] for text in texts]
    assert found.usage.prompt_tokens == sum(counts)
    plain = client.embeddings.create(model=str(tiny), input=texts[0], encoding_format="float").data[0].embedding
    assert plain == pytest.approx(vectors[0], abs=1e-6)
    short = client.embeddings.create(model=str(tiny), input=texts[0], dimensions=8).data[0].embedding
    assert len(short) == 8
    assert sum(value * value for value in short) == pytest.approx(1)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"input": ""}, "input"), ({"input": [1.5]}, "input"), ({"dimensions": 9999}, "dimensions"),
        ({"pool": "cls"}, "pool"), ({"input": "x" * 9000}, ""),
    ]  # fmt: skip
    for more, field in refused:
        answer = server.post("/v1/embeddings", {"model": str(tiny), "input": "x", **more})
        assert answer.status_code == 400
        assert field == "" or answer.json()["error"]["param"] == field


def test_ollama_is_told_the_scores_that_openai_is_told(server: Server, tiny: Path) -> None:
    messages = [{"role": "user", "content": "hello"}]
    same = {"model": str(tiny), "messages": messages, "logprobs": True, "top_logprobs": 2}
    ours = server.post("/v1/chat/completions", same | {"seed": 4, "temperature": 1, "max_tokens": 9}).json()
    wanted = ours["choices"][0]["logprobs"]["content"]
    options = {"seed": 4, "temperature": 1, "num_predict": 9}
    whole = server.post("/api/chat", same | {"options": options, "stream": False}).json()
    assert whole["logprobs"] == wanted
    streamed = server.post("/api/chat", same | {"options": options}).text.splitlines()
    assert [one for line in streamed for one in json.loads(line).get("logprobs", ())] == wanted
    plain = {"model": str(tiny), "prompt": "hello", "stream": False, "options": options}
    assert "logprobs" not in server.post("/api/generate", plain).json()
    assert server.post("/api/generate", plain | {"logprobs": True}).json()["logprobs"]
    assert server.post("/api/generate", plain | {"top_logprobs": 2}).status_code == 400
