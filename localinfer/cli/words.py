"""What can be typed after `localinfer`, as plain data: the completions and the reference are made of this."""

from dataclasses import dataclass
from typing import Any, Literal

from localinfer.cli.app import single
from localinfer.cli.command import first_line, setting_of
from localinfer.cli.commands import COMMANDS, GROUPS
from localinfer.cli.options import SETTINGS
from localinfer.config import Setting

Candidates = Literal["none", "files", "models", "pullable", "shells", "keys"]
"""What may stand in a place: words of no list, files, models here, models of the catalogue, shells, settings."""

ARGUMENTS: dict[str, Candidates] = {
    "pull": "pullable",
    "show": "models",
    "rm": "models",
    "import": "files",
    "quantize": "models",
    "eval": "models",
    "export": "models",
    "run": "models",
    "map": "models",
    "chat": "models",
    "bench": "models",
    "fit": "pullable",
    "cost": "models",
    "config set": "keys",
    "config unset": "keys",
    "completion": "shells",
}
"""What the first argument of a command may be."""

VALUES: dict[str, Candidates] = {
    "model": "models",
    "file": "files",
    "against": "models",
    "against-file": "files",
    "text": "files",
    "plot": "files",
    "replay": "files",
    "output": "files",
}
"""What the value of a flag may be, when it is not one of its choices."""

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag of one command. `setting` is None for `--help` only."""

    words: tuple[str, ...]
    help: str
    setting: Setting | None
    metavar: str = ""

    @property
    def takes_value(self) -> bool:
        return self.setting is not None and self.setting.kind != "flag"

    @property
    def values(self) -> Candidates:
        return VALUES.get(self.setting.name, "none") if self.setting else "none"

    @property
    def choices(self) -> tuple[str, ...]:
        return self.setting.choices if self.setting else ()


@dataclass(frozen=True, slots=True)
class Words:
    """One command: its name, its one line, its manual, its arguments and flags."""

    name: str
    summary: str
    manual: str
    arguments: tuple[tuple[str, str], ...]
    flags: tuple[Flag, ...]

    @property
    def candidates(self) -> Candidates:
        return ARGUMENTS.get(self.name, "none")


def all_words() -> list[Words]:
    """Every command, in the order of the help page."""
    return [_words(name, single(name)) for name in COMMANDS]


def top_words(commands: list[Words]) -> dict[str, str]:
    """The first words and their one line: commands, and groups of commands."""
    return {c.name.split()[0]: GROUPS.get(c.name.split()[0], c.summary) for c in commands}


def groups_of(commands: list[Words]) -> dict[str, dict[str, str]]:
    """For each first word of two, the second words and their one line."""
    return {
        group: {c.name.split()[1]: c.summary for c in commands if c.name.startswith(f"{group} ")} for group in GROUPS
    }


def valued_flags(commands: list[Words]) -> list[Flag]:
    """Every flag that takes a value, once."""
    return list({flag.words: flag for c in commands for flag in c.flags if flag.takes_value}.values())


def _words(name: str, command: Any) -> Words:
    arguments = [(p.metavar, p.help) for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    flags = [Flag(tuple(p.opts), p.help, SETTINGS[setting_of(p)], p.metavar) for p in options]
    return Words(
        name=name,
        summary=first_line(command),
        manual=str(command.help),
        arguments=tuple(arguments),
        flags=(*flags, Flag(("-h", "--help"), "Show this message and exit.", None)),
    )
