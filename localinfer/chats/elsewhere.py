"""A line in the words of OpenAI's chat completions, and a row from what a server answers."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from localinfer.chats.mapping import Manner
from localinfer.chats.rows import Asked
from localinfer.errors import NotSupported, UsageError

SPELLED = {
    "repeat_penalty": "repetition_penalty",
}
"""Fields of `SamplingParams` that go under another name."""


def body_of(asked: Asked, model: str, manner: Manner, given: Collection[str]) -> dict[str, Any]:
    """The request for a line: of sampling what the line says, or what was `given` with the command, and its seed; the
    rest is the server's affair. Raises `UsageError` for what cannot be asked for elsewhere."""
    if asked.raw or asked.special:
        raise UsageError("`raw` and `special` cannot be asked of an endpoint", hint="leave them out")
    system = asked.system or manner.system
    messages = [{"role": "system", "content": system}] if system else []
    body: dict[str, Any] = {"model": model, "messages": [*messages, *(turn.fields for turn in asked.turns)]}
    body |= sampling_in(asked, given) | settings_in(manner)
    if asked.tools:
        body["tools"] = list(asked.tools)
    if asked.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": asked.logprobs}
    return body


def sampling_in(asked: Asked, given: Collection[str]) -> dict[str, Any]:
    """What the line says of sampling, what was `given` with the command, and the seed."""
    body: dict[str, Any] = {}
    for name in sorted({*given, *asked.said, "seed"}):
        value = getattr(asked.sampling, name)
        if name == "stop":
            value = list(value)
        elif name == "logit_bias":
            value = {str(token): bias for token, bias in value}
        if value not in (None, [], {}):
            body[SPELLED.get(name, name)] = value
    return body


def settings_in(manner: Manner) -> dict[str, Any]:
    """What the command says of form, scores and thinking. Raises `NotSupported` for a form that is no schema."""
    body: dict[str, Any] = {}
    if manner.grammar is not None:
        body["response_format"] = _form(manner.grammar.kind, manner.grammar.text)
    if manner.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": manner.logprobs}
    if manner.think is not None:
        body["chat_template_kwargs"] = {"enable_thinking": manner.think}
    return body


def row_of(asked: Asked, body: Mapping[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """`row`, which begins that of a line, completed by the chat completion `body`."""
    choice = body["choices"][0]
    message, usage = choice["message"], body.get("usage") or {}
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    scores = choice.get("logprobs")
    return row | {
        "text": message.get("content") or "",
        **({"reasoning": reasoning} if reasoning else {}),
        **({"tool_calls": message["tool_calls"]} if message.get("tool_calls") else {}),
        **({"logprobs": scores.get("content")} if isinstance(scores, dict) else {}),
        "finish_reason": choice.get("finish_reason"),
        "usage": {
            "prompt_tokens": usage.get("prompt_tokens"),
            "cached_tokens": cached,
            "completion_tokens": usage.get("completion_tokens"),
        },
        "seed": asked.sampling.seed,
    }


def _form(kind: str, text: str) -> dict[str, Any]:
    if kind != "json_schema":
        raise NotSupported("only a JSON schema can be asked of an endpoint", hint="use `--schema` or `--json-object`")
    schema = json.loads(text)
    if schema == {"type": "object"}:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
