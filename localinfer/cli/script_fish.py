"""The completion script of fish."""

from localinfer.cli.options import SETTINGS
from localinfer.cli.words import SHELLS, Candidates, Flag, Words, groups_of, top_words

HEAD = """# Completion of localinfer for fish. Made by `python -m localinfer.cli.generate`; do not edit.

complete -c localinfer -f

# Whether the command is this one.
function __localinfer_in
    set -l typed (commandline -opc)
    set -e typed[1]
    test "$typed[1]" = ls; and set typed[1] list
    for i in (seq (count $argv))
        test "$typed[$i]" = "$argv[$i]"; or return 1
    end
end

function __localinfer_names
    set -l typed (commandline -opc)
    $typed[1] __complete $argv[1] 2>/dev/null
end

complete -c localinfer -n __fish_use_subcommand -l help -s h -d 'Show the help page'
complete -c localinfer -n __fish_use_subcommand -l version -d 'Print the version'
"""


def make(commands: list[Words]) -> str:
    """The whole script."""
    lines = [HEAD.rstrip("\n")]
    for word, text in top_words(commands).items():
        lines.append(f"complete -c localinfer -n __fish_use_subcommand -a {word} -d {_quoted(text)}")
    for group, second in groups_of(commands).items():
        test = f"__localinfer_in {group}; and not __fish_seen_subcommand_from {' '.join(second)}"
        for word, text in second.items():
            lines.append(f"complete -c localinfer -n '{test}' -a {word} -d {_quoted(text)}")
    for command in commands:
        lines += ["", f"# {command.name}", *_command(command)]
    return "\n".join(lines) + "\n"


def _command(command: Words) -> list[str]:
    test = f"complete -c localinfer -n '__localinfer_in {command.name}'"
    found = [f"{test} {_offer(command.candidates)}"] if command.candidates != "none" else []
    return found + [f"{test} {_flag(flag)} -d {_quoted(flag.help)}" for flag in command.flags]


def _flag(flag: Flag) -> str:
    words = " ".join(f"-l {word[2:]}" if word.startswith("--") else f"-s {word[1:]}" for word in flag.words)
    if flag.choices:
        return f"{words} -x -a '{' '.join(flag.choices)}'"
    if flag.values != "none":
        return f"{words} -r {_offer(flag.values)}"
    return f"{words} -x" if flag.takes_value else words


def _offer(candidates: Candidates) -> str:
    return {
        "none": "",
        "files": "-F",
        "models": "-a '(__localinfer_names models)'",
        "pullable": "-a '(__localinfer_names pullable)'",
        "shells": f"-a '{' '.join(SHELLS)}'",
        "keys": f"-a '{' '.join(SETTINGS)}'",
    }[candidates]


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
