"""Prompts that people really write, by kind of task: our own, or those of a file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from localinfer.errors import UsageError
from localinfer.formats.json_files import read_bytes, shown

TASKS = ("code-edit", "summary", "retrieval", "chat", "new-code")
_LIMIT = 16 << 20


@dataclass(frozen=True, slots=True)
class TaskPrompt:
    """One prompt and the kind of task that it is."""

    task: str
    prompt: str


def parse_tasks(words: Sequence[str]) -> list[str]:
    """`["code-edit,chat"]` or `["all"]` as names of tasks, each once. Raises `UsageError` for anything else."""
    names = list(dict.fromkeys(part.strip() for word in words for part in word.split(",") if part.strip()))
    if names == ["all"]:
        return list(TASKS)
    wrong = next((name for name in names if name not in TASKS), None)
    if wrong is not None:
        raise UsageError(f"`{wrong[:40]}` is no task", hint=f"choose among {', '.join(TASKS)}, or `all`")
    return names


def bundled_prompts(tasks: Sequence[str], most: int = 10) -> list[TaskPrompt]:
    """The first `most` of our own prompts for each of `tasks`."""
    folder = resources.files("localinfer.bench") / "prompts"
    found = []
    for task in tasks:
        lines = (folder / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
        found += [TaskPrompt(task, json.loads(line)["prompt"]) for line in lines[:most]]
    return found


def prompts_of(path: Path) -> list[TaskPrompt]:
    """Those of a file: an object a line, with `prompt` and, if there are kinds, `task`. Raises `UsageError`."""
    found = []
    try:
        lines = read_bytes(path, _LIMIT).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 at byte {error.start}", hint="give JSON lines") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            task, prompt = value.get("task", "prompts"), value["prompt"]
            if not (isinstance(task, str) and isinstance(prompt, str) and prompt):
                raise TypeError("not text")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(
                f"{path}:{number}: {shown(line)} is no prompt", hint='a line looks like {"task": "chat", "prompt": "…"}'
            ) from error
        found.append(TaskPrompt(task, prompt))
    if not found:
        raise UsageError(f"{path}: holds no prompt", hint='write lines like {"task": "chat", "prompt": "…"}')
    return found
