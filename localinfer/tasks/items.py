"""One question with an answer that a program can check."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

Right = Callable[[str], bool]
"""Whether a reply is right. It may take seconds, and is asked on a thread of its own."""

ITEMS = 100
"""Of each task."""

_NUMBER = re.compile(r"(?<![\w.,])[-−]?\d[\d,]*(?:\.\d+)?")
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_MOST = 64_000
"""Characters of a reply that are looked at."""


@dataclass(frozen=True, slots=True)
class Item:
    """What is asked, how much may be answered, and what is right."""

    name: str
    """The same for every model, so that two models can be compared item by item."""
    prompt: str
    right: Right
    max_tokens: int
    lead: str
    """How a model without a chat template is led into its answer, which is judged with it."""
    stop: tuple[str, ...]
    """What ends such an answer."""


def last_number(reply: str) -> Decimal | None:
    """The last number of a reply, thousands set apart by commas or not; None where there is none."""
    found = _NUMBER.findall(reply[-_MOST:])
    try:
        return Decimal(found[-1].replace(",", "").replace("−", "-")) if found else None
    except InvalidOperation:
        return None


def says_number(reply: str, answer: int) -> bool:
    """Whether the last number of a reply is `answer`."""
    return last_number(reply) == answer


def fenced(reply: str) -> list[str]:
    """What stands in the reply's fenced blocks, the last of which may be open; all of it where there is none."""
    reply = reply[:_MOST]
    return _FENCE.findall(reply) or [reply]
