"""OpenAI's batch form: a line with `custom_id` and a request in it, a row with the response that a server would give.

Only chat completions, which is what local models are asked for; `model` is taken and means nothing.
"""

import json
from collections.abc import Mapping
from typing import Any

from localinfer.engine.grammar import ANY_OBJECT, Grammar
from localinfer.errors import UsageError

URL = "/v1/chat/completions"
KNOWN = {"custom_id", "method", "url", "body"}
OF_BODY = {"model", "max_completion_tokens", "response_format", "top_logprobs", "n", "user", "metadata", "stream"}
"""What a body may say beside the keys of our own lines."""

_NOT_OURS = ("id", "prompt", "system", "raw", "special")


def is_batch(row: Mapping[str, Any]) -> bool:
    return "custom_id" in row or "body" in row


def unpacked(row: Mapping[str, Any]) -> tuple[dict[str, Any], Grammar | None]:
    """The request in the words of our own lines, and the form of its answer. Raises `UsageError`."""
    if not isinstance(row.get("custom_id"), str):
        raise UsageError("`custom_id` is no text", hint='write `{"custom_id": "…", "method": "POST", "url": …}`')
    if row.get("method", "POST") != "POST" or row.get("url") != URL:
        raise UsageError(f"only `POST` to `{URL}` can be asked for", hint="send chat completions")
    body = row.get("body")
    if not isinstance(body, dict) or "messages" not in body:
        raise UsageError("`body` has no `messages`", hint='write `"body": {"messages": […]}`')
    odd = [name for name in _NOT_OURS if name in body]
    if odd or body.get("n", 1) != 1 or body.get("stream"):
        named = odd[0] if odd else "stream" if body.get("stream") else "n"
        raise UsageError(f"`{named}` of a body is not supported here", hint="leave it out")
    found = {name: value for name, value in body.items() if name not in OF_BODY and value is not None}
    longest = body.get("max_completion_tokens")
    if longest is not None:
        if body.get("max_tokens") not in (None, longest):
            raise UsageError("`max_tokens` and `max_completion_tokens` differ", hint="give one of them")
        found["max_tokens"] = longest
    found |= _logprobs(body)
    return found, _form(body.get("response_format"))


def _logprobs(body: Mapping[str, Any]) -> dict[str, Any]:
    wanted, top = body.get("logprobs"), body.get("top_logprobs")
    if wanted not in (None, True, False) or (top is not None and not wanted):
        raise UsageError("`logprobs` is neither true nor false, or `top_logprobs` has none", hint="give both")
    return {"logprobs": top or 0 if wanted else None}


def _form(value: Any) -> Grammar | None:
    kind = value.get("type") if isinstance(value, dict) else None
    if value is None or kind == "text":
        return None
    if kind == "json_object":
        return ANY_OBJECT
    inner = value.get("json_schema") if isinstance(value, dict) else None
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if kind != "json_schema" or not isinstance(schema, dict):
        raise UsageError("`response_format` is no form that is known", hint='write `{"type": "json_object"}`')
    return Grammar("json_schema", json.dumps(schema))
