"""Tables as lines of JSON, and rows of JSON as a table: CSV, or TSV, with names of columns in its first line."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from localinfer.chats.rows import WRONG
from localinfer.errors import LocalInferError, NotFound, UsageError
from localinfer.text import one_line

DELIMITERS = {".csv": ",", ".tsv": "\t"}
MOST_CHARACTERS = 1 << 26
"""Of one cell."""


def is_table(name: str) -> bool:
    return Path(name).suffix.lower() in DELIMITERS


class ColumnLines:
    """Rows of a file that has columns, line by line; a kind of file gives `_rows` and says what cannot be read."""

    _path: Path
    _left = b""
    _rows: Iterator[bytes]

    def _tried(self, call: Any) -> Any:
        """Run `call`. Raises `UsageError` for what cannot be read."""
        raise NotImplementedError

    def _require(self, column: str, names: Sequence[Any]) -> None:
        if column not in names:
            known = ", ".join(one_line(str(name), 40) for name in names[:10]) or "none"
            raise UsageError(f"{self._path} has no column `{one_line(column, 40)}`", hint=f"its columns: {known}")
        for name in {column, "id"}:
            if (count := list(names).count(name)) > 1:
                told = f"{self._path} has {count} columns `{one_line(name, 40)}`"
                raise UsageError(told, hint="give each column a name of its own")

    def readline(self, size: int = -1, /) -> bytes:
        """The next line, or so many bytes of it; empty at the end. Raises `UsageError` for what cannot be read."""
        if not self._left:
            self._left = self._tried(lambda: next(self._rows, b""))
        size = len(self._left) if size < 0 else size
        found, self._left = self._left[:size], self._left[size:]
        return found


class TableLines(ColumnLines):
    """Reads `column` of a table as lines of JSON that have it at `key`, with an `id`: the column of this name, else the
    number of the row from 0. Raises `NotFound` for a file that cannot be read, `UsageError` for no such column."""

    def __init__(self, path: Path, column: str, key: str) -> None:
        self._path, self._column, self._key = path, column, key
        csv.field_size_limit(MOST_CHARACTERS)
        try:
            self._file: TextIO = path.open(encoding="utf-8-sig", newline="")
        except OSError as error:
            raise NotFound(f"{path}: {str(error.strerror).lower()}", hint="check the path") from None
        reader = csv.DictReader(self._file, delimiter=DELIMITERS[path.suffix.lower()], strict=True)
        try:
            self._require(column, self._tried(lambda: reader.fieldnames) or ())
        except LocalInferError:
            self.close()
            raise
        self._rows = self._lines(reader)

    def close(self) -> None:
        self._file.close()

    def _lines(self, reader: "csv.DictReader[str]") -> Iterator[bytes]:
        for number, row in enumerate(reader):
            identity = row.get("id") if self._column != "id" else None
            line = {"id": number if identity is None else identity, self._key: row.get(self._column)}
            cells = sum(cell is not None for name, cell in row.items() if name is not None)
            cells += len(row.get(None) or ())
            if cells != (columns := len(reader.fieldnames or ())):
                line[WRONG] = f"the row has {cells} cells, and the table {columns} columns"
            yield json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"

    def _tried(self, call: Any) -> Any:
        try:
            return call()
        except UnicodeDecodeError:
            what = "is not UTF-8"
        except csv.Error as error:
            what = f"is no table: {one_line(str(error), 80)}"
        raise UsageError(f"{self._path} {what}", hint="write it as UTF-8, its cells quoted where they need it")


def table_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a table, whose cells are texts."""
    csv.field_size_limit(MOST_CHARACTERS)
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file, delimiter=DELIMITERS[path.suffix.lower()], strict=True)


def write_table(path: Path, suffix: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `rows` as lines of a table; what is no text or number is JSON."""
    with path.open("w", encoding="utf-8", newline="") as file:
        plain = csv.writer(file, delimiter=DELIMITERS[suffix], lineterminator="\n")
        quoted = csv.writer(file, delimiter=DELIMITERS[suffix], lineterminator="\n", quoting=csv.QUOTE_ALL)
        if columns:
            plain.writerow(columns)
        for row in rows:
            cells = [_cell(row.get(name)) for name in columns]
            ends_early = any("\r" in cell for cell in cells if isinstance(cell, str))  # which `csv` leaves unquoted
            (quoted if ends_early else plain).writerow(cells)


def _cell(value: Any) -> str | int | float:
    if value is None:
        return ""
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else json.dumps(value)
