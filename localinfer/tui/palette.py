"""The command palette: every slash command that needs no argument, by its name or what it does."""

from functools import partial

from textual.command import DiscoveryHit, Hit, Hits, Provider

from localinfer.tui.commands import Command
from localinfer.tui.handlers import COMMANDS
from localinfer.tui.screens.chat import ChatScreen


class CommandHits(Provider):
    """For Ctrl+P."""

    async def discover(self) -> Hits:
        for command in self._offered():
            yield DiscoveryHit(command.name, partial(self._run, command), help=_help(command))

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for command in self._offered():
            score = max(matcher.match(command.name), matcher.match(command.help) / 2)
            if score > 0:
                yield Hit(score, matcher.highlight(command.name), partial(self._run, command), help=_help(command))

    def _offered(self) -> list[Command]:
        is_chat = isinstance(self.screen, ChatScreen)
        return [command for command in COMMANDS.values() if is_chat and not command.needs]

    async def _run(self, command: Command) -> None:
        assert isinstance(self.screen, ChatScreen)
        await self.screen.perform(self.screen.pane, command, "")


def _help(command: Command) -> str:
    return f"{command.help}  ({command.key})" if command.key else command.help
