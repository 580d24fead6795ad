"""Arithmetic with whole numbers: the last number of a reply is the answer, or it is wrong."""

from collections.abc import Callable
from functools import partial

from localinfer.tasks.draw import Draw
from localinfer.tasks.items import Item, says_number


def _sum(draw: Draw) -> tuple[str, int]:
    a, b = draw.between(12, 4999), draw.between(12, 4999)
    return f"What is {a} + {b}?", a + b


def _difference(draw: Draw) -> tuple[str, int]:
    a, b = draw.between(100, 4999), draw.between(12, 2999)
    return f"What is {a} - {b}?", a - b


def _product(draw: Draw) -> tuple[str, int]:
    a, b = draw.between(12, 99), draw.between(3, 29)
    return f"What is {a} × {b}?", a * b


def _quotient(draw: Draw) -> tuple[str, int]:
    a, b = draw.between(3, 19), draw.between(6, 99)
    return f"What is {a * b} divided by {a}?", b


def _remainder(draw: Draw) -> tuple[str, int]:
    a, b = draw.between(50, 999), draw.between(3, 19)
    return f"What is the remainder when {a} is divided by {b}?", a % b


def _in_steps(draw: Draw) -> tuple[str, int]:
    a, b, c, d = draw.between(2, 30), draw.between(2, 30), draw.between(2, 9), draw.between(2, 40)
    return f"What is ({a} + {b}) × {c} - {d}?", (a + b) * c - d


def _percent(draw: Draw) -> tuple[str, int]:
    share, whole = draw.one((5, 10, 15, 20, 25, 30, 40, 60, 75, 80)), 20 * draw.between(2, 60)
    return f"What is {share} % of {whole}?", share * whole // 100


def _jars(draw: Draw) -> tuple[str, int]:
    a, b = draw.between(3, 12), draw.between(3, 12)
    broken = draw.between(2, a * b // 2)
    return (
        f"A cellar has {b} shelves with {a} jars on each. {broken} of the jars are broken. How many jars are whole?",
        a * b - broken,
    )


def _change(draw: Draw) -> tuple[str, int]:
    price, count = draw.between(3, 45), draw.between(2, 9)
    paid = (price * count // 50 + draw.between(1, 3)) * 50
    return (
        f"Pencils cost {price} cents each. Ida buys {count} of them and pays with {paid} cents. How many cents does "
        "she get back?",
        paid - price * count,
    )


def _ages(draw: Draw) -> tuple[str, int]:
    child, years, times = draw.between(3, 14), draw.between(2, 12), draw.between(2, 4)
    return (
        f"Tom is {child} years old, and his aunt is {times} times as old. How old will his aunt be in {years} years?",
        child * times + years,
    )


_KINDS: tuple[Callable[[Draw], tuple[str, int]], ...] = (
    *(_sum, _difference, _product, _quotient, _remainder, _in_steps, _percent, _jars, _change, _ages),
)


def arithmetic_items(count: int) -> list[Item]:
    """The first `count` questions, their kinds in turn; no two are alike."""
    draw, found = Draw("arithmetic"), dict[str, int]()
    while len(found) < count:
        question, answer = _KINDS[len(found) % len(_KINDS)](draw)
        found.setdefault(question, answer)
    return [
        Item(
            f"arithmetic-{number:03}",
            f"{question} Answer with the number alone.",
            partial(says_number, answer=answer),
            max_tokens=96,
            lead="Answer:",
            stop=("\n",),
        )
        for number, (question, answer) in enumerate(found.items(), 1)
    ]
