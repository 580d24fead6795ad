"""Where words go, and what a terminal sees of a job's progress."""

import io
import json
import os
import sys

import pytest

from localinfer.cli import output
from localinfer.cli.progress import Progress
from localinfer.events import Speed


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Both streams become a terminal of 40 columns. Called in the test: pytest puts its own streams in before."""
    found = Terminal()
    monkeypatch.setattr(sys, "stderr", found)
    monkeypatch.setattr(sys, "stdout", found)
    monkeypatch.setattr("os.get_terminal_size", lambda _: os.terminal_size((40, 24)))
    monkeypatch.setenv("TERM", "xterm")
    return found


def test_a_sequence_split_over_pieces_stays_out_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    answer = output.Answer()
    for piece in ("one \x1b", "]52;c;", "aGk=\x07 two", "\x1b[31", "m three"):
        answer.write(piece)
    answer.end_line()
    assert terminal.getvalue() == "one  two three\n"


def test_a_pipe_gets_the_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    answer = output.Answer()
    answer.write("\x1b[1mbold")
    answer.end_line()
    assert capsys.readouterr().out == "\x1b[1mbold\n"


@pytest.mark.parametrize(("pieces", "seen"), [([], ""), (["a\n"], "a\n"), (["a", "\n", ""], "a\n"), (["a"], "a\n")])
def test_an_answer_ends_with_one_line_break(capsys: pytest.CaptureFixture[str], pieces: list[str], seen: str) -> None:
    answer = output.Answer()
    for piece in pieces:
        answer.write(piece)
    answer.end_line()
    assert capsys.readouterr().out == seen


def test_json_knows_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_json({"a": [float("nan"), 1.5, float("inf")], "b": ("é", None)})
    assert capsys.readouterr().out == '{"a": [null, 1.5, null], "b": ["é", null]}\n'


def test_progress_on_a_terminal_is_one_line_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    times = iter([0.0, 0.01, 0.2, 0.3])
    with Progress(in_bytes=True, clock=lambda: next(times)) as progress:
        progress("weights", 0, 2_000_000)
        progress("weights", 500_000, 2_000_000)  # too soon after the last
        progress("weights", 1_000_000, 2_000_000)
        progress("a phase \x1b[31mwith a name that is far too long for it", 1, 0)
    drawn = terminal.getvalue().split("\r")[1:]
    assert drawn[:2] == ["weights    0 %  0 B of 2.0 MB\x1b[K", "weights   50 %  1.0 MB of 2.0 MB\x1b[K"]
    assert drawn[2] == "a phase with a name that is far too lon\x1b[K"
    assert drawn[3] == "\x1b[K"


def test_a_long_job_says_how_long_it_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its pace now: what a stopped run had done goes by at once and says nothing of the rest."""
    terminal = on_terminal(monkeypatch)
    times = iter([0.0, 1.0, 2.0, 32.0, 62.0, 92.0])
    with Progress(long=True, clock=lambda: next(times)) as progress:
        for done in (0, 400, 500, 510, 520, 530):
            progress("making", done, 1000)
    drawn = [line.removesuffix("\x1b[K") for line in terminal.getvalue().split("\r")[1:]]
    assert drawn[:2] == ["making    0 %", "making   40 %"]
    assert drawn[3].startswith("making   51 %  31 s left")
    assert drawn[5] == "making   53 %  24 min left"


def test_a_job_that_knows_its_speed_says_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(long=True, json=True, clock=lambda: 5.0) as progress:
        progress.speed = Speed(2_345_678.0, 90.04, "weights")
        progress("making", 1, 10)
        progress("measuring", 1, 10)
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert told[0] == {
        "event": "progress",
        "phase": "making",
        "done": 1,
        "total": 10,
        "per_second": 2346000,
        "seconds_left": 90.0,
    }
    assert told[1]["seconds_left"] is None, "the speed was that of another phase"
    terminal = on_terminal(monkeypatch)
    with Progress(long=True) as progress:
        progress.speed = Speed(2_345_678.0, 90.04, "weights")
        progress("making", 1, 10)
    assert "making   10 %  2.3 M weights/s" in terminal.getvalue()


def test_progress_elsewhere_is_a_line_a_phase_or_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(long=True, in_bytes=True) as progress:
        for done in range(5):
            progress("org/name", done, 4_000)
        progress("hashing", 1, 0)
    assert capsys.readouterr().err == "org/name: 4.0 kB\nhashing …\n"
    for silent in (Progress(), Progress(long=True, quiet=True)):
        silent("weights", 1, 2)
    assert capsys.readouterr().err == ""


def test_a_dumb_terminal_is_not_drawn_on(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    with Progress(long=True) as progress:
        progress("quantizing", 1, 2)
    assert terminal.getvalue() == "quantizing …\n"


def test_columns_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("A", "LONG"), [("a longer\x1b[1m name", "x"), ("b", "")])
    assert capsys.readouterr().out == "A              LONG\na longer name  x\nb\n"
    output.table(("A", "B"), [("日本", "x"), ("abcde", "y")])  # two columns of the terminal each
    assert capsys.readouterr().out == "A      B\n日本   x\nabcde  y\n"


def test_json_lets_no_control_character_through(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": "a\x9b31m\x7f\x1bé\u2028"}
    output.show_json(value)
    out = capsys.readouterr().out
    assert json.loads(out) == value
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in out.rstrip("\n"))
