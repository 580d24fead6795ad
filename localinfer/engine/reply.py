"""What one request has said so far, and when: turns tokens into events, and counts."""

from collections import deque
from collections.abc import Sequence as Ordered
from itertools import accumulate

from localinfer.engine.draft_stats import DraftStats
from localinfer.engine.pooling import Pooling
from localinfer.engine.protocol import Request, Tokenizer
from localinfer.engine.sampling import Sampler, TokenRules, breaker
from localinfer.engine.stopping import StopScanner
from localinfer.errors import LocalInferError
from localinfer.events import Event, Finished, FinishReason, Phase, Progress, Scored, Stats, Text
from localinfer.scheduler.sequence import Sequence, Work
from localinfer.speculation.record import Chain

CERTAIN = "form"
"""Who is told to have guessed the tokens that a form leaves no choice of."""

RECENT_S = 2.0
"""The speed shown as recent is that of the last seconds."""

LATEST_STEPS = 256
"""Inter-token latency is told of so many steps, the last ones."""

STATS_EVERY_S = 0.1
"""How often a running request says how it is doing."""


class Reply:
    """One request from `add` to its end. Times are those of the engine's clock, in seconds."""

    def __init__(
        self,
        sequence: Sequence,
        request: Request,
        tokenizer: Tokenizer,
        *,
        context: int,
        draft_stats: DraftStats | None,
        rules: TokenRules,
        now: float,
        pooling: Pooling | None = None,
    ) -> None:
        self.pooling = pooling
        """What makes a vector of the text, where nothing is to be written."""
        self.sequence = sequence
        self.request = request
        self.token_ids: list[int] = []
        begun = request.prompt[len(request.prompt) - request.begun :]
        matching = request.constraint.begin(begun) if request.constraint else None
        breaks = breaker(tokenizer.token_bytes)
        self.sampler = Sampler(request.sampling, rules, matching, self.token_ids, begun, request.forced, breaks)
        self.scores: list[Scored] = []
        """Of the tokens of the step under way, where they were asked for."""
        self.stop: str | None = None
        self.keep = min(request.keep, len(sequence.tokens))
        self.dropped = 0
        """Tokens forgotten by shifting; the position in the whole text is this many more than in the context."""
        self.draft_stats = draft_stats
        """What drafts have done; None where they are off."""
        self._eos = frozenset(tokenizer.eos_ids)
        self._stream = tokenizer.stream(continues=True)
        self._scanner = StopScanner(request.sampling.stop)
        self._context = context
        self._prompt_tokens = len(sequence.tokens)
        self._cached = self._read = self._sampled = self._sampled_first = self._steps = 0
        self._drafted = self._accepted = self._jumped = 0
        self._added = self._latest = now
        self._admitted: float | None = None
        self._first: float | None = None
        self._recent: deque[tuple[float, int]] = deque()
        self._gaps: deque[tuple[float, int]] = deque(maxlen=LATEST_STEPS)
        self._stats_due = now

    @property
    def room(self) -> int:
        """How many more tokens may be generated before one of the limits ends or shifts the text."""
        limit = self.request.sampling.max_tokens
        room = self._context - len(self.sequence.tokens)
        return room if limit is None else min(room, limit - len(self.token_ids))

    @property
    def forced(self) -> Ordered[int]:
        """What is still to come of the tokens that are only scored."""
        return self.request.forced[len(self.token_ids) :]

    @property
    def certain(self) -> Ordered[int]:
        """Tokens that are known before they are computed: all but the last of those that are only scored, or what the
        form leaves no choice of."""
        return self.forced[:-1] if self.request.forced else self.sampler.certain()

    @property
    def position(self) -> int:
        """The next token's position in the whole text, forgotten tokens counted."""
        return self.dropped + len(self.sequence.tokens)

    @property
    def begun(self) -> bool:
        """Are its first rows computed, or being so?"""
        return self._admitted is not None

    def admit(self, now: float) -> None:
        """Its first rows are about to be computed."""
        if self._admitted is None and self.sequence.lease is not None:
            self._admitted = now
            self._cached = self.sequence.lease.cached

    def progress(self, work: Work, now: float) -> list[Event]:
        """Rows of the prompt are computed."""
        self._latest = now
        done = work.start + work.count
        if self._first is None:
            self._read += work.count
        elif work.count == 1:
            return []
        return [Progress(self.sequence.handle, done, len(self.sequence.tokens), work.count)]

    def take(self, tokens: Ordered[int], chain: Chain, now: float) -> tuple[int, list[Event], FinishReason | None]:
        """What follows from these new tokens, all but the last of which `chain` has guessed: how many of them count,
        what to say, and why it is over if it is."""
        self._count_step(len(tokens), chain, now)
        events: list[Event] = []
        handle, sampling = self.sequence.handle, self.request.sampling
        for used, token in enumerate(tokens, 1):
            ends_turn = token in self._eos
            if ends_turn and not sampling.ignore_eos:
                return used, events, "stop"
            self.token_ids.append(token)
            text, self.stop = self._scanner.push("" if ends_turn else self._stream.push(token))
            score = self.scores[used - 1] if self.scores else None
            events.append(Text(handle, text, (token,), chain.drafter if used < len(tokens) else None, score))
            if self.stop is not None:
                return used, events, "stop"
            if len(self.token_ids) == sampling.max_tokens:
                return used, events, "length"
        return len(tokens), events, None

    def finish(self, reason: FinishReason, now: float, error: LocalInferError | None = None) -> list[Event]:
        """The last words: text that was held back, and `Finished`."""
        self._latest = now
        handle, events = self.sequence.handle, list[Event]()
        if self.stop is None:
            text, self.stop = self._scanner.push(self._stream.finish())
            if self.stop is None:
                text += self._scanner.finish()
            if text:
                events.append(Text(handle, text, ()))
        vector = self.pooling.vector() if self.pooling and reason == "stop" else None
        events.append(Finished(handle, reason, tuple(self.token_ids), self.stats(now), self.stop, error, vector))
        return events

    def stats_if_due(self, now: float) -> list[Event]:
        """`Stats`, with the first token and then ten times a second."""
        if now < self._stats_due or self._first is None:
            return []
        self._stats_due = now + STATS_EVERY_S
        return [self.stats(now)]

    def stats(self, now: float) -> Stats:
        """How it is doing."""
        admitted, first = self._admitted, self._first
        phase: Phase = "queued" if admitted is None else "prefill" if first is None else "decode"
        if self.sequence.preempted:
            phase = "preempted"
        itl, itl_p99 = _latency(self._gaps)
        return Stats(
            handle=self.sequence.handle,
            phase=phase,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached,
            completion_tokens=len(self.token_ids),
            context_used=len(self.sequence.tokens),
            context_size=self._context,
            queued_s=(now if admitted is None else admitted) - self._added,
            ttft_s=None if first is None else first - self._added,
            prefill_tok_s=None if first is None or admitted is None else _speed(self._read, first - admitted),
            decode_tok_s=None if first is None else _speed(self._sampled - self._sampled_first, self._latest - first),
            recent_tok_s=self._recent_speed(),
            itl_s=itl,
            itl_p99_s=itl_p99,
            total_s=now - self._added,
            drafted=self._drafted,
            accepted=self._accepted,
            jumped=self._jumped,
            steps=self._steps,
            drafting=self.draft_stats.told() if self.draft_stats else None,
        )

    def _count_step(self, sampled: int, chain: Chain, now: float) -> None:
        if self._first is None:
            self._first = self._stats_due = now
            self._sampled_first = sampled
        else:
            self._gaps.append((now - self._recent[-1][0], sampled))
        self._latest = now
        self._steps += 1
        self._sampled += sampled
        if chain.drafter == CERTAIN:
            self._jumped += sampled - 1
        else:
            self._drafted += len(chain.tokens)
            self._accepted += sampled - 1
        self._recent.append((now, self._sampled))
        while len(self._recent) > 2 and self._recent[0][0] < now - RECENT_S:
            self._recent.popleft()

    def _recent_speed(self) -> float | None:
        if len(self._recent) < 2:
            return None
        (then, before), (now, after) = self._recent[0], self._recent[-1]
        return _speed(after - before, now - then)


def _latency(steps: Ordered[tuple[float, int]]) -> tuple[float | None, float | None]:
    """Seconds a token of steps that are (seconds, tokens): the mean, and what one token in a hundred exceeds."""
    if not steps:
        return None, None
    counts = [count for _, count in steps]
    each = sorted((seconds / count, count) for seconds, count in steps)
    index = sum(counts) * 99 // 100
    sums = accumulate(count for _, count in each)
    slow = next(per_token for (per_token, _), upto in zip(each, sums, strict=True) if upto > index)
    return sum(seconds for seconds, _ in steps) / sum(counts), slow


def _speed(count: int, seconds: float) -> float | None:
    return count / seconds if count > 0 and seconds > 0 else None
