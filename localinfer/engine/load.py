"""What all requests together ask of an engine: the rows of a step, and the blocks of the cache."""

from collections.abc import Sequence as Ordered
from dataclasses import dataclass, replace

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
    """Blocks of the KV cache; 0 where the backend keeps its own."""
    used: int = 0
    """Blocks that some request holds."""
    shared: int = 0
    """Of these, held by more than one."""
    kept: int = 0
    """Blocks that nobody holds, whose content may still be used again."""
    snapshots: int = 0
    """Snapshots of recurrent states that are held."""
    on_disk: int = 0
    """Blocks of this model on disk."""
    disk_bytes: int = 0
    """What they take there."""
    disk_problem: str = ""
    """Why no more are put there; empty while all is well."""

    @classmethod
    def of_step(cls, batch: Ordered[Work], seconds: float) -> "Load":
        """The rows of one step."""
        decode = sum(work.count == 1 and work.samples for work in batch)
        drafts = sum(len(work.drafts) for work in batch)
        return cls(decode, drafts, sum(work.count for work in batch) - decode, seconds)


def load_of(scheduler: Scheduler, last: Load, disk_cache: DiskCache | None = None) -> Load:
    """`last`, with how many run and wait, how full the cache is, and what is on disk."""
    cache = scheduler.cache
    blocks = cache.allocator.usage() if isinstance(cache, PagedCache) else (0, 0, 0, 0)
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
        snapshots=states.held if states else 0,
        on_disk=disk_cache.count if disk_cache else 0,
        disk_bytes=disk_cache.count_bytes if disk_cache else 0,
        disk_problem=disk_cache.problem if disk_cache else "",
    )
