"""What a schema means, held more narrowly than llguidance does: formats of time, numbers, keys."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from localinfer.chats.apart import Written
from localinfer.chats.call_ways import WAYS
from localinfer.chats.forcing import forced
from localinfer.engine.form import Grammar
from localinfer.engine.grammar import _BYTES, Constraint
from localinfer.engine.grammar_formats import narrowed
from localinfer.errors import UsageError
from tests.engine.test_grammar import opened
from tests.tiny import make_checkpoint


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("formats") / "tiny")


BEYOND = 1 << 53


@pytest.mark.parametrize(
    ("limits", "inside", "outside"),
    [
        ({"minimum": BEYOND + 1}, BEYOND + 2, BEYOND - 1),
        ({"maximum": BEYOND + 3, "minimum": 0}, BEYOND + 2, BEYOND + 4),
        ({"exclusiveMinimum": -BEYOND - 3}, -BEYOND, -BEYOND - 4),
        ({"exclusiveMaximum": -BEYOND - 1}, -BEYOND - 4, -BEYOND),
        ({"minimum": -(1 << 63), "maximum": (1 << 63) - 1}, (1 << 63) - 1024, 1 << 63),
        ({"maximum": 1e300}, (1 << 63) - 1024, None),
    ],
    ids=str,
)
def test_limits_beyond_what_a_float_counts_hold(
    tiny: Path, limits: dict[str, Any], inside: int, outside: int | None
) -> None:
    with opened(tiny) as engine:
        form = Grammar("json_schema", json.dumps({"type": "integer", **limits}))
        matcher = Constraint(form, engine.tokenizer).matcher(later=False)
        for number in range(inside - 3, inside + 4):
            ids = [*engine.tokenizer.encode_text(str(number)), engine.tokenizer.eos_ids[0]]
            if matcher.validate_tokens(ids) == len(ids):
                assert jsonschema_rs.is_valid(json.loads(form.text), number), number
        for limit, kept in ((inside, True), (outside, False)):
            if limit is not None:
                ids = [*engine.tokenizer.encode_text(str(limit)), engine.tokenizer.eos_ids[0]]
                assert (matcher.validate_tokens(ids) == len(ids)) == kept, limit


DAYS = {
    "date": ("2024-02-29", "2023-02-29", "2023-04-31", "2000-02-29", "1900-02-29"),
    "time": ("23:59:59Z", "12:00:60Z", "08:30:06.283+00:20", "24:00:00Z", "08:30:06"),
    "date-time": ("1998-12-31T23:59:59Z", "1998-12-31T23:58:60Z", "1990-02-31T15:59:59Z", "2020-02-29T00:00:00-08:00"),
}


@pytest.mark.parametrize("kind", DAYS)
def test_what_keeps_a_format_of_time_is_one(tiny: Path, kind: str) -> None:
    validator = jsonschema_rs.validator_for({"format": kind}, validate_formats=True)
    schema = {"type": "object", "properties": {"format": {"allOf": [{"format": kind}]}}, "required": ["format"]}
    with opened(tiny) as engine:
        constraint = Constraint(Grammar("json_schema", json.dumps(schema)), engine.tokenizer)
        for text in DAYS[kind]:
            ids = engine.tokenizer.encode_text(json.dumps({"format": text}))
            kept = constraint.matcher(later=False).validate_tokens(ids) == len(ids)
            assert kept == validator.is_valid(text), text


def test_data_in_a_schema_is_no_schema() -> None:
    data = {"const": {"format": "time"}, "default": {"format": "date"}, "properties": {"const": {"format": "x"}}}
    assert narrowed(data) == data


def test_keys_are_what_they_look_like() -> None:
    """`\\u0061` is `a`, which the automaton would not know; two free keys may be one key said twice."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}}
    constraint = Constraint(Grammar("json_schema", json.dumps(schema)), _BYTES)
    for text, kept in (('{"\\u0061":"x"}', False), ('{"b\\n":"x"}', True), ('{"a":1}', True), ('{"a":"x"}', False)):
        with nullcontext() if kept else pytest.raises(UsageError):
            constraint.require_kept(list(text.encode()))
    for value in ("a\x01b", ["x", "\x7f"], {"\x1b": 1}):
        with pytest.raises(UsageError, match=r"control character U\+00"):
            Constraint(Grammar("json_schema", json.dumps({"enum": [value]})), _BYTES)
    Constraint(Grammar("json_schema", json.dumps({"const": "\b\f\n\r\té"})), _BYTES)
    tool = {"function": {"name": "f", "parameters": schema}}
    call = '<tool_call>\n{"name": "f", "arguments": {"\\u0061": "x"}}\n</tool_call>'
    arguments = Constraint(forced(Written(next(way for way in WAYS if way.name == "hermes"), {}), [tool]), _BYTES)
    with pytest.raises(UsageError):
        arguments.require_kept(list(call.encode()))
    arguments.require_kept(list(call.replace("\\u0061", "b").encode()))
    for least, required in ((2, []), (4, ["a", "b", "b"])):
        form = {"minProperties": least, "required": required, "properties": {"a": {}, "b": {}}}
        with pytest.raises(UsageError, match=f"`minProperties: {least}` cannot be kept"):
            Constraint(Grammar("json_schema", json.dumps(form)), _BYTES)
