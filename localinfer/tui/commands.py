"""What can be typed after a slash: the table, how a line is read, and how it is completed."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localinfer.errors import UsageError

if TYPE_CHECKING:
    from localinfer.tui.screens.chat import ChatScreen
    from localinfer.tui.widgets.pane import ChatPane

Run = Callable[["ChatScreen", "ChatPane", str], Awaitable[None]]
Words = Callable[["ChatScreen", str], Sequence[str]]
"""What could be the argument that begins like this."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command: `/name argument`."""

    name: str
    argument: str
    """As the help shows it, in brackets if it may be left out; empty if there is none."""
    help: str
    run: Run
    words: Words | None = None
    key: str = ""
    """The key that does the same."""

    @property
    def usage(self) -> str:
        return f"/{self.name} {self.argument}".rstrip()

    @property
    def needs(self) -> bool:
        """Must there be an argument?"""
        return bool(self.argument) and not self.argument.startswith("[")


def read(line: str, commands: dict[str, Command]) -> tuple[Command, str] | None:
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


def matches(screen: "ChatScreen", line: str, commands: dict[str, Command]) -> list[tuple[str, str]]:
    """What could stand there, with what each does; for a line that begins with a slash."""
    name, space, argument = line[1:].partition(" ")
    if not space:
        return [(one.usage, _with_key(one)) for one in commands.values() if one.name.startswith(name)]
    command = commands.get(name)
    if command is None:
        return []
    words = command.words(screen, argument) if command.words else ()
    return [(f"/{name} {word}", "") for word in words] or [(command.usage, _with_key(command))]


def complete(screen: "ChatScreen", line: str, commands: dict[str, Command]) -> str:
    """What follows `line` if Tab is pressed."""
    name, space, argument = line[1:].partition(" ")
    if not space:
        first = next((one for one in commands.values() if one.name.startswith(name)), None)
        return first.name[len(name) :] + " " * bool(first.argument) if first and name else ""
    command = commands.get(name)
    words = command.words(screen, argument) if command and command.words else ()
    first_word = next((word for word in words if word.startswith(argument) and word != argument), "")
    return first_word[len(argument) :]


def _with_key(command: Command) -> str:
    return f"{command.help}  ({command.key})" if command.key else command.help
