"""What drafts have done for one request, and what they have saved."""

from localinfer.events import Drafting, Guesses
from localinfer.speculation.controller import Worth
from localinfer.speculation.record import Chain


class DraftStats:
    """Counts the guesses of one request and the time they won or lost. `mode` is who guesses, as asked for."""

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._by_drafter: dict[str, tuple[int, int]] = {}
        self._by_position: list[tuple[int, int]] = []
        self._plain_s = self._spent_s = 0.0
        self._off = ""

    def count(self, chain: Chain, accepted: int, worth: Worth, off: str) -> None:
        """A step gave this request `accepted` guesses of `chain` and one token more; `off`: why it had no guesses."""
        self._spent_s += worth.seconds
        self._plain_s += worth.plain * (1 + accepted)
        self._off = off if chain.drafter is None else ""
        if chain.drafter is None:
            return
        tried, right = self._by_drafter.get(chain.drafter, (0, 0))
        self._by_drafter[chain.drafter] = tried + len(chain.tokens), right + accepted
        for position in range(min(accepted + 1, len(chain.tokens))):
            if position == len(self._by_position):
                self._by_position.append((0, 0))
            tried, right = self._by_position[position]
            self._by_position[position] = tried + 1, right + (position < accepted)

    def told(self) -> Drafting:
        """As events have it."""
        return Drafting(
            mode=self._mode,
            by_drafter=tuple(Guesses(name, *counts) for name, counts in sorted(self._by_drafter.items())),
            by_position=tuple(self._by_position),
            plain_s=self._plain_s,
            spent_s=self._spent_s,
            off=self._off,
        )
