"""Several answers to one prompt, written together."""

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from localinfer.events import Event, Finished, Scored, Text

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine
    from localinfer.engine.request import Request


def together(engine: "Engine", requests: "Sequence[Request]") -> Iterator[tuple[int, Event]]:
    """What is said of each of `requests`, which have one prompt, by its number. The first one reads the prompt; the
    others begin when it is read, and find it in the cache. Leaving early ends them all."""
    heard = deque[tuple[int, Event]]()

    def hear(number: int, said: list[Event]) -> None:
        heard.extend((number, event) for event in said)

    later = range(1, len(requests))
    with engine.driver.here() as driver:
        driver.submit(requests[0], partial(hear, 0))
        while driver.turn() or heard:
            while heard:
                number, event = heard.popleft()
                if isinstance(event, Text | Finished):
                    for one in later:
                        driver.submit(requests[one], partial(hear, one))
                    later = range(0)
                yield number, event


def mean_logprob(scores: Sequence[Scored]) -> float:
    """Of an answer's tokens; the lowest there is for one that has none."""
    return sum(one.logprob for one in scores) / len(scores) if scores else float("-inf")


def best(means: Sequence[float], count: int) -> list[int]:
    """The numbers of the `count` best, the best first, and of equals the first."""
    return sorted(range(len(means)), key=lambda number: -means[number])[:count]
