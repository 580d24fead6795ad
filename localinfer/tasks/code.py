"""Small functions in Python: the answer is run on calls whose results are known."""

import math
import re
from functools import partial
from typing import Any

from localinfer.tasks.code_box import run
from localinfer.tasks.items import Item, fenced
from localinfer.tasks.problems import Problem, problems

_ASK = "Complete this Python function. Answer with the whole function in one block of code.\n\n```python\n{head}```"


def code_items(count: int) -> list[Item]:
    """The first `count` functions."""
    return [
        Item(
            f"code-{number:03}",
            _ASK.format(head=problem.head),
            partial(passes, problem),
            max_tokens=400,
            lead=f"```python\n{problem.head}",
            stop=("```", "\ndef ", "\nprint(", "\nassert "),
        )
        for number, problem in enumerate(problems()[:count], 1)
    ]


def passes(problem: Problem, reply: str) -> bool:
    """Whether the function in the reply gives what it should for every call."""
    said = run(code_in(reply, problem.name), problem.name, problem.calls).get("results")
    return isinstance(said, list) and same(said, list(problem.expected))


def code_in(reply: str, name: str) -> str:
    """The first block of code that defines `name`, else the first one."""
    blocks = fenced(reply)
    head = re.compile(rf"^\s*def {name}\b", re.MULTILINE)
    return next((block for block in blocks if head.search(block)), blocks[0])


def same(given: Any, expected: Any) -> bool:
    """Whether two JSON values are equal; numbers but for the rounding of floats."""
    if isinstance(expected, list):
        alike = isinstance(given, list) and len(given) == len(expected)
        return alike and all(same(a, b) for a, b in zip(given, expected, strict=True))
    if isinstance(expected, dict):
        alike = isinstance(given, dict) and given.keys() == expected.keys()
        return alike and all(same(given[name], value) for name, value in expected.items())
    if isinstance(expected, float) and isinstance(given, int | float):
        return abs(given) < 1e300 and math.isclose(given, expected, rel_tol=1e-9, abs_tol=1e-9)
    return bool(given == expected)
