"""From the scheduler's rows to arrays, and one call of what computes."""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from localinfer import native
from localinfer.config import MOST_DRAFTS
from localinfer.kv.blocks import NONE, blocks_for
from localinfer.scheduler.sequence import Work


class Runner(Protocol):
    """What computes: a native program, or llama.cpp."""

    @property
    def hidden(self) -> NDArray[np.float32]:
        """The residual stream of all rows of the last step, in order; empty where nobody wants it."""
        ...

    def want_hidden(self) -> None:
        """From the next step on `hidden` is there, where this can be."""
        ...

    def forward(self, batch: Sequence[Work]) -> NDArray[np.float32]:
        """Logits [m, vocab]: for each work that samples, in order, one row for its last known token and one for each
        of its drafts. Valid until the next call. Computing the same rows again is harmless."""
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...


class NativeRunner:
    """Runs batches of at most `parallel` works with `chunk` prompt rows on a native program. All arrays are made once.

    `width` is the number of KV blocks a sequence may have. Leases have `groups` tables: one for each of the program's
    KV groups, or one for all. With `wants_hidden` "sampled" `hidden` is that of steps in which some text is sampled: in
    others, a model whose last layers keep nothing leaves these out.
    """

    def __init__(
        self,
        program: native.Program,
        *,
        parallel: int,
        chunk: int,
        width: int,
        groups: int = 1,
        wants_hidden: Literal["", "sampled", "all"] = "",
    ) -> None:
        rows = chunk + parallel + MOST_DRAFTS
        self._program: native.Program | None = program
        self._tokens = np.zeros(rows, np.int32)
        self._positions = np.zeros(rows, np.int32)
        self._slots = np.zeros(rows, np.int32)
        self._tables = np.full((groups, parallel, width), NONE, np.int32)
        self._drafted = np.zeros(parallel, np.int32) if program.states else None
        self._out_rows = np.zeros(parallel + MOST_DRAFTS, np.int32)
        self._logits = np.empty((parallel + MOST_DRAFTS, program.vocab), np.float32)
        self._count = np.arange(max(width * 32 + 1, rows + 1), dtype=np.int32)
        self._all_hidden = wants_hidden == "all"
        self.hidden = np.zeros((rows if wants_hidden else 0, program.hidden), np.float32)

    @property
    def program(self) -> native.Program:
        """What runs the rows."""
        assert self._program is not None
        return self._program

    @property
    def tables(self) -> NDArray[np.int32]:
        """Where the blocks of each slot are, as a step takes them: as of the last step."""
        return self._tables if len(self._tables) > 1 else self._tables[0]

    def want_hidden(self) -> None:
        """From the next step on `hidden` is there, of every step."""
        self._all_hidden = True
        if not len(self.hidden):
            self.hidden = np.empty((len(self._tokens), self.program.hidden), np.float32)

    def forward(self, batch: Sequence[Work]) -> NDArray[np.float32]:
        wanted = len(self.hidden) and (self._all_hidden or any(work.samples for work in batch))
        return self.partly(batch, 0, self.hidden if wanted else None)

    def partly(
        self, batch: Sequence[Work], layers: int, hidden: NDArray[np.float32] | None, *, scores: bool = True
    ) -> NDArray[np.float32]:
        """As `forward`, of so many layers (0: all); `hidden` is given the residual stream of the rows after them.
        Without `scores` the head is left out, and no row of logits comes. Of some layers alone all rows are drafts, and
        one row of logits comes for each work, of its last row."""
        assert self._program is not None
        n = m = 0
        if self._drafted is not None:
            self._drafted[:] = 0
        for work in batch:
            n_before = n
            n = self._put_rows(work, n)
            if layers and self._drafted is not None and work.sequence.lease is not None:
                self._drafted[work.sequence.lease.slot] += work.count
            if work.samples and scores:
                first = n - 1 if layers else n_before + work.count - 1
                outs = n - first
                self._out_rows[m : m + outs] = self._count[first : first + outs]
                m += outs
        logits = self._logits[:m]
        self._program.step(
            self._tokens[:n],
            self._positions[:n],
            self._slots[:n],
            self.tables,
            self._out_rows[:m],
            logits,
            end=layers,
            hidden=None if hidden is None else hidden[:n],
            drafted=self._drafted,
        )
        return logits

    def head(self, stream: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits [n, vocab] of rows [n, hidden] of the residual stream after all layers. Valid until the next call."""
        assert self._program is not None
        n = len(stream)
        count, logits = self._count[:n], self._logits[:n]
        self._slots[:n] = 0
        table = self._count[None, : blocks_for(n)]  # no layer runs, so nothing is written there
        self._program.step(
            self._tokens[:n], count, self._slots[:n], table, count, logits, self._program.layers, inputs=stream
        )
        return logits

    def close(self) -> None:
        self._program = None
        self._logits = np.empty((0, 0), np.float32)

    def _put_rows(self, work: Work, at: int) -> int:
        """Write the rows of `work` from row `at` on, and its new blocks; gives the row after them."""
        sequence, lease = work.sequence, work.sequence.lease
        assert lease is not None
        end = at + work.count + len(work.drafts)
        if work.count == 1 and not work.drafts:
            self._tokens[at] = sequence.tokens[work.start]
        else:
            self._tokens[at:end] = sequence.tokens[work.start : work.start + work.count] + work.drafts
        self._positions[at:end] = self._count[work.start : work.end]
        self._slots[at:end] = lease.slot
        if self._drafted is not None:
            self._drafted[lease.slot] = len(work.drafts)
        if lease.sent < len(lease.blocks):
            for table, blocks in zip(self._tables, lease.tables, strict=True):
                table[lease.slot, lease.sent : len(blocks)] = blocks[lease.sent :]
            lease.sent = len(lease.blocks)
        return end
