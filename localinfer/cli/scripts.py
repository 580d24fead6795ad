"""Completion scripts, made from the commands themselves. Only names of models are asked for when a key is pressed.

Names never pass through an evaluation of the shell: a folder called `$(reboot)` stays a word.
"""

from localinfer.cli import script_bash, script_fish, script_zsh
from localinfer.cli.words import all_words

FILES = {"bash": "localinfer.bash", "zsh": "_localinfer", "fish": "localinfer.fish"}
"""What each shell's script is called in `completions/`."""


def script(shell: str) -> str:
    """The script of one of the shells of `FILES`."""
    make = {"bash": script_bash.make, "zsh": script_zsh.make, "fish": script_fish.make}[shell]
    return make(all_words())
