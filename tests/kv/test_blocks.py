"""The allocator against a model of it: whatever is done in whatever order, every block is in exactly one state."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from localinfer.errors import DoesNotFit
from localinfer.kv.blocks import BlockAllocator, blocks_for


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (31, 1), (32, 1), (33, 2), (8192, 256)])
def test_blocks_for(tokens: int, blocks: int) -> None:
    assert blocks_for(tokens) == blocks


def test_when_all_are_in_use_the_error_says_how_many() -> None:
    allocator = BlockAllocator(2)
    allocator.take(), allocator.take()
    with pytest.raises(DoesNotFit, match="all 2 blocks"):
        allocator.take()


def test_remembered_blocks_go_last_and_oldest_first() -> None:
    gone: list[int] = []
    allocator = BlockAllocator(3, gone.append)
    a, b, c = (allocator.take() for _ in range(3))
    allocator.remember(a)
    allocator.remember(b)
    for block in (b, a, c):
        allocator.release(block)
    assert [allocator.take() for _ in range(3)] == [c, b, a]
    assert gone == [b, a]


def test_misuse_is_refused() -> None:
    allocator = BlockAllocator(1)
    with pytest.raises(ValueError, match="free"):
        allocator.share(0)
    with pytest.raises(ValueError, match="more often"):
        allocator.release(0)
    with pytest.raises(ValueError, match="not in use"):
        allocator.remember(0)


class Machine(RuleBasedStateMachine):
    """Each hold is one right to use a block; `remembered` is what may be shared after its last user left."""

    holds = Bundle[int]("holds")

    @initialize(count=st.integers(1, 6))
    def start(self, count: int) -> None:
        self.count = count
        self.users = dict.fromkeys(range(count), 0)
        self.remembered: set[int] = set()
        self.evicted: list[int] = []
        self.idle_order: list[int] = []
        self.allocator = BlockAllocator(count, self.evicted.append)

    @precondition(lambda self: any(n == 0 for n in self.users.values()))
    @rule(target=holds)
    def take(self) -> int:
        free = {b for b, n in self.users.items() if n == 0 and b not in self.remembered}
        self.evicted.clear()
        block = self.allocator.take()
        if free:
            assert block in free
            assert self.evicted == []
        else:
            assert block == self.idle_order.pop(0)
            assert self.evicted == [block]
            self.remembered.discard(block)
        self.users[block] = 1
        return block

    @precondition(lambda self: all(n > 0 for n in self.users.values()))
    @rule()
    def take_too_much(self) -> None:
        with pytest.raises(DoesNotFit):
            self.allocator.take()

    @rule(target=holds, block=holds)
    def share(self, block: int) -> int:
        self.allocator.share(block)
        self.users[block] += 1
        return block

    @precondition(lambda self: self.idle_order)
    @rule(target=holds, data=st.data())
    def share_idle(self, data: st.DataObject) -> int:
        block = data.draw(st.sampled_from(self.idle_order))
        self.idle_order.remove(block)
        self.allocator.share(block)
        self.users[block] = 1
        return block

    @rule(block=holds)
    def remember(self, block: int) -> None:
        self.allocator.remember(block)
        self.remembered.add(block)

    @rule(block=consumes(holds))
    def release(self, block: int) -> None:
        self.allocator.release(block)
        self.users[block] -= 1
        if self.users[block] == 0 and block in self.remembered:
            self.idle_order.append(block)

    @invariant()
    def counts_agree(self) -> None:
        assert [self.allocator.users(b) for b in range(self.count)] == [self.users[b] for b in range(self.count)]
        assert self.allocator.available == sum(n == 0 for n in self.users.values())


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
