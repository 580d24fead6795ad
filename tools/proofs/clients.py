"""Programs that others wrote, against a server that runs:

    pip install llm litellm langchain-openai 'pydantic-ai-slim[openai]'
    localinfer serve starter --port 8080 &
    python -m tools.proofs.clients http://127.0.0.1:8080 starter

Each client says a few words, whole and streamed; `langchain-openai` and `pydantic-ai` lead an agent to a tool and back,
where the model calls one (the scripted model of tests/serve/scripts.py does: `--agent NAME`). A client that is not
installed is named. Exit code 1 where one fails.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PROMPT = "Name three rivers."
QUESTION = "How is the weather in Paris?"


@dataclass(frozen=True)
class Served:
    """The server, a model that speaks, and one that calls `weather`, if there is one."""

    url: str
    model: str
    agent: str


def by_llm(served: Served) -> str:
    """The command `llm`, with the model in its own list of OpenAI-compatible ones."""
    with tempfile.TemporaryDirectory() as home:
        row = f"- model_id: here\n  model_name: {served.model}\n  api_base: {served.url}/v1\n  supports_schema: true\n"
        (Path(home) / "extra-openai-models.yaml").write_text(row, encoding="utf-8")
        environment = {**os.environ, "LLM_USER_PATH": home, "OPENAI_API_KEY": "none"}

        def llm(*words: str) -> str:
            command = [sys.executable, "-m", "llm", *words]
            return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

        options = ("-o", "seed", "7", "-o", "max_tokens", "24", "-o", "temperature", "0")
        streamed = llm("-m", "here", PROMPT, *options)
        whole = llm("-m", "here", "--no-stream", PROMPT, *options)
        assert streamed.strip() == whole.strip() != "", (streamed, whole)
        schema = llm("-m", "here", PROMPT, "--schema", "name, length int", "-o", "max_tokens", "60")
        assert schema.lstrip().startswith("{"), schema
        return whole.strip()


def by_litellm(served: Served) -> str:
    litellm = import_module("litellm")
    asked: Any = {"model": f"openai/{served.model}", "api_base": f"{served.url}/v1", "api_key": "none", "seed": 7}
    asked |= {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 24, "temperature": 0}
    whole: Any = litellm.completion(**asked)
    text = str(whole.choices[0].message.content)
    pieces: Any = litellm.completion(**asked, stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == text != ""
    other = {**asked, "model": f"anthropic/{served.model}", "api_base": served.url}
    other.pop("seed")
    again: Any = litellm.completion(**other)
    assert again.choices[0].message.content == text
    return text


def by_langchain(served: Served) -> str:
    """A tool and its result, in turns of our own."""
    messages, tools = import_module("langchain_core.messages"), import_module("langchain_core.tools")
    langchain_openai = import_module("langchain_openai")

    def weather(city: str) -> str:
        """The weather of a city."""
        return f"sunny in {city}"

    tool = tools.tool(weather)
    asked: Any = {"base_url": f"{served.url}/v1", "api_key": "none", "temperature": 0, "max_tokens": 24}
    plain = langchain_openai.ChatOpenAI(model=served.model, **asked)
    text = str(plain.invoke(PROMPT).content)
    assert "".join(str(piece.content) for piece in plain.stream(PROMPT)) == text != ""
    if not served.agent:
        return text
    bound = langchain_openai.ChatOpenAI(model=served.agent, **asked).bind_tools([tool])
    said: list[Any] = [messages.HumanMessage(QUESTION)]
    first = bound.invoke(said)
    (call,) = first.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Paris"}), call
    said += [first, messages.ToolMessage(tool.invoke(call["args"]), tool_call_id=call["id"])]
    return f"{text} / {bound.invoke(said).content}"


def by_pydantic_ai(served: Served) -> str:
    """An agent's own loop with a tool, over chat completions and over responses."""
    agents, models = import_module("pydantic_ai"), import_module("pydantic_ai.models.openai")
    providers = import_module("pydantic_ai.providers.openai")
    provider = providers.OpenAIProvider(base_url=f"{served.url}/v1", api_key="none")
    said = []
    for kind in (models.OpenAIChatModel, models.OpenAIResponsesModel):
        plain = agents.Agent(kind(served.model, provider=provider), model_settings={"max_tokens": 24})
        text = str(plain.run_sync(PROMPT).output)
        assert text
        if served.agent:
            asked = list[str]()
            agent = agents.Agent(kind(served.agent, provider=provider), model_settings={"temperature": 0})

            def weather(city: str, asked: list[str] = asked) -> str:
                """The weather of a city."""
                asked.append(city)
                return f"sunny in {city}"

            agent.tool_plain(lambda city: weather(city), name="weather", description="The weather of a city.")
            text = str(agent.run_sync(QUESTION).output)
            assert asked == ["Paris"], asked
        said.append(text)
    return " / ".join(said)


CLIENTS: dict[str, Callable[[Served], str]] = {
    "llm": by_llm,
    "litellm": by_litellm,
    "langchain-openai": by_langchain,
    "pydantic-ai-slim": by_pydantic_ai,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--agent", default="", help="A model that calls `weather`.")
    asked = parser.parse_args()
    served, failed = Served(asked.url, asked.model, asked.agent), False
    for name, client in CLIENTS.items():
        try:
            told = f"{name} {version(name)}: {client(served)!r}"
        except PackageNotFoundError:
            told = f"{name} is not installed"
        except Exception:
            failed, told = True, f"{name} FAILED\n{traceback.format_exc()}"
        print(told, flush=True)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
