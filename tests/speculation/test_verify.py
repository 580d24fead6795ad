"""Whatever is guessed, the tokens are those of plain decoding."""

from hypothesis import given
from hypothesis import strategies as st

from localinfer.speculation.verify import sample_and_match


def next_token(text: list[int]) -> int:
    """A stand-in for model and sampler: any function of the whole text will do."""
    return (sum(text) * 7 + len(text)) % 3


def plain(text: list[int], count: int) -> list[int]:
    taken: list[int] = []
    for _ in range(count):
        taken.append(next_token(text + taken))
    return taken


@given(text=st.lists(st.integers(0, 2)), drafts=st.lists(st.integers(0, 2), max_size=8))
def test_the_same_tokens_as_plain_decoding(text: list[int], drafts: list[int]) -> None:
    def sample(row: int, taken: list[int]) -> int:
        assert taken == drafts[:row], "a row is looked at only if all guesses before it were right"
        return next_token(text + drafts[:row])

    tokens = sample_and_match(drafts, sample)
    assert tokens == plain(text, len(tokens))
    right = next((i for i, pair in enumerate(zip(drafts, tokens, strict=False)) if pair[0] != pair[1]), len(drafts))
    assert len(tokens) == right + 1


def test_an_oracle_is_right_to_the_end() -> None:
    drafts = plain([1], 8)
    assert sample_and_match(drafts, lambda row, taken: next_token([1, *taken])) == plain([1], 9)


def test_no_drafts_is_plain_decoding() -> None:
    assert sample_and_match([], lambda row, taken: 5) == [5]
