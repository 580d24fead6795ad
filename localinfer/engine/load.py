"""What all requests together ask of an engine: the rows of a step, and the blocks of the cache."""

from collections.abc import Sequence as Ordered
from dataclasses import dataclass, replace
from typing import Protocol

from localinfer.engine.disk_cache import DiskCache
from localinfer.kv.cache import PagedCache
from localinfer.scheduler.scheduler import Scheduler
from localinfer.scheduler.sequence import Work


@dataclass(frozen=True, slots=True)
class Load:
    """A moment of an engine. The rows are those of the last step, none if there was nothing to do."""

    decode_rows: int = 0
    draft_rows: int = 0
    prefill_rows: int = 0
    step_s: float = 0.0
    running: int = 0
    waiting: int = 0
    queued: frozenset[int] = frozenset()
    """Handles of the requests that have had no row computed, nor are having it now."""
    preempted: int = 0
    """Of those that wait, how many had begun and made room for others."""
    preemptions: int = 0
    """How often that has happened."""
    blocks: int = 0
    """Blocks of the KV cache; 0 where the backend keeps its own. In a model some of whose layers look back on a window
    only: those of the other layers."""
    used: int = 0
    """Blocks that some request holds."""
    shared: int = 0
    """Of these, held by more than one."""
    kept: int = 0
    """Blocks that nobody holds, whose content may still be used again."""
    window_blocks: int = 0
    """Blocks of the layers with a window, where others have none."""
    window_used: int = 0
    """Of these, held by some request."""
    snapshots: int = 0
    """Snapshots of recurrent states that are held."""
    on_disk: int = 0
    """Blocks of this model on disk."""
    disk_bytes: int = 0
    """What they take there."""
    disk_problem: str = ""
    """Why no more are put there; empty while all is well."""
    experts_bytes: int = 0
    """Of experts that stay in a file; 0: all weights are in memory."""
    experts_held: int = 0
    """Bytes of those that are in memory."""
    experts_wanted: int = 0
    """Experts that steps wanted so far."""
    experts_missed: int = 0
    """Of these, those that were not in memory."""
    experts_read: int = 0
    """Bytes that were read for them."""

    @property
    def experts_hit(self) -> float:
        """The part of the experts that steps wanted which was in memory."""
        return 1 - self.experts_missed / self.experts_wanted if self.experts_wanted else 0.0

    @classmethod
    def of_step(cls, batch: Ordered[Work], seconds: float) -> "Load":
        """The rows of one step."""
        decode = sum(work.count == 1 and work.samples for work in batch)
        drafts = sum(len(work.drafts) for work in batch)
        return cls(decode, drafts, sum(work.count for work in batch) - decode, seconds)


class Pool(Protocol):
    """Experts that stay in a file, of which some are held: a native pool."""

    @property
    def nbytes(self) -> int: ...
    @property
    def held_bytes(self) -> int: ...
    @property
    def wanted(self) -> int: ...
    @property
    def read(self) -> int: ...
    @property
    def read_bytes(self) -> int: ...


def load_of(
    scheduler: Scheduler, last: Load, disk_caches: Ordered[DiskCache] = (), experts: Pool | None = None
) -> Load:
    """`last`, with how many run and wait, how full the cache is, and what is on disk."""
    cache = scheduler.cache
    groups = cache.groups if isinstance(cache, PagedCache) else []
    far_first = sorted(groups, key=lambda group: (group.window > 0, -group.window))
    usage = [group.allocator.usage() for group in far_first] or [(0, 0, 0, 0)]
    blocks, windows = usage[0], usage[1:]
    states = cache.states if isinstance(cache, PagedCache) else None
    return replace(
        last if scheduler.running else Load(),
        running=len(scheduler.running),
        waiting=len(scheduler.waiting),
        preempted=sum(sequence.preempted for sequence in scheduler.waiting),
        preemptions=scheduler.preemptions,
        blocks=blocks[0],
        used=blocks[1],
        shared=blocks[2],
        kept=blocks[3],
        window_blocks=sum(one[0] for one in windows),
        window_used=sum(one[1] for one in windows),
        snapshots=states.held if states else 0,
        on_disk=max((one.count for one in disk_caches), default=0),
        disk_bytes=sum(one.count_bytes for one in disk_caches),
        disk_problem=next((one.problem for one in disk_caches if one.problem), ""),
        experts_bytes=experts.nbytes if experts else 0,
        experts_held=experts.held_bytes if experts else 0,
        experts_wanted=experts.wanted if experts else 0,
        experts_missed=experts.read if experts else 0,
        experts_read=experts.read_bytes if experts else 0,
    )
