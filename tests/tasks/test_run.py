"""Whole runs through a real engine, of a model that says what it is told to."""

from pathlib import Path

import pytest

from localinfer.config import EngineConfig
from localinfer.engine.opening import open_engine
from localinfer.tasks.arithmetic import arithmetic_items
from localinfer.tasks.run import TASKS, Taken, take
from localinfer.tasks.scores import paired, score, wilson
from tests.scripted import make_scripted
from tests.tiny import make_checkpoint

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}>"
FIRST = "8720"
"""The answer to the first sum."""


def taken(path: Path, tasks: tuple[str, ...] = TASKS, count: int = 2) -> Taken:
    with open_engine(path, EngineConfig(parallel=8, draft="off")) as engine:
        return take(engine, tasks, count)


def test_right_answers_are_counted(tmp_path: Path) -> None:
    assert arithmetic_items(1)[0].right(FIRST)
    code = ["```python\n", "def double_all(numbers):\n", "    return [2 * n for n in numbers]\n", "```\n"]
    good = taken(make_scripted(tmp_path / "good", {">": [*code, "It is ", FIRST]}, TEMPLATE))
    found = {task: [(one.name, one.right, one.cut) for one in good.outcomes[task]] for task in TASKS}
    assert found == {
        "arithmetic": [("arithmetic-001", True, False), ("arithmetic-002", False, False)],
        "code": [("code-001", True, False), ("code-002", False, False)],
        "needle": [("needle-001", False, False), ("needle-002", False, False)],
        "json": [("json-001", False, False), ("json-002", False, False)],
    }
    assert good.needle_tokens == 4096
    bad = taken(make_scripted(tmp_path / "bad", {">": [*code, "It is ", "55"]}, TEMPLATE))
    figures = score("bad", bad, 8, "good", good)
    assert (figures.tasks["arithmetic"].lost, figures.tasks["arithmetic"].won) == (1, 0)
    assert (figures.tasks["arithmetic"].difference, figures.tasks["code"].difference) == (-0.5, 0)
    assert score("good", good, 8, "bad", bad).tasks["arithmetic"].won == 1


def test_a_model_without_a_template_is_led_into_its_answer(tmp_path: Path) -> None:
    """What it says behind the lead is judged, until the answer's end, and a long answer is cut."""
    path = make_scripted(tmp_path / "m", {":": [" is ", FIRST, "\n\n", "77"], "\n": ["zz"]}, "")
    settings = path / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace('"chat_template": ""', '"other": ""'))
    found = taken(path, ("arithmetic", "code"), 1).outcomes
    assert [one.right for one in found["arithmetic"]] == [True]
    assert [one.right for one in found["code"]] == [False]


def test_nothing_depends_on_company(tmp_path: Path) -> None:
    """An item is answered as when it is asked alone; a tiny random model babbles until it is cut off."""
    path = make_checkpoint(tmp_path / "m", max_position_embeddings=2048)
    alone, together = taken(path, ("json",), 1), taken(path, ("arithmetic", "json"), 2)
    assert alone.outcomes["json"][0] == together.outcomes["json"][0]
    assert together.outcomes["json"][0].cut


def test_intervals() -> None:
    """None right: z² / (n + z²); half right: lies even; pairs by the formula."""
    assert wilson(0, 100) == pytest.approx((0.0, 3.841459 / 103.841459), abs=1e-6)
    assert sum(wilson(50, 100)) == pytest.approx(1)
    assert wilson(50, 100)[0] == pytest.approx(0.4038315, abs=1e-6)
    low, high = paired(8, 3, 100)
    assert (low + high) / 2 == pytest.approx(-5 / 102)
    assert (high - low) / 2 == pytest.approx(1.959964 * (12 - 25 / 102) ** 0.5 / 102)
    assert paired(0, 0, 100)[0] < 0 < paired(0, 0, 100)[1]
