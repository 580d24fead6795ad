"""How much time drafts may lose: a budget that they pay from and that all work fills again."""

SHARE = 0.02
"""Of the time without drafts that may be lost in the long run."""

STEPS = 6
"""Plain steps that may be lost besides."""


class LossBudget:
    """A step with drafts is allowed only if the loss budget can pay for all its guesses being wrong.

    Then the time of all steps T and the time P that the same tokens would have taken without drafts hold
    T <= (1 + SHARE) P + STEPS plain steps, whatever the text does, as far as the cost of steps is known: every step
    puts SHARE / (1 + SHARE) of its time in, a step with drafts takes out what it lost, and the budget never holds more
    than STEPS / (1 + SHARE) plain steps.
    """

    def __init__(self) -> None:
        self._most = 0.0
        self.left: float | None = None
        """Seconds in the loss budget; None before the first step, when it is about to be filled."""

    def allows(self, loss: float, plain: float) -> bool:
        """Whether a step may be taken that would lose `loss` seconds at worst; `plain` is a plain step's time."""
        self._most = STEPS / (1 + SHARE) * plain
        if self.left is None:
            self.left = self._most
        return loss <= self.left

    def settle(self, seconds: float, saved: float) -> None:
        """A step took `seconds`, `saved` less (negative: more) than its tokens would have without drafts."""
        if self.left is not None:
            self.left = min(self._most, self.left + seconds * SHARE / (1 + SHARE) + saved)
