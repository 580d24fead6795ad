"""A block is found again only under exactly the tokens it holds, after exactly the tokens before it."""

from localinfer.kv.blocks import NONE
from localinfer.kv.prefix import ROOT, PrefixIndex

A, B, C = list(range(32)), list(range(32, 64)), list(range(64, 96))


def put(index: PrefixIndex, before: int, tokens: list[int], block: int) -> int:
    link = index.link(before, tokens)
    assert index.put(link, block)
    return link


def test_the_longest_known_beginning_is_found() -> None:
    index = PrefixIndex()
    first = put(index, ROOT, A, 7)
    second = put(index, first, B, 3)
    assert index.find(A + B + C, 3) == [first, second]
    assert index.find(A + B + C, 1) == [first]
    assert index.find(A + C, 2) == [first]
    assert index.find(B + A, 2) == []
    assert index.find([*A[:31], 99, *B], 2) == []
    assert [index.block(link) for link in (first, second)] == [7, 3]


def test_same_tokens_after_another_beginning_are_another_block() -> None:
    index = PrefixIndex()
    a, b = put(index, ROOT, A, 0), put(index, ROOT, B, 1)
    after_a, after_b = put(index, a, C, 2), put(index, b, C, 3)
    assert index.find(A + C, 2) == [a, after_a]
    assert index.find(B + C, 2) == [b, after_b]


def test_of_two_equal_blocks_the_first_is_found() -> None:
    index = PrefixIndex()
    link = put(index, ROOT, A, 0)
    assert index.link(ROOT, A) == link
    assert not index.put(link, 1)
    index.forget(1)
    assert index.block(link) == 0


def test_a_forgotten_beginning_hides_what_follows_until_it_is_there_again() -> None:
    index = PrefixIndex()
    a = put(index, ROOT, A, 0)
    b = put(index, a, B, 1)
    assert index.forget(0) == []
    assert index.find(A + B, 2) == [a, b]
    assert [index.block(a), index.block(b)] == [NONE, 1]
    assert index.put(index.link(ROOT, A), 2)
    assert [index.block(a), index.block(b)] == [2, 1]


def test_what_nobody_has_a_block_of_any_more_is_gone() -> None:
    index = PrefixIndex()
    a = put(index, ROOT, A, 0)
    b, c = put(index, a, B, 1), put(index, a, C, 2)
    assert index.forget(0) == []
    assert index.forget(1) == [b]
    assert index.forget(1) == []
    assert index.forget(2) == [c, a]
    assert len(index) == 0
    assert index.link(ROOT, A) not in (a, b, c)


def test_what_comes_after_a_place_that_is_gone_is_not_mixed_up_with_another() -> None:
    index = PrefixIndex()
    a = put(index, ROOT, A, 0)
    index.forget(0)
    lost = put(index, a, B, 1)  # by one who had held it
    again = put(index, ROOT, A, 2)
    assert index.find(A + B, 2) == [again]
    assert index.forget(1) == [lost]


def test_groups_have_blocks_of_their_own() -> None:
    index = PrefixIndex(2)
    link = index.link(ROOT, A)
    assert index.put(link, 5, 0)
    assert index.put(link, 5, 1)
    assert not index.put(link, 6, 1)
    assert index.forget(5, 1) == []
    assert [index.block(link, group) for group in (0, 1)] == [5, NONE]
    assert index.put(link, 6, 1)
    assert index.forget(5, 0) == []
    assert index.forget(6, 1) == [link]


def test_tokens_that_hash_alike_are_told_apart() -> None:
    """In Python, hash(-1) == hash(-2): a lookup by hash alone would mix these two up."""
    index = PrefixIndex()
    put(index, ROOT, [-1] * 32, 0)
    assert hash((-1,) * 32) == hash((-2,) * 32)
    assert index.find([-2] * 32, 1) == []
