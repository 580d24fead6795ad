"""Commands over lines of JSON: where lines come from, where rows go, and what is told meanwhile."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from localinfer.errors import NotFound, UsageError

if TYPE_CHECKING:
    from contextlib import ExitStack

    from localinfer.chats.mapping import Answered, Begin
    from localinfer.chats.parquet import ParquetLines
    from localinfer.chats.row_file import Done, RowFile
    from localinfer.chats.rows import Asked, Line
    from localinfer.chats.table_file import TableFile
    from localinfer.chats.tables import TableLines
    from localinfer.cli.bundles import EngineFlags
    from localinfer.cli.progress import Progress
    from localinfer.engine.protocol import Engine, Tokenizer
    from localinfer.hub.model import LocalModel

    Rows = RowFile | TableFile

Answers = Callable[["Iterator[Line]"], "Iterator[Done]"]
"""Answers lines, in their order. Whatever is to be opened for that is opened when it is called."""

LINE_BYTES = 16 << 20
"""Most bytes of a line."""

TOGETHER = 8
"""Lines that are answered together unless said otherwise."""


def of_model(model: "LocalModel", engine: "EngineFlags", more: str) -> str:
    """All but a line itself that decides its answer, so that a resumed run is one run; known before a model is opened.
    `more` is what the command says of it."""
    from localinfer import __version__

    settings = f"{engine.ctx_size} {engine.kv_bits} {engine.backend}"
    return f"{__version__} {model.ref} {model.revision} {settings} {more}"


def together_of(parallel: list[str]) -> int:
    """How many lines are answered together. Raises `UsageError`."""
    from localinfer.cli.counts import one_count
    from localinfer.config import in_range

    together = one_count("parallel", parallel, TOGETHER)
    in_range("parallel", together, 1, 64)
    return together


def opened_rows(output: str | None, held: "ExitStack", *, resume: bool) -> "Rows | None":
    """The file that rows go to; None for standard output. It is closed by `held`."""
    from contextlib import closing

    from localinfer.chats.parquet import is_parquet
    from localinfer.chats.row_file import RowFile
    from localinfer.chats.table_file import TableFile
    from localinfer.chats.tables import is_table

    if output is None or output == "-":
        if resume:
            raise UsageError("`--resume` needs the file that the stopped run wrote", hint="name it: `-o FILE --resume`")
        return None
    kind = TableFile if is_table(output) or is_parquet(output) else RowFile
    return held.enter_context(closing(kind(Path(output).expanduser(), resume=resume)))


def opened_lines(
    name: str | None, held: "ExitStack", column: str | None = None, key: str = "prompt"
) -> "tuple[BinaryIO | TableLines | ParquetLines, int]":
    """Where lines come from, and how many there are; 0 when that cannot be told before. A file is closed by `held`. The
    `column` of a table becomes lines that have it at `key`."""
    from contextlib import closing

    from localinfer.chats.parquet import ParquetLines, is_parquet
    from localinfer.chats.tables import TableLines, is_table

    if name is not None and (is_table(name) or is_parquet(name)):
        if column is None:
            raise UsageError(f"{name} is a table", hint="say which column holds the texts: `--in-column NAME`")
        if is_parquet(name):
            lines = held.enter_context(closing(ParquetLines(Path(name).expanduser(), column, key)))
            return lines, lines.total
        return held.enter_context(closing(TableLines(Path(name).expanduser(), column, key))), 0
    if column is not None:
        raise UsageError("`--in-column` is for tables", hint="name a file that ends in `.csv`, `.tsv` or `.parquet`")
    from localinfer.cli.output import is_terminal, note

    if name is None or name == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise UsageError("standard input is closed", hint="pipe lines in, or name a file")
        if is_terminal(sys.stdin):
            note("reading lines from the terminal; Ctrl-D ends them")
        return sys.stdin.buffer, 0
    try:
        file = held.enter_context(Path(name).expanduser().open("rb"))
        total = sum(1 for line in file if line.strip()) if file.seekable() else 0
        if file.seekable():
            file.seek(0)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NotFound(f"{name}: {reason.lower()}", hint="check the path") from None
    return file, total


def by_engine(
    engine: "Engine",
    lines: "Iterator[Asked]",
    begin: "Begin",
    row_of: "Callable[[Answered, Tokenizer], dict[str, Any]]",
    parallel: int,
) -> "Iterator[Done]":
    """Lines answered by an engine, `parallel` of them together; `begin` submits one."""
    from localinfer.chats.mapping import answer_all
    from localinfer.chats.row_file import Done

    for one in answer_all(engine, lines, parallel=parallel, begin=begin):
        row = row_of(one, engine.tokenizer)
        yield Done(one.asked, row, len(one.token_ids), one.error)


class Job:
    """Answers lines, writes rows, and tells how far it is."""

    def __init__(
        self,
        rows: "Rows | None",
        total: int,
        parallel: int,
        answers: "Answers",
        quiet: bool,
    ) -> None:
        self._rows, self._total, self._parallel = rows, total, parallel
        self._answers, self._quiet = answers, quiet
        self._done = self._earlier = self._errors = self._tokens = 0
        self._first: Done | None = None

    def run(self, lines: "Iterator[Line]") -> None:
        """Raises an error of the first failed line's kind when there was one."""
        from localinfer.chats.row_file import failed
        from localinfer.cli.progress import Progress

        try:
            left = self._left(lines)
            if left is None:
                self._finish()
                return
            answers, started = self._answers(left), time.perf_counter()
            with Progress(long=True, quiet=self._quiet) as progress:
                progress("answering", self._done, self._total)
                for done in answers:
                    self._take(done, progress)
            seconds = time.perf_counter() - started
            self._finish()
        except KeyboardInterrupt:
            self._note_stopped()
            raise
        self._note_end(seconds)
        if self._first is not None:
            raise failed(self._first, self._errors, self._done)

    def _left(self, lines: "Iterator[Line]") -> "Iterator[Line] | None":
        """What is not answered yet: lines that have no row, or whose rows hold errors, then those behind the last row.
        None if all are answered: nothing need be opened for that."""
        from itertools import chain

        from localinfer.cli.output import note

        if self._rows is None:
            return lines
        again = self._rows.kept(lines)
        if not (before := self._rows.count):
            return lines
        self._done = self._earlier = before - len(again)
        first = again[0] if again else next(lines, None)
        if first is None:
            return None
        if self._rows.errors and not self._quiet:
            note(f"{self._rows.errors} of {before} rows hold errors; their lines are tried again")
        return chain([first], again[1:], lines)

    def _finish(self) -> None:
        """All lines have rows."""
        from localinfer.cli.output import note

        if self._rows is None:
            return
        self._rows.finish()
        if self._quiet:
            return
        if self._done == self._earlier > 0:
            note(f"nothing is left to do: {self._rows.path} has the answers to all {self._earlier} lines")
        if self._errors and self._rows.journal != self._rows.path:
            note(f"{self._rows.journal} stays, so that `--resume` can try {self._errors} lines again")

    def _take(self, done: "Done", progress: "Progress") -> None:
        """Write one row."""
        from localinfer.cli.output import show_json

        self._done += 1
        self._tokens += done.tokens
        if done.error is not None:
            self._errors += 1
            self._first = self._first or done
        if self._rows is not None:
            self._rows.write(done.row)
        else:
            progress.clear()
            show_json(done.row)
        progress("answering", self._done, self._total)

    def _note_end(self, seconds: float) -> None:
        from localinfer.cli.output import note

        if self._quiet:
            return
        earlier = f", {self._earlier} of them from before" if self._earlier else ""
        speed = f"{self._tokens} tokens in {seconds:.1f} s, {self._tokens / max(seconds, 1e-9):.0f} a second"
        note(f"{self._done} lines{earlier}; {speed} with {self._parallel} together")

    def _note_stopped(self) -> None:
        from localinfer.cli.output import note

        if self._rows is not None and not self._quiet:
            note(f"{self._done} rows are in {self._rows.journal}; the same command with `--resume` goes on")
