"""Places where the end of the text was seen before vote for what comes next."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from localinfer.speculation.drafter import Ask, Draft
from localinfer.speculation.suffix import FLOOR, ORDERS, Location, SuffixDrafter

PHRASE = [11, 12, 13, 14, 15, 16, 17, 18, 19, 20]


def guess(drafter: SuffixDrafter, tokens: Sequence[int], most: int = 8, handle: int = 1) -> Draft:
    draft = drafter.propose([Ask(handle, tokens, most, lambda logits, taken: 0)])[0]
    assert len(draft.confidence) == len(draft.tokens) <= most
    assert all(0 < confidence <= 1 for confidence in draft.confidence)
    return draft


class Before:
    """One earlier text, looked up plainly."""

    def __init__(self, text: list[int]) -> None:
        self.text = text

    def locations(self, gram: Sequence[int], most: int) -> list[Location]:
        n = len(gram)
        ends = [i + n for i in range(len(self.text) - n) if self.text[i : i + n] == list(gram)]
        return [(self.text, end) for end in ends[-most:]]


def test_what_followed_is_guessed() -> None:
    assert guess(SuffixDrafter(), [*PHRASE, 1, 2, *PHRASE[:7]], 3).tokens == [18, 19, 20]


def test_most_votes_win_and_the_others_drop_out() -> None:
    text = [5, 6, 7, 1, 9, 5, 6, 7, 2, 8, 5, 6, 7, 2, 8, 0, 5, 6, 7]
    draft = guess(SuffixDrafter(), text, 3)
    assert draft.tokens[:2] == [2, 8]
    assert draft.confidence[1] > draft.confidence[0]  # the place that had 1 is out of it


def test_a_longer_match_is_believed_more() -> None:
    short = guess(SuffixDrafter(), [*PHRASE, 0, *PHRASE[:3]], 1)
    long = guess(SuffixDrafter(), [*PHRASE, 1, 2, 3, 4, *PHRASE, 1, 2, 3], 1)
    assert short.tokens == [14]
    assert long.tokens == [4]
    assert long.confidence[0] > short.confidence[0]


def test_earlier_texts_are_looked_up_and_end_where_they_end() -> None:
    drafter = SuffixDrafter(Before([*PHRASE, -1, 3, 4]))
    assert guess(drafter, [9, 9, *PHRASE[:6]], 31).tokens == PHRASE[6:]


def test_texts_are_kept_apart_and_forgotten() -> None:
    drafter = SuffixDrafter()
    guess(drafter, PHRASE, handle=1)
    assert guess(drafter, PHRASE[:5], handle=2).tokens == []
    drafter.forget(1)
    drafter.forget(1)
    assert guess(drafter, PHRASE[:4], handle=1).tokens == []


@given(
    text=st.lists(st.integers(0, 3), max_size=70),
    cuts=st.lists(st.integers(0, 70), max_size=5),
    most=st.integers(1, 20),
)
def test_a_guess_occurred_and_does_not_depend_on_how_the_text_grew(text: list[int], cuts: list[int], most: int) -> None:
    grown = SuffixDrafter()
    for cut in sorted(cuts):
        guess(grown, text[:cut], most)
    draft = guess(SuffixDrafter(), text, most)
    assert guess(grown, text, most) == draft
    alive = 1.0
    for confidence in draft.confidence:
        alive *= confidence
    assert alive >= FLOOR or not draft.tokens
    if draft.tokens:
        said, whole = text[-ORDERS[-1] :] + draft.tokens, text + draft.tokens
        assert any(whole[i : i + len(said)] == said for i in range(len(whole) - len(said)))
