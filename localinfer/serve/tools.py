"""The tools that a request brings: looked at, and what checks calls of them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from localinfer.chats.calls import Check
from localinfer.serve.errors import Refused
from localinfer.text import one_line

MOST_TOOLS = 256
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_BACKTRACKS = 100_000
"""Steps that one pattern of a schema may take."""


def tools_of(listed: Sequence[Mapping[str, Any]], field: str = "tools") -> tuple[Mapping[str, Any], ...]:
    """Tools as OpenAI writes them, as templates read them. Raises `Refused`."""
    if len(listed) > MOST_TOOLS:
        raise Refused(field, f"`{field}` has {len(listed)} tools, more than {MOST_TOOLS}")
    return tuple(_tool(one, f"{field}.{at}") for at, one in enumerate(listed))


def tool(name: Any, description: Any, parameters: Any, where: str) -> Mapping[str, Any]:
    """One tool from its parts. Raises `Refused`."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Refused(where, f"`{where}` has no name of letters, digits, `_`, `.` and `-`")
    if not isinstance(description, str | None) or not isinstance(parameters, Mapping | None):
        raise Refused(where, f"`{where}` has a description that is no text, or parameters that are no schema")
    function: dict[str, Any] = {"name": name, "description": description or ""}
    function["parameters"] = parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}


def _tool(one: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    function = one.get("function")
    if one.get("type", "function") != "function" or not isinstance(function, Mapping):
        raise Refused(where, f"`{where}` is no function", hint="only functions are supported")
    odd = sorted(
        {*(one.keys() - {"type", "function"}), *(function.keys() - {"name", "description", "parameters", "strict"})}
    )
    if odd:
        raise Refused(f"{where}.{odd[0][:80]}", f"`{where}.{odd[0][:80]}` is not supported here")
    return tool(function.get("name"), function.get("description"), function.get("parameters"), where)


def checker(tools: Sequence[Mapping[str, Any]], field: str = "tools") -> Check:
    """Whether a call names one of `tools` and keeps its schema. Raises `Refused` for a schema that is none; nothing
    that a schema refers to is fetched."""
    import jsonschema_rs

    patterns = jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACKS)
    validators = dict[str, Any]()
    for at, one in enumerate(tools):
        function = one["function"]
        try:
            validators[function["name"]] = jsonschema_rs.validator_for(
                function["parameters"], pattern_options=patterns, offline=True
            )
        except Exception as error:  # of several kinds, one of them ValueError
            raise Refused(
                f"{field}.{at}", f"the parameters of `{function['name']}` are no schema: {one_line(str(error), 200)}"
            ) from None

    def check(name: str, arguments: Mapping[str, Any]) -> bool:
        validator = validators.get(name)
        return validator is not None and validator.is_valid(dict(arguments))

    return check
