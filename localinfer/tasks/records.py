"""JSON: a record in words is to become an object that keeps a schema, and says what the record says."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from localinfer.chats.checks import keeps
from localinfer.chats.plain_json import object_of
from localinfer.errors import UsageError
from localinfer.tasks.draw import Draw
from localinfer.tasks.items import Item, fenced

MOST_BYTES = 16_384
"""Of an object that is looked at."""

_PEOPLE = ("Ida Berg", "Tom Weaver", "Marit Holm", "Jonas Lind", "Ada Okafor", "Lucia Romano", "Piet de Vries")
_TOWNS = ("Bergen", "Porto", "Leiden", "Trieste", "Galway", "Gdansk", "Turku", "Bilbao")
_DAYS = ("2025-03-14", "2024-11-02", "2026-01-30", "2025-07-08", "2023-09-21", "2026-05-05")
_COLOURS = ("red", "green", "blue", "white", "grey")
_TAGS = ("new", "fragile", "urgent", "used", "large", "quiet", "local", "rare")
_TITLES = ("The Salt Road", "Nine Lanterns", "A Winter Map", "The Quiet Engine", "Harbour Lights", "Two Rivers")

_Value = Callable[[Draw], Any]
_Field = tuple[str, dict[str, Any], _Value, str]
"""Name, schema, a drawn value, and how the record says it."""


def _text(name: str, choices: Sequence[str], says: str) -> _Field:
    return name, {"type": "string"}, lambda draw: draw.one(choices), says


def _whole(name: str, low: int, high: int, says: str) -> _Field:
    schema = {"type": "integer", "minimum": low, "maximum": high}
    return name, schema, lambda draw: draw.between(low, high), says


def _tenths(name: str, low: int, high: int, says: str) -> _Field:
    return name, {"type": "number"}, lambda draw: draw.between(low, high) + 0.5, says


def _choice(name: str, choices: Sequence[str], says: str) -> _Field:
    return name, {"enum": list(choices)}, lambda draw: draw.one(choices), says


def _flag(name: str, yes: str, no: str) -> _Field:
    return name, {"type": "boolean"}, lambda draw: bool(draw.between(0, 1)), f"{yes}|{no}"


def _several(name: str, choices: Sequence[str], says: str) -> _Field:
    schema = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    return name, schema, lambda draw: draw.some(choices, draw.between(1, 3)), says


def _date(name: str, says: str) -> _Field:
    schema = {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}
    return name, schema, lambda draw: draw.one(_DAYS), says


_BOOK = (
    _text("title", _TITLES, "Its title is {}."),
    _text("author", _PEOPLE, "It was written by {}."),
    _whole("pages", 40, 900, "It has {} pages."),
    _whole("year", 1950, 2025, "It came out in {}."),
    _flag("in_stock", "It is in stock.", "It is not in stock."),
    _several("tags", _TAGS, "Its tags are {}."),
    _choice("binding", ("paperback", "hardcover"), "Its binding is {}."),
)
_BOAT = (
    _text("name", ("Tern", "Nordlys", "Petrel", "Aurora", "Skua"), "She is called {}."),
    _text("harbour", _TOWNS, "Her harbour is {}."),
    _tenths("length_m", 6, 40, "She is {} metres long."),
    _whole("crew", 1, 20, "She has a crew of {}."),
    _choice("colour", _COLOURS, "Her colour is {}."),
    _flag("afloat", "She is afloat.", "She is not afloat."),
    _date("inspected", "She was inspected on {}."),
)
_ORDER = (
    _whole("number", 1000, 9999, "The number of the order is {}."),
    _text("customer", _PEOPLE, "The customer is {}."),
    _date("date", "It was placed on {}."),
    _several("items", ("lamp", "rope", "kettle", "chair", "clock"), "It asks for these things: {}."),
    _tenths("total", 5, 400, "The total is {}."),
    _flag("paid", "It is paid.", "It is not paid."),
    _choice("shipping", ("post", "courier", "pickup"), "It goes by {}."),
)
_PERSON = (
    _text("name", _PEOPLE, "The name is {}."),
    _whole("age", 18, 90, "The age is {}."),
    _text("town", _TOWNS, "The town is {}."),
    _several("languages", ("Norwegian", "Dutch", "Polish", "Basque", "Irish"), "The languages are {}."),
    _flag("member", "This person is a member.", "This person is no member."),
    _date("joined", "The date of joining is {}."),
    _choice("role", ("guest", "editor", "owner"), "The role is {}."),
)
_WEATHER = (
    _text("station", _TOWNS, "The station is {}."),
    _date("date", "The day is {}."),
    _whole("temperature", -20, 35, "The temperature is {} degrees."),
    _choice("sky", ("clear", "cloudy", "rain", "snow"), "The sky: {}."),
    _whole("wind", 0, 40, "The wind is {} metres a second."),
    _flag("warning", "There is a warning.", "There is no warning."),
    _tenths("rain_mm", 0, 60, "Rain was {} millimetres."),
)
_RECIPE = (
    _text("dish", ("leek soup", "rye bread", "plum cake", "fish stew"), "The dish is {}."),
    _whole("servings", 1, 12, "It serves {}."),
    _whole("minutes", 5, 180, "It takes {} minutes."),
    _several("ingredients", ("flour", "butter", "leeks", "salt", "plums", "cod"), "It needs {}."),
    _flag("vegetarian", "It is vegetarian.", "It is not vegetarian."),
    _choice("course", ("starter", "main", "dessert"), "The course is {}."),
    _text("cook", _PEOPLE, "The cook is {}."),
)
_FAULT = (
    _whole("id", 1, 5000, "The fault has the id {}."),
    _choice("severity", ("low", "medium", "high"), "Its severity is {}."),
    _text("reporter", _PEOPLE, "It was reported by {}."),
    _date("opened", "It was opened on {}."),
    _flag("fixed", "It is fixed.", "It is not fixed."),
    _several("labels", _TAGS, "Its labels are {}."),
    _whole("votes", 0, 300, "It has {} votes."),
)
_TRAIN = (
    _whole("number", 1, 999, "The train has the number {}."),
    _text("from", _TOWNS[:4], "It comes from {}."),
    _text("to", _TOWNS[4:], "It goes to {}."),
    _choice("class", ("first", "second"), "The class is {}."),
    _whole("platform", 1, 14, "It leaves from platform {}."),
    _flag("late", "It is late.", "It is on time."),
    _tenths("price", 4, 120, "The price is {}."),
)
KINDS = {
    "book": _BOOK,
    "boat": _BOAT,
    "order": _ORDER,
    "person": _PERSON,
    "weather report": _WEATHER,
    "recipe": _RECIPE,
    "fault report": _FAULT,
    "train": _TRAIN,
}
_ASK = (
    "Write this record as one JSON object that keeps the JSON schema. Answer with the JSON alone.\n\n"
    "Schema:\n{schema}\n\nRecord of a {kind}: {record}"
)


def json_items(count: int) -> list[Item]:
    """The first `count` records, their kinds in turn, each with a schema of its own."""
    draw, seen, found = Draw("json"), set[str](), list[Item]()
    while len(found) < count:
        kind = list(KINDS)[len(found) % len(KINDS)]
        fields = draw.some(KINDS[kind], draw.between(3, 6))
        values = {name: value(draw) for name, _, value, _ in fields}
        schema = json.dumps(_schema({name: said for name, said, _, _ in fields}))
        if schema in seen:
            continue
        seen.add(schema)
        record = " ".join(_said(says, values[name]) for name, _, _, says in fields)
        facts = json.dumps(_schema({name: {"const": value} for name, value in values.items()}))
        found.append(
            Item(
                f"json-{len(found) + 1:03}",
                _ASK.format(schema=schema, kind=kind, record=record),
                partial(says_record, schema=schema, facts=facts),
                max_tokens=320,
                lead="```json\n",
                stop=("```",),
            )
        )
    return found


def says_record(reply: str, schema: str, facts: str) -> bool:
    """Whether the reply, or its first fenced block, is an object that keeps the schema and has the record's values."""
    try:
        found = object_of(fenced(reply)[0].strip().encode("utf-8", "replace"), MOST_BYTES)
    except UsageError:
        return False
    return keeps(schema, found) and keeps(facts, found)


def _schema(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _said(says: str, value: Any) -> str:
    if isinstance(value, bool):
        return says.split("|")[0 if value else 1]
    return says.format(", ".join(value) if isinstance(value, list) else value)
