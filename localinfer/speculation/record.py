"""What is known of one drafter: how often it is right, what asking it costs, and when it is worth another try."""

from dataclasses import dataclass, field

from localinfer.speculation.acceptance import Acceptance
from localinfer.speculation.drafter import Ask, Drafter

ENOUGH = 24
"""After so many drafts a record is trusted."""

FIRST_PAUSE, LONGEST_PAUSE = 8, 512
"""Steps between two tries of a drafter that does not seem to pay: at first, and at most."""

RISE, FALL = 0.1, 0.5
"""How much of a time above the estimate goes into it, and of one below: what is above went mostly into catching up with
a text that had gone on while nobody guessed."""

IN_A_ROW = 3
"""Steps of one try: in the later ones there is little to catch up with."""


UNKNOWN = 0.125
"""Of a plain step: what one guess of a model is taken to cost before it was asked."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Guesses to be checked for one text, who made them, and how sure it was of each."""

    drafter: str | None = None
    tokens: tuple[int, ...] = ()
    sure: tuple[float, ...] = ()


NO_CHAIN = Chain()


@dataclass(slots=True)
class Record:
    """One drafter, as experience has it."""

    drafter: Drafter
    luck: Acceptance = field(default_factory=Acceptance)
    depth_s: float = 0.0
    """Seconds of guessing one token deep, for all texts of a step; 0 until it was asked once."""
    _pause: int = FIRST_PAUSE
    _waited: int = FIRST_PAUSE
    _left: int = 0
    """Steps that are left of a try."""

    @property
    def trusted(self) -> bool:
        """Whether enough of its guesses have been tried."""
        return self.luck.tried >= ENOUGH

    def survival(self, ask: Ask, chain: Chain) -> list[float]:
        """For each guess the chance that it and all before it are right."""
        alive, found = 1.0, []
        for depth, sure in enumerate(chain.sure):
            alive *= self.luck.chance(ask.handle, sure, depth)
            found.append(alive)
        return found

    def likely(self, ask: Ask) -> float:
        """Guesses that are likely to be right, before it is asked."""
        alive, total = 1.0, 0.0
        for depth in range(min(ask.most, 8)):
            alive *= self.luck.expected(ask.handle, depth)
            total += alive
        return total

    def learn(self, handle: int, chain: Chain, accepted: int) -> None:
        """Of the chain's guesses the first `accepted` were right."""
        for depth, sure in enumerate(chain.sure[: accepted + 1]):
            self.luck.learn(handle, sure, depth, right=depth < accepted)
        self.drafter.observe(handle, len(chain.tokens), accepted)

    def price(self, plain: float) -> float:
        """Seconds of guessing one token deep; before it is known, a share of a `plain` step."""
        return self.depth_s or plain * UNKNOWN

    def time(self, seconds: float, depth: int, plain: float) -> None:
        """Asking it took so long, and it guessed `depth` tokens deep. One long time is not believed: a text's first one
        goes into reading it."""
        each, before = seconds / max(1, depth), self.price(plain)
        self.depth_s = before + (RISE if each > before else FALL) * (min(each, 4 * before) - before)

    def pays(self) -> None:
        """It is worth asking now: the next pause is a short one again."""
        self._pause = self._waited = FIRST_PAUSE

    def tries_again(self) -> bool:
        """Whether it is time for a try, though it does not seem to pay; called once a step. Until its record is trusted
        the pauses do not grow."""
        if self._left:
            self._left -= 1
            return True
        self._waited += 1
        if self._waited < (FIRST_PAUSE if not self.trusted else self._pause):
            return False
        self._waited, self._left = 0, IN_A_ROW - 1
        if self.trusted:
            self._pause = min(LONGEST_PAUSE, 2 * self._pause)
        return True

    def forget(self, handle: int) -> None:
        """The text is over, or its beginning has changed."""
        self.drafter.forget(handle)
        self.luck.forget(handle)
