"""Which size to try next on the way to the smallest model that keeps a KL divergence. Numbers in, sizes out."""

from localinfer.quantize.budget import Deal, Dealt

MOST_ROUNDS = 5
"""Models that are made and measured at most; the last of them is the widest if none before kept it."""

NEAR = 0.01
"""A smaller model is not looked for where less than this share of the layers' bytes could be saved."""


class Search:
    """Expected costs say where to look, and each measured one how far expectations are off."""

    def __init__(self, deal: Deal, target: float) -> None:
        self._deal, self._target = deal, target
        self._scale = 1.0  # of measured to expected
        self._low, self._high = deal.least - 1, deal.most + 1  # bytes that were too few, and that were enough
        self._tried = set[int]()
        self.kept: Dealt | None = None
        """The smallest that was measured and kept it."""

    def next(self) -> Dealt | None:
        """What to make next; None when the search is over."""
        first = self.kept is None
        near = self._high - self._low <= NEAR * self._high
        if len(self._tried) >= MOST_ROUNDS or (near and not first) or (self._deal.most in self._tried and first):
            return None
        if len(self._tried) == MOST_ROUNDS - 1 and first:
            return self._deal.within(self._deal.most)
        found = self._smallest(self._target / self._scale)
        if not self._low < found.nbytes < self._high or found.nbytes in self._tried:
            found = self._deal.within((self._low + self._high) // 2)
        return None if found.nbytes in self._tried else found

    def learn(self, dealt: Dealt, measured: float) -> None:
        """What `dealt` has lost."""
        self._tried.add(dealt.nbytes)
        if dealt.nats > 0 and measured > 0:
            self._scale = measured / dealt.nats
        if measured <= self._target:
            self.kept, self._high = dealt, dealt.nbytes
        else:
            self._low = max(self._low, dealt.nbytes)

    def _smallest(self, nats: float) -> Dealt:
        """The smallest mix that is expected to cost no more; the widest if none is."""
        low, high = self._deal.least - 1, self._deal.most
        while high - low > max(1, self._deal.most // 2000):
            middle = (low + high) // 2
            low, high = (low, middle) if self._deal.within(middle).nats <= nats else (middle, high)
        return self._deal.within(high)
