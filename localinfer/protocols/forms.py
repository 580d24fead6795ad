"""The form of an answer, as protocols ask for it."""

import json
import re
from dataclasses import dataclass
from typing import Any

from localinfer.engine.grammar import ANY_OBJECT, Grammar, from_rules
from localinfer.protocols.fields import Fields, blamed

MOST_CHOICES = 1024
"""Texts of which an answer may be one."""


@dataclass(frozen=True, slots=True)
class Form:
    """A form, and the field that asks for it: what is wrong with it may only be seen beside a model."""

    grammar: Grammar
    field: str


def form_of_chat(fields: Fields) -> Form | None:
    """The form that a request asks for, in OpenAI's words, vLLM's or llama.cpp's; in one of them only."""
    found = [
        *_openai(fields.inner("response_format")),
        *_vllm(fields.inner("structured_outputs")),
        *_grammar(fields, "grammar"),
        *_schema_in(fields, "json_schema"),
    ]
    if len(found) > 1:
        raise fields.wrong("response_format", f"is one of {len(found)} forms of the answer", hint="give one of them")
    return found[0] if found else None


def _openai(form: Fields | None) -> list[Form]:
    """`response_format`: text, any JSON object, a schema in an object of its own, or beside `json_object`."""
    if form is None:
        return []
    kind = form.one_of("type", "text", "json_object", "json_schema")
    inner = form.inner("json_schema")
    beside = _schema_in(form, "schema") if kind == "json_object" else []
    form.done()
    if kind is None:
        raise form.wrong("type", "is missing")
    if kind != "json_schema":
        return beside or ([Form(ANY_OBJECT, form.path("type"))] if kind == "json_object" else [])
    if inner is None:
        raise form.wrong("json_schema", "is missing")
    return [_named_schema(inner)]


def _vllm(form: Fields | None) -> list[Form]:
    """`structured_outputs`: one of a schema, any JSON object, an expression, choices, or a grammar."""
    if form is None:
        return []
    found = [*_schema_in(form, "json"), *_grammar(form, "grammar"), *_choices(form)]
    if expression := form.text("regex"):
        with form.blamed("regex"):
            found.append(Form(Grammar("regex", expression), form.path("regex")))
    if form.flag("json_object"):
        found.append(Form(ANY_OBJECT, form.path("json_object")))
    form.done()
    for name in ("json", "regex", "choice", "grammar"):
        if form.take(name) in ("", []):
            raise form.wrong(name, "is empty", hint="leave it out, or say what an answer may be")
    if len(found) != 1:
        told = f"is one of {len(found)} forms" if found else "is missing, and so is any other form"
        raise form.wrong("json", told, hint="give one of json, regex, choice and grammar")
    return found


def _schema_in(fields: Fields, name: str) -> list[Form]:
    value = fields.take(name)
    if isinstance(value, str):  # vLLM takes it as text, too
        with fields.blamed(name):
            return [Form(Grammar("json_schema", value), fields.path(name))]
    return [] if value is None else [_schema(fields, name, value)]


def _grammar(fields: Fields, name: str) -> list[Form]:
    """Rules as Lark or GBNF has them."""
    text = fields.text(name)
    if not text:
        return []
    with fields.blamed(name):
        return [Form(from_rules(text), fields.path(name))]


def _choices(fields: Fields) -> list[Form]:
    texts = fields.texts("choice", MOST_CHOICES)
    with fields.blamed("choice"):
        grammar = Grammar("regex", "|".join(re.escape(one) for one in texts)) if texts else None
    return [Form(grammar, fields.path("choice"))] if grammar else []


def form_of_response(text: Fields) -> Form | None:
    """`text.format` of responses: the same, with the schema beside its name."""
    form = text.inner("format")
    if form is None:
        return None
    kind = form.one_of("type", "text", "json_object", "json_schema")
    if kind == "json_schema":
        return _named_schema(form)
    form.done()
    return Form(ANY_OBJECT, form.path("type")) if kind == "json_object" else None


def form_of_ollama(fields: Fields) -> Form | None:
    """`format`: `json`, or a schema."""
    value = fields.take("format")
    if value in (None, ""):
        return None
    return Form(ANY_OBJECT, fields.path("format")) if value == "json" else _schema(fields, "format", value)


def _named_schema(fields: Fields) -> Form:
    """Every schema is kept strictly, so `strict` changes nothing."""
    fields.labels("name", "description")
    fields.flag("strict")
    schema = fields.take("schema")
    fields.done()
    return _schema(fields, "schema", schema)


def _schema(fields: Fields, name: str, value: Any) -> Form:
    if not isinstance(value, dict):
        raise fields.wrong(name, "must be a JSON schema")
    with blamed(fields.path(name)):
        return Form(Grammar("json_schema", json.dumps(value)), fields.path(name))
