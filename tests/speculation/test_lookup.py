"""Copies of long repeats, and nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from localinfer.speculation.drafter import Ask
from localinfer.speculation.lookup import EASY, GRAM, HARD, LookupDrafter


def guess(drafter: LookupDrafter, handle: int, tokens: list[int], most: int) -> list[int]:
    """What `drafter` proposes for one text."""
    draft = drafter.propose([Ask(handle, tokens, most, lambda logits, taken: 0)])[0]
    assert len(draft.confidence) == len(draft.tokens)
    return draft.tokens


PHRASE = [11, 12, 13, 14, 15, 16, 17, 18, 19, 20]


def test_what_followed_a_long_repeat_is_proposed() -> None:
    text = [*PHRASE, 1, 2, *PHRASE[:7]]
    assert guess(LookupDrafter(), 1, text, 3) == [18, 19, 20]


def test_a_copy_is_no_longer_than_the_repeat_was() -> None:
    text = [*PHRASE, 1, 2, 3, 4, 5, *PHRASE[1:7]]
    assert guess(LookupDrafter(), 1, [9, *text], 15) == [18, 19, 20, 1, 2, 3]


def test_a_short_repeat_is_left_alone() -> None:
    assert guess(LookupDrafter(), 1, [*PHRASE, 1, *PHRASE[: EASY - 1]], 8) == []


def test_the_latest_repeat_is_taken() -> None:
    text = [*PHRASE, 1, 7, 7, *PHRASE, 2, 8, 8, *PHRASE]
    assert guess(LookupDrafter(), 1, text, 3) == [2, 8, 8]


def test_it_learns_while_the_text_grows() -> None:
    drafter = LookupDrafter()
    assert guess(drafter, 1, PHRASE, 4) == []
    assert guess(drafter, 1, [*PHRASE, 5], 4) == []
    assert guess(drafter, 1, [*PHRASE, 5, *PHRASE], 4) == [5, 11, 12, 13]


def test_texts_are_kept_apart() -> None:
    drafter = LookupDrafter()
    guess(drafter, 1, PHRASE, 4)
    assert guess(drafter, 2, PHRASE[:7], 4) == []


def test_wrong_copies_make_it_careful_and_right_ones_bold_again() -> None:
    drafter = LookupDrafter()
    text = [*PHRASE, 1, *PHRASE[:8]]
    assert guess(drafter, 1, text, 4)
    drafter.observe(1, 4, 0)
    assert guess(drafter, 1, text, 4) == []
    for _ in range(9):
        drafter.observe(1, 4, 0)
    drafter.observe(1, 4, 4)
    assert guess(drafter, 1, [*range(HARD), 3, *range(HARD)], 2) == [3, 0]
    drafter.observe(1, 4, 4)
    drafter.observe(1, 0, 0)
    assert guess(drafter, 1, [*range(HARD), 3, *range(HARD)], 2) == [3, 0]


def test_a_forgotten_text_is_read_anew() -> None:
    drafter = LookupDrafter()
    guess(drafter, 1, [*PHRASE, 1, *PHRASE], 4)
    drafter.forget(1)
    drafter.forget(1)
    drafter.observe(1, 4, 0)
    assert guess(drafter, 1, PHRASE, 4) == []
    assert guess(drafter, 1, [*PHRASE, *PHRASE], 4) == PHRASE[:4]


@given(
    text=st.lists(st.integers(0, 2), max_size=80),
    cuts=st.lists(st.integers(0, 80), max_size=5),
    most=st.integers(1, 15),
)
def test_a_draft_is_a_copy_and_does_not_depend_on_how_the_text_grew(
    text: list[int], cuts: list[int], most: int
) -> None:
    grown, whole = LookupDrafter(), LookupDrafter()
    for cut in sorted(cuts):
        guess(grown, 1, text[:cut], most)
    draft = guess(whole, 1, text, most)
    assert guess(grown, 1, text, most) == draft
    assert len(draft) <= most
    if draft:
        copied = text[-EASY:] + draft
        assert any(text[i : i + len(copied)] == copied for i in range(len(text) - EASY))
        assert GRAM < EASY
