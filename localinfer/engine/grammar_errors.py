"""What is wrong with a form, in words of ours: llguidance speaks of its own parts."""

import re
from collections.abc import Callable

from localinfer.engine.form import Grammar
from localinfer.errors import UsageError
from localinfer.text import one_line

Said = tuple[str, str]
"""What happened, and what to do."""

_CORRECT = "correct it"


def _keys(found: re.Match[str]) -> Said:
    names = ", ".join(f"`{name}`" for name in re.findall(r'"([^"]*)"', found[1]))
    return f"{names}: not supported while an answer is written", "leave it out, or say it in another way"


_WORDS: tuple[tuple[str, Callable[[re.Match[str]], Said]], ...] = (
    (r"Unimplemented keys: \[(.*)\]", _keys),
    (r"Pointer '(.*)' does not exist", lambda m: (f"`$ref` leads to `#{m[1]}`, which is not in it", _CORRECT)),
    (
        r"Resource '(?:json-schema:///)?(.*?)' is not present",
        lambda m: (f"`$ref` leads to `{m[1]}`, and nothing outside it is read", "put that schema under `$defs`"),
    ),
    (
        "oneOf constraints are not supported",
        lambda _: ("more than one schema of a `oneOf` may take the same value", "write `anyOf` instead"),
    ),
    ("invalid multiple of", lambda _: ("`multipleOf` must be above 0", _CORRECT)),
    (
        r"lookarounds not supported yet",
        lambda _: (
            r"`\b`, and `^` and `$` in the middle, cannot be kept",
            "leave them out; it is the whole answer's",
        ),
    ),
    ("look-around", lambda _: ("look-ahead and look-behind cannot be kept", "say it without `(?=`, `(?!`, `(?<`")),
    ("backreferences", lambda _: (r"what a group has matched (`\1`) cannot be asked for again", "write it out")),
    (r"unknown special token: \"(.*?)\"", lambda m: (f"this model has no token `{m[1]}`", "leave it out")),
    (r"Unknown common regex: ([^;]*)", lambda m: (f"there is no `{m[1]}` to import", "write the rule out")),
    (r"unknown name: \"(.*?)\"", lambda m: (f"there is no rule `{m[1]}`", "write it, or correct the name")),
    (r"lexer error", lambda _: ("its words cannot be told apart", "look for quotes and slashes that do not close")),
)


def told(grammar: Grammar, error: str) -> UsageError:
    """The error for a form that llguidance does not take, of what it says."""
    if "NoExtensionBias" in error:
        return nothing_keeps(grammar)
    if found := re.search(r"Unsatisfiable schema: (.*)", error):
        return UsageError(f"nothing keeps this {grammar.word}: {_plain(found[1])}", hint="loosen it")
    where = re.search(r"(?:^|at )(\d+)\((\d+)\):", error) if grammar.kind == "rules" else None
    line = f"line {where[1]}, column {where[2]}: " if where else ""
    for pattern, say in _WORDS:
        if found := re.search(pattern, error):
            said, hint = say(found)
            return UsageError(f"this {grammar.word} cannot be kept: {line}{_plain(said)}", hint=hint)
    said = _parsed(error) or "it cannot be read"
    return UsageError(f"this {grammar.word} cannot be kept: {line}{said}", hint=_CORRECT)


def nothing_keeps(grammar: Grammar) -> UsageError:
    """The error for a form that no text has."""
    return UsageError(f"nothing keeps this {grammar.word}: no text can begin like it", hint="loosen it")


def endless(grammar: Grammar) -> UsageError:
    """The error for a form that only a text without an end has."""
    if grammar.kind == "json_schema":
        why = "what it requires contains itself, again and again"
        way = "leave a property out of `required`, lower `minItems`, or give an `anyOf` with another way"
    else:
        why = "each way through its rules leads back into them"
        way = "give a rule an alternative that ends"
    return UsageError(f"no text with an end keeps this {grammar.word}: {why}", hint=way)


def reason(error: str) -> str:
    """What llguidance says of a form that it gave up, behind a colon; empty where that would name its own parts."""
    said = _plain(error)
    return f": {said}" if said else ""


def _parsed(error: str) -> str:
    """The complaint itself, without the place that is drawn below it."""
    found = re.search(r"error: (.*)", error)
    error = found[1] if found else re.sub(r"^(?:at )?\d+\(\d+\): ", "", re.split(r"\s[0-9]+ \| ", error)[0])
    return _plain(error.replace("failed to compile JSON schema", "its schema"))


def _plain(said: str) -> str:
    inner = re.search(r"non-verbose|NoExt|⟦|panicked|derivre|Option\(|::\w", said)
    return "" if inner else one_line(said, 200)
