"""What becomes the prompt: files, then standard input, then the argument; bounded and checked."""

import io
import sys
from pathlib import Path

import pytest

from localinfer.chats.files import BYTES_PER_TOKEN
from localinfer.cli.prompt import read_prompt
from localinfer.errors import ContextOverflow, LocalInferError, NotFound, UsageError


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """Standard input, to be filled."""
    data = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data))
    return data


def put(piped: io.BytesIO, data: bytes) -> None:
    piped.write(data)
    piped.seek(0)


def prompt(argument: str | None = None, *files: str, lossy: bool = False, context: int = 100) -> str:
    return read_prompt(argument, files, lossy=lossy, context=context)


def test_the_argument_alone(piped: io.BytesIO) -> None:
    assert prompt("hello") == "hello"


def test_standard_input_comes_before_the_argument(piped: io.BytesIO) -> None:
    put(piped, b"a diff\n")
    assert prompt("explain") == "a diff\n\nexplain"


@pytest.mark.parametrize("argument", [None, "-"])
def test_standard_input_alone(piped: io.BytesIO, argument: str | None) -> None:
    put(piped, b"one\ntwo\n")
    assert prompt(argument) == "one\ntwo"


def test_files_come_first_in_their_order(piped: io.BytesIO, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("A\n")
    (tmp_path / "b").write_text("B")
    put(piped, b"in")
    assert prompt("ask", str(tmp_path / "b"), str(tmp_path / "a")) == "B\n\nA\n\nin\n\nask"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xef\xbb\xbfhi\r\n", "hi"),
        (b"a\r\nb\r\n", "a\r\nb"),
        (b"a\0b", "a\0b"),
        (b"x\n\n", "x\n"),
        ("né☃".encode(), "né☃"),
    ],
)
def test_odd_but_readable(piped: io.BytesIO, data: bytes, text: str) -> None:
    put(piped, data)
    assert prompt() == text


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"ok\xff", 2),
        (b"\xc0\xaf", 0),  # overlong
        (b"abc\xed\xa0\x80", 3),  # half a surrogate pair
        (b"abcd\xe2\x98", 4),  # cut short
        (b"\xf5\x80\x80\x80", 0),  # beyond Unicode
    ],
)
def test_not_utf8_names_the_byte(piped: io.BytesIO, data: bytes, offset: int) -> None:
    put(piped, data)
    with pytest.raises(UsageError, match=f"standard input is not UTF-8: byte 0x.. at offset {offset}$") as caught:
        prompt()
    assert "--lossy" in str(caught.value.hint)


def test_lossy_accepts_it(piped: io.BytesIO) -> None:
    put(piped, b"ok\xff!")
    assert prompt(lossy=True) == "ok\ufffd!"


def test_an_argument_that_is_not_utf8(piped: io.BytesIO) -> None:
    with pytest.raises(UsageError, match="the prompt is not UTF-8: byte 0xff at offset 1"):
        prompt("a\udcff")
    assert prompt("a\udcff", lossy=True) == "a\ufffd"


@pytest.mark.parametrize("data", [b"", b" \n\t\n"])
def test_empty(piped: io.BytesIO, data: bytes) -> None:
    put(piped, data)
    with pytest.raises(UsageError, match="the prompt is empty"):
        prompt()


def test_nothing_given_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(UsageError, match="there is no prompt") as caught:
        prompt()
    assert "localinfer run starter" in str(caught.value.hint)
    assert prompt("hello") == "hello"  # a terminal is not read


def test_closed_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert prompt("hello") == "hello"
    with pytest.raises(UsageError, match="standard input is closed"):
        prompt("-")


def test_a_file_that_is_not_there(piped: io.BytesIO, tmp_path: Path) -> None:
    for name in (str(tmp_path / "none"), str(tmp_path), "a\0b"):
        with pytest.raises(NotFound):
            prompt("x", name)


def test_more_than_the_context_could_hold_is_not_even_read(piped: io.BytesIO, tmp_path: Path) -> None:
    put(piped, b"x" * 10_000_000)
    with pytest.raises(ContextOverflow, match=r"standard input has more than 25.6 kB, too much for a context of 100"):
        prompt()
    assert piped.tell() < 1_000_000
    (tmp_path / "big").write_bytes(b"x" * (100 * BYTES_PER_TOKEN + 1))
    with pytest.raises(LocalInferError) as caught:
        prompt("x", str(tmp_path / "big"))
    assert caught.value.exit_code == 8


def test_exactly_what_it_could_hold_is_read(piped: io.BytesIO) -> None:
    put(piped, b"x" * (100 * BYTES_PER_TOKEN))
    assert len(prompt()) == 100 * BYTES_PER_TOKEN
