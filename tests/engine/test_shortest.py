"""How long an answer must be at least: what has no end, or no room, is refused before anything is computed."""

import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from localinfer.chats.chat import Chat
from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.form import Grammar, from_rules
from localinfer.engine.grammar import check
from localinfer.engine.grammar_probe import probe
from localinfer.engine.opening import open_engine
from localinfer.engine.shortest import ENDLESS, PARTS, shortest_of_schema
from localinfer.engine.shortest_match import shortest_match
from localinfer.engine.shortest_rules import shortest_of_rules
from localinfer.errors import UsageError
from localinfer.events import Finished
from tests.tiny import make_checkpoint

NODE: dict[str, Any] = {"type": "object", "properties": {"next": {"$ref": "#"}}}
ENDLESS_SCHEMAS: list[Any] = [
    {"$ref": "#"},
    {**NODE, "required": ["next"]},
    {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
    {"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/b~1"}, "b/": {"$ref": "#/$defs/a"}}},
    {
        "allOf": [True, {"$ref": "#/properties/x"}],
        "properties": {"x": {"prefixItems": [{"$ref": "#"}], "type": "array", "minItems": 1}},
    },
]
ENDING_SCHEMAS: list[Any] = [
    NODE,
    {**NODE, "required": ["next"], "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}},
    {"type": "array", "items": {"$ref": "#"}},
    {"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"$ref": "#/$defs/x"}}},
]


@pytest.mark.parametrize("schema", ENDLESS_SCHEMAS, ids=json.dumps)
def test_a_schema_that_only_an_endless_text_keeps(schema: Any) -> None:
    assert shortest_of_schema(schema) == ENDLESS
    with pytest.raises(UsageError, match="no text with an end keeps this schema"):
        check(Grammar("json_schema", json.dumps(schema)))


@pytest.mark.parametrize("schema", ENDING_SCHEMAS, ids=json.dumps)
def test_a_schema_that_goes_back_to_itself_may_end(schema: Any) -> None:
    assert 0 < shortest_of_schema(schema) < 10 * PARTS
    check(Grammar("json_schema", json.dumps(schema)))


@pytest.mark.parametrize(
    "rules",
    [
        'start: "a" start',
        'root ::= "a" root',
        'start: a | b\na: "x" b\nb: a "y"',
        'start: ("a" start)~2 // so\n',
        'start: A\nA: "x" A',
    ],
)
def test_rules_that_never_end(rules: str) -> None:
    with pytest.raises(UsageError, match="no text with an end keeps this grammar"):
        check(from_rules(rules))


@pytest.mark.parametrize(
    ("rules", "least"),
    [
        ('start: "a" start | "bc"', 2),
        ('start: "a"? b*\nb: "x" b', 0),
        ('?start: a~3 ["z"] /[0-9]{2,}/\na: "x".."y" | "long"i', 5),
        ('%ignore /\\s+/\nstart: INT ("," INT){4,}\nINT.2: /[0-9]+/', 9),
        ('start: "{" %json {"type": "array", "items": {"type": "null"}, "minItems": 100}\n', 902),
        ("start: <[5]> @other", 0),
        ('start: "a" -> named', 0),
    ],
)
def test_the_shortest_text_of_rules(rules: str, least: float) -> None:
    assert shortest_of_rules(rules) == least


@pytest.mark.parametrize(
    ("expression", "least"),
    [
        ("", 0),
        ("abc", 3),
        ("a|bcd", 1),
        ("(ab|c){3}d?", 3),
        ("(?:ab){2,}e+", 5),
        (r"\d{4}-\p{Lu}[^]\]a]\x41", 8),
        ("[a[b]c]{5}(?i)x*", 5),
        ("((a{9}){9}){9}", 729),
        ("(?x) a b c", 0),
        ("(", 0),
        ("a{", 2),
    ],
)
def test_the_shortest_match(expression: str, least: float) -> None:
    assert shortest_match(expression) == least


def test_digits_may_take_a_token_each() -> None:
    assert shortest_match(r"\d{3}[0-9]{4}[1-35]a9[0-9a]", digit=8.0) == 9 * 8 + 2
    assert shortest_of_rules(r"start: /[0-9]{5}/", digit=8.0) == 40
    assert shortest_of_schema({"type": "string", "pattern": "^[0-9]{100}$"}, digit=8.0) == 802


HOSTILE = [
    (
        "json_schema",
        json.dumps({"$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(4000)}, "$ref": "#/$defs/d0"}),
    ),
    ("json_schema", '{"type":"array","minItems":9e300,"items":' * 60 + "true" + "}" * 60),
    ("json_schema", '{"anyOf":[' * 200 + '{"$ref":"#"}' + "]}" * 200),
    ("json_schema", '{"allOf":[' * 400 + "true" + "]}" * 400),
    ("json_schema", '{"minItems": NaN, "type": "array"}'),
    ("rules", "start: " + "(" * 3000 + '"a"' + ")" * 3000),
    ("rules", "\n".join(f'r{n}: "a" r{n + 1} | r{n + 1} r{n + 1}' for n in range(4000)) + '\nr4000: "a"\nstart: r0'),
    ("regex", "(" * 5000 + "a" + ")" * 5000),
    ("regex", "a{9}" * 5000),
]


@pytest.mark.parametrize(("kind", "text"), HOSTILE, ids=lambda value: str(value)[:40])
def test_hostile_forms_are_bounded(kind: str, text: str) -> None:
    """Read in a process with limits, whatever they say."""
    with suppress(UsageError):
        assert probe(kind, text) >= 0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("shortest") / "tiny")


NO_ROOM = [
    ({"type": "array", "items": {"type": "integer"}, "minItems": 600}, None, "the context has left"),
    ({"type": "string", "minLength": 5000}, None, "the context has left"),
    ({"type": "object", "required": [f"k{n}" for n in range(40)]}, 50, "asked for"),
    ({"const": list(range(60))}, 20, "asked for"),
]


@pytest.mark.parametrize(("schema", "most", "told"), NO_ROOM, ids=str)
def test_what_has_no_room_is_refused(tiny: Path, schema: Any, most: int | None, told: str) -> None:
    with open_engine(tiny, EngineConfig(draft="off", context=512)) as engine:
        chat = Chat(
            engine, grammar=Grammar("json_schema", json.dumps(schema)), sampling=SamplingParams(max_tokens=most)
        )
        with pytest.raises(UsageError, match="the shortest text of this schema takes about") as raised:
            list(chat.reply("hi"))
        assert told in raised.value.message
        assert engine.load().running == engine.load().waiting == 0


def test_a_length_is_never_more_than_an_answer_has(tiny: Path) -> None:
    """Random schemas, answered by a model that knows nothing: each text is as long as it was said to be at least."""
    chance = random.Random(5)

    def schema(depth: int) -> Any:
        kind = chance.choice(["string", "integer", "null", "array", "object", "enum", "any"][: 7 if depth else 3])
        if kind == "array":
            return {
                "type": kind,
                "items": schema(depth - 1),
                "minItems": (least := chance.randrange(4)),
                "maxItems": least + 1,
            }
        if kind == "object":
            inner = {name: schema(depth - 1) for name in "abc"[: chance.randrange(4)]}
            return {"type": kind, "properties": inner, "required": list(inner)[:2], "additionalProperties": False}
        if kind == "enum":
            return {"enum": ["a", 1, [1, {"x": None}]]}
        if kind == "any":
            return {"anyOf": [schema(depth - 1), schema(depth - 1)]}
        return {"type": kind, "maxLength": 5, "minLength": 2} if kind == "string" else {"type": kind}

    with open_engine(tiny, EngineConfig(draft="off", context=512)) as engine:
        checked = 0
        for seed in range(40):
            form = schema(3)
            sampling = SamplingParams(temperature=1, top_k=0, top_p=1, seed=seed, max_tokens=400)
            *_, last = Chat(engine, grammar=Grammar("json_schema", json.dumps(form)), sampling=sampling).reply("hi")
            assert isinstance(last, Finished)
            if last.reason == "stop":
                checked += 1
                assert len(last.token_ids) * PARTS >= shortest_of_schema(form), form
        assert checked > 20
