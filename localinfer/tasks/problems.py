"""The functions that are to be written, from a file of ours."""

import re
from ast import literal_eval as value_of
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

_HEAD = re.compile(r"([a-z_]+)\(([a-z_, ]*)\)")


@dataclass(frozen=True, slots=True)
class Problem:
    """A function: its name, its parameters, what it does, and calls with what they give. All values are JSON's."""

    name: str
    parameters: str
    meaning: str
    example: str
    """The first call, as Python writes it, and what it gives."""
    calls: tuple[list[Any], ...]
    expected: tuple[Any, ...]

    @property
    def head(self) -> str:
        """The function's first lines, as they are shown to a model."""
        call, gives = self.example.rsplit(" -> ", 1)
        doc = f'    """{self.meaning}\n\n    >>> {self.name}({call})\n    {gives}\n    """\n'
        return f"def {self.name}({self.parameters}):\n{doc}"


@lru_cache(maxsize=1)
def problems() -> Sequence[Problem]:
    """All of them, in the file's order."""
    text = (files("localinfer.tasks") / "data" / "code.txt").read_text(encoding="utf-8")
    blocks = [block for block in text.split("\n\n") if not block.startswith("#")]
    return [_problem(block.strip().splitlines()) for block in blocks]


def _problem(lines: Sequence[str]) -> Problem:
    head, meaning, *tests = lines
    matched = _HEAD.fullmatch(head)
    assert matched is not None
    pairs = [line.rsplit(" -> ", 1) for line in tests]
    return Problem(
        matched[1],
        matched[2],
        meaning,
        tests[0],
        tuple(list(value_of(f"({call},)")) for call, _ in pairs),
        tuple(value_of(gives) for _, gives in pairs),
    )
