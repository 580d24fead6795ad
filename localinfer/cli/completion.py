"""`completion`: the script that teaches a shell our words."""

from typing import Annotated

import typer

from localinfer.errors import UsageError

Shell = Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="The shell to write for.")]


def completion(shell: Shell) -> None:
    """Print the completion script of a shell.

    bash: `source <(localinfer completion bash)`; zsh: write it to a file `_localinfer` in a folder of `$fpath`;
    fish: write it to `~/.config/fish/completions/localinfer.fish`.
    """
    from localinfer.cli.output import write
    from localinfer.cli.scripts import FILES, script

    if shell not in FILES:
        raise UsageError(f"no completions for `{shell}`", hint="choose one of bash, zsh and fish")
    write(script(shell))
