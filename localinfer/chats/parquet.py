"""Parquet files as lines of JSON, and rows of JSON as a Parquet file; pyarrow reads and writes them."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from localinfer.chats.tables import ColumnLines
from localinfer.errors import LocalInferError, NotFound, NotSupported, UsageError
from localinfer.extras import install_command
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


def parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a file."""
    with _pyarrow().ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            yield from batch.to_pylist()


def write_parquet(path: Path, kinds: Mapping[str, str], rows: Iterator[Mapping[str, Any]]) -> None:
    """Write `rows` as a file, whose columns are of these `kinds`; what is no number and no list of numbers is text, or
    JSON."""
    import pyarrow as pa  # type: ignore[import-untyped]

    types = {"whole": pa.int64(), "large": pa.uint64(), "number": pa.float64(), "text": pa.string()}
    types["numbers"] = pa.list_(pa.float64())
    schema = pa.schema([(name, types[kind]) for name, kind in kinds.items()])
    with _pyarrow().ParquetWriter(path, schema) as writer:
        while some := list(islice(rows, BATCH_ROWS)):
            columns = {name: [_value(row.get(name), kind) for row in some] for name, kind in kinds.items()}
            writer.write_table(pa.table(columns, schema=schema))


def _value(value: Any, kind: str) -> Any:
    return json.dumps(value) if kind == "text" and not isinstance(value, str | None) else value


def require_pyarrow() -> None:
    """Raise `NotSupported` where it is not installed."""
    _pyarrow()


def _pyarrow() -> ModuleType:
    try:
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise NotSupported(
            f"Parquet needs a package that is not installed: {error}", hint=f"run `{install_command('parquet')}`"
        ) from None
    found: ModuleType = pyarrow.parquet
    return found
