"""The form of an answer, as protocols ask for it."""

import json
from typing import Any

from localinfer.engine.grammar import ANY_OBJECT, Grammar
from localinfer.serve.fields import Fields, blamed


def form_of_chat(fields: Fields) -> Grammar | None:
    """`response_format`: text, any JSON object, or a schema in an object of its own."""
    form = fields.inner("response_format")
    if form is None:
        return None
    kind = form.one_of("type", "text", "json_object", "json_schema")
    inner = form.inner("json_schema")
    form.done()
    if kind is None:
        raise form.wrong("type", "is missing")
    if kind != "json_schema":
        return ANY_OBJECT if kind == "json_object" else None
    if inner is None:
        raise form.wrong("json_schema", "is missing")
    return _named_schema(inner)


def form_of_response(text: Fields) -> Grammar | None:
    """`text.format` of responses: the same, with the schema beside its name."""
    form = text.inner("format")
    if form is None:
        return None
    kind = form.one_of("type", "text", "json_object", "json_schema")
    if kind == "json_schema":
        return _named_schema(form)
    form.done()
    return ANY_OBJECT if kind == "json_object" else None


def form_of_ollama(fields: Fields) -> Grammar | None:
    """`format`: `json`, or a schema."""
    value = fields.take("format")
    if value in (None, ""):
        return None
    return ANY_OBJECT if value == "json" else _schema(fields, "format", value)


def _named_schema(fields: Fields) -> Grammar:
    """Every schema is kept strictly, so `strict` changes nothing."""
    fields.labels("name", "description")
    fields.flag("strict")
    schema = fields.take("schema")
    fields.done()
    return _schema(fields, "schema", schema)


def _schema(fields: Fields, name: str, value: Any) -> Grammar:
    if not isinstance(value, dict):
        raise fields.wrong(name, "must be a JSON schema")
    with blamed(fields.path(name)):
        return Grammar("json_schema", json.dumps(value))
