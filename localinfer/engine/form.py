"""The form of an answer, as it is asked for: a JSON schema, a regular expression, rules."""

import json
import re
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from localinfer.errors import UsageError
from localinfer.text import one_line

MOST_CHARACTERS = 1 << 18
"""Of a schema or an expression."""

Kind = Literal["json_schema", "regex", "lark", "rules"]
_KINDS = get_args(Kind)


class FormLost(UsageError):
    """The automaton gave up in the middle of an answer."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """The form of an answer. `text` is a JSON schema, a regular expression for the whole of it, or rules in Lark's way
    of writing, one a line, of which `start` is the whole (`rules`) or `answer` (`lark`, forms of our own)."""

    kind: Kind
    text: str

    def __post_init__(self) -> None:
        if self.kind == "regex" and len(self.text) - len(self.text.rstrip("\\")) & 1:
            raise UsageError("the expression ends with a lone backslash", hint="write `\\\\` for a backslash")
        if len(self.text) > MOST_CHARACTERS:
            raise UsageError(
                f"the {self.word} has {len(self.text)} characters, more than {MOST_CHARACTERS}",
                hint="give a smaller one",
            )

    @property
    def word(self) -> str:
        return {"json_schema": "schema", "regex": "expression", "rules": "grammar"}.get(self.kind, "form")

    def to_json(self) -> str:
        """The form on one line, to be kept beside a chat."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | None) -> "Grammar | None":
        """The form that `to_json` wrote; None for what it cannot have written."""
        try:
            row = json.loads(text or "")
            return cls(row["kind"], row["text"]) if row["kind"] in _KINDS and type(row["text"]) is str else None
        except (ValueError, TypeError, KeyError, RecursionError, UsageError):
            return None


def from_rules(text: str) -> Grammar:
    """A grammar in Lark's way of writing, with `start`, or in GBNF, with `root`. Raises `UsageError` for what is
    neither."""
    from llguidance.gbnf_to_lark import any_to_lark

    given = Grammar("rules", text)
    if text.strip() and "::=" not in text and not re.search(r"^\s*[?!]*start\b", text, re.MULTILINE):
        raise UsageError("this grammar has no rule `start`", hint="begin with `start: …`, or in GBNF with `root ::= …`")
    try:
        return Grammar("rules", any_to_lark(given.text)) if given.text.strip() else _nothing()
    except RecursionError:
        told = "it has too many brackets in each other"
    except Exception as error:  # the converter raises plain ones
        told = one_line(str(error), 200)
    raise UsageError(f"this grammar is neither Lark nor GBNF: {told}", hint="begin with `start: …` or `root ::= …`")


def _nothing() -> Grammar:
    raise UsageError("the grammar is empty", hint="begin with `start: …` or `root ::= …`")


ANY_OBJECT = Grammar("json_schema", '{"type": "object"}')
