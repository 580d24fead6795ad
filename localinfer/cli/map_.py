"""`map`: a line of JSON in, a line of JSON out, many at once."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from localinfer.cli import options as o
from localinfer.cli.bundles import EngineFlags, FormFlags, SamplingFlags
from localinfer.cli.telling import Terminal
from localinfer.errors import NotFound, UsageError

if TYPE_CHECKING:
    from contextlib import ExitStack

    from localinfer.chats.mapping import Answered, Manner
    from localinfer.chats.row_file import RowFile
    from localinfer.chats.rows import Asked
    from localinfer.cli.progress import Progress
    from localinfer.config import SamplingParams
    from localinfer.loading.opening import Opened

Ref = Annotated[str, typer.Argument(metavar="MODEL", help="The model.")]
Lines = Annotated[
    str | None, typer.Argument(metavar="[FILE]", help="A line of JSON for each prompt; `-` or none: standard input.")
]

TOGETHER = 8
"""Lines that are answered together unless said otherwise."""


def map_(
    ref: Ref,
    lines: Lines = None,
    *,
    output: o.Output,
    resume: o.Resume,
    system: o.System,
    raw: o.Raw,
    special: o.Special,
    ignore_unknown: o.IgnoreUnknown,
    form: FormFlags,
    sampling: SamplingFlags,
    parallel: o.Parallel,
    engine: EngineFlags,
    revision: o.Revision,
    offline: o.Offline,
    quiet: o.Quiet,
) -> None:
    """Answer many prompts together: JSON lines in, JSON lines out, in their order.

    A line has `prompt` or `messages` (roles system, user, assistant and tool; texts or lists of text parts; a last one
    of the assistant's is gone on with), and what it wants of `id`, `system`, `tools`, `temperature`, `top_k`, `top_p`,
    `min_p`, `repeat_penalty`, `seed`, `max_tokens`, `stop`, `raw` and `special`. What cannot be answered becomes a row
    with `error`, and the exit code is the first one's; so does a line with other keys, unless they are to be ignored.
    A row has the number of its line in the input, as `line`, and calls of the line's tools as `tool_calls`.
    Eight are answered together unless `--parallel` says otherwise; no answer depends on it. `-o -` is standard output.
    """
    from contextlib import ExitStack, closing
    from dataclasses import replace

    from localinfer.chats.mapping import Manner
    from localinfer.chats.row_file import RowFile
    from localinfer.cli.counts import one_count
    from localinfer.cli.run import require_raw
    from localinfer.config import in_range
    from localinfer.loading.opening import find, open_model

    output = None if output == "-" else output
    require_raw(raw=raw, special=special)
    grammar = form.grammar()
    if resume and not output:
        raise UsageError("`--resume` needs the file that the stopped run wrote", hint="name it: `-o FILE --resume`")
    together = one_count("parallel", parallel, TOGETHER)
    in_range("parallel", together, 1, 64)
    with ExitStack() as held:
        stream, total = _opened(lines, held)
        found = find(ref, revision=revision, offline=offline, tell=Terminal(quiet))
        rows = held.enter_context(closing(RowFile(Path(output).expanduser(), resume=resume))) if output else None
        config = replace(engine.config(), parallel=together)
        opened = open_model(found, config, backend=engine.backend, tell=Terminal(quiet))
        running = held.enter_context(opened.engine)
        usual, manner = sampling.over(running.default_sampling), Manner(system, raw, special, grammar)
        asked = _asked(stream, opened, usual, f"{manner!r} {ignore_unknown}", ignore_unknown=ignore_unknown)
        _Job(opened, rows, total, together, manner, quiet).run(asked)


def _opened(name: str | None, held: "ExitStack") -> tuple[BinaryIO, int]:
    """Where lines come from, and how many there are; 0 when that cannot be told before. A file is closed by `held`."""
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


def _asked(
    stream: BinaryIO, opened: "Opened", usual: "SamplingParams", more: str, *, ignore_unknown: bool
) -> "Iterator[Asked]":
    """What each line asks for. Whatever decides an answer is in its digest, so that a resumed run is one run."""
    from localinfer import __version__
    from localinfer.chats.files import BYTES_PER_TOKEN
    from localinfer.chats.rows import lines_of, understood

    running, model = opened.engine, opened.model
    limit = running.context_size * BYTES_PER_TOKEN
    context = f"{__version__} {model.ref} {model.revision} {running.info.kv_layers or running.info.kv_bits} "
    context += f"{running.context_size} {running.info.backend} {usual!r} {more}"
    for index, (number, line) in enumerate(lines_of(stream, limit)):
        yield understood(
            line, index, number, limit=limit, context=context, sampling=usual, ignore_unknown=ignore_unknown
        )


class _Job:
    """Answers lines, writes rows, and tells how far it is."""

    def __init__(
        self,
        opened: "Opened",
        rows: "RowFile | None",
        total: int,
        parallel: int,
        manner: "Manner",
        quiet: bool,
    ) -> None:
        self._opened, self._rows, self._total, self._parallel = opened, rows, total, parallel
        self._manner, self._quiet = manner, quiet
        self._done = self._earlier = self._errors = self._tokens = 0
        self._first: Answered | None = None

    def run(self, lines: "Iterator[Asked]") -> None:
        """Raises an error of the first failed line's kind when there was one."""
        from localinfer.chats.mapping import answer_all
        from localinfer.chats.row_file import failed
        from localinfer.cli.progress import Progress

        started = time.perf_counter()
        try:
            if self._rows is not None:
                self._done = self._earlier = self._rows.kept(lines)
            with Progress(long=True, quiet=self._quiet) as progress:
                answers = answer_all(self._opened.engine, lines, parallel=self._parallel, manner=self._manner)
                progress("answering", self._done, self._total)
                for answered in answers:
                    self._take(answered, progress)
        except KeyboardInterrupt:
            self._note_stopped()
            raise
        self._note_end(time.perf_counter() - started)
        if self._first is not None:
            raise failed(self._first, self._errors, self._done)

    def _take(self, answered: "Answered", progress: "Progress") -> None:
        """Write one row."""
        from localinfer.chats.row_file import row_of
        from localinfer.cli.output import show_json

        self._done += 1
        self._tokens += len(answered.token_ids)
        if answered.error is not None:
            self._errors += 1
            self._first = self._first or answered
        if self._rows is not None:
            self._rows.write(row_of(answered))
        else:
            progress.clear()
            show_json(row_of(answered))
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
            note(f"{self._done} rows are in {self._rows.path}; the same command with `--resume` goes on")
