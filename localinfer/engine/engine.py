"""The engine: requests in, events out. `step` is the only place where anything moves."""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Ordered
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from localinfer.config import MOST_DRAFTS, SamplingParams
from localinfer.engine.checking import check
from localinfer.engine.draft_stats import DraftStats
from localinfer.engine.driver import Driver
from localinfer.engine.load import Load, Pool, load_of
from localinfer.engine.pooling import Normed, Pooling
from localinfer.engine.protocol import EngineInfo, Tokenizer
from localinfer.engine.reply import CERTAIN, Reply
from localinfer.engine.request import Request
from localinfer.engine.runner import Runner
from localinfer.engine.sampling import NO_RULES, TokenRules
from localinfer.engine.scores import scored
from localinfer.errors import LocalInferError, NotFinite, UsageError
from localinfer.events import Event, FinishReason, Shifted, Started
from localinfer.scheduler.scheduler import Scheduler
from localinfer.scheduler.sequence import Sequence, Work
from localinfer.speculation.cost import Part
from localinfer.speculation.drafter import Ask, Choose
from localinfer.speculation.record import NO_CHAIN, Chain
from localinfer.speculation.speculator import Speculator
from localinfer.speculation.verify import broke_off, sample_and_match

if TYPE_CHECKING:
    from localinfer.engine.disk_cache import DiskCache


class StepEngine:
    """An `Engine` made of its parts: who runs next, what computes, who guesses ahead."""

    def __init__(
        self,
        *,
        info: EngineInfo,
        tokenizer: Tokenizer,
        chat_template: str | None,
        tools_template: str | None = None,
        default_sampling: SamplingParams,
        rules: TokenRules = NO_RULES,
        normed: Normed | None = None,
        context: int,
        longest: int,
        vocab: int,
        scheduler: Scheduler,
        runner: Runner,
        speculator: Speculator | None = None,
        draft_mode: str = "off",
        draft_tokens: int = 0,
        remember: Callable[[Ordered[int]], None] | None = None,
        disk_caches: "Ordered[DiskCache]" = (),
        disk_states: "DiskCache | None" = None,
        experts: Pool | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.info = info
        self.tokenizer = tokenizer
        self.chat_template = chat_template
        self.tools_template = tools_template
        self.default_sampling = default_sampling
        self._rules = rules
        self._normed = normed  # the norm before the head; None where no hidden rows come
        self.context_size = context
        self._longest = longest  # what the model was made for; `context_size` is what was asked for
        self.scheduler = scheduler
        self._vocab = vocab
        self.runner = runner
        self.speculator = speculator
        self.draft_mode, self.draft_tokens = draft_mode, draft_tokens
        self._remember = remember
        self._disk_caches, self._disk_states, self._experts = disk_caches, disk_states, experts
        self.clock = clock
        self._handles = itertools.count(1)
        self._replies: dict[int, Reply] = {}
        self._added: deque[Reply] = deque()  # asked for, or no longer wanted, since the last step; from any thread
        self._cancelled: deque[int] = deque()
        self._outbox: list[Event] = []
        self._last = Load()
        scheduler.on_preempt = self._preempted
        self._closed = False
        self.driver = Driver(self)

    def step(self) -> list[Event]:
        """Move every running request forward once and say what happened; empty when there is nothing to do."""
        self.driver.require_turn()
        self._check_open()
        self._take_in()
        self._advance()
        events, self._outbox = self._outbox, []
        return events

    @property
    def idle(self) -> bool:
        """Is there no request that has not ended?"""
        return not self._replies

    def focus(self, *handles: int) -> None:
        """These texts go first from now on; see `Engine.focus`."""
        self.scheduler.focused = frozenset(handles)

    def load(self) -> Load:
        """What the last step held, and how full the cache is; see `Engine.load`. A glance that waits for no step."""
        queued = frozenset(handle for handle, reply in list(self._replies.items()) if not reply.begun)
        load = load_of(self.scheduler, self._last, self._disk_caches, self._experts)
        return replace(load, waiting=load.waiting + len(self._added), queued=queued)

    def _take_in(self) -> None:
        """Let those in that were added, and those out that were cancelled."""
        cancelled = len(self._cancelled)  # of those that are cancelled later some may not be in yet
        while self._added:
            reply = self._added.popleft()
            sequence = reply.sequence
            if reply.pooling is not None:
                self.runner.want_hidden()
            self._outbox.append(Started(sequence.handle, len(reply.request.prompt), self.context_size))
            if len(sequence.tokens) >= self.context_size and reply.pooling is None:
                self._shift(reply)
            self.scheduler.add(sequence)
        for _ in range(cancelled):
            gone = self._replies.get(self._cancelled.popleft())
            if gone is not None:
                self._retire(gone, "cancelled", self.clock())

    def _advance(self) -> None:
        batch = self.scheduler.next_batch()
        if not batch:
            self._last = Load()
            return
        started = self.clock()
        for work in batch:
            self._replies[work.sequence.handle].admit(started)
        jumps = self._jump(batch)
        asked = {} if jumps else self._draft(batch)
        if asked:
            started = self.clock()
        logits = self._forward(batch)
        chosen = self._choose(batch, logits)
        now = self.clock()
        self._last = Load.of_step(batch, now - started)
        self.scheduler.learn(batch, now - started)
        self._settle(asked, dict(zip((work.sequence.handle for work in batch), chosen, strict=True)), now - started)
        row = 0
        for work, tokens in zip(batch, chosen, strict=True):
            if self._replies[work.sequence.handle].pooling is not None:
                self._pool(work, self.runner.hidden[row : row + work.count], now)
                row += work.count
                continue
            broken = work.samples and broke_off(work.drafts, tokens)
            if self.speculator is not None and self.speculator.reads and not broken:
                self._let_read(work, tokens, row)
            row += work.count + len(work.drafts)
            self._commit(work, tokens, (jumps or asked).get(work.sequence.handle, NO_CHAIN), now, broken=broken)

    def _forward(self, batch: list[Work]) -> NDArray[np.float32]:
        """One call, GIL released. If it is interrupted, no text has moved; recurrent states go back to their last
        snapshot."""
        try:
            return self.runner.forward(batch)
        except BaseException:
            for handle in self.scheduler.rewind(batch):
                if self.speculator is not None:
                    self.speculator.forget(handle)
            raise

    def _let_read(self, work: Work, tokens: list[int], row: int) -> None:
        """Tell drafters what is computed for good: the known rows of `work`, from `row` on, and the right guesses."""
        assert self.speculator is not None
        count = work.count + max(0, len(tokens) - 1)
        hidden = self.runner.hidden[row : row + count] if len(self.runner.hidden) else None
        known = work.sequence.tokens + tokens
        self.speculator.read(work.sequence.handle, known, work.start, work.start + count, hidden)

    def _draft(self, batch: list[Work]) -> dict[int, Chain]:
        """Let those be guessed for that decode; gives the guesses of each by its handle."""
        if self.speculator is None:
            return {}
        asks, indices = list[Ask](), list[int]()
        for index, work in enumerate(batch):
            if work.count > 1 or self._replies[work.sequence.handle].pooling is not None:
                continue
            room = min(self._replies[work.sequence.handle].room - 1, self.scheduler.spare(work, len(batch)))
            most = min(self.draft_tokens, room)
            if most > 0:
                asks.append(Ask(work.sequence.handle, work.sequence.tokens, most, self._chooser(work)))
                indices.append(index)
        if not asks:
            return {}
        parts = [Part(work.count, work.start) for work in batch]
        chains = self.speculator.draft(parts, asks, indices)
        for index, chain in zip(indices, chains, strict=True):
            if chain.tokens:
                batch[index].drafts = list(itertools.takewhile(lambda token: 0 <= token < self._vocab, chain.tokens))
                self.scheduler.reserve(batch[index])
        return {ask.handle: chain for ask, chain in zip(asks, chains, strict=True)}

    def _jump(self, batch: list[Work]) -> dict[int, Chain]:
        """Let rows of tokens that are certain be computed together; these tokens, by handle."""
        works = [(work, self._replies[work.sequence.handle]) for work in batch if work.count == 1]
        runs = [(work, reply, run) for work, reply in works if (run := reply.certain)]
        for work, reply, run in runs:
            most = min(MOST_DRAFTS // len(runs), reply.room - 1, self.scheduler.spare(work, len(batch)))
            work.drafts = list(run[: max(0, most)])
            self.scheduler.reserve(work)
        chains = (Chain(CERTAIN, tuple(work.drafts)) if not one.request.forced else NO_CHAIN for work, one, _ in runs)
        return dict(zip((work.sequence.handle for work, _, _ in runs), chains, strict=True))

    def _settle(self, asked: dict[int, Chain], chosen: dict[int, list[int]], seconds: float) -> None:
        """Tell what became of the guesses, and count what they were worth."""
        if self.speculator is None or not asked:
            return
        accepted = [max(0, len(chosen[handle]) - 1) for handle in asked]
        worth = self.speculator.settle(accepted, seconds)
        for (handle, chain), right in zip(asked.items(), accepted, strict=True):
            draft_stats = self._replies[handle].draft_stats
            if draft_stats is not None:
                draft_stats.count(chain, right, worth, self.speculator.why_off)

    def _choose(self, batch: list[Work], logits: NDArray[np.float32]) -> list[list[int]]:
        """The new tokens of each work; none for those whose prompt is not read to its end, or from NaN."""
        chosen: list[list[int]] = []
        row = 0
        for work in batch:
            if not work.samples:
                chosen.append([])
                continue
            rows = logits[row : row + 1 + len(work.drafts)]
            chosen.append(self._verify(work, rows))
            row += len(rows)
        return chosen

    def _verify(self, work: Work, rows: NDArray[np.float32]) -> list[int]:
        choose, reply = self._chooser(work), self._replies[work.sequence.handle]
        if reply.pooling is not None:
            return []
        top, reply.scores = reply.request.logprobs, []
        if top is None:
            return sample_and_match(work.drafts, lambda i, taken: choose(rows[i], taken))

        def choose_and_score(i: int, taken: list[int]) -> int | None:
            before = rows[i].copy()
            token = choose(rows[i], taken)
            if token is not None:
                reply.scores.append(scored(before, token, top))
            return token

        return sample_and_match(work.drafts, choose_and_score)

    def _chooser(self, work: Work) -> Choose:
        """How the text of `work` draws its next tokens: those of drafts and those that check them alike."""
        reply = self._replies[work.sequence.handle]
        position, sampler, known, begins = reply.position, reply.sampler, work.sequence.tokens, not reply.token_ids

        def choose(logits: NDArray[np.float32], taken: list[int]) -> int | None:
            return sampler.choose(logits, known, taken, position + len(taken), first=begins and not taken)

        return choose

    def _commit(self, work: Work, tokens: list[int], chain: Chain, now: float, *, broken: bool) -> None:
        """The rows of one request are computed: append, speak, and end or shift it where that is due. `broken`: the
        row after `tokens` is not finite."""
        sequence = work.sequence
        reply = self._replies[sequence.handle]
        events = reply.progress(work, now)
        reason: FinishReason | None = None
        used = 0
        if tokens:
            used, said, reason = reply.take(tokens, chain, now)
            events += said
        self._outbox += events
        if broken and reason is None:
            self.scheduler.spoil(work, tokens)
            self._retire(reply, "error", now, reply.sampler.error or self._not_finite(reply))
            return
        self.scheduler.commit(work, tokens[:used])
        if reason is None and reply.room == 0:
            if reply.request.on_overflow == "error":
                reason = "overflow"
            else:
                self._shift(reply)
        if reason is None:
            self._outbox += reply.stats_if_due(now)
        else:
            self._retire(reply, reason, now)

    def _pool(self, work: Work, rows: NDArray[np.float32], now: float) -> None:
        """Rows of a text that is to be a vector are computed."""
        reply = self._replies[work.sequence.handle]
        assert reply.pooling is not None
        if not np.isfinite(rows).all():
            self.scheduler.spoil(work, [])
            self._retire(reply, "error", now, self._not_finite(reply))
            return
        reply.pooling.add(work.start, rows, ends=work.samples)
        self._outbox += reply.progress(work, now)
        self.scheduler.commit(work, [])
        if work.samples:
            self._retire(reply, "stop", now)

    def _shift(self, reply: Reply) -> None:
        """Forget about a half of the context, the oldest part after what must be kept, and say so."""
        sequence = reply.sequence
        keep = reply.keep
        drop = len(sequence.tokens) - keep - (self.context_size - keep) // 2
        self.scheduler.shift(sequence, keep, drop)
        reply.dropped += drop
        if self.speculator is not None:
            self.speculator.forget(sequence.handle)
        self._outbox.append(Shifted(sequence.handle, drop, len(sequence.tokens)))

    def _preempted(self, sequence: Sequence) -> None:
        """Others needed the blocks of `sequence`: it waits, and what was guessed about it is of no use meanwhile."""
        if self.speculator is not None:
            self.speculator.forget(sequence.handle)
        self._outbox.append(self._replies[sequence.handle].stats(self.clock()))

    def _not_finite(self, reply: Reply) -> NotFinite:
        wider = ["`--kv-bits 16`"] * (self.info.kv_bits < 16) + ["the 16-bit model"] * (self.info.bits != "BF16")
        return NotFinite(
            f"step {len(reply.token_ids) + 1} of the answer, at position {reply.position} of the text: the model's "
            "scores are NaN, infinite or all the same, and nothing can be chosen from that",
            hint=f"try {' or '.join(wider)}"
            if wider
            else "its numbers overflow float32: download the model again, or use another version of it",
        )

    def _retire(self, reply: Reply, reason: FinishReason, now: float, error: LocalInferError | None = None) -> None:
        sequence = reply.sequence
        self.scheduler.remove(sequence)
        if self._remember is not None and reply.token_ids and reply.request.remember:
            self._remember(sequence.tokens)
        if self.speculator is not None:
            self.speculator.forget(sequence.handle)
        del self._replies[sequence.handle]
        self._outbox += reply.finish(reason, now, error)

    def add(self, request: Request) -> int:
        """Queue a request; see `Engine.add`."""
        self._check_open()
        bounds = {"vocab": self._vocab, "context": self.context_size, "longest": self._longest}
        check(request, **bounds, vectors=self._normed is not None)
        pooling = Pooling(request.pool, self._normed) if request.pool and self._normed else None
        sequence = Sequence(next(self._handles), list(request.prompt), marks=request.marks)
        sequence.whole, sequence.private = request.pool == "mean", not request.remember
        reply = Reply(
            sequence,
            request,
            self.tokenizer,
            context=self.context_size,
            draft_stats=DraftStats(self.draft_mode) if self.speculator else None,
            rules=self._rules,
            now=self.clock(),
            pooling=pooling,
        )
        self._replies[sequence.handle] = reply
        self._added.append(reply)
        return sequence.handle

    def stream(self, request: Request) -> Iterator[Event]:
        """The events of one request; see `Driver.stream`."""
        return self.driver.stream(request)

    def cancel(self, handle: int) -> None:
        """End a request with the next step; see `Engine.cancel`."""
        if handle in self._replies:
            self._cancelled.append(handle)

    def close(self) -> None:
        """Give the memory back, after the step that is under way. Closing twice is fine."""
        self._closed = True
        self.driver.close()
        for disk_cache in (*self._disk_caches, self._disk_states):
            if disk_cache is not None:
                disk_cache.close()
        self.runner.close()
        if self.speculator is not None:
            self.speculator.close()

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the engine is closed", hint="open it again")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None, /
    ) -> None:
        self.close()
