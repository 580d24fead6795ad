"""Schemas within a grammar keep what schemas do that are given alone; keys that are required anywhere beside count."""

import json
from contextlib import nullcontext
from typing import Any

import pytest

import localinfer.engine.grammar as grammar_module
from localinfer.engine.form import from_rules
from localinfer.engine.grammar import Constraint, Grammar, Marks
from localinfer.engine.grammar_probe import MOST_UNFOLDED
from localinfer.errors import UsageError

A_NUMBER = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}}


def kept(rules: str, text: str, marks: Marks | None = None) -> bool:
    constraint = Constraint(from_rules(rules), grammar_module._BYTES, marks)
    try:
        constraint.require_kept(list(text.encode()))
    except UsageError:
        return False
    return True


@pytest.mark.parametrize("space", ["", " ", "\n  "])
@pytest.mark.parametrize("indent", [None, 2])
def test_keys_within_a_grammar_are_what_they_look_like(space: str, indent: int | None) -> None:
    rules = f'start: "<" body ">"  # %json {{\nbody: %json{space}{json.dumps(A_NUMBER, indent=indent)}\n'
    assert not kept(rules, '<{"\\u0061":"x"}>')
    assert not kept(rules, '<{"a":"x"}>')
    assert kept(rules, '<{"a":1}>')
    assert kept(rules, '<{"b\\n":"x"}>')
    assert kept(rules, '<{\n  "b" : "x" }>')


def test_what_only_looks_like_a_schema_stands_as_it_is() -> None:
    assert kept('start: "%json {}" // %json {"minProperties": 9}\n', "%json {}")
    assert kept('start: /%json \\{"[a]/ "\\"%json {" # "\n', '%json {"a"%json {')


def test_white_space_is_what_the_schema_says() -> None:
    plain = 'start: %json {"type": "object", "x-guidance": {"whitespace_flexible": false, "json_allowed_escapes": "u"}}'
    assert not kept(plain, '{ "a":1}')
    assert not kept(plain, '{"\\u0061":1}')
    assert kept(plain, '{"a":1}')
    assert not kept('start: %json {"type": "object"}', "{" + " " * 60 + '"a":1}')


def test_what_no_schema_may_have_is_refused_within_a_grammar_and_where_it_stands() -> None:
    for schema in ('{"minProperties": 2}', '{"const": "a\\u0001"}', '{"const": 1e400}'):
        with pytest.raises(UsageError):
            Constraint(from_rules(f"start: %json {schema}"), grammar_module._BYTES)
    broken = 'start: %json {\n"type":\n"null"} other\nother: nobody\n'
    with pytest.raises(UsageError, match="line 4, column 8: there is no rule `nobody`"):
        Constraint(Grammar("rules", broken), grammar_module._BYTES)
    heavy = json.dumps({"type": "string", "pattern": f"a{{{MOST_UNFOLDED + 1}}}"}, indent=1)
    with pytest.raises(UsageError, match="with its counts written out"):
        Constraint(from_rules(f"start: %json {heavy}\n"), grammar_module._BYTES)


A_AND_B = {"required": ["a", "b"]}


@pytest.mark.parametrize(
    ("schema", "taken"),
    [
        ({"allOf": [A_AND_B, {"minProperties": 3}]}, True),
        ({"allOf": [{"allOf": [A_AND_B]}], "minProperties": 3}, True),
        ({"required": ["c"], "allOf": [A_AND_B, {"minProperties": 4}]}, True),
        ({"required": ["c"], "allOf": [A_AND_B, {"minProperties": 5}]}, False),
        ({"anyOf": [A_AND_B, {"required": ["a"]}], "minProperties": 2}, True),
        ({"anyOf": [A_AND_B, {"required": ["c"]}], "minProperties": 2}, False),
        ({"required": ["a", "b"], "anyOf": [{"minProperties": 3}, {"required": ["c"]}]}, True),
        ({"properties": {"x": {"minProperties": 2}}, "required": ["a", "b"]}, False),
        ({"items": {"minProperties": 2}, "required": ["a", "b"]}, False),
    ],
)
def test_keys_that_are_required_beside_count(schema: dict[str, Any], taken: bool) -> None:
    form = Grammar("json_schema", json.dumps(schema))
    with nullcontext() if taken else pytest.raises(UsageError, match="cannot be kept"):
        Constraint(form, grammar_module._BYTES)


def test_no_key_is_counted_twice_where_they_are_required_beside() -> None:
    schema = {"type": "object", "allOf": [A_AND_B, {"minProperties": 3}]}
    constraint = Constraint(Grammar("json_schema", json.dumps(schema)), grammar_module._BYTES)
    constraint.require_kept(list(b'{"a":1,"b":2,"c":3}'))
    for text in (b'{"a":1,"b":2,"b":3}', b'{"a":1,"b":2,"\\u0062":3}', b'{"a":1,"a":2,"b":3}'):
        with pytest.raises(UsageError):
            constraint.require_kept(list(text))
