"""Help pages, whole; and that saying hello stays light."""

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from localinfer.cli.commands import COMMANDS, GROUPS
from localinfer.cli.options import SETTINGS
from localinfer.cli.words import ARGUMENTS, VALUES, all_words
from tests.cli.conftest import Cli

Golden = Callable[[str, str], None]
PAGES = [(), *((group,) for group in GROUPS), *(tuple(name.split()) for name in COMMANDS)]
HEAVY = {"numpy", "torch", "textual", "huggingface_hub", "tokenizers", "gguf", "jinja2", "rich", "pydantic"}


@pytest.mark.parametrize("command", PAGES, ids=lambda words: "-".join(words) or "root")
def test_help_page(cli: Cli, golden: Golden, command: tuple[str, ...]) -> None:
    ran = cli(*command, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert max(map(len, ran.out.splitlines())) <= 80
    golden(f"help/{'-'.join(command) or 'root'}.txt", ran.out)


@pytest.mark.parametrize("argv", [(), ("-h",), ("cache",), ("config", "-h")])
def test_a_bare_call_is_the_help_page(cli: Cli, argv: tuple[str, ...]) -> None:
    ran = cli(*argv)
    assert ran.code == 0
    assert ran.out.startswith("Usage: localinfer")


def test_version(cli: Cli) -> None:
    from localinfer import __version__

    assert cli("--version").out == f"{__version__}\n"


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (("lst",), "`localinfer` has no command `lst`", "did you mean `localinfer list`?"),
        (("--frobnicate",), "`localinfer` has no flag `--frobnicate`", "see `localinfer --help`"),
        (("cache", "verfy"), "`localinfer cache` has no command `verfy`", "did you mean `localinfer cache verify`?"),
        (("run", "--tmep", "1"), "no such option: --tmep", "did you mean `--temp`?"),
        (("run", "-n"), "option '-n' requires an argument", "see `localinfer run --help`"),
        (("show",), "REF is missing", "see `localinfer show --help`"),
        (("show", "a", "b"), "`b` is one word too many", "quote text; see `localinfer show --help`"),
        (("run", "-n", "0", "m", "p"), "--max-tokens is 0, but must lie between 1 and 1048576", None),
        (("run", "-n", "x", "m", "p"), "--max-tokens is 'x', but must be a whole number", None),
        (("run", "--temp", "nan", "m", "p"), "--temp is 'nan', but must be a number", None),
        (("run", "--kv-bits", "5", "m", "p"), "--kv-bits is '5', but must be one of 16, 8", None),
    ],
)
def test_a_wrong_word(cli: Cli, argv: tuple[str, ...], message: str, hint: str | None) -> None:
    ran = cli(*argv)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {message}"), ran.err
    assert f"\n\nhint: {hint or ''}" in ran.err


def test_every_flag_is_described_once_and_used() -> None:
    used = {flag.setting.name for command in all_words() for flag in command.flags if flag.setting}
    assert used == SETTINGS.keys()
    assert ARGUMENTS.keys() <= COMMANDS.keys()
    assert VALUES.keys() <= SETTINGS.keys()
    for setting in SETTINGS.values():
        assert setting.help.endswith("."), setting.name
        assert setting.default is None or not setting.choices or setting.default in setting.choices, setting.name


def loaded_after(*argv: str) -> set[str]:
    """Modules that are loaded once the command has ended."""
    code = (
        "import sys, json\n"
        "from localinfer.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write('\\n' + json.dumps(sorted(sys.modules)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True)
    return set(json.loads(ran.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "argv", [["--help"], ["run", "--help"], ["--version"], ["list"], ["config", "show"], ["__complete", "models"]]
)
def test_light_commands_load_nothing_heavy(argv: list[str]) -> None:
    assert not HEAVY & loaded_after(*argv)


def test_names_are_completed_without_even_typer() -> None:
    assert not {"typer", "localinfer.cli.app"} & loaded_after("__complete", "models")


@pytest.mark.parametrize(
    ("argv", "most"),
    [(["--help"], 220), (["run", "--help"], 205), (["--version"], 200), (["__complete", "models"], 170)],
)
def test_saying_hello_loads_few_modules(argv: list[str], most: int, mine: str) -> None:
    """What start-up time is made of, and unlike the time the same on every machine."""
    loaded = loaded_after(*argv)
    assert len(loaded) < most
    expected = {"localinfer", "typer", "typing_extensions", "annotated_doc", "shellingham", "click", "platformdirs"}
    packages = {name.partition(".")[0] for name in loaded if not name.startswith("_")}
    assert packages - sys.stdlib_module_names <= expected
