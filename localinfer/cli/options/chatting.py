"""The flags of the chat in the terminal. Part of `options`."""

from typing import Annotated

from localinfer.cli.flags import flag

Continue = Annotated[bool, flag("continue", "flag", "Take up the last chat.")]
Theme = Annotated[
    str | None,
    flag(
        "theme",
        "text",
        "Colours: `calm`, `calm-light`, or one of Textual's, such as `nord`.",
        shows="the one chosen last, else calm",
    ),
]
