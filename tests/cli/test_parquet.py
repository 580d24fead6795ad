"""Parquet in and out: the rows that lines of JSON give, and files that are none."""

import json
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from localinfer.chats.parquet import BATCH_ROWS, ParquetLines
from localinfer.chats.table_file import TableFile
from tests.cli.conftest import Cli

TEXTS = ["hello", "é\u2028", "x" * 50, "last"]


def test_a_column_is_answered_as_lines_are_and_rows_come_back(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1, 2, 3, 4], "q": TEXTS, "id": ["a", "b", None, "d"]}), tmp_path / "in.parquet")
    lines = [{"id": one, "prompt": text} for one, text in zip(["a", "b", 2, "d"], TEXTS, strict=True)]
    stdin = "".join(json.dumps(line) + "\n" for line in lines).encode()
    flags = ("-n", "6", "--draft", "off", "--logprobs", "0")
    plain = [json.loads(line) for line in cli("map", str(tiny), "-", *flags, stdin=stdin).out.splitlines()]
    out = tmp_path / "out.parquet"
    source = (str(tmp_path / "in.parquet"), "--in-column", "q")
    assert cli("map", str(tiny), *source, *flags, "-o", str(out)).code == 0
    rows = pq.read_table(out).to_pylist()
    assert [row["text"] for row in rows] == [row["text"] for row in plain]
    assert [row["seed"] for row in rows] == [row["seed"] for row in plain]
    assert [json.loads(row["usage"])["prompt_tokens"] for row in rows] == [
        row["usage"]["prompt_tokens"] for row in plain
    ]
    assert [json.loads(row["logprobs"]) for row in rows] == [row["logprobs"] for row in plain]
    assert [row["error"] for row in rows] == [None] * 4
    assert cli("map", str(tiny), *source, *flags, "-o", str(out)).code == 2
    made = tmp_path / "vectors.parquet"
    assert cli("embed", str(tiny), *source, "-o", str(made)).code == 0
    assert pq.read_schema(made).field("embedding").type == pa.list_(pa.float64())


@pytest.mark.parametrize("column", ["nope", "n"])
def test_what_is_no_such_table_is_told(cli: Cli, tiny: Path, tmp_path: Path, column: str) -> None:
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    pq.write_table(pa.table({"n": [1]}), good)
    whole = good.read_bytes()
    for data in (b"", b"PAR1 PAR1", whole[:-9], whole[:20] + b"\xff" * 40 + whole[60:]):
        bad.write_bytes(data)
        ran = cli("map", str(tiny), str(bad), "--in-column", "n")
        assert ran.code == 2, ran.err
    ran = cli("map", str(tiny), str(good), "--in-column", column)
    assert ran.code == 2
    assert ran.err.count("internal") == 0
    assert cli("map", str(tiny), str(tmp_path / "none.parquet"), "--in-column", "n").code == 4


def test_many_rows_have_columns_of_the_kinds_that_all_are_of(tmp_path: Path) -> None:
    path = tmp_path / "many.parquet"
    file = TableFile(path, resume=False)
    for n in range(BATCH_ROWS + 5):
        row = {"i": n, "x": n / 2, "t": None if n % 2 else "t", "big": (1 << 64) - 1, "o": {"a": n}, "v": [n, 0.5]}
        late = {"late": 5, "mixed": "text"} if n > BATCH_ROWS else {"mixed": n}
        file.write({"index": n, "request": "", **row, **late})
    assert not path.exists()
    file.finish()
    file.close()
    table = pq.read_table(path)
    assert table.num_rows == BATCH_ROWS + 5
    kinds = {field.name: str(field.type) for field in table.schema}
    whole, text = "int64", "string"
    assert kinds == {
        "index": whole,
        "request": text,
        "i": whole,
        "x": "double",
        "t": text,
        "big": "uint64",
        "o": text,
        "v": "list<element: double>",
        "mixed": text,
        "late": whole,
        "error": text,
    }
    assert table.column("mixed").to_pylist()[-2::-BATCH_ROWS] == ["text", "3"]
    assert list(tmp_path.iterdir()) == [path]
    lines = ParquetLines(path, "t", "prompt")
    assert json.loads(lines.readline()) == {"id": 0, "prompt": "t"}
    lines.close()
