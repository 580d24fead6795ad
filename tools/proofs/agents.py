"""Coding agents that others wrote, each with a task: a file is to be written.

    pip install mini-swe-agent
    npm install @anthropic-ai/claude-code opencode-ai
    python -m tools.proofs.agents FOLDER --path DIR_OF_PROGRAMS [--path …]

The model is a scripted one (tests/scripted.py): it calls the agent's tool for commands once, then ends. So what is
shown is that an agent's requests are taken, and calls, results and streams understood, over OpenAI's protocol
(mini-swe-agent, opencode) and Anthropic's (claude). The server runs as a process of its own. Exit code 1 where an agent
fails; one that is not installed is named.
"""

import argparse
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.scripted import make_scripted
from tests.serve.conftest import serving

WRITES = "echo it works > written.txt"
TEMPLATE = (
    "{% for tool in tools or [] %}<tool_call>{{ tool.function.description[:64] }}{% endfor %}{{ messages | length }}"
    "{% for message in messages %}{% for call in message.tool_calls or [] %}{{ call.function.name }}{% endfor %}"
    "{% endfor %}"
    "<|im_start|>assistant{{ ' ' if messages[-1]['role'] == 'tool' else '\n' if tools else '\t' }}"
)
"""What is asked does not matter to it, but for whether there are tools and a result."""


@dataclass(frozen=True)
class Agent:
    """A program, the tool with which it runs commands, how that is asked for, and how the task ends."""

    program: str
    tool: str
    arguments: Mapping[str, Any]
    then: str
    """What the model says when the command has run: text, or another call."""
    run: Callable[[str, str, Path], tuple[list[str], dict[str, str]]]
    """The command line and variables for a server's address, a model and a home."""


def _call(tool: str, arguments: Mapping[str, Any]) -> str:
    return "<tool_call>\n" + json.dumps({"name": tool, "arguments": dict(arguments)}) + "\n</tool_call>"


def _mini(url: str, model: str, home: Path) -> tuple[list[str], dict[str, str]]:
    words = ["-m", f"openai/{model}", "-t", "Write a file.", "--yolo", "--exit-immediately", "-o", str(home / "said")]
    costs = {"MSWEA_COST_TRACKING": "ignore_errors", "MSWEA_CONFIGURED": "true", "MSWEA_SILENT_STARTUP": "1"}
    return words, costs | {"OPENAI_API_KEY": "none", "OPENAI_API_BASE": f"{url}/v1"}


def _claude(url: str, model: str, home: Path) -> tuple[list[str], dict[str, str]]:
    words = ["-p", "Write a file.", "--model", model, "--allowedTools", "Bash", "--output-format", "json"]
    names = ("ANTHROPIC_SMALL_FAST_MODEL", "ANTHROPIC_DEFAULT_HAIKU_MODEL")
    quiet = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"}
    return words, {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_AUTH_TOKEN": "none", **dict.fromkeys(names, model), **quiet}


def _opencode(url: str, model: str, home: Path) -> tuple[list[str], dict[str, str]]:
    options = {"baseURL": f"{url}/v1", "apiKey": "none"}
    provider = {"npm": "@ai-sdk/openai-compatible", "options": options, "models": {model: {}}}
    config = {"provider": {"here": provider}, "share": "disabled", "autoupdate": False, "permission": "allow"}
    (home / "opencode.json").write_text(json.dumps(config), encoding="utf-8")
    words = ["run", "--model", f"here/{model}", "Write a file."]
    return words, {"OPENCODE_CONFIG": str(home / "opencode.json"), "OPENCODE_DISABLE_MODELS_FETCH": "1"}


_DESCRIBED = {"command": WRITES, "description": "Writes a file"}
AGENTS = {
    "mini-swe-agent": Agent(
        "mini",
        "bash",
        {"command": WRITES},
        _call("bash", {"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"}),
        _mini,
    ),
    "claude-code": Agent("claude", "Bash", _DESCRIBED, "It is written.", _claude),
    "opencode": Agent("opencode", "bash", _DESCRIBED, "It is written.", _opencode),
}


def make_model(path: Path, agent: Agent) -> Path:
    scripts = {"\n": [_call(agent.tool, agent.arguments)], " ": [agent.then], "\t": ["A file"]}
    return make_scripted(path, scripts, TEMPLATE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Where models and homes are made.")
    parser.add_argument("--path", action="append", default=[], help="A folder of programs, before those of PATH.")
    asked = parser.parse_args()
    path = os.pathsep.join([*asked.path, os.environ["PATH"]])
    failed = False
    models = {name: make_model(asked.folder / "models" / name, agent) for name, agent in AGENTS.items()}
    with serving(asked.folder, *map(str, models.values()), "--draft", "off") as server:
        for name, agent in AGENTS.items():
            program = shutil.which(agent.program, path=path)
            if program is None:
                print(f"{name} is not installed")
                continue
            home = asked.folder / "homes" / name
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir(parents=True)
            words, more = agent.run(server.url, str(models[name]), home)
            environment = {**os.environ, "HOME": str(home), "PWD": str(home), "PATH": path, **more}
            environment.pop("PYTHONPATH", None)
            asks = {"cwd": home, "env": environment, "timeout": 240, "stdin": subprocess.DEVNULL}
            try:
                ran = subprocess.run([program, *words], capture_output=True, text=True, check=False, **asks)
                told = f"exit code {ran.returncode}\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"
            except subprocess.TimeoutExpired as error:
                told = f"no end after {error.timeout} s\n{error.stdout!r}\n{error.stderr!r}"
            written = home / "written.txt"
            works = written.is_file() and written.read_text(encoding="utf-8") == "it works\n"
            failed = failed or not works
            print(f"{name}: " + ("the file is written" if works else f"FAILED, {told}"), flush=True)
        print("".join(server.log))
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
