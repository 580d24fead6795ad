"""`map --resume`: rows that are there stay, errors are tried again, nothing else is gone on with."""

import json
from pathlib import Path
from typing import Any

import pytest

from localinfer.chats.row_file import RowFile
from localinfer.chats.rows import Line
from localinfer.errors import Changed
from tests.cli.conftest import Cli
from tests.cli.test_map import FEW, text


@pytest.mark.parametrize("cut", [0, 1, 40, 10**6])
def test_resumed_it_ends_with_the_same_bytes(cli: Cli, mine: str, tmp_path: Path, cut: int) -> None:
    """Wherever it was cut off: nothing, in the first row, in the second, behind the last one."""
    lines, whole, part = tmp_path / "in.jsonl", tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    lines.write_bytes(text(FEW))
    assert cli("map", mine, str(lines), "-o", str(whole)).code == 0
    first = len(whole.read_bytes().splitlines(keepends=True)[0])
    part.write_bytes(whole.read_bytes()[: cut if cut != 40 else first + cut])
    assert cli("map", mine, str(lines), "-o", str(part), "--resume").code == 0
    kept = [json.loads(line) for line in part.read_bytes().splitlines()]
    wanted = [json.loads(line) for line in whole.read_bytes().splitlines()]
    for row in kept + wanted:  # what was in the prefix cache depends on the company
        del row["usage"]["cached_tokens"]
    assert kept == wanted


def test_it_is_not_resumed_with_anything_else(cli: Cli, mine: str, tmp_path: Path) -> None:
    lines, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines.write_bytes(text(FEW))
    call = ("map", mine, str(lines), "-o", str(out))
    assert cli(*call).code == 0
    before = out.read_bytes()
    assert cli(*call).code == 2
    assert cli(*call, "--resume", "--temp", "1.5").code == 9
    lines.write_bytes(text([FEW[0], FEW[2]]))
    ran = cli(*call, "--resume")
    assert ran.code == 9
    assert "row 1 answers another line" in ran.err
    assert out.read_bytes() == before
    out.write_bytes(b"hello\n")
    assert cli(*call, "--resume").code == 7
    assert out.read_bytes() == b"hello\n"


def test_a_file_that_is_whole_is_resumed_without_its_model(
    cli: Cli, mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines.write_bytes(text(FEW[:3]))
    call = ("map", mine, str(lines), "-o", str(out))
    assert cli(*call).code == 0
    before = out.read_bytes()

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("the model is opened")

    monkeypatch.setattr("localinfer.loading.opening.open_model", opened)
    ran = cli(*call, "--resume")
    assert (ran.code, out.read_bytes()) == (0, before)
    assert f"nothing is left to do: {out} has the answers to all 3 lines" in ran.err
    lines.write_bytes(text(FEW[:4]))
    assert "the model is opened" in cli(*call, "--resume").err


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("added", [False, True])
def test_rows_of_errors_are_tried_again_in_their_places(tmp_path: Path, cut: bool, added: bool) -> None:
    """Also where the run that tried them was killed before its rows had come to their places."""
    path = tmp_path / "out.jsonl"
    lines = [Line.of(at, at + 1, f"line {at}".encode(), "") for at in range(6)]

    def row(at: int, said: str, error: object = None) -> dict[str, Any]:
        return {"index": at, "request": lines[at].digest, "text": said, "error": error}

    def bad(at: int) -> dict[str, Any]:
        return row(at, "", {"message": "no"})

    batch = {"id": f"batch_req_3_{lines[3].digest}", "custom_id": "x", "response": {"status_code": 500}}
    rows = [row(0, "a"), bad(1), row(2, "c"), batch, bad(4)]
    later = [row(1, "b"), bad(3)]
    content = text(rows + (later if added else []))
    path.write_bytes(content + b'{"index": 4, "re' * cut)
    file = RowFile(path, resume=True)
    left = file.kept(rest := iter(lines))
    assert [line.index for line in left] == ([3, 4] if added else [1, 3, 4])
    assert (file.count, next(rest).index) == (5, 5)
    for at in [line.index for line in left]:
        file.write(bad(at) if at == 4 else row(at, "bcd"[at - 1]))
    file.write(row(5, "f"))
    file.close()
    found = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [one["text"] for one in found] == ["a", "b", "c", "d", "", "f"]
    assert [one["index"] for one in found] == list(range(6))
    assert list(tmp_path.iterdir()) == [path]


def test_a_row_behind_others_that_answers_nothing_of_theirs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    lines = [Line.of(at, at + 1, b"x%d" % at, "") for at in range(3)]
    for index, digest in (
        (0, lines[0].digest),
        (1, "0" * 16),
        (3, lines[2].digest),
        (-1, lines[1].digest),
        (2, lines[0].digest),
    ):
        rows: list[object] = [
            {"index": at, "request": line.digest, "error": {} if at else None} for at, line in enumerate(lines[:2])
        ]
        path.write_bytes(text([*rows, {"index": index, "request": digest}]))
        before, file = path.read_bytes(), RowFile(path, resume=True)
        with pytest.raises(Changed):
            file.kept(iter(lines))
        file.close()
        assert path.read_bytes() == before


def test_errors_that_stay_are_the_exit_code_of_every_resumed_run(cli: Cli, mine: str, tmp_path: Path) -> None:
    lines, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines.write_bytes(text([FEW[0], {"prompt": 5}, FEW[1]]))
    call = ("map", mine, str(lines), "-o", str(out))
    assert cli(*call).code == 2
    before = out.read_bytes()
    ran = cli(*call, "--resume")
    assert (ran.code, out.read_bytes()) == (2, before)
    assert "1 of 3 rows hold errors; their lines are tried again" in ran.err
    assert "1 of 3 lines could not be answered" in ran.err
    lines.write_bytes(text([FEW[0], {"prompt": "mended"}, FEW[1]]))
    assert cli(*call, "--resume").code == 0
    assert all(json.loads(row)["text"] for row in out.read_bytes().splitlines())


@pytest.mark.parametrize("closed", [False, True])
def test_rows_may_stand_before_those_of_earlier_lines(tmp_path: Path, closed: bool) -> None:
    """Where an answer was waited for; also in a file whose run was killed before all had come to their places."""
    path, parts = tmp_path / "out.jsonl", [(2, ""), (0, "no"), (4, ""), (1, "")]
    lines = [Line.of(at, at + 1, b"x%d" % at, "") for at in range(7)]
    file = RowFile(path, resume=False)
    rows = [{"index": at, "request": lines[at].digest, "error": error or None} for at, error in parts]
    for row in rows:
        file.write(row)
    file.close()
    if not closed:
        path.write_bytes(text(rows))
    file = RowFile(path, resume=True)
    left = file.kept(rest := iter(lines))
    assert [line.index for line in left] == [0, 3]
    assert (file.count, file.errors, next(rest).index) == (5, 1, 5)
    for at in (5, 3, 6, 0):
        file.write({"index": at, "request": lines[at].digest, "error": None})
    file.close()
    found = [json.loads(row) for row in path.read_bytes().splitlines()]
    assert [(row["index"], row["request"]) for row in found] == [(line.index, line.digest) for line in lines]
    assert not any(row["error"] for row in found)
    path.write_bytes(text([{"index": 1 << 40, "request": ""}]))
    file = RowFile(path, resume=True)
    with pytest.raises(Changed):
        file.kept(iter(lines))
    file.close()
