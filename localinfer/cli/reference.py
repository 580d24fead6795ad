"""`docs/reference/commands.md`: every command and every flag, as the help pages have them."""

from textwrap import fill

from localinfer.cli.examples import EXAMPLES
from localinfer.cli.options import SETTINGS
from localinfer.cli.words import Flag, Words, all_words
from localinfer.config import SPECIAL

HEAD = """# Commands and flags

Made by `python -m localinfer.cli.generate` from the program itself; do not edit.

Every flag has an environment variable and a key in the settings file (`localinfer config set KEY
VALUE`). A flag wins over the environment, the environment over the file, the file over the default;
`localinfer doctor` shows which one won.
"""


def reference() -> str:
    """The whole page."""
    commands = all_words()
    parts = [HEAD, *map(_command, commands), _settings(), _special()]
    return "\n".join(parts)


def _command(command: Words) -> str:
    usage = " ".join(["localinfer", command.name, "[OPTIONS]", *(name for name, _ in command.arguments)])
    lines = [f"## {command.name}", "", f"```\n{usage}\n```", "", _paragraphs(command.manual), ""]
    lines += [_wrapped(f"- `{name}`: {text}", "  ") for name, text in command.arguments]
    lines += [_wrapped(f"- {_names(flag)}: {flag.help}", "  ") for flag in command.flags]
    lines += ["", "```sh", *EXAMPLES[command.name], "```"]
    return "\n".join(lines) + "\n"


def _names(flag: Flag) -> str:
    value = f" {flag.metavar}" if flag.metavar else ""
    return ", ".join(f"`{word}{value}`" for word in flag.words)


def _paragraphs(manual: str) -> str:
    return "\n\n".join(_wrapped(part) for part in manual.split("\n\n"))


def _wrapped(text: str, indent: str = "") -> str:
    return fill(text, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _settings() -> str:
    rows = [f"| `--{name}` | `{s.env}` | `{name}` |" for name, s in sorted(SETTINGS.items())]
    head = "## Flags, environment, keys\n\n| flag | environment | key |\n|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def _special() -> str:
    rows = [_wrapped(f"- `{name}`: {text}", "  ") for name, text in SPECIAL.items()]
    return "## Other environment variables\n\n" + "\n".join(rows) + "\n"
