"""The form of an answer as a person gives it: the thing itself, or the file that holds it."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from localinfer.chats.files import BYTES_PER_TOKEN, read_file
from localinfer.engine.form import ANY_OBJECT, MOST_CHARACTERS, Grammar, from_rules
from localinfer.errors import ContextOverflow, NotFound, UsageError
from localinfer.text import one_line

_RULE = re.compile(r"^\s*[?!]?[\w-]+(?:\.-?[0-9]+)?\s*(?:::=|:(?=\s|$))", re.MULTILINE)
"""A line that begins a rule: `start: …`, `root ::= …`."""


def schema_of(given: str) -> Grammar:
    """A JSON schema, or the file that holds one. Raises `UsageError`, and `NotFound` for what is neither."""
    text = given.strip()
    whole = text[:1] in ("{", "[", '"') or (_is_json(text) and not _is_file(text))
    return Grammar("json_schema", text if whole else _in_file(given, "JSON schema", 'a schema is like `{"type": …}`'))


def rules_of(given: str) -> Grammar:
    """A grammar, Lark or GBNF, or the file that holds one. Raises as `schema_of` does."""
    whole = not given.strip() or "\n" in given or (_RULE.match(given) is not None and not _is_file(given))
    return from_rules(given if whole else _in_file(given, "grammar", "a grammar is like `start: …` or `root ::= …`"))


FORMS: dict[str, Callable[[str], Grammar]] = {
    "schema": schema_of,
    "regex": lambda given: Grammar("regex", given),
    "grammar": rules_of,
    "json-object": lambda _: ANY_OBJECT,
}
"""What a form can be given as, by the names of the flags."""


def form_of(name: str, given: str) -> Grammar:
    """The form of `name VALUE`. Raises `UsageError` for another name or a missing value, and what those above raise."""
    make = FORMS.get(name)
    if make is None:
        raise UsageError(f"there is no form `{one_line(name, 30)}`", hint=", ".join(FORMS))
    if bool(given) == (name == "json-object"):
        what = "takes nothing behind it" if given else "needs a value"
        raise UsageError(f"the form `{name}` {what}", hint="write it like `regex [0-9]+` or `schema person.json`")
    return make(given)


def title_of(form: Grammar | None) -> str:
    """A form in a word or two; empty for none."""
    return "" if form is None else "JSON object" if form == ANY_OBJECT else form.word


def _in_file(name: str, what: str, like: str) -> str:
    """The text of the file of this name. Raises `NotFound`, and `UsageError` for one that is too large."""
    try:
        return read_file(name, 4 * MOST_CHARACTERS // BYTES_PER_TOKEN)
    except ContextOverflow:
        raise UsageError(
            f"`{one_line(name, 60)}` has more than {4 * MOST_CHARACTERS} bytes",
            hint=f"give a smaller {what}, of at most {MOST_CHARACTERS} characters",
        ) from None
    except NotFound as error:
        reason = one_line(error.message.removeprefix(f"{name}: "), 60)
        raise NotFound(
            f"`{one_line(name, 60)}` is no {what}, and as the name of a file: {reason}", hint=f"check the path; {like}"
        ) from None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_file(name: str) -> bool:
    try:
        return Path(name).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):
        return False
