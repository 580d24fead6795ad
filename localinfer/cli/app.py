"""The program's commands, and how a command line finds its one. Only the command that is called gets imported, and for
the pages that list them none at all."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from localinfer.cli.commands import ALIASES, COMMANDS, GROUPS, PLAIN
from localinfer.errors import UsageError

HELP = ["-h", "--help"]


def call(argv: list[str]) -> int:
    """Run one command line; return the exit code. Errors come out as exceptions."""
    if argv == ["--version"]:
        from localinfer import __version__
        from localinfer.cli.output import line

        line(__version__)
        return 0
    first = ALIASES.get(argv[0], argv[0]) if argv else "--help"
    name = " ".join([first, *argv[1:2]]) if first in GROUPS else first
    if name in COMMANDS:
        return _main(single(name), argv[len(name.split()) :], f"localinfer {name}")
    group, rest = (first, argv[1:]) if first in GROUPS else ("", argv)
    if rest and rest[0] not in HELP:
        raise _unknown(group, rest[0])
    from localinfer.cli.output import write
    from localinfer.cli.pages import page

    write(page(group))
    return 0


def single(name: str) -> Any:
    """One command, ready to be called; its type is a private one of Typer."""
    import typer

    from localinfer.cli.bundles import spread
    from localinfer.cli.command import Command, PlainCommand

    context = {"help_option_names": HELP}
    app = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=context)
    app.command(name=name, cls=PlainCommand if name in PLAIN else Command)(spread(function_of(name)))
    return typer.main.get_command(app)


def function_of(name: str) -> Callable[..., None]:
    """The function behind a command. Imports its module, which loads nothing heavy until it is called."""
    module, _, function = COMMANDS[name].partition(":")
    found: Callable[..., None] = getattr(import_module(f"localinfer.cli.{module}"), function)
    return found


def _main(command: Any, args: list[str], name: str) -> int:
    code = command.main(args=args, prog_name=name, standalone_mode=False)
    return code if isinstance(code, int) else 0


def _unknown(group: str, word: str) -> UsageError:
    from difflib import get_close_matches

    known = list(dict.fromkeys(name.partition(" ")[2 if group else 0] for name in COMMANDS if name.startswith(group)))
    near = get_close_matches(word, known, n=1, cutoff=0.5)
    program = f"localinfer {group}".strip()
    if word.startswith("-"):
        return UsageError(f"`{program}` has no flag `{word}`", hint=f"see `{program} --help`")
    hint = f"did you mean `{program} {near[0]}`?" if near else f"see `{program} --help`"
    return UsageError(f"`{program}` has no command `{word}`", hint=hint)
