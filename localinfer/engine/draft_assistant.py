"""A small model that reads what the target keeps of a text, and guesses from there (Gemma 4's assistants).

It stands at the last known token, whose keys and values nobody has yet, and sees those of all before. All guesses in a
row are made from that place: only the token, and what was made of the one before it, are others.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from localinfer import native
from localinfer.engine.draft_early import Running
from localinfer.engine.draft_scores import ScoreRow
from localinfer.engine.runner import NativeRunner
from localinfer.errors import NotSupported
from localinfer.formats.json_files import read_object
from localinfer.graph.assistant import load_assistant, read_clusters
from localinfer.graph.last_norm import last_norm
from localinfer.graph.registry import ASSISTANTS
from localinfer.graph.weights import Checkpoint
from localinfer.speculation.chain import Scores
from localinfer.speculation.drafter import Ask

Floats = NDArray[np.float32]


def is_assistant(path: Path) -> bool:
    """Whether the model at `path` only guesses for another one."""
    return read_object(path / "config.json").get("model_type") in ASSISTANTS


class AssistantDraftRunner:
    """Runs the assistant at `path` for `target`, which `program` runs by `runner`; `running` knows the texts."""

    def __init__(
        self,
        path: Path,
        target: Checkpoint,
        program: native.Program,
        runner: NativeRunner,
        running: Running,
        *,
        isa: str,
        context: int,
    ) -> None:
        name = f"{path.parent.name}/{path.name}"
        if not program.kv_bits or not program.kv_blocks:
            raise NotSupported(f"`{name}` reads keys and values, and this model keeps none", hint="leave `--draft` out")
        checkpoint = Checkpoint(path, assistant=True)
        self._target, self._runner, self._running = program, runner, running
        self._clusters = read_clusters(checkpoint)
        self._program, self._ids = load_assistant(checkpoint, target, program, name, isa=isa, context=context)
        mix = checkpoint.graph.mix
        assert mix is not None
        assert mix.back is not None
        self._back = checkpoint.matrix(mix.back.name)
        self._theirs, self._ours = last_norm(target), last_norm(checkpoint)
        self._texts: dict[int, tuple[int, Floats]] = {}
        """Of each text one past the last position that the target has computed, and the residual stream there."""
        self._streams: dict[int, Floats] = {}
        """Of each text that is guessed for: what was made of the token before."""
        self._spread = np.empty(program.vocab, np.float32)

    def read(self, handle: int, tokens: Sequence[int], start: int, end: int, hidden: Floats | None) -> None:
        assert hidden is not None
        self._texts[handle] = (end, hidden[-1].copy())

    def start(self, asks: Sequence[Ask]) -> list[Scores | None]:
        able = [ask for ask in asks if self._texts.get(ask.handle, (0,))[0] == len(ask.tokens) - 1 > 0]
        if able:
            normed = self._theirs(np.stack([self._texts[ask.handle][1] for ask in able]))
            self._streams |= zip((ask.handle for ask in able), normed, strict=True)
        scores = self._run(able, [ask.tokens[-1] for ask in able])
        found = dict(zip((ask.handle for ask in able), scores, strict=True))
        return [found.get(ask.handle) for ask in asks]

    def go_on(self, asks: Sequence[Ask], guesses: Sequence[list[int]]) -> list[Scores]:
        return self._run(asks, [guessed[-1] for guessed in guesses])

    def forget(self, handle: int) -> None:
        self._texts.pop(handle, None)
        self._streams.pop(handle, None)

    def close(self) -> None:
        self._texts.clear()
        self._streams.clear()

    def _run(self, asks: Sequence[Ask], last: Sequence[int]) -> list[Scores]:
        """The scores after the `last` token of each text."""
        if not asks:
            return []
        n, tokens = len(asks), np.array(last, np.int32)
        embedded = np.empty((n, self._target.hidden), np.float32)
        self._target.embed_rows(tokens, embedded)
        streams = np.stack([self._streams[ask.handle] for ask in asks])
        logits = np.empty((n, self._program.vocab), np.float32)
        after = np.empty((n, self._program.hidden), np.float32)
        slots = [lease.slot for ask in asks if (lease := self._running.text(ask.handle).lease) is not None]
        self._program.step(
            tokens,
            np.array([len(ask.tokens) - 2 for ask in asks], np.int32),
            np.array(slots, np.int32),
            self._runner.tables,
            np.arange(n, dtype=np.int32),
            logits,
            inputs=np.concatenate([embedded, streams], axis=1),
            hidden=after,
        )
        made = self._ours(after)
        self._streams |= zip((ask.handle for ask in asks), made @ self._back.T, strict=True)
        if self._clusters is None:
            return [ScoreRow(row, self._ids, self._spread) for row in logits]
        best = [self._clusters.best(scores, row) for scores, row in zip(logits, made, strict=True)]
        return [ScoreRow(row, ids, self._spread) for ids, row in best]
