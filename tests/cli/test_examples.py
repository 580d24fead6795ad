"""The examples of the help pages: every line is one that the program takes, and most are run."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localinfer.cli.app import single
from localinfer.cli.commands import ALIASES, COMMANDS
from localinfer.cli.examples import EXAMPLES
from tests.cli.conftest import Cli

SHELL = ("|", "<(", ">", "&&")
NOT_RUN = {
    "pull": "asks the network",
    "chat": "needs a terminal",
    "serve": "runs until it is stopped",
    "stop": "wants a server",
    "bench": "measures for a while",
    "draft train": "takes minutes",
    "localinfer quantize starter --bits 4": "calibrates on our own text",
    "localinfer quantize starter --bits 4 --calib notes.txt": "asks for a longer text",
    "localinfer eval starter:INT4 --against starter": "reads our own text",
    "localinfer eval starter:INT4 --against starter --tasks all --json": "answers for a while",
    "localinfer fit Qwen/Qwen3-8B --kv-bits 4": "asks the network",
    "localinfer doctor starter": "measures the machine, and reads our own text",
    "localinfer doctor --json": "measures the machine",
    "localinfer doctor --recalibrate": "measures the machine",
    "localinfer rm starter:INT4": "asks first",
    "localinfer draft rm starter": "wants a drafter",
    "localinfer draft rm starter --json": "wants a drafter",
}
"""Commands and lines that are only read here, and why; other tests run them."""


def lines() -> list[tuple[str, str]]:
    return [(name, line) for name, three in EXAMPLES.items() for line in three]


def test_every_command_has_three() -> None:
    assert list(EXAMPLES) == list(COMMANDS)
    assert max(len(line) for _, line in lines()) <= 76
    assert len({line for _, line in lines()}) == 3 * len(COMMANDS)


@pytest.mark.parametrize(("name", "line"), lines(), ids=lambda word: word)
def test_the_program_takes_every_word(name: str, line: str) -> None:
    words = shlex.split(line.removeprefix("source <(").replace(")", ""))
    at = words.index("localinfer")
    own = words[at + 1 :]
    ends = [i for i, word in enumerate(own) if word in ("|", ">", "&&")]
    own = own[: min(ends, default=len(own))]
    own[0] = ALIASES.get(own[0], own[0])
    assert " ".join(own[: len(name.split())]) == name
    context: Any = single(name).make_context(f"localinfer {name}", own[len(name.split()) :])
    assert context.params


@pytest.fixture(scope="module")
def home(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the examples name, and a tiny model that is called `starter`, at two widths."""
    from localinfer.quantize import quantize_checkpoint
    from localinfer.quantize.export import export_gguf

    folder = tmp_path_factory.mktemp("examples")
    models = folder / "home" / "models" / "HuggingFaceTB--SmolLM2-135M-Instruct"
    shutil.copytree(tiny, models / "BF16")
    quantize_checkpoint(models / "BF16", models / "INT4", bits=4, method="rtn")
    export_gguf(models / "BF16", folder / "model.gguf")
    (folder / "notes.txt").write_text("The harbour opens at six. Boats leave until nine. " * 6)
    (folder / "questions.jsonl").write_text('{"prompt": "Why?"}\n{"id": "b", "prompt": "When?"}\n')
    (folder / "questions.csv").write_text("id,question\n1,Why?\n2,When?\n")
    (folder / "texts.jsonl").write_text('{"text": "The harbour opens at six."}\n{"text": "Boats leave."}\n')
    (folder / "home" / "config.toml").write_text('threads = 2\nkv-bits = 8\nmodel = "starter"\n')
    (folder / "key.txt").write_text("a key of some length\n")
    return folder


@pytest.fixture
def place(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, where the program now is."""
    at = tmp_path / "examples"
    shutil.copytree(home, at)
    monkeypatch.chdir(at)
    monkeypatch.setenv("LOCALINFER_HOME", str(at / "home"))
    return at


RUN = [line for name, line in lines() if name not in NOT_RUN and line not in NOT_RUN]


@pytest.mark.parametrize("line", [line for line in RUN if not any(sign in line for sign in SHELL)])
def test_it_runs(cli: Cli, place: Path, line: str) -> None:
    _, *words = shlex.split(line)
    ran = cli(*words, *(("-n", "8") if words[0] == "run" and "-n" not in words else ()))
    assert ran.code == 0, ran.err
    if "--json" in words:
        json.loads(ran.out)


@pytest.mark.parametrize("line", [line for line in RUN if any(sign in line for sign in SHELL)])
def test_it_runs_in_a_shell(shell: Callable[..., Any], place: Path, line: str) -> None:
    ran = shell(line.replace("| source", "> /dev/null"), LOCALINFER_HOME=str(place / "home"))
    assert ran.returncode == 0, ran.stderr.decode()
