"""The program's commands, and how a command line finds its one. Only the command that is called gets imported."""

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any

import typer

from localinfer.cli.bundles import spread
from localinfer.cli.command import Command, Pages, PlainCommand
from localinfer.errors import UsageError

COMMANDS = {
    "pull": "pull:pull",
    "list": "list_models:list_models",
    "show": "show:show",
    "rm": "rm:rm",
    "cache verify": "cache:verify",
    "cache prune": "cache:prune",
    "import": "import_:import_",
    "quantize": "quantize:quantize",
    "eval": "evaluate:evaluate",
    "export": "export:export",
    "run": "run:run",
    "map": "map_:map_",
    "score": "score:score",
    "embed": "embed:embed",
    "chat": "chat:chat",
    "serve": "serve:serve",
    "ps": "ps:ps",
    "stop": "ps:stop",
    "bench": "bench:bench",
    "fit": "fit:fit",
    "cost": "cost:cost",
    "draft train": "draft:train",
    "draft list": "draft:list_drafters",
    "draft rm": "draft:rm",
    "doctor": "doctor:doctor",
    "config show": "config:show",
    "config keys": "config:keys",
    "config set": "config:set_",
    "config unset": "config:unset",
    "completion": "completion:completion",
}
"""Where each command lives in this package, in the order of the help page: `module:function`."""

GROUPS = {
    "cache": "Check or tidy what is stored.",
    "draft": "Small models that guess for a large one, made on this machine.",
    "config": "Show, set or forget settings. Every flag has a key of the same name.",
}
"""First words of commands of two words, and what their help page says."""

ALIASES = {"ls": "list"}

PLAIN = {"doctor", "completion", "config show", "config keys", "config set", "config unset"}
"""Commands that must work when the settings file does not."""

EPILOG = (
    "Exit codes: 0 done, 1 a bug of ours, 2 usage, 3 does not fit, 4 not found or not allowed, 5 not supported, "
    "6 network, 7 corrupt, 8 context overflow, 9 changed since, 130 interrupted."
)

HELP = ["-h", "--help"]
CONTEXT = {"help_option_names": HELP}


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
    return _main(page(group), ["--help"], f"localinfer {group}".strip())


def single(name: str) -> Any:
    """One command, ready to be called; its type is a private one of Typer."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=CONTEXT)
    app.command(name=name, cls=PlainCommand if name in PLAIN else Command)(spread(function_of(name)))
    return typer.main.get_command(app)


def function_of(name: str) -> Callable[..., None]:
    """The function behind a command. Imports its module, which loads nothing heavy until it is called."""
    module, _, function = COMMANDS[name].partition(":")
    found: Callable[..., None] = getattr(import_module(f"localinfer.cli.{module}"), function)
    return found


def page(group: str) -> Any:
    """The program (`""`), or the commands of two words that begin with `group`, for the help page only."""
    app = typer.Typer(
        cls=Pages,
        add_completion=False,
        rich_markup_mode=None,
        context_settings=CONTEXT,
        epilog=None if group else EPILOG,
        help=GROUPS.get(group, "Run language models on your own machine."),
    )
    app.callback()(_program if not group else _nothing)
    for word, text in summaries(group).items():
        app.command(name=word, help=text)(_nothing)
    return typer.main.get_command(app)


def summaries(group: str) -> dict[str, str]:
    """The words that may come next, and the one line for each."""
    found: dict[str, str] = {}
    for name in COMMANDS:
        first, _, second = name.partition(" ")
        if not group:
            found[first] = GROUPS.get(first) or _summary(name)
        elif first == group:
            found[second] = _summary(name)
    return found


def _summary(name: str) -> str:
    text = function_of(name).__doc__ or ""
    return " ".join(text.partition("\n\n")[0].split())


def _program(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    pass


def _nothing() -> None:
    pass


def _main(command: Any, args: list[str], name: str) -> int:
    code = command.main(args=args, prog_name=name, standalone_mode=False)
    return code if isinstance(code, int) else 0


def _unknown(group: str, word: str) -> UsageError:
    known = list(summaries(group))
    near = get_close_matches(word, known, n=1, cutoff=0.5)
    program = f"localinfer {group}".strip()
    if word.startswith("-"):
        return UsageError(f"`{program}` has no flag `{word}`", hint=f"see `{program} --help`")
    hint = f"did you mean `{program} {near[0]}`?" if near else f"see `{program} --help`"
    return UsageError(f"`{program}` has no command `{word}`", hint=hint)
