"""A form as llguidance reads it: by itself, or behind the reasoning of a model that thinks."""

import json
import re
from typing import Any

from localinfer.engine.form import Grammar
from localinfer.engine.grammar_formats import ESCAPES, narrowed
from localinfer.errors import UsageError
from localinfer.formats.json_files import RefusedError, unique
from localinfer.text import one_line

_SPACE = r"[\x20\x0A\x0D\x09]{1,40}"
"""What may stand between the words of JSON: enough for lines and indents, and no model can go on with it for ever."""


def plain(grammar: Grammar) -> str:
    from llguidance import LLMatcher

    if grammar.kind == "regex":
        return LLMatcher.grammar_from_regex(grammar.text)
    if grammar.kind == "lark":
        return LLMatcher.grammar_from_lark(f"start: answer\n{grammar.text}")
    if grammar.kind == "rules":
        return LLMatcher.grammar_from_lark(_rules(grammar.text))
    return LLMatcher.grammar_from_json_schema(_schema(grammar))


def behind_thinking(grammar: Grammar) -> str:
    """The same, behind the line breaks that models write there."""
    from llguidance import LLMatcher

    if grammar.kind == "rules":  # a grammar in a grammar: names of rules may be the same
        outer = {"lark_grammar": "start: BREAKS? @answer\nBREAKS: /\\n{1,2}/\n"}
        return json.dumps({"grammars": [outer, {"name": "answer", "lark_grammar": _rules(grammar.text)}]})
    if grammar.kind == "lark":
        rules = grammar.text
    elif grammar.kind == "json_schema":
        rules = f"answer: %json {_schema(grammar)}\n"
    else:
        rules = f"answer: /{_escaped(grammar.text)}/\n"
    return LLMatcher.grammar_from_lark(f"start: BREAKS? answer\nBREAKS: /\\n{{1,2}}/\n{rules}")


_SCHEMA_IN_RULES = re.compile(r'"(?:\\.|[^"\\\n])*"|(?://|#)[^\n]*|/(?:\\.|[^/\\\n])+/|%json(?P<schema>\s*)')


def _rules(text: str) -> str:
    """Rules whose `%json` are read as schemas that are given alone; what they say of white space stands."""
    found, at = "", 0
    while (part := _SCHEMA_IN_RULES.search(text, at)) is not None:
        found, at = found + text[at : part.end()], part.end()
        if part["schema"] is None:
            continue
        try:
            schema, end = json.JSONDecoder(object_pairs_hook=unique).raw_decode(text, at)
        except (ValueError, RecursionError):  # whoever reads the rules says why
            continue
        except RefusedError as error:
            raise UsageError(f"a schema in the grammar is refused: {error}", hint="leave one of them out") from None
        guided, breaks = _guided(schema), text.count("\n", at, end)  # which errors are counted by
        found, at = found + guided[:1] + "\n" * breaks + guided[1:], end
    return found + text[at:]


def _guided(schema: Any) -> str:
    """Raises `UsageError`."""
    if not isinstance(schema, dict):
        return json.dumps(schema)
    own = schema.get("x-guidance", {})
    if isinstance(own, dict):
        space = {} if own.keys() & {"whitespace_pattern", "whitespace_flexible"} else {"whitespace_pattern": _SPACE}
        own = {**space, **own, "json_allowed_escapes": ESCAPES}
    try:
        return json.dumps({**narrowed(schema), "x-guidance": own}, allow_nan=False)
    except ValueError:
        raise UsageError("the schema has a number beyond all floats", hint="write a smaller one") from None


def _escaped(expression: str) -> str:
    """An expression as it stands between two slashes."""
    out, escaped = "", False
    for character in expression:
        out += "\\/" if character == "/" and not escaped else {"\n": "\\n", "\r": "\\r"}.get(character, character)
        escaped = character == "\\" and not escaped
    return out


def _schema(grammar: Grammar) -> str:
    """The schema on one line. Raises `UsageError` for text that is none."""
    try:
        schema: Any = json.loads(grammar.text, object_pairs_hook=unique)
    except RecursionError:
        raise UsageError("the schema has too many brackets in each other", hint="give a simpler one") from None
    except RefusedError as error:
        raise UsageError(f"the schema is refused: {error}", hint="leave one of them out") from None
    except ValueError as error:
        raise UsageError(f"the schema is no JSON: {one_line(str(error), 100)}", hint="give a JSON schema") from None
    if not isinstance(schema, dict | bool):
        raise UsageError("the schema is neither an object nor true or false", hint="give a JSON schema")
    if isinstance(schema, bool):
        return grammar.text
    return _guided({name: value for name, value in schema.items() if name != "x-guidance"})
