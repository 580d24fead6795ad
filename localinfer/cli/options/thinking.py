"""The flags for a model's thinking. Part of `options`."""

from typing import Annotated

from localinfer.cli.flags import flag

Think = Annotated[bool, flag("think", "flag", "Let the model think first, by its chat template's own switch.")]
NoThink = Annotated[bool, flag("no-think", "flag", "Let the model answer without thinking, by the same switch.")]
ShowThinking = Annotated[
    bool, flag("show-thinking", "flag", "Write the thinking, too, as the model marks it; else it is left out.")
]
