"""How known families write calls of tools: their marks, and what stands between them.

Which way a model has is told by the marks in its chat template and among its special tokens. Nothing is executed: what
looks like a call in Python is read as a tree, and only literals in it count.
"""

import ast
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Found = list[tuple[str, dict[str, Any]]]
"""Names of tools with their arguments."""

BROKEN = (ValueError, SyntaxError, RecursionError, MemoryError, TypeError)
"""What reading raises for something that is no call."""

MOST_PYTHON = 1 << 16
"""Characters of a list of calls in Python's way of writing."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a family writes calls."""

    name: str
    opening: str
    closing: str
    """Empty where a call goes on to the end of the answer."""
    read: Callable[[str], Found]
    """Takes what stands between the marks. Raises one of `BROKEN`."""
    marks: tuple[str, ...] = ()
    """Further strings that may be special tokens and mean something within a call."""
    told_by: str = ""
    """What shows that a model writes so, where the opening mark is not what it writes itself."""
    bare: bool = False
    """Whether an answer that begins with a brace is a call, too."""


def way_of(template: str | None, specials: Iterable[str]) -> Way | None:
    """How a model with this template and these special tokens writes calls; None where that is not known."""
    known = set(specials)
    for way in WAYS:
        mark = way.told_by or way.opening
        if mark in known or mark in (template or ""):
            return way
    return None


def _hermes(inner: str) -> Found:
    return [_named(one) for one in _listed(json.loads(inner))]


def _mistral(inner: str) -> Found:
    """`[{…}, …]`, or a name with its arguments, once for each mark."""
    if inner.lstrip().startswith("["):
        values, end = json.JSONDecoder().raw_decode(inner.lstrip())
        if inner.lstrip()[end:].strip():
            raise ValueError("something stands behind the list")
        return [_named(one) for one in _listed(values)]
    found: Found = []
    for one in inner.split("[TOOL_CALLS]"):
        name, _, arguments = one.partition("[ARGS]") if "[ARGS]" in one else _before_brace(one)
        found.append((name.partition("[CALL_ID]")[0].strip(), _object(json.loads(arguments))))
    return found


def _llama3(inner: str) -> Found:
    """Objects with semicolons between them, or a call of a built-in tool as Python."""
    text, found = inner.strip(), Found()
    if not text.startswith("{"):
        return [(name.removesuffix(".call"), arguments) for name, arguments in _python(text)]
    decoder = json.JSONDecoder()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(_named(value))
        text = text[end:].strip()
        if text and not text.startswith(";"):
            raise ValueError("something stands behind the call")
        text = text.lstrip("; \n")
    return found


def _python(inner: str) -> Found:
    """`[name(key=value), …]`, the list's brackets left out or not."""
    if len(inner) > MOST_PYTHON:
        raise ValueError("too long")
    tree = ast.parse(inner.strip(), mode="eval").body
    calls = tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]
    found: Found = []
    for call in calls:
        if not isinstance(call, ast.Call) or call.args or any(word.arg is None for word in call.keywords):
            raise ValueError("no call with named arguments")
        found.append((_dotted(call.func), {str(word.arg): _literal(word.value) for word in call.keywords}))
    return found


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    if isinstance(node, ast.Name):
        return node.id
    raise ValueError("no name")


_WORDS = {"true": True, "false": False, "null": None}


def _literal(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=str() | int() | float() | None as value):
            return value
        case ast.Name(id=word) if word in _WORDS:
            return _WORDS[word]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_literal(one) for one in items]
        case ast.Dict(keys=keys, values=values):
            return {_key(key): _literal(value) for key, value in zip(keys, values, strict=True)}
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
    raise ValueError("no literal")


def _key(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise ValueError("no key of an object")


def _gemma(quote: str) -> Callable[[str], Found]:
    """`call:name{key:value,…}`, texts between two `quote`s."""

    def read(inner: str) -> Found:
        found, at = Found(), 0
        while at < len(inner):
            head = re.compile(r"\s*call:([\w.-]+)\s*(?=\{)").match(inner, at)
            if head is None:
                raise ValueError("no call")
            arguments, at = _value(inner, head.end(), quote, 0)
            found.append((head[1], arguments))
            at += len(inner[at:]) - len(inner[at:].lstrip(" ,\n"))
        return found

    return read


_SCALAR = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def _value(text: str, at: int, quote: str, depth: int) -> tuple[Any, int]:
    """The value at `at`, and where it ends."""
    if depth > 50:
        raise ValueError("too deep")
    if text.startswith(quote, at):
        end = text.index(quote, at + len(quote))
        return text[at + len(quote) : end], end + len(quote)
    if text[at : at + 1] in ("{", "["):
        return _members(text, at, quote, depth)
    scalar = _SCALAR.match(text, at)
    if scalar is None:
        raise ValueError("no value")
    return json.loads(scalar[0]), scalar.end()


def _members(text: str, at: int, quote: str, depth: int) -> tuple[Any, int]:
    """The object or list at `at`, and where it ends."""
    is_object, pairs, items = text[at] == "{", dict[str, Any](), list[Any]()
    closing, at = "}" if is_object else "]", at + 1
    while not text.startswith(closing, at):
        if is_object:
            key, at = _word(text, at, quote)
            pairs[key], at = _value(text, at, quote, depth + 1)
        else:
            item, at = _value(text, at, quote, depth + 1)
            items.append(item)
        if text.startswith(",", at):
            at += 1
        elif not text.startswith(closing, at):
            raise ValueError("neither a comma nor an end")
    return (pairs if is_object else items), at + 1


def _word(text: str, at: int, quote: str) -> tuple[str, int]:
    """A key and its colon."""
    if text.startswith(quote, at):
        end = text.index(quote, at + len(quote))
        key, at = text[at + len(quote) : end], end + len(quote)
        if not text.startswith(":", at):
            raise ValueError("no colon")
        return key, at + 1
    end = text.index(":", at)
    return text[at:end].strip(), end + 1


def _before_brace(text: str) -> tuple[str, str, str]:
    at = text.index("{")
    return text[:at], "", text[at:]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _named(value: Any) -> tuple[str, dict[str, Any]]:
    """An object with `name` and `arguments`, or `parameters`, which may be JSON in a text."""
    name = _object(value).get("name")
    arguments = value.get("arguments", value.get("parameters", {}))
    if not isinstance(name, str):
        raise ValueError("no name")
    return name, _object(json.loads(arguments) if isinstance(arguments, str) else arguments)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


WAYS = (
    Way("harmony", "<tool_call>", "</tool_call>", _hermes, told_by="<|channel|>"),
    Way("lfm2", "<|tool_call_start|>", "<|tool_call_end|>", _python),
    Way("gemma4", "<|tool_call>", "<tool_call|>", _gemma('<|"|>'), marks=('<|"|>',)),
    Way("functiongemma", "<start_function_call>", "<end_function_call>", _gemma("<escape>"), marks=("<escape>",)),
    Way("mistral", "[TOOL_CALLS]", "", _mistral, marks=("[ARGS]", "[CALL_ID]")),
    Way("hermes", "<tool_call>", "</tool_call>", _hermes),
    Way("llama3", "<|python_tag|>", "", _llama3, bare=True),
)
"""Those with marks of their own first."""
