"""A million random steps on the pool of blocks, beside a plain model of who wrote what where."""

import random

from localinfer.errors import DoesNotFit
from localinfer.kv.blocks import BLOCK_TOKENS, blocks_for
from localinfer.kv.cache import PagedCache
from localinfer.kv.lease import Lease

STEPS = 1_000_000
SLOTS, CONTEXT, BLOCKS = 6, 256, 10


class Storm:
    """Texts that open, grow, fork, are cut and leave. `written` is the memory itself: the token at each place."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.cache = PagedCache(slots=SLOTS, context=CONTEXT, blocks=BLOCKS)
        self.written = [[-1] * BLOCK_TOKENS for _ in range(BLOCKS)]
        self.live: list[tuple[Lease, list[int], int]] = []
        self.full = self.shared = 0

    def step(self) -> None:
        action = self.rng.random()
        if not self.live or (action < 0.12 and len(self.live) < SLOTS):
            self.open(self.new_text())
        elif action < 0.18 and len(self.live) < SLOTS:
            self.open([*self.rng.choice(self.live)[1], self.rng.randrange(2)])  # a fork
        elif action < 0.8:
            self.grow(self.rng.randrange(len(self.live)))
        elif action < 0.88:
            self.cut(self.rng.randrange(len(self.live)))
        else:
            self.leave(self.rng.randrange(len(self.live)))

    def new_text(self) -> list[int]:
        """Few different beginnings, so that many are found again."""
        return [self.rng.randrange(2)] * self.rng.randint(1, 200)

    def open(self, tokens: list[int]) -> None:
        tokens = tokens[: CONTEXT - 1]
        used = self.cache.allocator.count - self.cache.available
        needs = self.cache.needs(tokens, len(tokens))
        lease = self.cache.open(tokens)
        assert self.cache.allocator.count - self.cache.available - used <= needs[0]
        assert lease.cached < len(tokens)
        for at in range(lease.cached):  # what is found is what was written there
            assert self.written[lease.blocks[at // BLOCK_TOKENS]][at % BLOCK_TOKENS] == tokens[at]
        self.shared += lease.cached > 0
        self.live.append((lease, tokens, lease.cached))

    def grow(self, which: int) -> None:
        lease, tokens, computed = self.live[which]
        end = min(len(tokens), computed + self.rng.randint(1, 48))
        try:
            self.cache.reserve(lease, end)
        except DoesNotFit:
            assert self.cache.available == 0
            self.full += 1
            self.leave(which)
            return
        for at in range(computed, end):
            block = lease.blocks[at // BLOCK_TOKENS]
            assert self.cache.allocator.users(block) == 1
            self.written[block][at % BLOCK_TOKENS] = tokens[at]
        self.cache.publish(lease, tokens, end)
        if end == len(tokens) < CONTEXT - 1:
            tokens.append(self.rng.randrange(2))
        self.live[which] = lease, tokens, end

    def cut(self, which: int) -> None:
        lease, tokens, computed = self.live[which]
        keep = self.rng.randint(0, computed)
        left = self.cache.truncate(lease, tokens, keep)
        assert left <= keep
        self.live[which] = lease, [*tokens[:left], *self.new_text()][: CONTEXT - 1], left

    def leave(self, which: int) -> None:
        self.cache.close(self.live.pop(which)[0])

    def check(self) -> None:
        """Every block is counted once, and whoever is running can read his own text."""
        held = [block for lease, _, _ in self.live for block in lease.blocks]
        for block in range(BLOCKS):
            assert self.cache.allocator.users(block) == held.count(block)
        assert self.cache.available == BLOCKS - len(set(held))
        for lease, tokens, computed in self.live:
            assert len(lease.blocks) >= blocks_for(computed)
            for at in range(computed):
                assert self.written[lease.blocks[at // BLOCK_TOKENS]][at % BLOCK_TOKENS] == tokens[at]


def test_a_million_steps() -> None:
    storm = Storm(seed=6)
    for step in range(STEPS):
        storm.step()
        if step % 500 == 0:
            storm.check()
    assert storm.full > 1000
    assert storm.shared > 1000
    while storm.live:
        storm.leave(0)
    storm.check()
    assert len(storm.cache._slots) == SLOTS
