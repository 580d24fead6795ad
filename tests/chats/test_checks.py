"""Schemas of tools from strangers: wrong ones are told, hostile ones end, nothing is fetched."""

from typing import Any

import pytest

from localinfer.chats.checks import checker
from localinfer.errors import UsageError


def tool(parameters: Any, name: str = "f") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def test_a_call_must_name_a_tool_and_keep_its_schema() -> None:
    city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    check = checker([tool(city), tool(None, "g")])
    assert check("f", {"city": "Paris"})
    assert not check("f", {"city": 1})
    assert not check("f", {})
    assert check("g", {"anything": [1, None]})
    assert not check("h", {})


def test_what_takes_for_ever_is_not_kept_and_the_next_is_answered() -> None:
    """References that double, forty times; a pattern that backtracks."""
    doubled = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(40)}
    check = checker([tool({"$defs": {**doubled, "a40": {"type": "object"}}, "$ref": "#/$defs/a0"})])
    assert not check("f", {})
    pattern = {"properties": {"x": {"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"}}}
    check = checker([tool(pattern)])
    assert not check("f", {"x": "a" * 5000})
    assert check("f", {"y": 1})


@pytest.mark.parametrize(
    "parameters", [{"type": 5}, {"$ref": "http://127.0.0.1:9/x.json"}, {"pattern": "("}, {"$ref": "#/nowhere"}], ids=str
)
def test_a_schema_that_is_none_is_told(parameters: Any) -> None:
    with pytest.raises(UsageError, match="the parameters of `f` are no schema"):
        checker([tool(parameters)])


@pytest.mark.parametrize("one", [{}, {"function": 5}, {"function": {"name": 5}}], ids=str)
def test_a_tool_without_a_name_is_told(one: Any) -> None:
    with pytest.raises(UsageError, match="no function with a name"):
        checker([one])
