"""Stop strings: found however the text is cut, and never shown in part."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localinfer.engine.stopping import StopScanner


def scan(stops: list[str], pieces: list[str]) -> tuple[str, str | None]:
    scanner = StopScanner(stops)
    shown = ""
    for piece in pieces:
        text, stop = scanner.push(piece)
        shown += text
        if stop is not None:
            return shown, stop
    return shown + scanner.finish(), None


@pytest.mark.parametrize(
    ("stops", "pieces", "shown", "stop"),
    [
        ([], ["a", "b"], "ab", None),
        (["END"], ["one EN", "D two"], "one ", "END"),
        (["END"], ["one EN", "E"], "one ENE", None),
        (["END"], ["one EN"], "one EN", None),
        (["\nUser:"], ["Hi.\n", "User", ": x"], "Hi.", "\nUser:"),
        (["aab"], ["a", "a", "a", "b"], "a", "aab"),
        (["bc", "abcd"], ["abcd"], "a", "bc"),
        (["bc", "abc"], ["abc"], "", "abc"),
        (["é"], ["caf", "é"], "caf", "é"),
        (["x"], ["x"], "", "x"),
        (["x"], ["", ""], "", None),
    ],
)
def test_examples(stops: list[str], pieces: list[str], shown: str, stop: str | None) -> None:
    assert scan(stops, pieces) == (shown, stop)


LETTERS = st.text("ab", min_size=1, max_size=5)


@given(stops=st.lists(LETTERS, min_size=1, max_size=3), text=st.text("abc", max_size=30), data=st.data())
def test_how_the_text_is_cut_does_not_matter(stops: list[str], text: str, data: st.DataObject) -> None:
    cuts = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text))))})
    pieces = [text[a:b] for a, b in pairwise(cuts)]
    seen = scan(stops, pieces)
    ends = [(text.index(s) + len(s), -len(s), s) for s in stops if s in text]
    if ends:
        end, _, stop = min(ends)
        assert seen == (text[: end - len(stop)], stop)
    else:
        assert seen == (text, None)


@given(stops=st.lists(LETTERS, min_size=1, max_size=3), text=st.text("abc", max_size=30))
def test_text_that_cannot_begin_a_stop_string_is_not_held_back(stops: list[str], text: str) -> None:
    scanner = StopScanner(stops)
    shown = ""
    for i, letter in enumerate(text):
        more, stop = scanner.push(letter)
        if stop is not None:
            return
        shown += more
        held = text[len(shown) : i + 1]
        assert held == "" or any(s.startswith(held) for s in stops)
