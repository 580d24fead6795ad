"""The tools that a request brings, looked at."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localinfer.protocols.errors import Refused

MOST_TOOLS = 256
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")


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


@dataclass(frozen=True, slots=True)
class Choice:
    """The tools of a request, and what is to be made of them."""

    tools: tuple[Mapping[str, Any], ...] = ()
    one_call: bool = False
    """Whether the answer ends behind its first call."""
    forced: tuple[Mapping[str, Any], ...] = ()
    """Those of which one must be called, if one must."""


NO_TOOLS = Choice()


def choice_of(
    tools: tuple[Mapping[str, Any], ...], kind: str | None, name: object, *, parallel: bool, field: str = "tool_choice"
) -> Choice:
    """`kind` is `auto`, `none`, `required`, or `named` with the `name` of the one to be called. Raises `Refused`."""
    if kind == "none":
        return NO_TOOLS
    if kind in (None, "auto"):
        return Choice(tools, not parallel)
    forced = tuple(one for one in tools if kind == "required" or one["function"]["name"] == name)
    if not forced:
        named = f" `{str(name)[:100]}`" if kind == "named" else ""
        raise Refused(field, f"`{field}` wants a call of a tool{named} that is not there", hint="send it in `tools`")
    return Choice(tools, True, forced)
