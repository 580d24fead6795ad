"""A limit of time, divided among the phases of a job before it begins.

Each phase tells the least time in which it is of use, and the time of all of it. What the job cannot do without gets
its least first, and where that is more than there is, the job is refused, with the numbers. Other phases are left out
where they do not fit. What is then left lets all grow alike. Every phase ends by a point of time, so that what one has
saved the next one has.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from localinfer.errors import UsageError

MARGIN = 0.05
"""Share of the time that nobody is given."""

SAFETY = 1.5
"""Estimates are taken as so many times what was measured in a moment: other programs come and go."""

START_S = 0.7
"""Seconds of one processor for what is not counted: small files, making all durable, the end of the program."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Phase:
    """One part of a job, by seconds as estimated here and now."""

    name: str
    """As it stands in a message: `rounding`."""
    least: float
    full: float
    needed: bool = True
    """Whether the job is refused without it; else it is left out."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Seconds of each phase that takes place, in their order, and when it must end; seconds since the job began."""

    seconds: Mapping[str, float]
    ends: Mapping[str, float]

    def has(self, name: str) -> bool:
        return name in self.seconds

    def left(self, name: str, now: float) -> float:
        """Seconds for the phase, if it begins `now` seconds after the job; never less than nothing."""
        return max(0.0, self.ends[name] - now)


@dataclass(frozen=True, slots=True)
class Running:
    """A schedule that began at `started`, by `clock`."""

    schedule: Schedule
    started: float
    clock: Clock

    def left(self, phase: str) -> float:
        """Seconds that `phase` may still take; 0 where it does not take place."""
        return self.schedule.left(phase, self.clock() - self.started) if self.schedule.has(phase) else 0.0


def scheduled(phases: Sequence[Phase], seconds: float, *, used: float = 0.0, flag: str, job: str) -> Schedule:
    """Divide `seconds`, of which `used` are over, among `phases`.

    Raises `UsageError`, with each part's seconds, when what is needed takes longer than `flag` allows.
    """
    room = seconds * (1 - MARGIN) - used
    least = sum(phase.least for phase in phases if phase.needed)
    if least > room:
        parts = [f"{phase.name} {in_seconds(phase.least)}" for phase in phases if phase.needed and phase.least >= 0.05]
        parts = [*([f"getting ready {in_seconds(used)}"] if used >= 0.05 else []), *parts]
        enough = (least + used) / (1 - MARGIN) * 1.1
        raise UsageError(
            f"{job} takes about {in_seconds(least + used)} here at the least ({', '.join(parts)}), "
            f"but {flag} allows {in_seconds(seconds)}",
            hint=f"allow {in_seconds(enough)} or more",
        )
    room -= least
    taken = []
    for phase in phases:
        if phase.needed or phase.least <= room:
            taken.append(phase)
            room -= 0 if phase.needed else phase.least
    more = sum(max(0.0, phase.full - phase.least) for phase in taken)
    growth = min(1.0, room / more) if more else 0.0
    given = {phase.name: phase.least + growth * max(0.0, phase.full - phase.least) for phase in taken}
    return Schedule(given, _ends(given, seconds * (1 - MARGIN)))


def _ends(given: dict[str, float], end: float) -> dict[str, float]:
    """From the last phase backwards: each ends when those after it must begin."""
    ends = {}
    for name in reversed(given):
        ends[name] = end
        end -= given[name]
    return dict(reversed(ends.items()))


def in_seconds(seconds: float) -> str:
    """`0.4 s`, `12 s`, `7 min`, `3 h`: rounded up, so that it is enough."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 300:
        return f"{ceil(seconds - 1e-9)} s"
    return f"{ceil(seconds / 60 - 1e-9)} min" if seconds < 2 * 3600 else f"{ceil(seconds / 3600 - 1e-9)} h"


def too_long(used: float, seconds: float, flag: str) -> str:
    """What to say of a job that took `used` seconds of `seconds` that it had; nothing where these are enough."""
    if used <= seconds:
        return ""
    return (
        f"took {in_seconds(used)}, not the {in_seconds(seconds)} of {flag}: this machine was slower than when it was "
        "measured, as other programs use it"
    )


def largest(fits: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number from `low` to `high` that `fits`, where all smaller ones do; `low` if none does."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
