"""What requests of several protocols say alike: sampling, messages, tools."""

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from localinfer.chats.rows import biases, message_of, parts_of, plain_system
from localinfer.chats.template import Message
from localinfer.errors import UsageError
from localinfer.protocols.answer import Answer
from localinfer.protocols.errors import Refused
from localinfer.protocols.fields import Fields, blamed, refuse_odd

MOST_ANSWERS = 16
"""Answers to one prompt."""

MOST_TOKENS = 1 << 20

Turns = tuple[str | None, tuple[Message, ...]]
"""A system prompt, and the conversation behind it."""


def sampling_of(fields: Fields, *, max_tokens: int | None) -> dict[str, Any]:
    """What a request says of `SamplingParams`."""
    said: dict[str, Any] = {
        "seed": fields.whole("seed", 0),
        "temperature": fields.number("temperature", 0, 100),
        "top_p": fields.number("top_p", 0, 1),
        "top_k": _top_k(fields),
        "min_p": fields.number("min_p", 0, 1),
        "repeat_penalty": fields.number("repetition_penalty", 0.01, 100),
        **penalties_of(fields),
        "dry_multiplier": fields.number("dry_multiplier", 0, 100),
        "dry_base": fields.number("dry_base", 1, 100),
        "dry_allowed_length": fields.whole("dry_allowed_length", 1, 64),
        "top_n_sigma": fields.number("top_n_sigma", 0, 1000),
        "typical_p": fields.number("typical_p", 0, 1),
        "xtc_probability": fields.number("xtc_probability", 0, 1),
        "xtc_threshold": fields.number("xtc_threshold", 0, 1),
        "logit_bias": _logit_bias(fields),
        "ignore_eos": fields.flag("ignore_eos") or None,
        "max_tokens": max_tokens,
    }
    chosen = {name: value for name, value in said.items() if value is not None}
    return chosen | {"stop": fields.texts("stop")}


def penalties_of(fields: Fields) -> dict[str, float | None]:
    """Those that several protocols know, in OpenAI's bounds."""
    return {name: fields.number(name, -2, 2) for name in ("presence_penalty", "frequency_penalty")}


def _logit_bias(fields: Fields) -> tuple[tuple[int, float], ...] | None:
    value = fields.take("logit_bias")
    if value is None:
        return None
    with fields.blamed("logit_bias"):
        return biases(value)


def _top_k(fields: Fields) -> int | None:
    value = fields.whole("top_k", -1, 1 << 22)
    return 0 if value == -1 else value  # vLLM's word for all


def conversation_of(listed: Sequence[Mapping[str, Any]], system: str | None = None) -> Turns:
    """Messages as OpenAI writes them. System prompts that they begin with, and `system`, are joined to one."""
    if not listed:
        raise Refused("messages", "`messages` is missing or empty", hint='write `[{"role": "user", "content": "…"}]`')
    names = dict[str, str]()
    turns = [_turn(one, at, names) for at, one in enumerate(listed)]
    texts = [system] if system else []
    while turns and turns[0].role == "system":
        with blamed("messages"):
            texts.append(plain_system(turns.pop(0)))
    if not turns:
        raise Refused("messages", "`messages` has nothing but a system prompt", hint="add a message of the user's")
    if turns[-1].role == "assistant" and not turns[-1].content:
        raise Refused("messages", "the last message is the assistant's and has no text to go on with")
    return "\n\n".join(texts) or None, tuple(turns)


_OF_MESSAGES = {"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "reasoning", "thinking"}


def _turn(one: Mapping[str, Any], at: int, names: dict[str, str]) -> Message:
    """One message; `names` are those of the tools that were called, by the ids of the calls."""
    where = f"messages.{at}"
    message = {name: value for name, value in one.items() if value not in (None, [])}
    refuse_odd(message, _OF_MESSAGES, where)
    for inside, part, known in parts_of(message):
        refuse_odd(part, known, f"{where}.{inside}")
    if message.get("role") == "developer":
        message["role"] = "system"
    with blamed(where):
        if "tool_calls" in message:
            message["tool_calls"] = [_called(call, names) for call in message["tool_calls"]]
        elif message.get("role") in ("assistant", "tool"):
            message.setdefault("content", "")
        if message.get("role") == "tool" and "name" not in message:
            name = names.get(str(message.get("tool_call_id")))
            message |= {"name": name} if name else {}
        return message_of(message, at)


def _called(call: Any, names: dict[str, str]) -> dict[str, Any]:
    """A call as templates read it: its arguments are an object, where they are one."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise UsageError("a call of a tool has no `function` with a `name`")
    if call.get("type", "function") != "function":
        raise UsageError("a call of a tool is of another type than `function`")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            raise UsageError("the arguments of a call are no JSON") from None
    names[str(call.get("id"))] = function["name"]
    return {**call, "type": "function", "function": {**function, "arguments": arguments}}


def finish_of(answer: Answer) -> str:
    """How an answer ended, in OpenAI's words."""
    if answer.reason in ("length", "overflow"):
        return "length"
    return "tool_calls" if answer.calls else "stop"


def usage_of(answers: Sequence[Answer], n: int = 1) -> dict[str, Any]:
    """Tokens, in OpenAI's words; a prompt that has `n` answers is counted once."""
    stats = [answer.stats for answer in answers if answer.stats is not None]
    prompt = sum(one.prompt_tokens for one in stats[::n])
    written = sum(one.completion_tokens for one in stats)
    if any(answer.echoed for answer in answers):  # nothing was written: the prompt was scored
        prompt, written = prompt + written, 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": sum(one.cached_tokens for one in stats[::n])},
        "completion_tokens_details": {"reasoning_tokens": sum(answer.reasoning_tokens for answer in answers)},
    }


def new_id(prefix: str) -> str:
    return f"{prefix}{secrets.token_hex(12)}"
