"""What can be typed after a slash: the table, how a line is read, and how it is completed."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from localinfer.errors import UsageError


@dataclass(frozen=True, slots=True)
class Command:
    """One command: `/name argument`."""

    name: str
    argument: str
    """As the help shows it, in brackets if it may be left out; empty if there is none."""
    help: str
    run: Callable[..., Awaitable[None]]
    """`run(screen, pane, argument)` does it; `handlers` says the types."""
    words: Callable[..., Sequence[str]] | None = None
    """`words(screen, begin)`: what could be the argument that begins like this."""
    key: str = ""
    """The key that does the same."""
    short: Callable[[str, int], str] | None = None
    """`short(word, cells)`: one of the words where room is short."""

    @property
    def usage(self) -> str:
        return f"/{self.name} {self.argument}".rstrip()

    @property
    def needs(self) -> bool:
        """Must there be an argument?"""
        return bool(self.argument) and not self.argument.startswith("[")


def read(line: str, commands: Mapping[str, Command]) -> tuple[Command, str] | None:
    """The command that `line` calls and its argument; None if it calls none and is to be sent as it is.

    Two slashes begin a text that begins with one. Raises `UsageError` for an unknown command, or a wrong argument.
    """
    if not line.startswith("/") or line.startswith("//"):
        return None
    name, _, argument = line[1:].partition(" ")
    argument = argument.strip()
    command = commands.get(name.strip())
    if command is None:
        raise UsageError(f"there is no command /{name.strip()[:40]}", hint="/help lists them; // begins a text with /")
    if command.needs and not argument:
        raise UsageError(f"{command.usage}: {command.argument} is missing", hint=command.help)
    if argument and not command.argument:
        raise UsageError(f"/{name} takes nothing after it", hint=command.help)
    return command, argument


def sent(line: str) -> str:
    """What is sent for a line that calls no command."""
    return line[1:] if line.startswith("//") else line


@dataclass(frozen=True, slots=True)
class Match:
    """One line of the list that a slash opens."""

    line: str
    """What stands in the box if it is taken."""
    shown: str
    does: str = ""
    whole: bool = True
    """Is that all, so that Enter does it at once?"""
    short: Callable[[int], str] | None = field(default=None, compare=False)
    """What is shown in so many cells; None where the end may be cut off."""


class Completion:
    """What a line that begins with a slash could become. Decided from the line alone."""

    def __init__(self, screen: object, commands: Mapping[str, Command]) -> None:
        self._screen = screen
        self._commands = commands

    def matches(self, line: str) -> list[Match]:
        """What could stand there: commands that begin like this, else those that have it in their name, else what may
        follow the command."""
        if not is_call(line):
            return []
        name, space, argument = line[1:].partition(" ")
        if not space:
            begin = [one for one in self._commands.values() if one.name.startswith(name)]
            return [_match(one) for one in begin or self._commands.values() if name in one.name]
        command = self._commands.get(name)
        if command is None:
            return []
        words = command.words(self._screen, argument) if command.words else ()
        found = [_with_word(command, word) for word in words]
        return found or [Match(line, command.usage, _with_key(command))]

    def complete(self, line: str) -> str:
        """What follows `line` if Tab is pressed."""
        first = next((one.line for one in self.matches(line) if one.line.startswith(line)), line)
        return first[len(line) :] if line != "/" else ""

    def taken(self, line: str, match: Match | None, *, moved: bool) -> Match:
        """What Enter takes: what was chosen in the list, or else the line as it is. Of a name that is no command yet,
        the first one that it could become; after one that needs something, the list of what that may be."""
        asis = Match(line, line)
        name, space, _ = line[1:].partition(" ")
        command = self._commands.get(name)
        if match is None or not is_call(line) or moved:
            return match or asis
        if command is not None and command.needs and not space:
            return _match(command)
        return asis if space or command is not None else match


def is_call(line: str) -> bool:
    """Does `line` call a command? Two slashes begin a text that begins with one."""
    return line.startswith("/") and not line.startswith("//") and "\n" not in line


def escaped(text: str) -> str:
    """`text` as it must stand in the box to be sent, and not be taken for a command."""
    return f"/{text}" if text.startswith("/") else text


def _match(command: Command) -> Match:
    line = f"/{command.name}" + " " * bool(command.argument)
    return Match(line, command.usage, _with_key(command), whole=not command.needs)


def _with_word(command: Command, word: str) -> Match:
    line = f"/{command.name} {word}"
    short = partial(_shortened, command, word) if command.short else None
    return Match(line, line, whole=not word.endswith((" ", "/")), short=short)


def _shortened(command: Command, word: str, cells: int) -> str:
    before = f"/{command.name} "
    return before + (command.short(word, cells - len(before)) if command.short else word)


def _with_key(command: Command) -> str:
    return f"{command.help}  ({command.key})" if command.key else command.help
