"""The completion script of bash (3.2 and later)."""

from localinfer.cli.options import SETTINGS
from localinfer.cli.words import SHELLS, Candidates, Flag, Words, groups_of, top_words, valued_flags


def make(commands: list[Words]) -> str:
    """The whole script."""
    groups = groups_of(commands)
    rows = [f"        '{name}') offer='_localinfer_words {' '.join(second)}' ;;" for name, second in groups.items()]
    rows += [_command(command) for command in commands]
    valued = valued_flags(commands)
    return (
        TEMPLATE.replace("@TOP@", " ".join([*top_words(commands), "--help", "--version"]))
        .replace("@GROUPS@", "|".join(groups))
        .replace("@ROWS@", "\n".join(rows))
        .replace("@VALUES@", "\n".join(f"        {'|'.join(flag.words)}) {_values(flag)} ;;" for flag in valued))
        .replace("@VALUED@", "|".join(word for flag in valued for word in flag.words))
    )


def _command(command: Words) -> str:
    flags = " ".join(word for flag in command.flags for word in flag.words)
    return f"        '{command.name}') flags='{flags}' offer='{_offer(command.candidates)}' ;;"


def _values(flag: Flag) -> str:
    return f"_localinfer_words {' '.join(flag.choices)}" if flag.choices else _offer(flag.values) or ":"


def _offer(candidates: Candidates) -> str:
    return {
        "none": "",
        "files": "_localinfer_files",
        "models": "_localinfer_names models",
        "pullable": "_localinfer_names pullable",
        "shells": "_localinfer_words " + " ".join(SHELLS),
        "keys": "_localinfer_words " + " ".join(SETTINGS),
    }[candidates]


TEMPLATE = r"""# Completion of localinfer for bash. Made by `python -m localinfer.cli.generate`; do not edit.

_localinfer_words() {
    local word
    for word in "$@"; do
        [[ $word == "$cur"* ]] && COMPREPLY+=("$word")
    done
}

# Names are compared and copied, never expanded: a model may be called anything.
_localinfer_names() {
    local word
    while IFS= read -r word; do
        [[ $word == "$cur"* ]] && COMPREPLY+=("$word")
    done < <("$program" __complete "$1" 2>/dev/null)
}

_localinfer_files() {
    local word
    while IFS= read -r word; do
        COMPREPLY+=("$word")
    done < <(compgen -f -- "$cur")
    compopt -o filenames 2>/dev/null
}

_localinfer_values() {
    case $prev in
@VALUES@
    esac
}

_localinfer() {
    local program=$1 line=${COMP_LINE:0:COMP_POINT}
    local cur=${line##*[[:space:]]} prev command flags='' offer='' skip='' given=0 at=2 word
    local -a typed
    COMPREPLY=()
    read -ra typed <<<"${line%"$cur"}"
    prev=${typed[${#typed[@]} - 1]}
    command=${typed[1]-}
    case $command in
        '') _localinfer_words @TOP@; return ;;
        ls) command=list ;;
        @GROUPS@) [[ -n ${typed[2]-} ]] && command="$command ${typed[2]}" && at=3 ;;
    esac
    case $command in
@ROWS@
        *) return ;;
    esac
    for word in "${typed[@]:at}"; do
        if [[ -n $skip ]]; then
            skip=''
            continue
        fi
        case $word in
            @VALUED@) skip=yes ;;
            -*) ;;
            *) given=$((given + 1)) ;;
        esac
    done
    if [[ -n $skip ]]; then
        _localinfer_values
    elif [[ $cur == -* ]]; then
        _localinfer_words $flags
    elif [[ $given == 0 || $command == rm ]]; then
        $offer
    fi
    # Readline ends a word at `:`, so it wants only what follows the last one.
    if [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]]; then
        local before=${cur%"${cur##*:}"} i
        for i in "${!COMPREPLY[@]}"; do
            COMPREPLY[i]=${COMPREPLY[i]#"$before"}
        done
    fi
}

complete -F _localinfer localinfer
"""
