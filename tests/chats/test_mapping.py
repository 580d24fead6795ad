"""Many lines on one engine: in their order, the same as alone, never too many taken in."""

import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from localinfer.chats.mapping import AHEAD, Answered, Manner, answer_all, begin_chat
from localinfer.chats.ordering import blocks_alike
from localinfer.chats.rows import Asked, Line, understood
from localinfer.config import SamplingParams
from tests.engine.running import open_tiny
from tests.tiny import make_checkpoint

USUAL = SamplingParams(temperature=0.8, max_tokens=12, seed=1)
RAW = Manner(raw=True)
LINES = [
    {"prompt": f"line {i} " * (1 + i % 7), "seed": i, "max_tokens": 1 + i * 5 % 23, "temperature": i % 3 / 2}
    for i in range(40)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("map"))


def asked(rows: Iterator[object]) -> Iterator[Asked]:
    for index, row in enumerate(rows):
        yield understood(Line.of(index, index + 1, json.dumps(row).encode(), ""), limit=1 << 16, sampling=USUAL)


def run(model: Path, rows: list[object], parallel: int) -> list[Answered]:
    with open_tiny(model, parallel=parallel) as engine:
        return list(answer_all(engine, asked(iter(rows)), parallel=parallel, begin=partial(begin_chat, manner=RAW)))


def test_answers_come_in_order_and_are_those_of_each_alone(model: Path) -> None:
    together, alone = run(model, [*LINES], 8), run(model, [*LINES], 1)
    assert [a.asked.index for a in together] == list(range(40))
    assert [(a.token_ids, "".join(a.text), a.reason) for a in together] == [
        (a.token_ids, "".join(a.text), a.reason) for a in alone
    ]
    assert len({a.token_ids for a in together}) > 30


def test_what_lines_begin_with_is_read_once_and_changes_no_answer(model: Path) -> None:
    """Three beginnings in turn, four lines together: each beginning is read by one line, whoever comes first."""
    begins = [" ".join(f"{word}{n}" for n in range(40)) for word in ("red", "green", "blue")]
    rows = [{"prompt": f"{begins[n % 3]} {n}", "max_tokens": 4, "temperature": 1.0} for n in range(15)]
    found, alone = run(model, [*rows], 4), run(model, [*rows], 1)
    assert [a.asked.index for a in found] == list(range(15))
    assert [a.token_ids for a in found] == [a.token_ids for a in alone]
    cached = [a.stats.cached_tokens for a in found if a.stats]
    shortest = min(len(begin) for begin in begins) // 2
    assert len(cached) == 15
    assert sum(tokens < shortest for tokens in cached) == 3


def test_beginnings_are_compared_in_blocks() -> None:
    one = list(range(200))
    for same in (0, 31, 32, 63, 64, 150, 200):
        other = one[:same] + [-1] * (200 - same)
        assert blocks_alike(one, other) == same // 32
        assert blocks_alike(one, one[:same]) == same // 32


def test_what_cannot_be_answered_stands_in_its_place(model: Path) -> None:
    rows = [LINES[0], {"prompt": "x " * 400}, 5, LINES[1]]
    found = run(model, [*rows], 4)
    codes = [a.error.exit_code if a.error else 0 for a in found]
    assert codes == [0, 8, 2, 0]
    assert all(a.done for a in found)


def test_no_more_is_taken_in_than_is_needed(model: Path) -> None:
    taken = 0

    def endless() -> Iterator[object]:
        nonlocal taken
        while True:
            taken += 1
            yield {"prompt": "x", "max_tokens": 2}

    with open_tiny(model, parallel=2) as engine:
        answers = answer_all(engine, asked(endless()), parallel=2, begin=partial(begin_chat, manner=RAW))
        for _ in range(3):
            next(answers)
        time.sleep(0.3)
        assert taken <= 3 + 2 * AHEAD * 2 + 2


def test_a_line_is_answered_while_the_next_one_is_waited_for(model: Path) -> None:
    go_on = threading.Event()

    def slow() -> Iterator[object]:
        yield LINES[0]
        assert go_on.wait(30)
        yield LINES[1]

    with open_tiny(model, parallel=2) as engine:
        answers = answer_all(engine, asked(slow()), parallel=2, begin=partial(begin_chat, manner=RAW))
        assert next(answers).reason is not None
        go_on.set()
        assert len(list(answers)) == 1


def test_what_reading_raises_is_raised(model: Path) -> None:
    def broken() -> Iterator[object]:
        yield LINES[0]
        raise OSError("gone")

    with open_tiny(model, parallel=2) as engine, pytest.raises(OSError, match="gone"):
        list(answer_all(engine, asked(broken()), parallel=2, begin=partial(begin_chat, manner=RAW)))
