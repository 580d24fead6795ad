"""The items themselves: as many as said, all different, the same everywhere, and each can be answered."""

import hashlib
import inspect
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from localinfer.errors import UsageError
from localinfer.tasks.arithmetic import arithmetic_items
from localinfer.tasks.code import code_in, code_items, same
from localinfer.tasks.items import Item, last_number
from localinfer.tasks.needle import ANSWER, NEEDLES, needle_items
from localinfer.tasks.problems import problems
from localinfer.tasks.records import json_items
from localinfer.tasks.run import TASKS, parse_tasks
from tests.tasks import solutions

MAKERS: dict[str, Callable[[int], list[Item]]] = {
    "arithmetic": arithmetic_items,
    "code": code_items,
    "needle": lambda count: needle_items(count, lambda text: len(text) // 4, 2000),
    "json": json_items,
}
DIGESTS = {
    "arithmetic": "467270daeb0baea1",
    "code": "9a56a98f0217d8bd",
    "needle": "85a7456a6283992f",
    "json": "c97ec9d9ff4c93fe",
}
"""Of all prompts. Another digest means other items: figures before and after cannot be compared, so raise the seed."""


@pytest.mark.parametrize("task", TASKS)
def test_a_hundred_that_differ_and_stay(task: str) -> None:
    items = MAKERS[task](100)
    assert len({item.prompt for item in items}) == len({item.name for item in items}) == 100
    assert [item.prompt for item in MAKERS[task](25)] == [item.prompt for item in items[:25]]
    assert hashlib.sha256("".join(item.prompt for item in items).encode()).hexdigest()[:16] == DIGESTS[task]


@pytest.mark.parametrize("problem", problems(), ids=lambda problem: problem.name)
def test_every_function_can_be_written(problem: Any) -> None:
    assert len(problem.calls) >= 3
    function = getattr(solutions, problem.name)
    assert list(inspect.signature(function).parameters) == problem.parameters.split(", ")
    for arguments, expected in zip(problem.calls, problem.expected, strict=True):
        assert same(json.loads(json.dumps(function(*json.loads(json.dumps(arguments))))), expected)


def test_the_answers_are_not_all_alike() -> None:
    """Nobody passes by always saying the same."""
    for problem in problems():
        kinds = {json.dumps(value) for value in problem.expected}
        assert len(kinds) > 1


def test_arithmetic_is_right() -> None:
    """Those that are plain expressions, computed from their text."""
    checked = 0
    for item in arithmetic_items(100):
        words = re.fullmatch(r"What is ([0-9() +×-]+)\? Answer with the number alone\.", item.prompt)
        if words:
            parts = re.findall(r"\d+|[-+×()]", words[1])
            value = _value(parts)
            assert not parts
            assert item.right(f"It is {value}.")
            assert not item.right(f"It is {value + 1}.")
            checked += 1
    assert checked == 40


def _value(parts: list[str]) -> int:
    """The value of a sum, taken off `parts`."""
    total, sign = 0, 1
    while parts and parts[0] != ")":
        if parts[0] in "+-":
            sign = 1 if parts.pop(0) == "+" else -1
        product = _factor(parts)
        while parts and parts[0] == "×":
            parts.pop(0)
            product *= _factor(parts)
        total += sign * product
    return total


def _factor(parts: list[str]) -> int:
    if parts[0] != "(":
        return int(parts.pop(0))
    parts.pop(0)
    value = _value(parts)
    parts.pop(0)
    return value


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("42", 42),
        ("It is **1,234**.", 1234),
        ("12 - 30 = -18", -18),
        ("12−30 is −18.", -18),
        ("30-12=18", 18),
        ("x2 is no number", None),
        ("3 and then 4.0", 4),
        ("", None),
    ],
)
def test_the_last_number(reply: str, number: int | None) -> None:
    assert last_number(reply) == number


def test_code_is_found() -> None:
    text = "Sure:\n```python\nimport math\n```\nand\n```\ndef f(x):\n    return x\n```\n"
    assert code_in(text, "f") == "def f(x):\n    return x\n"
    assert code_in("def f(x):\n    return 1", "f") == "def f(x):\n    return 1"
    assert code_in("```python\ndef f(x):\n    return 1", "f") == "def f(x):\n    return 1"


def test_needles_lie_at_every_depth_and_fill_the_room() -> None:
    items = needle_items(NEEDLES, len, 20_000)
    text = items[0].prompt.rpartition("\n\n")[0]
    assert 19_000 < len(items[0].prompt) + ANSWER <= 20_000
    depths = []
    for item in items:
        assert item.prompt.startswith(text)
        what = re.search(r"code of the ([a-z ]+)\?", item.prompt)
        assert what
        code = re.findall(rf"The code of the {what[1]} is (\d+)\.", text)
        assert len(code) == 1
        assert item.right(f"It is {code[0]}.")
        assert not item.right("It is 12345.")
        depths.append(text.index(code[0]) / len(text))
    assert all(abs(depth - (0.05 + 0.1 * at)) < 0.03 for at, depth in enumerate(depths))
    with pytest.raises(UsageError, match="needs more context than 300 tokens"):
        needle_items(10, len, 300)


def test_records_can_be_said_and_nothing_else_is_right() -> None:
    item = json_items(1)[0]
    schema = json.loads(item.prompt.partition("Schema:\n")[2].partition("\n\n")[0])
    facts = json.loads(item.right.keywords["facts"])["properties"]  # type: ignore[attr-defined]
    record = {name: fact["const"] for name, fact in facts.items()}
    assert record.keys() == schema["properties"].keys()
    assert item.right(json.dumps(record))
    assert item.right(f"Here it is:\n```json\n{json.dumps(record)}\n```")
    assert not item.right(json.dumps(record | {"more": 1}))
    assert not item.right(json.dumps(record)[:-1])
    assert not item.right(json.dumps(dict(list(record.items())[1:])))
    assert not item.right("[" * 100_000)
    assert not item.right("")
    assert not item.right(json.dumps(schema))


def test_tasks_are_named() -> None:
    assert parse_tasks(["json,code", "arithmetic"]) == ("arithmetic", "code", "json")
    assert parse_tasks(["all"]) == TASKS
    for words in (["cod"], [","]):
        with pytest.raises(UsageError):
            parse_tasks(words)
