"""The completion script of zsh: a file `_localinfer` in a folder of `$fpath`."""

from localinfer.cli.options import SETTINGS
from localinfer.cli.words import SHELLS, Candidates, Flag, Words, groups_of, top_words, valued_flags


def make(commands: list[Words]) -> str:
    """The whole script."""
    groups = groups_of(commands)
    valued = valued_flags(commands)
    top = " \\\n".join(f"            {_described(word, text)}" for word, text in top_words(commands).items())
    return (
        TEMPLATE.replace("@TOP@", top)
        .replace("@GROUPS@", "|".join(groups))
        .replace("@ROWS@", "\n".join([*(_group(*item) for item in groups.items()), *map(_command, commands)]))
        .replace("@VALUES@", "\n".join(f"        {'|'.join(flag.words)}) {_values(flag)} ;;" for flag in valued))
        .replace("@VALUED@", "|".join(word for flag in valued for word in flag.words))
    )


def _group(name: str, second: dict[str, str]) -> str:
    words = " ".join(_described(word, text) for word, text in second.items())
    return f"        '{name}') offer=(_localinfer_described command {words}) ;;"


def _command(command: Words) -> str:
    flags = "\n".join(f"            {_described(word, flag.help)}" for flag in command.flags for word in flag.words)
    offer = f"offer=({_offer(command.candidates)})"
    return f"        '{command.name}')\n            {offer}\n            flags=(\n{flags}\n            ) ;;"


def _values(flag: Flag) -> str:
    return f"compadd -- {' '.join(flag.choices)}" if flag.choices else _offer(flag.values) or ":"


def _offer(candidates: Candidates) -> str:
    return {
        "none": "",
        "files": "_files",
        "models": "_localinfer_names models",
        "pullable": "_localinfer_names pullable",
        "shells": "compadd -- " + " ".join(SHELLS),
        "keys": "compadd -- " + " ".join(SETTINGS),
    }[candidates]


def _described(word: str, text: str) -> str:
    """`word:text` as zsh's `_describe` wants it, quoted."""
    return "'" + f"{word}:{text}".replace("'", "'\\''") + "'"


TEMPLATE = r"""#compdef localinfer
# Completion of localinfer for zsh. Made by `python -m localinfer.cli.generate`; do not edit.

_localinfer_described() {
    local what=$1
    local -a items
    items=("${@:2}")
    _describe -V "$what" items
}

# Names are copied, never expanded: a model may be called anything.
_localinfer_names() {
    local -a names
    names=("${(@f)$("$program" __complete $1 2>/dev/null)}")
    names=("${(@)names:#}")
    compadd -- "${names[@]}"
}

_localinfer_values() {
    case $prev in
@VALUES@
    esac
}

_localinfer() {
    local program=$words[1] command=$words[2] prev=$words[CURRENT-1] skip='' given=0 at=3 word
    local -a flags offer
    if (( CURRENT == 2 )); then
        _localinfer_described command \
@TOP@ \
            '--help:Show the help page' '--version:Print the version'
        return
    fi
    case $command in
        ls) command=list ;;
        @GROUPS@) (( CURRENT > 3 )) && command="$command $words[3]" && at=4 ;;
    esac
    case $command in
@ROWS@
        *) return ;;
    esac
    for word in "${(@)words[at,CURRENT-1]}"; do
        if [[ -n $skip ]]; then
            skip=''
            continue
        fi
        case $word in
            @VALUED@) skip=yes ;;
            -*) ;;
            *) (( given += 1 )) ;;
        esac
    done
    if [[ -n $skip ]]; then
        _localinfer_values
    elif [[ $words[CURRENT] == -* ]]; then
        _describe -o -V flag flags
    elif (( given == 0 && $#offer )) || [[ $command == rm ]]; then
        "${offer[@]}"
    fi
}

_localinfer "$@"
"""
