"""`map --resume` of tables: the journal beside them, what is made of it, and what is not gone on with."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from localinfer.chats.row_file import RowFile
from localinfer.chats.rows import Line
from localinfer.chats.table_file import SUFFIX, TableFile
from localinfer.errors import Changed, UsageError
from tests.cli.conftest import Cli
from tests.cli.test_endpoints import answering, echo

TABLES = ["out.csv", "out.TSV", "out.parquet"]
QUESTIONS = ["one", "two, with a comma", 'three "quoted"\nand broken', "four\tand more"]


def asked(folder: Path, questions: list[str]) -> str:
    path = folder / "in.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "q"], *([f"n{at}", text] for at, text in enumerate(questions))])
    return str(path)


@pytest.mark.parametrize("name", TABLES)
def test_a_stopped_run_ends_with_the_same_bytes(cli: Cli, tmp_path: Path, name: str) -> None:
    """Wherever it was stopped: before a row, within one, behind the last one; and where a line was answered last."""
    source, out, again = asked(tmp_path, QUESTIONS), tmp_path / name, tmp_path / f"again-{name}"
    journal = again.with_name(again.name + SUFFIX)
    with answering(echo) as (url, requests):
        call = ("map", "m", source, "--in-column", "q", "--endpoint", url)
        assert cli(*call, "-o", str(out)).code == 0
        lines = tmp_path / "rows.jsonl"
        assert cli(*call, "-o", str(lines)).code == 0
        rows, before = lines.read_bytes().splitlines(keepends=True), len(requests)
        for kept in (rows[:0], rows[:2], [*rows[:2], rows[2][:40]], rows, [rows[2], rows[0]]):
            journal.write_bytes(b"".join(kept))
            ran = cli(*call, "-o", str(again))
            assert (ran.code, again.exists()) == ((2, False) if kept else (0, True)), ran.err
            again.unlink(missing_ok=True)
            assert cli(*call, "-o", str(again), "--resume").code == 0
            assert again.read_bytes() == out.read_bytes()
            assert not journal.exists()
            again.unlink()
        assert len(requests) - before == 4 + 4 + 2 + 2 + 0 + 2
        ran = cli(*call, "-o", str(out), "--resume")
        assert (ran.code, f"{out} has the answers to all 4 lines" in ran.err) == (0, True)
        assert len(requests) - before == 14


@pytest.mark.parametrize("name", TABLES)
def test_errors_are_tried_again_and_take_their_places(cli: Cli, tmp_path: Path, name: str) -> None:
    out, whole, left = tmp_path / name, tmp_path / f"whole-{name}", list[str]()
    journal = out.with_name(out.name + SUFFIX)

    def reply(body: dict[str, Any], number: int) -> tuple[int, dict[str, str], Any]:
        return (400, {}, {"error": {"message": "no"}}) if left and "two" in str(body) else echo(body, number)

    source = asked(tmp_path, QUESTIONS)
    with answering(reply) as (url, requests):
        call = ("map", "m", source, "--in-column", "q", "--endpoint", url)
        assert cli(*call, "-o", str(whole)).code == 0
        left.append("fails")
        ran = cli(*call, "-o", str(out))
        assert ran.code == 2
        assert f"{journal} stays, so that `--resume` can try 1 lines again" in ran.err
        assert out.exists()
        left.clear()
        assert cli(*call, "-o", str(out)).code == 2  # both are there
        assert cli(*call, "-o", str(out), "--resume").code == 0
        assert (out.read_bytes(), journal.exists()) == (whole.read_bytes(), False)
        assert len(requests) == 4 + 4 + 1


@pytest.mark.parametrize("name", TABLES)
def test_what_is_not_gone_on_with_is_told_and_left_as_it_is(cli: Cli, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    journal = out.with_name(out.name + SUFFIX)
    with answering(echo) as (url, _):
        call = ("map", "m", asked(tmp_path, QUESTIONS), "--in-column", "q", "--endpoint", url, "-o", str(out))
        assert cli(*call).code == 0
        before = out.read_bytes()
        ran = cli(*call, "--resume", "--temp", "1.5")
        assert (ran.code, "row 0 answers another line" in ran.err) == (9, True), ran.err
        asked(tmp_path, [*QUESTIONS, "five"])
        ran = cli(*call, "--resume")
        assert (ran.code, "is whole with 4 rows, and there are more lines" in ran.err) == (9, True), ran.err
        asked(tmp_path, QUESTIONS[:3])
        ran = cli(*call, "--resume")
        assert (ran.code, "row 3 answers another line" in ran.err) == (9, True), ran.err
        assert (out.read_bytes(), journal.exists()) == (before, False)
        for odd in (b"a,b\n1,2\n", b"PAR1\n1\n", b"\xff\xfe\x00", b"index,request\nx,y\n", b"id,custom_id\na,b\n"):
            out.write_bytes(odd)
            ran = cli(*call, "--resume")
            assert (ran.code, "is no table of `map`" in ran.err) == (7, True), ran.err
            assert (out.read_bytes(), journal.exists()) == (odd, False)
        journal.write_bytes(b"hello\n")
        assert cli(*call, "--resume").code == 7
        assert (out.read_bytes(), journal.read_bytes()) == (odd, b"hello\n")


def test_a_table_with_errors_whose_journal_is_gone_is_refused(tmp_path: Path) -> None:
    for name in TABLES:
        lines = [Line.of(at, at + 1, b"x%d" % at, "") for at in range(3)]
        file = TableFile(tmp_path / name, resume=False)
        assert file.kept(iter(lines)) == []
        batch = {"id": f"batch_req_1_{lines[1].digest}", "custom_id": "c", "response": {"status_code": 200}}
        for row in ({"index": 0, "request": lines[0].digest, "error": {"message": "no"}}, batch):
            file.write({"id": None, "text": "", **row})
        file.finish()
        file.close()
        file.journal.unlink()
        again = TableFile(tmp_path / name, resume=True)
        with pytest.raises(Changed, match="1 of 2 rows hold errors"):
            again.kept(iter(lines))
        again.close()
        assert not again.journal.exists()


def test_columns_are_those_of_all_rows(tmp_path: Path) -> None:
    """A row whose line has no answer names fewer."""
    file = TableFile(tmp_path / "out.csv", resume=False)
    file.write({"index": 0, "request": "", "text": None, "error": {"message": "no"}})
    file.write({"index": 1, "request": "", "text": "a\rb", "seed": 5, "reasoning": "so"})
    file.finish()
    file.close()
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.reader(table, strict=True))
    assert rows[0] == ["index", "request", "text", "seed", "reasoning", "error"]
    assert rows[2] == ["1", "", "a\rb", "5", "so", ""]


@pytest.mark.parametrize("name", ["out.jsonl", *TABLES])
def test_no_two_runs_write_into_one_file(tmp_path: Path, name: str) -> None:
    kind, path = RowFile if name.endswith("jsonl") else TableFile, tmp_path / name
    one = kind(path, resume=False)
    with pytest.raises(UsageError, match="is being written by another process"):
        kind(path, resume=True)
    one.write({"index": 1, "request": "", "text": "b"})
    one.write({"index": 0, "request": "", "text": "a"})
    with pytest.raises(UsageError, match="is being written by another process"):
        kind(path, resume=False)
    one.finish()
    one.close()
    kind(path, resume=True).close()
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_run_that_never_wrote_a_row_leaves_nothing(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    ran = cli("map", str(tmp_path / "none"), asked(tmp_path, QUESTIONS), "--in-column", "q", "-o", str(out))
    assert ran.code == 4
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    for name in TABLES:
        empty = TableFile(tmp_path / name, resume=False)
        empty.finish()
        empty.close()
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0
    assert (tmp_path / "out.csv").read_bytes() == b""


def test_what_is_no_file_is_told_and_nothing_is_kept_in_the_null_device(cli: Cli, tmp_path: Path) -> None:
    with answering(echo) as (url, _):
        call = ("map", "m", "-", "--endpoint", url, "-o")
        assert cli(*call, "/dev/null", stdin=json.dumps({"prompt": "a"}).encode()).code == 0
        assert cli(*call, str(tmp_path), stdin=b"").code == 4
