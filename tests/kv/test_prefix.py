"""A block is found again only under exactly the tokens it holds, after exactly the tokens before it."""

from localinfer.kv.prefix import ROOT, PrefixIndex

A, B, C = list(range(32)), list(range(32, 64)), list(range(64, 96))


def test_the_longest_known_beginning_is_found() -> None:
    index = PrefixIndex()
    first, _ = index.put(ROOT, A, 7)
    second, _ = index.put(first, B, 3)
    assert index.find(A + B + C, 3) == [(first, 7), (second, 3)]
    assert index.find(A + B + C, 1) == [(first, 7)]
    assert index.find(A + C, 2) == [(first, 7)]
    assert index.find(B + A, 2) == []
    assert index.find([*A[:31], 99, *B], 2) == []


def test_same_tokens_after_another_beginning_are_another_block() -> None:
    index = PrefixIndex()
    a, _ = index.put(ROOT, A, 0)
    b, _ = index.put(ROOT, B, 1)
    after_a, _ = index.put(a, C, 2)
    after_b, _ = index.put(b, C, 3)
    assert index.find(A + C, 2) == [(a, 0), (after_a, 2)]
    assert index.find(B + C, 2) == [(b, 1), (after_b, 3)]


def test_of_two_equal_blocks_the_first_is_found() -> None:
    index = PrefixIndex()
    link, first = index.put(ROOT, A, 0)
    again, second = index.put(ROOT, A, 1)
    assert (again, first, second) == (link, True, False)
    index.forget(1)
    assert index.find(A, 1) == [(link, 0)]


def test_a_forgotten_beginning_hides_what_follows_for_ever() -> None:
    """Another text may take its place under the same tokens; what followed the old one is not mixed up with it."""
    index = PrefixIndex()
    a, _ = index.put(ROOT, A, 0)
    index.put(a, B, 1)
    index.forget(0)
    assert index.find(A + B, 2) == []
    new, first = index.put(ROOT, A, 2)
    assert first
    assert new != a
    assert index.find(A + B, 2) == [(new, 2)]
    index.forget(1)
    index.forget(1)
    assert len(index) == 1


def test_tokens_that_hash_alike_are_told_apart() -> None:
    """In Python, hash(-1) == hash(-2): a lookup by hash alone would mix these two up."""
    index = PrefixIndex()
    index.put(ROOT, [-1] * 32, 0)
    assert hash((-1,) * 32) == hash((-2,) * 32)
    assert index.find([-2] * 32, 1) == []
