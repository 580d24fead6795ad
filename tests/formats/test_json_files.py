"""JSON from outside: one meaning, bounded, or a clear `Corrupt`."""

import json
import os
from pathlib import Path

import pytest

from localinfer.errors import Corrupt, NotFound
from localinfer.formats.json_files import MAX_DEPTH, parse_json, read_json, read_object

REFUSED = {
    "empty": b"",
    "not json": b"{]",
    "trailing": b"{} {}",
    "nan": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "overflowing float": b'{"a": 1e999}',
    "long integer": b'{"a": ' + b"9" * 5000 + b"}",
    "duplicate key": b'{"a": 1, "b": {"c": 1, "c": 2}}',
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "bom": b"\xef\xbb\xbf{}",
    "latin-1": b'{"a": "\xe9"}',
    "half a surrogate pair": b'{"a": "\\ud800"}',
    "half a pair as key": b'{"\\uDC00": 1}',
    "control character": b'{"a": "\x01"}',
    "just too deep": b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    "far too deep": b'{"a":' * 100_000,
    "deep arrays": b"[" * 1_000_000,
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_refused(data: bytes) -> None:
    with pytest.raises(Corrupt, match=r"^x\.json: ") as caught:
        parse_json(data, "x.json")
    assert caught.value.hint


def test_accepted() -> None:
    value = {
        "a": [1, -2.5, None, True],
        "é": "\U0001f600",
        "depth": json.loads("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)),
    }
    assert parse_json(json.dumps(value).encode(), "x") == value  # escapes a whole surrogate pair
    assert parse_json(json.dumps(value, ensure_ascii=False).encode(), "x") == value


def test_files(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        read_json(tmp_path / "none.json")
    (tmp_path / "list.json").write_text("[1]")
    assert read_json(tmp_path / "list.json") == [1]
    with pytest.raises(Corrupt, match="not an object"):
        read_object(tmp_path / "list.json")
    with pytest.raises(Corrupt, match=r"is 3 B, but at most 2 B"):
        read_json(tmp_path / "list.json", limit=2)
    with pytest.raises(Corrupt, match="not a regular file"):
        read_json(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    with pytest.raises(Corrupt, match="not a regular file"):
        read_json(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_not_allowed(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "x.json").chmod(0)
    with pytest.raises(NotFound, match="not allowed"):
        read_json(tmp_path / "x.json")
