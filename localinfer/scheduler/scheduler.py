"""Who runs next. One rule: computed tokens catch up with known tokens, and everybody moves in every step."""

from collections.abc import Callable
from collections.abc import Sequence as Ordered

from localinfer.kv.lease import Cache
from localinfer.scheduler.chunk import ChunkRule
from localinfer.scheduler.sequence import Sequence, Work

HEADROOM = 64
"""Tokens that a text must have room for after its prompt before it begins."""

MARGIN = 25
"""One block in so many stays free when another text begins, for those that grow."""

OLDEST_SHARE = 4
"""The text that has read its prompt the longest gets one row in so many of those for prompts."""


class Scheduler:
    """At most `parallel` sequences run; the others wait.

    A step holds one row of every sequence that decodes and, shared among those that still read their prompt, as many
    prompt tokens as `chunk` allows. A part of these goes to the sequence that has run longest, so that none starves;
    the rest to the focused one, then to the shortest remainder first, so that a short prompt does not wait behind a
    long one. Of those that wait the focused one begins first, then the one whose turn it is: a short prompt overtakes
    a longer one that came before it, but only until as many rows were computed as the longer one has.

    When the cache is full, the sequence that began last is preempted: it waits again, and its full blocks stay in the
    cache as long as nobody needs them. The focused sequence is preempted last. `on_preempt` is told.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        parallel: int,
        chunk: ChunkRule | int,
        on_preempt: Callable[[Sequence], None] = lambda _sequence: None,
    ) -> None:
        self.cache = cache
        self.parallel = parallel
        self.chunk = ChunkRule(chunk) if isinstance(chunk, int) else chunk
        self.on_preempt = on_preempt
        self.running: list[Sequence] = []
        self.waiting: list[Sequence] = []
        self.focused: frozenset[int] = frozenset()
        """Handles of the texts that somebody looks at."""
        self.preemptions = 0
        self._served = 0  # rows computed so far

    @property
    def idle(self) -> bool:
        return not self.running and not self.waiting

    def add(self, sequence: Sequence) -> None:
        """Let `sequence` wait for its turn. It has at least one token."""
        sequence.turn = self._served + len(sequence.tokens)
        self.waiting.append(sequence)

    def next_batch(self) -> list[Work]:
        """The rows of the next step, the decoding sequences first; empty when nobody is here.

        Nothing is computed or known after this that was not before: calling it twice gives the same rows.
        """
        self._admit()
        decoding = [Work(s, s.computed, 1) for s in self.running if s.behind == 1]
        batch = decoding + self._share_chunk(decoding)
        for work in sorted(batch, key=lambda work: work.sequence.handle not in self.focused):
            self._make_room(work)
        return [work for work in batch if work.sequence.lease is not None]

    def spare(self, work: Work, among: int) -> int:
        """Tokens that may follow the rows of `work` in a step in which `among` works grow alike."""
        assert work.sequence.lease is not None
        return self.cache.room(work.sequence.lease, max(1, among)) - work.end

    def reserve(self, work: Work) -> None:
        """Make room in the cache for the rows of `work`, drafts included. Raises `DoesNotFit` where there is none."""
        assert work.sequence.lease is not None
        self.cache.reserve(work.sequence.lease, work.end)

    def commit(self, work: Work, tokens: Ordered[int]) -> None:
        """The step is done: the rows of `work` are computed and `tokens` follow them.

        Drafts that `tokens` begins with were computed with the right input and count; the others are forgotten.
        """
        sequence = work.sequence
        assert sequence.lease is not None
        accepted = work.accepted(tokens)
        sequence.tokens.extend(tokens)
        sequence.computed = min(work.start + work.count + accepted, len(sequence.tokens))
        self._served += work.count
        drafted = sequence.computed - work.start - work.count
        self.cache.publish(sequence.lease, sequence.tokens, sequence.computed, drafted)
        if tokens:
            self.cache.prove(sequence.lease)

    def spoil(self, work: Work, tokens: Ordered[int]) -> None:
        """The row after `tokens` is not finite: what the cache holds of `work` is kept for nobody, but for the blocks
        from which a token was drawn."""
        sequence = work.sequence
        assert sequence.lease is not None
        sequence.tokens.extend(tokens)
        self.cache.spoil(sequence.lease, sequence.tokens)

    def rewind(self, batch: Ordered[Work]) -> list[int]:
        """The step of `batch` was left before its end; gives the handles of those that must compute more once again."""
        back = list[int]()
        for work in batch:
            sequence = work.sequence
            assert sequence.lease is not None
            computed = self.cache.rewind(sequence.lease, sequence.tokens, sequence.computed)
            if computed < sequence.computed:
                back.append(sequence.handle)
                sequence.computed = computed
        return back

    def learn(self, batch: Ordered[Work], seconds: float) -> None:
        """A step of `batch` took so long."""
        if self.chunk.time is not None:
            self.chunk.time.learn([(work.count + len(work.drafts), work.start) for work in batch], seconds)

    def shift(self, sequence: Sequence, keep: int, drop: int) -> None:
        """Forget `drop` tokens after the first `keep`. What follows moves to other positions and is computed again."""
        del sequence.tokens[keep : keep + drop]
        if sequence.lease is not None:
            sequence.computed = self.cache.truncate(sequence.lease, sequence.tokens, min(keep, sequence.computed))

    def remove(self, sequence: Sequence) -> None:
        """`sequence` is over, or nobody wants it any more; its place is free at once.

        If an interrupt came just then, it may be on its way from one list to the other.
        """
        for those in (self.running, self.waiting):
            if sequence in those:
                those.remove(sequence)
        if sequence.lease is not None:
            self._leave(sequence)

    def _admit(self) -> None:
        """Let those begin that have their turn and fit, one after the other: nobody overtakes for being smaller."""
        self.waiting = [s for s in self.waiting if s not in self.running]  # after an interrupt one may be in both
        while self.waiting and len(self.running) < self.parallel:
            sequence = min(self.waiting, key=lambda s: (s.handle not in self.focused, s.turn))
            if self.running and not self._fits(sequence):
                return
            if sequence.lease is None:
                begins = sequence.tokens[:1] if sequence.whole else sequence.tokens
                sequence.lease = self.cache.open(begins, sequence.marks)
                sequence.lease.private = sequence.private
            sequence.computed = sequence.lease.cached
            sequence.preempted = False
            self.running.append(sequence)
            self.waiting.remove(sequence)

    def _fits(self, sequence: Sequence) -> bool:
        """Whether there are blocks for it beside those that the running ones will soon need."""
        others = [(s.lease, len(s.tokens) + HEADROOM) for s in self.running if s.lease is not None]
        return self.cache.admits(sequence.tokens, len(sequence.tokens) + HEADROOM, others, MARGIN)

    def _make_room(self, work: Work) -> None:
        """Reserve the blocks of `work`; others are preempted for it, or it is preempted itself where it began last."""
        while work.sequence.lease is not None:
            if self.cache.room(work.sequence.lease) >= work.end:
                self.reserve(work)
                return
            self._preempt(max(self.running, key=lambda s: (s.handle not in self.focused, self.running.index(s))))

    def _preempt(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)  # first: whatever an interrupt leaves half done, nobody is lost
        self.running.remove(sequence)
        self._leave(sequence)
        sequence.computed = 0
        sequence.preempted = True
        self.preemptions += 1
        self.on_preempt(sequence)

    def _leave(self, sequence: Sequence) -> None:
        assert sequence.lease is not None
        lease, sequence.lease = sequence.lease, None  # an interrupt may lose blocks, but not give them back twice
        self.cache.close(lease)

    def _share_chunk(self, decoding: list[Work]) -> list[Work]:
        reading = [s for s in self.running if s.behind > 1]
        if not reading:
            return []
        oldest = reading[0]
        left = self.chunk.rows([(1, work.start) for work in decoding], max(s.computed for s in reading))
        given = {oldest.handle: min(oldest.behind, -(-left // OLDEST_SHARE))}
        left -= given[oldest.handle]
        for sequence in sorted(reading, key=lambda s: (s.handle not in self.focused, s.behind)):
            more = min(left, sequence.behind - given.get(sequence.handle, 0))
            given[sequence.handle] = given.get(sequence.handle, 0) + more
            left -= more
        return [self._reads(s, given[s.handle]) for s in reading if given[s.handle]]

    def _reads(self, sequence: Sequence, count: int) -> Work:
        assert sequence.lease is not None
        end = self.cache.stop(sequence.lease, sequence.computed, sequence.computed + count)
        return Work(sequence, sequence.computed, end - sequence.computed)
