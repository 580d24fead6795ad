"""The cleaner: no control sequence survives, wherever it is cut, and no text is lost that a terminal would show."""

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localinfer.text import SEQUENCE_LIMIT, StreamCleaner, clean, one_line

ESC = "\x1b"
ST = ("\x1b\\", "\x9c")
STRINGS = {"OSC": ("\x1b]", "\x9d"), "DCS": ("\x1bP", "\x90"), "SOS": ("\x1bX", "\x98"), "PM": ("\x1b^", "\x9e")}
STRINGS["APC"] = ("\x1b_", "\x9f")
PAYLOADS = {
    "OSC": [
        "0;title",
        "2;title",
        "4;1;rgb:00/00/00",
        "8;;https://example.org",
        "8;;",
        "9;note",
        "10;?",
        "52;c;aGk=",
        "777;notify;a;b",
        "1337;File=:AAAA",
    ],
    "DCS": ["$q q", "+q544e", "1;2q#0;2;0;0;0", "tmux;x"],
    "SOS": ["anything"],
    "PM": ["secret"],
    "APC": ["Gf=24,s=1,v=1;AAAA", "anything"],
}
CSI_BODIES = [
    *("A", "5B", "2C", "3D", "1;1H", "2J", "3J", "K", "2K", "s", "u", "6n", "0c", "5i", "21t", "20t", "14t", "r"),
    *("m", "0m", "31m", "1;31;42m", "38;5;196m", "38;2;1;2;3m", "4:3m", "?25l", "?25h", "?1049h", "?1049l", "?2004h"),
    *("?1000h", "?1006h", "?2026h", ">4;2m", ">0q", "=1u", "<u", "?7l", "!p", "2 q", "1$r", "'|", "&w", "99999999999m"),
]
TWO_BYTE = [f"{ESC}{final}" for final in "cDEHMNOZ78=>lmno|}~`"]
CHARSETS = [f"{ESC}{middle}{final}" for middle in "()*+-./ #%" for final in ("0", "B", "8", "G")]
SINGLES = [*(chr(c) for c in range(0x20) if chr(c) not in "\n\t\x1b"), "\x7f", "\x84", "\x85", "\x88", "\x8d", "\x8e"]


def corpus() -> list[str]:
    """About 200 whole control sequences and controls."""
    sequences = [opener + body for body in CSI_BODIES for opener in ("\x1b[", "\x9b")]
    for kind, openers in STRINGS.items():
        ends = (*ST, "\x07") if kind == "OSC" else ST
        sequences += [opener + payload + end for opener in openers for payload in PAYLOADS[kind] for end in ends]
    return [*sequences, *TWO_BYTE, *CHARSETS, *SINGLES]


CORPUS = corpus()
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\u200e\u200f\U000e0000-\U000e007f]")


def in_pieces(*pieces: str) -> str:
    cleaner = StreamCleaner()
    return "".join(cleaner.push(piece) for piece in pieces) + cleaner.finish()


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) >= 150


@pytest.mark.parametrize("sequence", CORPUS, ids=ascii)
def test_a_sequence_goes_whole_wherever_it_is_cut(sequence: str) -> None:
    text = f"é{sequence}Z"
    assert clean(text) == "éZ"
    for cut in range(len(text) + 1):
        assert in_pieces(text[:cut], text[cut:]) == "éZ"
    assert in_pieces(*text) == "éZ"


@pytest.mark.parametrize("sequence", CORPUS, ids=ascii)
def test_an_unfinished_sequence_lets_nothing_out(sequence: str) -> None:
    for cut in range(len(sequence)):
        assert UNSAFE.search(clean(sequence[:cut] + "plain\x07text")) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\tc", "a\nb\tc"),
        ("a\r\nb", "a\nb"),
        ("\x1b\x1b[31mx", "x"),  # the second ESC starts again
        ("\x1b]0;t\x1b[31mx", "x"),  # ESC ends an unfinished string
        ("\x1b]0;t\x18x", "x"),  # and so do CAN
        ("\x1bPq\x1ax", "x"),  # and SUB
        ("\x1b[3\x18m", "m"),
        ("\x1b[3\x00\x0b1mx", "x"),  # controls inside a sequence do not end it
        ("\x1b[31é", "é"),  # no final byte: the sequence ends, the letter stays
        ("\x1b[31\nm", "\nm"),
        ("\x1bé", "é"),
        ("\x1b(\nB", "\nB"),
        ("\x1bPa\x07b\x1b\\x", "x"),  # BEL ends an OSC only
        ("a\u2028b\u2029c", "a\nb\nc"),
        ("\ud800x", "\ufffdx"),
        ("\u202eevil\u202c", "<U+202E>evil<U+202C>"),
        ("a\u200bb\ufeffc", "a<U+200B>b<U+FEFF>c"),
        ("\U000e0041", "<U+E0041>"),
        ("👩\u200d👧 می\u200cخواهم", "👩\u200d👧 می\u200cخواهم"),  # joiners are part of writing
    ],
    ids=ascii,
)
def test_cases(text: str, expected: str) -> None:
    assert clean(text) == expected
    assert in_pieces(*text) == expected


def test_a_lone_escape_cannot_mute_the_stream() -> None:
    for opener in ("\x1b]", "\x1bP", "\x1b[", "\x1b", "\x9d"):
        filler = "0" if opener == "\x1b[" else " " if opener == "\x1b" else "x"
        shown = clean(opener + filler * 3 * SEQUENCE_LIMIT + "the end")
        assert shown.endswith("the end")
        assert len(shown) >= 2 * SEQUENCE_LIMIT


SOUP = st.text(
    st.one_of(st.sampled_from("\x1b\x9b\x9d\x90\x9c\x07\x18\x1a[]P_^X\\;?0 m\n\u202e\u200b"), st.characters()),
    max_size=60,
)


@given(SOUP, st.lists(st.integers(0, 60), max_size=6))
def test_chunked_equals_whole(text: str, cuts: list[int]) -> None:
    bounds = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    pieces = [text[a:b] for a, b in pairwise(bounds)]
    assert in_pieces(*pieces) == clean(text) == in_pieces(*text)


@given(SOUP)
def test_idempotent_and_safe(text: str) -> None:
    once = clean(text)
    assert UNSAFE.search(once) is None
    assert clean(once) == once
    once.encode()  # no lone surrogates


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Zl", "Zp"])))
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert clean(text) == text


def test_linear_in_time() -> None:
    start = time.perf_counter()
    clean("some words of plain text\n" * 400_000)  # 10 MB
    clean("\x1b[31mx" * 200_000)
    clean("\x1b]" + "x" * 2_000_000)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\n b\t\x1b[31mc", "a b c"), ("x" * 300, "x" * 199 + "…"), ("", ""), ("\n\n", "")],
)
def test_one_line(text: str, expected: str) -> None:
    assert one_line(text) == expected
