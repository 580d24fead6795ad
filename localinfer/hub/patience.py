"""How long to wait for a network, and how often to try again."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """Times in seconds."""

    attempts: int = 5
    """Tries in a row without one new byte, before giving up."""

    first_wait: float = 1.0
    longest_wait: float = 8.0
    longest_retry_after: float = 60.0
    """A `Retry-After` longer than this is not waited for."""

    connect: float = 10.0
    stall: float = 30.0
    """Longest silence of a server that has accepted the connection."""

    deadline: float | None = None
    """Longest time for a whole request, name lookup included; None for no such limit."""

    sleep: Callable[[float], None] = time.sleep

    def wait(self, failures: int, retry_after: float | None) -> None:
        """Sleep before the next try: what the server asked for, else 1, 2, 4 ... times the first wait."""
        backoff = min(self.first_wait * 2 ** (failures - 1), self.longest_wait)
        self.sleep(backoff if retry_after is None else min(retry_after, self.longest_retry_after))


PATIENT = Patience()
HASTY = Patience(attempts=1, connect=3.0, stall=4.0, deadline=5.0)
"""For a question that has another answer: is the Hub there?"""
