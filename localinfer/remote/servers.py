"""Servers that answer alike: which is asked, and which rests.

A try that fails is the affair of its line, which waits and is tried again while others are asked. A server rests for
all where it says so itself, where no connection can be made, and where more new lines than are under way fail one
after the other. What a line fails at while others are answered says nothing of the server.
"""

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from localinfer.errors import NetworkError

ALL_THE_SAME = {401, 403, 404}
"""Statuses that every line would get, where the first one gets them."""

SILENT_TRIES = 2
"""How often a line is asked that has no answer in time: an answer was being made, perhaps, which costs."""

TELL_AGAIN_S = 1.0
"""Seconds between two words about the tries of one server."""


@dataclass(frozen=True, slots=True)
class Insistence:
    """How often and how long it is tried; times in seconds."""

    attempts: int = 8
    """Tries of a line; and rests of all servers after which none has more."""
    first_wait: float = 1.0
    longest_wait: float = 60.0
    longest_retry_after: float = 600.0
    connect: float = 10.0
    silence: float = 600.0
    """Longest wait for an answer, of which nothing comes before it is whole; and the longest that one may take that
    comes in pieces, when its last one is there."""

    def pause(self, failures: int, retry_after: float | None) -> float:
        """Seconds to the next try: what was asked for, else twice as long each time, and not all at once."""
        if retry_after is not None:
            return min(max(retry_after, 0.0), self.longest_retry_after)
        return min(self.first_wait * 2.0 ** (failures - 1), self.longest_wait) * random.uniform(0.75, 1.25)


@dataclass(slots=True, eq=False)
class Server:
    """One of those that are asked."""

    url: str
    under_way: int = 0
    is_known: bool = False
    """Whether it has ever said anything."""
    answers: int = 0
    failing: set[int] = field(default_factory=set)
    """Lines that failed one after the other since its last answer, and were first asked after it."""
    rests: int = 0
    """Since its last answer."""
    is_taken: bool = False
    """Whether it has ever done what it was asked."""
    refused: int = 0
    """Lines refused since it last did so, as any would be where key, model or path is wrong."""
    rests_since: float = -math.inf
    rests_until: float = -math.inf
    """It is not asked before."""
    told: float = -math.inf


@dataclass(slots=True)
class Tries:
    """What became of the tries of one line."""

    index: int
    failures: int = 0
    silences: int = 0
    answers: dict[Server, int] = field(default_factory=dict)
    """How many each server had given when it was first asked for this line."""
    avoids: set[Server] = field(default_factory=set)
    """Those that failed, while another may not."""

    def is_alone(self) -> bool:
        """Whether others were answered since it was first asked for."""
        return any(server.answers > count for server, count in self.answers.items())


@dataclass(frozen=True, slots=True)
class Failure:
    """A try that failed: what is told of it, when it began, and what the server asks for."""

    told: str
    begun: float
    retry_after: float | None = None
    is_of_all: bool = False
    """Whether it is said of the server, not of the line."""


class Servers:
    """Each is asked as often as the others. `together` requests are under way at most; `tell` hears of each try that
    failed, one a second of each server; nothing is waited for after `ends`."""

    def __init__(
        self,
        urls: list[str],
        *,
        together: int,
        insistence: Insistence,
        tell: Callable[[str], object] | None,
        ends: threading.Event,
    ) -> None:
        self._all = [Server(url) for url in urls]
        self._turn, self._ends = threading.Lock(), ends
        self._together, self._insist, self._tell = together, insistence, tell
        self._lost = 0  # lines given up since the last one that was answered, but for those that failed alone

    def chosen(self, tries: Tries) -> Server:
        """The server with the least under way of those that do not rest, if need be when the first one has rested."""
        while True:
            now = time.monotonic()
            with self._turn:
                awake = [one for one in self._all if one.rests_until <= now]
                if awake or self._ends.is_set():
                    server = min(awake or self._all, key=lambda one: (one in tries.avoids, one.under_way))
                    server.under_way += 1
                    tries.answers.setdefault(server, server.answers)
                    return server
                wait = min(one.rests_until for one in self._all) - now
            self._ends.wait(wait)

    def left(self, server: Server) -> None:
        """A request to it is no longer under way."""
        with self._turn:
            server.under_way -= 1

    def answered(self, server: Server, status: int) -> bool:
        """It answered a line; whether it would refuse any other: one of `ALL_THE_SAME` says so, unless lines were taken
        lately."""
        with self._turn:
            server.answers += 1
            server.failing.clear()
            server.rests = self._lost = 0
            server.refused = server.refused + 1 if status in ALL_THE_SAME else 0
            server.is_taken |= status == 200
            return server.refused > (self._together if server.is_taken else 0)

    def require_reachable(self, server: Server, told: str) -> None:
        """No connection could be made to `server`. Raises `NetworkError` where none could to any, ever: waiting is for
        servers that were there before."""
        others = [one for one in self._all if one is not server]
        if not server.is_known and all(one.rests and not one.is_known for one in others):
            several = f", nor to {len(others)} more" if others else ""
            raise NetworkError(
                f"no connection to {told}{several}", hint="start the server, or check the address after `--endpoint`"
            )

    def failed(self, server: Server, tries: Tries, failure: Failure) -> float | None:
        """Seconds to the next try of a line, none where another server may answer; None where it is given up. Raises
        `NetworkError` where more lines than are under way are, one after the other."""
        tries.failures += 1
        tries.avoids.add(server)
        pause, now = self._insist.pause(tries.failures, failure.retry_after), time.monotonic()
        with self._turn:
            if tries.answers[server] == server.answers:
                server.failing.add(tries.index)
            if failure.is_of_all or len(server.failing) > self._together:
                pause = self._rest(server, failure, now)
            are_gone = all(one.rests >= self._insist.attempts for one in self._all)
            others = any(one.rests_until <= now and one not in tries.avoids for one in self._all)
        if are_gone or tries.failures >= self._insist.attempts or tries.silences >= SILENT_TRIES:
            self._give_up(failure, counts=are_gone or not tries.is_alone())
            return None
        self._say(server, tries, failure, None if others else pause)
        if not others:
            tries.avoids.clear()
        return 0.0 if others else pause

    def _give_up(self, failure: Failure, *, counts: bool) -> None:
        with self._turn:
            self._lost += counts
            lost = self._lost
        if lost > self._together:
            hint = "the same command with `--resume` goes on"
            raise NetworkError(f"{lost} lines, one after the other, had no answer; the last: {failure.told}", hint=hint)

    def _rest(self, server: Server, failure: Failure, now: float) -> float:
        """Let it rest; how long. What was under way when it last began to do so is no news."""
        if failure.begun >= server.rests_since:
            server.rests, server.rests_since = server.rests + 1, now
        pause = self._insist.pause(max(server.rests, 1), failure.retry_after)
        server.rests_until = max(server.rests_until, now + pause)
        return pause

    def _say(self, server: Server, tries: Tries, failure: Failure, pause: float | None) -> None:
        now = time.monotonic()
        with self._turn:
            is_told = self._tell is not None and now - server.told >= TELL_AGAIN_S
            server.told = now if is_told else server.told
        if is_told and self._tell is not None:
            asked, most = failure.retry_after or 0, self._insist.longest_retry_after
            more = f", not the {asked:.12g} s that it asks for" if asked > most else ""
            then = "another is asked" if pause is None else f"again in {pause:.1f} s{more}"
            self._tell(f"{failure.told}; {then} (try {tries.failures} of {self._insist.attempts})")
