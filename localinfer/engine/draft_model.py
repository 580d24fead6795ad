"""A model with the same tokenizer that guesses for another: its program, its cache, and where it is in each text."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from localinfer import native
from localinfer.config import DRAFT_BACK, MOST_DRAFTS, draft_kv_blocks
from localinfer.engine.draft_scores import ScoreRow
from localinfer.engine.runner import NativeRunner
from localinfer.errors import NotSupported, UsageError
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.program import Move, load_program
from localinfer.graph.weights import Checkpoint
from localinfer.kv.cache import PagedCache
from localinfer.scheduler.sequence import Sequence as Text
from localinfer.scheduler.sequence import Work
from localinfer.speculation.chain import Scores
from localinfer.speculation.drafter import Ask

OnProgress = Callable[[int, int], None]


class ModelDraftRunner:
    """Reads each text itself, in a cache of its own, and goes back when the target has gone another way.

    `program` has room for `parallel` texts of `context` tokens; at most `chunk` known tokens are read at once. Only
    tokens below `vocab` are guessed; a text with one that the program does not know is left alone.
    """

    def __init__(
        self, program: native.Program, *, parallel: int, context: int, chunk: int, vocab: int | None = None
    ) -> None:
        windows = program.kv_windows or (0,)
        self._cache = PagedCache(
            slots=parallel,
            context=context,
            blocks=program.kv_blocks,
            windows=windows,
            rows=chunk + DRAFT_BACK,
            reuse=False,
        )
        self._runner = NativeRunner(
            program, parallel=parallel, chunk=chunk, width=self._cache.width, groups=len(windows)
        )
        self._texts: dict[int, Text] = {}
        self._agreed: dict[int, int] = {}
        self._parallel, self._context, self._chunk = parallel, context, chunk
        self._knows, self._guesses = program.vocab, min(vocab or program.vocab, program.vocab)
        self._room = np.empty(self._guesses, np.float32)

    def start(self, asks: Sequence[Ask]) -> list[Scores | None]:
        able = [ask for ask in asks if self._follow(ask.handle, ask.tokens, len(ask.tokens), ask.most)]
        found = self._read([self._texts[ask.handle] for ask in able])
        return [found.get(ask.handle) for ask in asks]

    def go_on(self, asks: Sequence[Ask], guesses: Sequence[list[int]]) -> list[Scores]:
        for ask, guessed in zip(asks, guesses, strict=True):
            self._texts[ask.handle].tokens.append(guessed[-1])
        found = self._read([self._texts[ask.handle] for ask in asks])
        return [found[ask.handle] for ask in asks]

    def read(self, handle: int, tokens: Sequence[int], start: int, end: int, hidden: object) -> None:
        """Read the prompt along with the target, so that little is left to catch up with when guessing begins. What the
        target writes is read when there is something to guess: whoever asks counts the time."""
        writes = end == len(tokens) - 1 and end - start <= MOST_DRAFTS + 1
        if not writes and self._follow(handle, tokens, end, 0):
            self._read([self._texts[handle]])

    def forget(self, handle: int) -> None:
        text = self._texts.pop(handle, None)
        self._agreed.pop(handle, None)
        if text is not None and text.lease is not None:
            self._cache.close(text.lease)

    def close(self) -> None:
        self._runner.close()
        self._texts.clear()

    def _follow(self, handle: int, tokens: Sequence[int], end: int, more: int) -> bool:
        """Make the state of this text that of its first `end` tokens; whether there is room for `more` after them."""
        if end + more > self._context:
            return False
        text = self._texts.get(handle)
        if text is None:
            if len(self._texts) == self._parallel:
                return False
            text = self._texts[handle] = Text(handle, [])
            text.lease = self._cache.open([0])
            self._agreed[handle] = 0
        same = min(self._agreed[handle], end)
        if max(tokens[same:end], default=0) >= self._knows:
            return False
        while same < min(len(text.tokens), end) and text.tokens[same] == tokens[same]:
            same += 1
        text.tokens[same:] = tokens[same:end]
        # The last token is computed again if it was: its scores are wanted.
        text.computed = min(text.computed, same, end - 1)
        assert text.lease is not None
        if not self._cache.sees(text.lease, text.computed):
            text.computed = self._cache.truncate(text.lease, text.tokens, text.computed)
        self._agreed[handle] = end
        return True

    def _read(self, texts: Sequence[Text]) -> dict[int, ScoreRow]:
        """Compute what is known and not computed of these texts; the scores after the last token of each."""
        found: dict[int, ScoreRow] = {}
        left = list(texts)
        while left:
            batch, room = list[Work](), self._chunk
            for text in left:
                count = min(text.behind, room)
                if count:
                    batch.append(Work(text, text.computed, count))
                    room -= count
            for work in batch:
                assert work.sequence.lease is not None
                self._cache.reserve(work.sequence.lease, work.end)
            logits = self._runner.forward(batch)[:, : self._guesses]
            done = [work.sequence.handle for work in batch if work.samples]
            for work in batch:
                work.sequence.computed = work.start + work.count
                assert work.sequence.lease is not None
                self._cache.give_back(work.sequence.lease, work.sequence.computed - DRAFT_BACK)
            left = [text for text in left if text.behind]
            for handle, row in zip(done, logits, strict=True):
                found[handle] = ScoreRow(row.copy() if left else row, room=self._room)  # the next call takes the rows
        return found


def open_model(
    path: Path,
    target: Checkpoint,
    *,
    threads: int,
    isa: str,
    parallel: int,
    context: int,
    chunk: int,
    kv_bits: int,
    move: Move | None = None,
) -> ModelDraftRunner:
    """The model at `path` as a draft model for `target`, taken by `move` to where that runs.

    Raises `UsageError` when it reads other tokens than the target.
    """
    checkpoint = Checkpoint(path)
    if checkpoint.graph.slot_bytes:
        raise NotSupported(
            f"`{path.parent.name}/{path.name}` has recurrent layers, and cannot guess for another model yet",
            hint="take a draft model without them, or `--draft auto`",
        )
    require_same_tokens(Tokenizer(path), Tokenizer(target.path), f"{path.parent.name}/{path.name}")
    context = min(context, checkpoint.spec.max_context)
    windows = checkpoint.graph.kv_windows()
    blocks = draft_kv_blocks(windows, context=context, parallel=parallel, prefill_chunk=chunk)
    program = load_program(
        checkpoint,
        threads=threads,
        isa=isa,
        context=context,
        kv_blocks=blocks,
        kv_bits=8 if kv_bits == 4 else kv_bits,  # type: ignore[arg-type]
        move=move,
    )
    return ModelDraftRunner(program, parallel=parallel, context=context, chunk=chunk, vocab=target.spec.vocab_size)


def require_same_tokens(draft: Tokenizer, target: Tokenizer, name: str) -> None:
    """Raise `UsageError` naming the first token that means something else to the two."""
    first = next(
        (
            token
            for token in range(min(draft.vocab_size, target.vocab_size))
            if draft.spelling(token) != target.spelling(token)
        ),
        None,
    )
    if first is None and draft.vocab_size == target.vocab_size:
        return
    if first is None:
        first = min(draft.vocab_size, target.vocab_size)
    mine, theirs = (_word(tokenizer, first) for tokenizer in (draft, target))
    raise UsageError(
        f"`{name}` cannot guess for this model: token {first} is {mine} there and {theirs} here",
        hint="take a smaller or narrower model of the same family, such as its own `:INT4`, or `--draft auto`",
    )


def _word(tokenizer: Tokenizer, token: int) -> str:
    spelling = tokenizer.spelling(token)
    return "nothing" if spelling is None else ascii(spelling)[:40]
