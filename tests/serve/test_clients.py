"""The other protocols, each by its makers' own client: Anthropic's, Ollama's, and OpenAI's responses."""

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import anthropic
import ollama
import openai
import pytest

from tests.serve.conftest import PATIENCE_S, Server
from tests.serve.scripts import BROKEN
from tests.serve.test_tools import CITY, CLOSED, WEATHER, caller, models

pytestmark = pytest.mark.xdist_group("serve")
__all__ = ["caller", "models"]

QUESTION = "How is the weather in Paris?"
SAID = ("The user greets me.", "Good day.")


class TestAnthropic:
    TOOL: ClassVar[Any] = {"name": "weather", "description": "Of a city.", "input_schema": CITY}

    @pytest.fixture
    def client(self, caller: Server) -> Iterator[anthropic.Anthropic]:
        with anthropic.Anthropic(base_url=caller.url, api_key="x", max_retries=0, timeout=PATIENCE_S) as found:
            yield found

    def test_text_and_thinking(self, client: Any, models: dict[str, str]) -> None:
        asked: Any = {"model": models["hermes"], "max_tokens": 50, "system": "Be brief."}
        asked["messages"] = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
        whole = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            streamed = stream.get_final_message()
        for message in (whole, streamed):
            thinking, text = message.content
            assert thinking.type == "thinking"
            assert text.type == "text"
            assert (thinking.thinking, text.text) == SAID
            assert message.stop_reason == "end_turn"
            assert message.usage.output_tokens == 7
            cached = message.usage.cache_read_input_tokens or 0
            counted = client.messages.count_tokens(**{key: asked[key] for key in ("model", "system", "messages")})
            assert message.usage.input_tokens + cached == counted.input_tokens

    def test_a_call_and_its_result(self, client: Any, models: dict[str, str]) -> None:
        asked: Any = {"model": models["lfm2"], "max_tokens": 50, "tools": [self.TOOL]}
        messages: list[Any] = [{"role": "user", "content": QUESTION}]
        whole = client.messages.create(**asked, messages=messages)
        with client.messages.stream(**asked, messages=messages) as stream:
            streamed = stream.get_final_message()
        for message in (whole, streamed):
            (call,) = message.content
            assert call.type == "tool_use"
            assert (call.name, call.input, message.stop_reason) == ("weather", {"city": "Paris"}, "tool_use")
        result = {"type": "tool_result", "tool_use_id": whole.content[0].id, "content": "sunny"}
        messages += [{"role": "assistant", "content": whole.content}, {"role": "user", "content": [result]}]
        last = client.messages.create(**asked, messages=messages)
        assert [block.text for block in last.content if block.type == "text"] == ["It is sunny in Paris."]

    @pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "weather"}], ids=str)
    def test_a_forced_call(self, client: Any, models: dict[str, str], choice: Any) -> None:
        tool = {"name": "weather", "input_schema": CLOSED}
        asked: Any = {"model": models["broken"], "max_tokens": 100, "tools": [tool], "tool_choice": choice}
        message = client.messages.create(**asked, messages=[{"role": "user", "content": QUESTION}])
        assert [block.name for block in message.content] == ["weather"]

    def test_limits_stops_and_refusals(self, client: Any, models: dict[str, str]) -> None:
        asked: Any = {"model": models["hermes"], "messages": [{"role": "user", "content": "x"}]}
        asked["extra_body"] = {"temperature": 0}
        assert client.messages.create(**asked, max_tokens=3).stop_reason == "max_tokens"
        stopped = client.messages.create(**asked, max_tokens=50, stop_sequences=["day"])
        assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "day")
        with pytest.raises(anthropic.BadRequestError, match="thinking"):
            client.messages.create(**asked, max_tokens=50, thinking={"type": "enabled"})
        with pytest.raises(anthropic.BadRequestError, match="reasoning_effort"):
            client.messages.create(**asked, max_tokens=50, output_config={"effort": "low"})
        picture: Any = [{"type": "image", "source": {"type": "url", "url": "x"}}]
        with pytest.raises(anthropic.BadRequestError, match=r"messages\.0\.content"):
            client.messages.create(**asked | {"messages": [{"role": "user", "content": picture}]}, max_tokens=5)
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(**asked | {"model": "nobody"}, max_tokens=5)

    def test_what_coding_agents_send_beside(self, client: Any, models: dict[str, str]) -> None:
        asked: Any = {"model": models["hermes"], "max_tokens": 50, "thinking": {"type": "adaptive"}}
        system = {"role": "system", "content": "A word from outside."}
        asked["messages"] = [{"role": "user", "content": QUESTION}, system]
        edits = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
        more: Any = {"temperature": 0, "context_management": edits}
        message = client.messages.create(**asked, output_config={"effort": "high"}, extra_body=more)
        assert [block.text for block in message.content if block.type == "text"] == [SAID[1]]
        more["context_management"] = {"edits": [{"type": "clear_tool_uses_20250919"}]}
        with pytest.raises(anthropic.BadRequestError, match="context_management"):
            client.messages.create(**asked, extra_body=more)

    def test_a_budget_of_thinking(self, client: Any, models: dict[str, str]) -> None:
        """The thinker would think four tokens; it is made to end after so many, and answers then."""
        asked: Any = {"model": models["thinker"], "messages": [{"role": "user", "content": "x"}], "max_tokens": 50}
        asked["extra_body"] = {"temperature": 0}
        for budget, thought in ((1024, "The user greets me."), (2, "The user ")):
            message = client.messages.create(**asked, thinking={"type": "enabled", "budget_tokens": budget})
            assert [block.type for block in message.content] == ["thinking", "text"]
            assert message.content[0].thinking.rstrip() == thought.rstrip()
            assert message.content[1].text == "Good day."
        silent = client.messages.create(**asked, thinking={"type": "disabled"})
        assert [block.text for block in silent.content] == ["It is sunny in Paris."]


class TestOllama:
    TOOL: ClassVar[Any] = WEATHER
    COLD: ClassVar[Any] = {"temperature": 0}

    @pytest.fixture
    def client(self, caller: Server) -> Iterator[ollama.Client]:
        with ollama.Client(host=caller.url, timeout=PATIENCE_S) as found:
            yield found

    def test_a_chat(self, client: Any, models: dict[str, str]) -> None:
        messages = [{"role": "user", "content": QUESTION}]
        whole = client.chat(models["hermes"], messages=messages, options=self.COLD)
        assert (whole.message.thinking, whole.message.content) == SAID
        assert (whole.done, whole.done_reason, whole.eval_count) == (True, "stop", 7)
        pieces = list(client.chat(models["hermes"] + ":latest", messages=messages, options=self.COLD, stream=True))
        assert "".join(piece.message.content or "" for piece in pieces) == SAID[1]
        assert "".join(piece.message.thinking or "" for piece in pieces) == SAID[0]
        assert [piece.done for piece in pieces][-2:] == [False, True]
        assert pieces[-1].prompt_eval_count == whole.prompt_eval_count

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_call_and_its_result(self, client: Any, models: dict[str, str], stream: bool) -> None:
        asked: Any = {"model": models["mistral"], "tools": [self.TOOL], "options": self.COLD}
        messages: list[Any] = [{"role": "user", "content": QUESTION}]
        answer: Any = client.chat(**asked, messages=messages, stream=stream)
        found = [one.message for one in answer if one.message.tool_calls] if stream else [answer.message]
        (call,) = found[0].tool_calls
        assert (call.function.name, call.function.arguments) == ("weather", {"city": "Paris"})
        messages += [found[0], {"role": "tool", "tool_name": "weather", "content": "sunny"}]
        assert client.chat(**asked, messages=messages).message.content == "It is sunny in Paris."

    def test_one_prompt(self, client: Any, models: dict[str, str]) -> None:
        model = models["hermes"]
        asked: Any = {"model": model, "prompt": "x", "system": "Be brief.", "options": self.COLD}
        whole = client.generate(**asked)
        assert (whole.thinking, whole.response, whole.done_reason) == (*SAID, "stop")
        assert "".join(piece.response for piece in client.generate(**asked, stream=True)) == SAID[1]
        raw = client.generate(model, prompt="assistant\t", raw=True, options=self.COLD)
        assert raw.response == "<think>\nThe user greets me.\n</think>\n\nGood day."
        limited = client.generate(**asked | {"options": {"temperature": 0, "num_predict": 2}})
        assert (limited.eval_count, limited.done_reason) == (2, "length")

    def test_models_and_keeping_them(self, client: Any, models: dict[str, str], caller: Server) -> None:
        listed = client.list().models
        assert {one.model for one in listed} == set(models.values())
        assert all(len(one.digest) == 64 and int(one.digest, 16) for one in listed)
        assert len({one.digest for one in listed}) == len(listed)
        assert {(one.details.family, one.details.quantization_level) for one in listed} == {("llama", "BF16")}
        assert all(one.details.parameter_size.endswith("M") for one in listed)
        assert caller.get("/api/version").json()["version"]
        assert client.generate(models["llama3"], keep_alive=60).done_reason == "load"
        assert client.chat(models["llama3"], messages=[]).done

    def test_refusals(self, client: Any, models: dict[str, str]) -> None:
        messages = [{"role": "user", "content": "x"}]
        asked: Any = {"model": models["hermes"], "messages": messages}
        for more in ({"options": {"num_ctx": 1 << 20}}, {"options": {"mirostat": 2}}, {"format": {"type": 5}}):
            with pytest.raises(ollama.ResponseError) as caught:
                client.chat(**asked, **more)
            assert caught.value.status_code == 400
        with pytest.raises(ollama.ResponseError, match="not served"):
            client.chat("nobody", messages=messages)


class TestResponses:
    TOOL: ClassVar[Any] = {"type": "function", "strict": True, **WEATHER["function"]}

    @pytest.fixture
    def client(self, caller: Server) -> Iterator[openai.OpenAI]:
        with openai.OpenAI(base_url=f"{caller.url}/v1", api_key="x", max_retries=0, timeout=PATIENCE_S) as found:
            yield found

    def test_text_and_reasoning(self, client: Any, models: dict[str, str]) -> None:
        asked: Any = {"model": models["hermes"], "input": QUESTION, "instructions": "Be brief.", "temperature": 0}
        whole = client.responses.create(**asked)
        with client.responses.stream(**asked) as stream:
            kinds = [event.type for event in stream]
            streamed = stream.get_final_response()
        for response in (whole, streamed):
            assert response.output_text == SAID[1]
            thought = response.output[0]
            assert thought.type == "reasoning"
            assert [part.text for part in thought.content or []] == [SAID[0]]
            assert response.status == "completed"
            assert response.usage is not None
            assert response.usage.output_tokens == 7
        assert kinds[:2] == ["response.created", "response.in_progress"]
        assert kinds[-1] == "response.completed"
        assert kinds.count("response.output_text.delta") > 1

    def test_scores_of_the_text_alone(self, client: Any, models: dict[str, str]) -> None:
        asked: Any = {"model": models["thinker"], "input": QUESTION, "temperature": 0, "top_logprobs": 2}
        asked["include"] = ["message.output_text.logprobs"]
        whole = client.responses.create(**asked)
        with client.responses.stream(**asked) as stream:
            deltas = [event for event in stream if event.type == "response.output_text.delta"]
            streamed = stream.get_final_response()
        for response in (whole, streamed):
            (part,) = response.output[-1].content
            assert part.text == "Good day."
            assert [one.token for one in part.logprobs] == ["\n\n", "Good ", "day."]
            assert [len(one.top_logprobs) for one in part.logprobs] == [2] * 3
            assert all(one.logprob <= 0 for one in part.logprobs)
        assert [one.token for event in deltas for one in event.logprobs] == ["\n\n", "Good ", "day."]
        told = client.responses.create(**asked | {"include": [], "top_logprobs": None}).output[-1].content[0]
        assert told.logprobs == []
        with pytest.raises(openai.BadRequestError, match="include"):
            client.responses.create(**asked | {"include": ["file_search_call.results"]})

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_call_and_its_result(self, client: Any, models: dict[str, str], stream: bool) -> None:
        asked: Any = {"model": models["functiongemma"], "tools": [self.TOOL], "temperature": 0}
        said: list[Any] = [{"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}]
        if stream:
            with client.responses.stream(**asked, input=said) as events:
                first = events.get_final_response()
        else:
            first = client.responses.create(**asked, input=said)
        (call,) = first.output
        assert call.type == "function_call"
        assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Paris"})
        said += [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in first.output]
        said.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
        assert client.responses.create(**asked, input=said).output_text == "It is sunny in Paris."

    @pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "weather"}], ids=str)
    def test_a_forced_call(self, client: Any, models: dict[str, str], choice: Any) -> None:
        tool = {**self.TOOL, "parameters": CLOSED}
        asked: Any = {"model": models["broken"], "tools": [tool], "tool_choice": choice, "max_output_tokens": 100}
        assert [item.name for item in client.responses.create(**asked, input=QUESTION).output] == ["weather"]

    def test_a_broken_call_is_text(self, client: Any, models: dict[str, str]) -> None:
        asked: Any = {"model": models["broken"], "tools": [self.TOOL], "input": "x", "temperature": 0}
        assert client.responses.create(**asked).output_text == "".join(BROKEN)

    def test_limits_and_refusals(self, client: Any, models: dict[str, str]) -> None:
        asked: Any = {"model": models["hermes"], "input": "x", "temperature": 0}
        cut = client.responses.create(**asked, max_output_tokens=3)
        assert cut.status == "incomplete"
        assert cut.incomplete_details is not None
        assert cut.incomplete_details.reason == "max_output_tokens"
        refused: list[dict[str, Any]] = [
            {"store": True},
            {"previous_response_id": "resp_1"},
            {"tools": [{"type": "web_search"}]},
            {"text": {"format": {"type": "xml"}}},
            {"background": True},
        ]
        for more in refused:
            with pytest.raises(openai.BadRequestError) as caught:
                client.responses.create(**asked, **more)
            assert (caught.value.param or "").split(".")[0] == next(iter(more))
