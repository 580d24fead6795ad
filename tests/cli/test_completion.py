"""Completion, in the shells themselves: what a key press makes of the line."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest

from localinfer.cli import generate
from localinfer.cli.commands import COMMANDS
from localinfer.cli.names import model_names, pullable_names
from localinfer.cli.scripts import FILES
from tests.cli.conftest import ENTRY, Cli

ROOT = Path(__file__).parents[2]
COMPLETIONS = ROOT / "completions"
PROGRAM = """\
#!/bin/sh
[ "$1" = __complete ] && exec {python} -c "from localinfer.cli.main import main; main()" "$@"
printf 'SAW'; printf '<%s>' "$@"; printf '\\n'
"""
"""`localinfer` for these tests: completes as the real one, and otherwise shows what it was called with."""

LINES = [
    ("sh", "<show>"),
    ("comp", "<completion>"),
    ("ca", "<cache>"),
    ("cache pr", "<cache><prune>"),
    ("config uns", "<config><unset>"),
    ("config set thr", "<config><set><threads>"),
    ("run --max", "<run><--max-tokens>"),
    ("run --kv-bits 1", "<run><--kv-bits><16>"),
    ("run --on-overflow s", "<run><--on-overflow><shift>"),
    ("run me/ti", "<run><me/tiny:BF16>"),
    ("run me/tiny:B", "<run><me/tiny:BF16>"),
    ("run start", "<run><starter>"),
    ("run -n 3 --json start", "<run><-n><3><--json><starter>"),
    ("run -m start", "<run><-m><starter>"),
    ("run starter -f not", "<run><starter><-f><notes.txt>"),
    ("import mod", "<import><model.gguf>"),
    ("completion z", "<completion><zsh>"),
    ("pull start", "<pull><starter>"),
    ("rm starter me/", "<rm><starter><me/tiny:BF16>"),
    ("ls --js", "<ls><--json>"),
    ("run starter sta", "<run><starter><sta>"),  # the prompt is nobody's to guess
]


def needs(shell: str) -> str:
    """Where the shell is. The test set-up installs all three; elsewhere a missing one is skipped."""
    found = shutil.which(shell)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{shell} is not installed, and this is CI")
        pytest.skip(f"{shell} is not installed")
    return found


@pytest.fixture
def place(tmp_path: Path, mine: str, isolated: Path) -> dict[str, str]:
    """A folder with some files and the program on the path; returns the environment of a shell there."""
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "model.gguf").write_text("")
    (isolated / "localinfer" / "models" / "$(touch pwned)").mkdir()
    (isolated / "localinfer" / "models" / "me--tiny" / "BF16; touch pwned").mkdir()
    program = tmp_path / "bin" / "localinfer"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TERM": "dumb",
        "PS1": "",
        "PWD": str(tmp_path),
    }


@pytest.fixture
def bash(place: dict[str, str]) -> Iterator[Callable[[str], str]]:
    yield from typing_in(
        [needs("bash"), "--norc", "--noprofile", "-i"],
        place,
        [f"source {COMPLETIONS / FILES['bash']}", "bind 'set bell-style none'", "unset PROMPT_COMMAND; PS1=''"],
    )


@pytest.fixture
def zsh(place: dict[str, str]) -> Iterator[Callable[[str], str]]:
    yield from typing_in(
        [needs("zsh"), "-f", "-i"],
        place,
        [f"fpath=({COMPLETIONS} $fpath)", "autoload -Uz compinit && compinit -u -D", "unsetopt beep; PS1='' PS2=''"],
    )


def typing_in(command: list[str], place: dict[str, str], setup: list[str]) -> Iterator[Callable[[str], str]]:
    """A function that types `localinfer WORDS<tab><enter>` and returns what the program was called with."""
    child = pexpect.spawn(
        command[0],
        command[1:],
        env=place,
        cwd=place["PWD"],
        encoding="utf-8",
        timeout=20,
        dimensions=(50, 200),
    )

    def typed(words: str) -> str:
        child.send(f"localinfer {words}\t")
        child.send("\r")
        child.expect(r"SAW(<.*>)\r?\n")
        return str(child.match.group(1))

    try:
        for line in setup:
            child.sendline(line)
        child.sendline("echo rea''dy")
        child.expect("ready\r?\n")
        yield typed
    finally:
        child.close(force=True)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_key_press(shell: str, request: pytest.FixtureRequest, place: dict[str, str]) -> None:
    typed = request.getfixturevalue(shell)
    seen = [(words, typed(words)) for words, _ in LINES]
    assert seen == LINES
    assert not (Path(place["PWD"]) / "pwned").exists()


def fish(place: dict[str, str], words: str) -> list[str]:
    """What fish offers, without the descriptions."""
    script = f"source {COMPLETIONS / FILES['fish']}; complete --do-complete 'localinfer {words}'"
    ran = subprocess.run(
        [needs("fish"), "--no-config", "-c", script],
        env=place,
        cwd=place["PWD"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stderr == ""
    return [line.split("\t")[0] for line in ran.stdout.splitlines()]


@pytest.mark.parametrize(("words", "last"), [(words, result[1:-1].split("><")[-1]) for words, result in LINES[:-1]])
def test_fish_offers(place: dict[str, str], words: str, last: str) -> None:
    assert fish(place, words) == [last]
    assert not (Path(place["PWD"]) / "pwned").exists()


def test_fish_offers_first_words_and_flags(place: dict[str, str]) -> None:
    assert set(fish(place, "")) == {name.split()[0] for name in COMMANDS}
    assert {"--json", "--temp", "--seed", "--stop"} <= set(fish(place, "run --"))
    assert "--template" not in fish(place, "run --")


@pytest.mark.parametrize("path", [str(path) for path in generate.generated()])
def test_generated_files_are_fresh(path: str) -> None:
    text = generate.generated()[Path(path)]
    assert (ROOT / path).read_text(encoding="utf-8") == text, "run `python -m localinfer.cli.generate`"


def test_the_command_prints_the_same(cli: Cli) -> None:
    for shell, name in FILES.items():
        assert cli("completion", shell).out == (COMPLETIONS / name).read_text(encoding="utf-8")
    ran = cli("completion", "tcsh")
    assert (ran.code, ran.out) == (2, "")


def test_names(cli: Cli, mine: str) -> None:
    assert model_names() == ["me/tiny:BF16", "starter"]
    assert "starter" in pullable_names()
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in pullable_names()
    assert cli("__complete", "models").out == "me/tiny:BF16\nstarter\n"
    assert cli("__complete", "nothing").out == ""
    assert cli("__complete").out == ""


def test_names_are_silent_about_trouble(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise PermissionError

    monkeypatch.setattr("localinfer.hub.cache.list_models", fail)
    ran = cli("__complete", "models")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_a_reader_that_leaves_while_names_come(mine: str) -> None:
    script = f'{sys.executable} -c "{ENTRY[2]}" __complete models | true; exit "${{PIPESTATUS[0]}}"'
    ran = subprocess.run(["bash", "-c", script], capture_output=True, check=False)
    assert ran.returncode in (0, 141)
    assert ran.stderr == b""
