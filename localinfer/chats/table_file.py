"""A table that answers go to. Until all are there they stand beside it as lines of JSON, the journal, of which it is
then made: whole, or not at all."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from localinfer.chats.columns import Columns
from localinfer.chats.parquet import is_parquet, parquet_rows, require_pyarrow, write_parquet
from localinfer.chats.row_file import RowFile, another, is_answer, position
from localinfer.chats.rows import Line
from localinfer.chats.tables import table_rows, write_table
from localinfer.errors import Changed, Corrupt, UsageError
from localinfer.formats.durable import sync, write_failed

SUFFIX = ".rows.jsonl"
"""What a journal is called, behind the name of its table."""

PLACE = ("id", "custom_id", "index", "request")
STATE = ("error", "response")
"""Columns that say which line a row answers, and whether it does."""

_ANEW = "begin anew with another file"


class TableFile:
    """Rows of a CSV, TSV or Parquet file; see `RowFile`. The journal stays while it holds errors, so that those can be
    tried again."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Raises `UsageError` for a table or a journal that we are not to `resume`."""
        if is_parquet(path.name):
            require_pyarrow()
        self.path = path
        self.journal = path.with_name(path.name + SUFFIX)
        self.count = self.errors = 0
        self._rows = RowFile(self.journal, resume=resume)
        self._is_made = path.exists() and path.stat().st_size > 0 and not self.journal.stat().st_size
        """Whether there is nothing to be made: the table is there, and no journal."""
        if path.exists() and path.stat().st_size and not resume:
            self.close()
            raise UsageError(f"{path} is there already", hint="go on with it by `--resume`, or remove it first")

    def kept(self, lines: Iterator[Line]) -> list[Line]:
        """See `RowFile.kept`. A table without a journal must have the answers to all of `lines`: raises `Changed` where
        it has not."""
        if self._is_made:
            self._require_whole(lines)
            return []
        left = self._rows.kept(lines)
        self.count, self.errors = self._rows.count, self._rows.errors
        return left

    def write(self, row: dict[str, Any]) -> None:
        """Add one row. Raises `DoesNotFit` when the disk is full."""
        self._rows.write(row)

    def finish(self) -> None:
        """All lines have rows: make the table of them."""
        if self._is_made:
            return
        self._rows.settle()
        columns, errors = Columns(), 0
        for row in self._read():
            columns.look_at(row)
            errors += not is_answer(row)
        real = self.path.resolve()
        part = real.with_name(f".{real.name}.partial")
        try:
            if is_parquet(self.path.name):
                write_parquet(part, columns.kinds(), self._read())
            else:
                write_table(part, self.path.suffix.lower(), list(columns.kinds()), self._read())
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(real)
            sync(real.parent)
        except OSError as error:
            raise write_failed(self.path, 0, error) from error
        finally:
            part.unlink(missing_ok=True)
        if not errors:
            self.journal.unlink()
        self._rows.close()

    def close(self) -> None:
        """Let the journal go; it stays if there is anything in it."""
        if self._rows.is_open and not self.journal.stat().st_size:
            self.journal.unlink()
        self._rows.close()

    def _read(self) -> Iterator[dict[str, Any]]:
        with self.journal.open("rb") as file:
            yield from map(json.loads, file)

    def _require_whole(self, lines: Iterator[Line]) -> None:
        errors = 0
        for number, (index, digest, good) in enumerate(self._made()):
            line = next(lines, None)
            if line is None or index != line.index or digest != line.digest:
                raise another(self.path, number)
            self.count, errors = number + 1, errors + (not good)
        if errors:
            told = f"{self.path}: {errors} of {self.count} rows hold errors, and {self.journal.name} is gone"
            raise Changed(told, hint=_ANEW)
        if next(lines, None) is not None:
            raise Changed(f"{self.path} is whole with {self.count} rows, and there are more lines", hint=_ANEW)

    def _made(self) -> Iterator[tuple[int, str, bool]]:
        """What each row of the table answers, and whether it holds no error. Raises `Corrupt` for what is no table of
        ours."""
        rows = parquet_rows(self.path) if is_parquet(self.path.name) else table_rows(self.path)
        try:
            for cells in rows:
                row = {name: cells[name] for name in (*PLACE, *STATE) if cells.get(name) not in (None, "")}
                row |= {name: json.loads(row[name]) for name in ("index", *STATE) if isinstance(row.get(name), str)}
                index, digest = position(row)
                yield int(index), digest, is_answer(row)
        except Exception:  # pyarrow has its own kinds, and lets others through
            raise Corrupt(f"{self.path} is no table of `map`", hint="give another file, or remove it") from None
