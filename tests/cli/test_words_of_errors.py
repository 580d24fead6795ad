"""`main` is the one place where errors become words: every kind of them."""

import errno
import sys

import pytest

from localinfer.cli import list_models, show
from localinfer.cli.main import main
from localinfer.errors import Corrupt, LocalInferError
from tests.cli.conftest import Cli

ENTRY = "localinfer.hub.cache.list_models"


def failing_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """`localinfer list` meets `error`."""

    def fail() -> None:
        raise error

    monkeypatch.setattr(ENTRY, fail)


def test_an_error_of_ours(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(monkeypatch, Corrupt("`x` is broken", hint="get it again"))
    ran = cli("list")
    assert (ran.code, ran.out, ran.err) == (7, "", "error: `x` is broken\n\nhint: get it again\n")


def test_an_error_without_a_hint(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(monkeypatch, LocalInferError("it is so"))
    assert cli("list").err == "error: it is so\n"


def test_a_package_that_was_left_out(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(monkeypatch, ModuleNotFoundError("No module named 'llguidance.x'", name="llguidance.x"))
    ran = cli("list")
    assert (ran.code, ran.err.splitlines()[0]) == (5, "error: the package `llguidance` is not installed")
    assert ran.err.rstrip().endswith("install llguidance`")
    failing_with(monkeypatch, ModuleNotFoundError("No module named 'localinfer.x'", name="localinfer.x"))
    assert cli("list").code == 1


def test_a_bug_asks_for_a_report_and_shows_no_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(monkeypatch, KeyError("gone"))
    ran = cli("list")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "error: internal error: KeyError: 'gone'\n\n"
        "hint: this is a bug: run it again with LOCALINFER_DEBUG=1 and report what is printed\n"
    )


def test_debug_shows_the_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALINFER_DEBUG", "1")
    failing_with(monkeypatch, KeyError("gone"))
    ran = cli("list")
    assert "Traceback (most recent call last)" in ran.err
    assert "test_words_of_errors.py" in ran.err
    assert ran.err.endswith("report what is printed\n")


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, 3), (errno.EMFILE, 3), (errno.EACCES, 4), (errno.EROFS, 4), (errno.ENOENT, 4)]
)
def test_what_the_system_refuses(cli: Cli, monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    failing_with(monkeypatch, OSError(number, "No Such Luck", "/some/file"))
    ran = cli("list")
    assert ran.code == code
    assert ran.err.startswith("error: /some/file: no such luck\n\nhint: ")


def test_no_memory_left(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(monkeypatch, MemoryError())
    ran = cli("list")
    assert ran.code == 3
    assert ran.err.startswith("error: the system has no memory left\n\nhint: ")


def test_interrupted(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(monkeypatch, KeyboardInterrupt())
    ran = cli("list")
    assert (ran.code, ran.out, ran.err) == (130, "", "")


def test_foreign_words_cannot_command_the_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(monkeypatch, Corrupt("a name \x1b]0;owned\x07 here", hint="do \u202enot"))
    ran = cli("list")
    assert ran.err == "error: a name  here\n\nhint: do <U+202E>not\n"


def test_an_argument_cannot_command_the_terminal(cli: Cli) -> None:
    ran = cli("show", "\x1b[31mred")
    assert ran.code == 2
    assert "\x1b" not in ran.err


def test_a_standard_error_that_is_gone_is_no_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(SystemExit) as stop:
        main(["show", "nobody/nothing"])
    assert stop.value.code == 4


def test_commands_are_plain_functions() -> None:
    """They can be read, and called, without Typer."""
    assert list_models.list_models.__doc__
    assert show.show.__doc__
