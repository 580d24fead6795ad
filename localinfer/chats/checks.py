"""Whether calls of tools keep the schemas of their tools; asked of a process that can be killed."""

import atexit
import json
from collections.abc import Mapping, Sequence
from typing import Any

from localinfer.chats.calls import Check
from localinfer.chats.sandbox import Sandbox
from localinfer.errors import UsageError


class _Checker(Sandbox):
    """One child process that checks."""

    command = "from localinfer.chats.check_child import main; main()"

    def require(self, name: str, schema: str) -> None:
        """Raise `UsageError` where `schema`, of the tool `name`, is none."""
        answer = self._ask({"schema": schema})
        if "error" in answer:
            raise UsageError(f"the parameters of `{name}` are no schema: {answer['error']}", hint="give a JSON schema")

    def keeps(self, schema: str, arguments: Mapping[str, Any]) -> bool:
        """Whether they keep it. What takes too long does not."""
        return self._ask({"schema": schema, "arguments": dict(arguments)}).get("text") == "yes"


_shared = _Checker()
atexit.register(_shared.close)


def keeps(schema: str, value: Mapping[str, Any]) -> bool:
    """Whether an object keeps a JSON schema. What takes too long does not."""
    return _shared.keeps(schema, value)


def checker(tools: Sequence[Mapping[str, Any]]) -> Check:
    """Whether a call names one of `tools`, written as OpenAI does, and keeps its schema. Raises `UsageError` for a
    schema that is none. Asking takes a moment, and two seconds where a schema is hostile."""
    schemas = dict[str, str]()
    for one in tools:
        function = one.get("function")
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise UsageError("a tool is no function with a name", hint='write `{"type": "function", "function": {…}}`')
        schemas[function["name"]] = json.dumps(function.get("parameters") or {})
    for name, schema in schemas.items():
        _shared.require(name, schema)

    def check(name: str, arguments: Mapping[str, Any]) -> bool:
        return name in schemas and _shared.keeps(schemas[name], arguments)

    return check
