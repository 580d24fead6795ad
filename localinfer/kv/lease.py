"""What the scheduler asks of a cache, and what a running sequence has there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from localinfer.kv.prefix import ROOT


@dataclass(slots=True)
class Lease:
    """One running sequence's place in the cache."""

    slot: int
    """Its row of the block tables; no two open leases share one."""
    cached: int = 0
    """Leading tokens whose keys and values were already there when it was opened."""
    tables: list[list[int]] = field(default_factory=list)
    """Of each group of layers: block i holds tokens 32i to 32i + 31, and is NONE once no row of this text looks back on
    it. Only the first `len(links)` may be shared with others."""
    behind: list[int] = field(default_factory=list)
    """Of each group, how many of these, the first ones, are NONE."""
    links: list[int] = field(default_factory=list)
    """The prefix links of the leading full blocks."""
    short: Sequence[bytes] = ()
    """Of each group, the name of the block after these, while it lacks but one token and others may be glad of it."""
    proven: int = 0
    """How many of `links`, the first ones, are known to be finite."""
    marks: tuple[int, ...] = ()
    """Where a later text may begin to differ, in tokens, as ends of full blocks: a recurrent state is kept there."""
    newest: int = ROOT
    """The link after whose block the newest state of generated text is kept; ROOT: there is none."""
    newest_name: bytes = b""
    """Its name on disk."""
    private: bool = False
    """Nothing of it goes to disk."""
    sent: int = 0
    """How many blocks of each table the runner already has; lowered here when they are taken back."""

    @property
    def blocks(self) -> list[int]:
        """Those of the first group."""
        return self.tables[0]


class Cache(Protocol):
    """What the scheduler asks of a cache. Positions below `computed` are never written again by their sequence,
    and what lies before all windows of layers there is given back."""

    def room(self, lease: Lease, among: int = 1) -> int:
        """One past the last position that this place has room for with its part of what is free, `among` equals."""
        ...

    def admits(self, tokens: Sequence[int], end: int, others: Iterable[tuple[Lease, int]], margin: int) -> bool:
        """Is there room for a new sequence of `tokens` to reach position `end`, beside what `others` take to reach
        theirs, while one block in `margin` stays free?"""
        ...

    def open(self, tokens: Sequence[int], marks: Sequence[int] = ()) -> Lease:
        """A place for a new sequence; `cached` of its leading tokens, never all, need not be computed. `marks` are
        lengths of beginnings that later texts are likely to share."""
        ...

    def stop(self, lease: Lease, start: int, end: int) -> int:
        """Where a step that reads known tokens from `start` on must end, at `end` at the latest."""
        ...

    def reserve(self, lease: Lease, end: int) -> None:
        """Make room for all tokens before position `end`."""
        ...

    def publish(self, lease: Lease, tokens: Sequence[int], computed: int, accepted: int = 0) -> None:
        """The first `computed` tokens are in the cache for good; others may use them. The last `accepted` of them were
        drafted."""
        ...

    def prove(self, lease: Lease) -> None:
        """A token was drawn after what is published: all of it is finite."""
        ...

    def spoil(self, lease: Lease, tokens: Sequence[int]) -> None:
        """What is computed of `tokens` leads to NaN: others may no longer use what nobody has proven."""
        ...

    def truncate(self, lease: Lease, tokens: Sequence[int], keep: int) -> int:
        """Forget what comes after the first `keep` of `tokens`; gives how many of these remain computed."""
        ...

    def rewind(self, lease: Lease, tokens: Sequence[int], computed: int) -> int:
        """A step was left before its end; gives how many of the first `computed` tokens are still computed."""
        ...

    def close(self, lease: Lease) -> None:
        """The sequence is over."""
        ...
