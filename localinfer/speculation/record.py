"""What is known of one drafter: how often it is right, what asking it costs, and when it is worth another try."""

from dataclasses import dataclass, field

from localinfer.speculation.acceptance import Acceptance
from localinfer.speculation.drafter import Ask, Draft, Drafter

ENOUGH = 24
"""After so many drafts a record is trusted."""

FIRST_PAUSE, LONGEST_PAUSE = 8, 512
"""Steps between two tries of a drafter that does not seem to pay: at first, and at most."""

RISE, FALL = 0.1, 0.5
"""How much of a time above the estimate goes into it, and of one below: what is above went mostly into catching up with
a text that had gone on while nobody guessed."""

IN_A_ROW = 3
"""Steps of one try: in the later ones there is little to catch up with."""


LEARN = 0.05
"""How much of what asking it won or lost in one step goes into `gain`."""

MOST_LOSS = 0.5
"""Of a plain step: more is not believed, as it goes into catching up."""

HOPELESS = 0.02
"""Guesses with less chance are not looked at: no row is as cheap."""

UNKNOWN = 0.125
"""Of a plain step: what one guess of a model is taken to cost before it was asked."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Guesses to be checked for one text, who made them, and its confidence in each."""

    drafter: str | None = None
    tokens: tuple[int, ...] = ()
    confidence: tuple[float, ...] = ()
    alive: tuple[float, ...] = ()
    """The chance of each guess that it and all before it are right, as experience has it."""


NO_CHAIN = Chain()


@dataclass(slots=True)
class Record:
    """One drafter, as experience has it."""

    drafter: Drafter
    luck: Acceptance = field(default_factory=Acceptance)
    depth_s: float = 0.0
    """Seconds of guessing one token deep, for all texts of a step; 0 until it was asked once."""
    gain: float = 0.0
    """What steps in which it was asked have won of late, in plain steps."""
    _pause: int = FIRST_PAUSE
    _waited: int = FIRST_PAUSE
    _left: int = 0
    """Steps that are left of a try."""

    @property
    def trusted(self) -> bool:
        """Whether enough of its guesses have been tried."""
        return self.luck.tried >= ENOUGH

    @property
    def keeps_its_word(self) -> bool:
        """Whether asking it has won time, all that it took counted, and not only promised to."""
        return self.trusted and self.gain >= 0

    def won(self, steps: float) -> None:
        """A step in which it was asked won so many plain steps (negative: lost)."""
        self.gain += LEARN * (max(-MOST_LOSS, steps) - self.gain)

    def chain(self, ask: Ask, draft: Draft) -> Chain:
        """What the drafter guessed for `ask`, as far as it has a chance."""
        alive, found = 1.0, list[float]()
        for depth, confidence in enumerate(draft.confidence[: ask.most]):
            alive *= self.luck.chance(ask.handle, confidence, depth)
            if alive < HOPELESS:
                break
            found.append(alive)
        n = len(found)
        if n == 0:
            return NO_CHAIN
        return Chain(self.drafter.name, tuple(draft.tokens[:n]), tuple(draft.confidence[:n]), tuple(found))

    def likely(self, ask: Ask) -> float:
        """Guesses that are likely to be right, before it is asked."""
        alive, total = 1.0, 0.0
        for depth in range(min(ask.most, 8)):
            alive *= self.luck.expected(ask.handle, depth)
            total += alive
        return total

    def learn(self, handle: int, chain: Chain, accepted: int) -> None:
        """Of the chain's guesses the first `accepted` were right."""
        for depth, confidence in enumerate(chain.confidence[: accepted + 1]):
            self.luck.learn(handle, confidence, depth, right=depth < accepted)
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
