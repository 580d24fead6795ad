"""Parquet files as lines of JSON, and rows of JSON as a Parquet file; pyarrow reads and writes them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from localinfer.chats.tables import ColumnLines
from localinfer.errors import LocalInferError, NotFound, NotSupported, UsageError
from localinfer.extras import install_command
from localinfer.formats.durable import write_failed
from localinfer.text import one_line

SUFFIX = ".parquet"
BATCH_ROWS = 1024
"""Rows that are read, and written, together."""


def is_parquet(name: str) -> bool:
    return Path(name).suffix.lower() == SUFFIX


class ParquetLines(ColumnLines):
    """Reads `column` of a file as lines of JSON that have it at `key`, with an `id`: the column of this name, else the
    number of the row from 0. Raises `NotFound` for a file that cannot be read, `UsageError` for no such column."""

    def __init__(self, path: Path, column: str, key: str) -> None:
        self._path, self._column, self._key = path, column, key
        self._file = self._tried(lambda: _pyarrow().ParquetFile(path))
        self.total: int = self._file.metadata.num_rows
        names = self._file.schema_arrow.names
        try:
            self._require(column, names)
        except UsageError:
            self.close()
            raise
        self._columns = [column, *(["id"] if "id" in names and column != "id" else [])]
        self._rows = self._lines()

    def close(self) -> None:
        self._file.close()

    def _lines(self) -> Iterator[bytes]:
        number = 0
        for batch in self._file.iter_batches(batch_size=BATCH_ROWS, columns=self._columns):
            for row in batch.to_pylist():
                identity = row.get("id") if len(self._columns) > 1 else None
                line = {"id": number if identity is None else identity, self._key: row[self._column]}
                yield json.dumps(line, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass") + b"\n"
                number += 1

    def _tried(self, call: Any) -> Any:
        try:
            return call()
        except LocalInferError:
            raise
        except FileNotFoundError:
            raise NotFound(f"{self._path}: no such file or directory", hint="check the path") from None
        except Exception as error:  # pyarrow has its own kinds, and lets others through
            told = one_line(str(error).partition("\n")[0], 120)
            raise UsageError(f"{self._path} cannot be read: {told}", hint="write it anew as Parquet") from None


class ParquetFile:
    """Rows as a file, whose columns and their kinds are those of the first `BATCH_ROWS` rows and `error`: whole
    numbers, numbers, lists of numbers, texts; what is none of these is JSON. The file is there when it is closed.
    Raises `UsageError` for one that is there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            raise UsageError(f"{path} is there already", hint="remove it first; a table is not resumed")
        self._arrow = _pyarrow()
        self._partial = path.with_name(f".{path.name}.partial")
        try:
            self._file = self._partial.open("wb")
        except OSError as error:
            raise NotFound(f"{path}: {str(error.strerror).lower()}", hint="check the path after `-o`") from None
        self._rows: list[Mapping[str, Any]] = []
        self._written = 0
        self._kinds: dict[str, str] = {}
        self._writer: Any = None

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one row. Raises `DoesNotFit` when the disk is full, `UsageError` for one that does not fit the others."""
        self._rows.append(row)
        if len(self._rows) >= BATCH_ROWS:
            self._flush()

    def close(self) -> None:
        """Write the rest, and give the file its name."""
        try:
            self._flush()
            if self._writer is not None:
                self._writer.close()
            self._file.close()
            if self._writer is None:
                self._partial.unlink()
            else:
                self._partial.replace(self.path)
        except OSError as error:
            raise write_failed(self.path, 0, error) from error

    def _flush(self) -> None:
        import pyarrow as pa  # type: ignore[import-untyped]

        rows, self._rows = self._rows, []
        if not rows:
            return
        if self._writer is None:
            names = dict.fromkeys(name for row in rows for name in row if name != "error")
            self._kinds = {name: _kind([row.get(name) for row in rows]) for name in (*names, "error")}
            kinds = {"whole": pa.int64(), "large": pa.uint64(), "number": pa.float64(), "text": pa.string()}
            kinds["numbers"] = pa.list_(pa.float64())
            self._schema = pa.schema([(name, kinds[kind]) for name, kind in self._kinds.items()])
            self._writer = self._arrow.ParquetWriter(self._file, self._schema)
        columns = {name: self._column(name, kind, rows) for name, kind in self._kinds.items()}
        try:
            self._writer.write_table(pa.table(columns, schema=self._schema))
        except OSError as error:
            raise write_failed(self.path, 0, error) from error
        self._written += len(rows)

    def _column(self, name: str, kind: str, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        values = [row.get(name) for row in rows]
        if kind == "text":
            return [one if isinstance(one, str | None) else json.dumps(one) for one in values]
        for number, one in enumerate(values):
            if one is not None and not _is(kind, one):
                raise UsageError(
                    f"row {self._written + number}: `{one_line(name, 40)}` is of another kind than before",
                    hint="write lines of JSON: `-o FILE.jsonl`",
                )
        return values


def _kind(values: Sequence[Any]) -> str:
    """What all of `values` are that are there."""
    there = [one for one in values if one is not None]
    kinds = ("whole", "large", "number", "numbers") if there else ()
    return next((kind for kind in kinds if all(_is(kind, one) for one in there)), "text")


def _is(kind: str, value: Any) -> bool:
    if kind == "numbers":
        return isinstance(value, list) and all(_is("number", one) for one in value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind == "whole":
        return whole and -(1 << 63) <= value < 1 << 63
    return whole and 0 <= value < 1 << 64 if kind == "large" else whole or isinstance(value, float)


def _pyarrow() -> ModuleType:
    try:
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise NotSupported(
            f"Parquet needs a package that is not installed: {error}", hint=f"run `{install_command('parquet')}`"
        ) from None
    found: ModuleType = pyarrow.parquet
    return found
