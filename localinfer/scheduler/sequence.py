"""One text that is being written: its tokens, and how many of them the model has seen."""

from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field
from itertools import takewhile

from localinfer.kv.lease import Lease


@dataclass(slots=True, eq=False)
class Sequence:
    """`tokens` are known (prompt, then what was generated); the first `computed` of them are in the KV cache."""

    handle: int
    tokens: list[int]
    computed: int = 0
    lease: Lease | None = None
    """Its place in the cache; none while it waits."""
    turn: int = 0
    """Rows that had been computed when it came, plus its own length: of those that wait, the least is next."""
    marks: tuple[int, ...] = ()
    """Lengths of beginnings that later texts are likely to share."""
    whole: bool = False
    """Every row is computed: nothing of it is taken from what earlier texts have left."""
    private: bool = False
    """Nothing of it is left on disk."""
    preempted: bool = False
    """It ran, and waits again because others needed its blocks."""

    @property
    def behind(self) -> int:
        """Known tokens that the model has not seen: 1 while decoding, more while the prompt is read."""
        return len(self.tokens) - self.computed


@dataclass(slots=True)
class Work:
    """The rows of one sequence in one step: `count` known tokens from `start` on, then the drafted ones."""

    sequence: Sequence
    start: int
    count: int
    drafts: list[int] = field(default_factory=list)

    @property
    def samples(self) -> bool:
        """Whether all known tokens are computed after this step, so that the next one can be chosen."""
        return self.start + self.count == len(self.sequence.tokens)

    def accepted(self, tokens: Ordered[int]) -> int:
        """How many of the drafts `tokens`, those that were chosen, begin with."""
        pairs = zip(self.drafts, tokens, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    @property
    def end(self) -> int:
        """One past the last position written."""
        return self.start + self.count + len(self.drafts)
