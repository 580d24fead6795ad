"""Helpers: engines on tiny models, and what they compute, bit by bit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.config import MOST_DRAFTS, EngineConfig, SamplingParams
from localinfer.engine.engine import StepEngine
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Request
from localinfer.engine.runner import Runner
from localinfer.events import Event, Finished, Text
from localinfer.kv.cache import PagedCache
from localinfer.scheduler.sequence import Work
from localinfer.speculation.controller import Worth
from localinfer.speculation.cost import Part
from localinfer.speculation.drafter import Ask, Drafter, Reads
from localinfer.speculation.record import NO_CHAIN, Chain

GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
SAMPLED = SamplingParams(
    temperature=0.9, top_k=40, top_p=0.95, repeat_penalty=1.3, seed=11, max_tokens=24, ignore_eos=True
)
WILD = SamplingParams(temperature=1.5, top_k=0, top_p=1.0, min_p=0.02, seed=5, max_tokens=24, ignore_eos=True)
SAMPLINGS = {"greedy": GREEDY, "sampled": SAMPLED, "wild": WILD}


@dataclass
class Passing:
    """A runner that passes everything on to the real one."""

    inner: Runner

    @property
    def hidden(self) -> NDArray[np.float32]:
        return self.inner.hidden

    def want_hidden(self) -> None:
        self.inner.want_hidden()

    def close(self) -> None:
        self.inner.close()


@dataclass
class Recorder(Passing):
    """Passes batches on to the real runner and keeps a copy of every row of logits.

    Keyed by the text up to the row, drafts included, as whoever computes it must get the same bits.
    """

    rows: dict[tuple[int, ...], bytes] = field(default_factory=dict)
    batch_rows: list[int] = field(default_factory=list)
    """Rows of each step."""

    def forward(self, batch: Sequence[Work]) -> NDArray[np.float32]:
        logits = self.inner.forward(batch)
        self.batch_rows.append(sum(work.count + len(work.drafts) for work in batch))
        at = 0
        for work in batch:
            for drafts in range(len(work.drafts) + 1) if work.samples else ():
                text = tuple(work.sequence.tokens + work.drafts[:drafts])
                bits = logits[at].tobytes()
                assert self.rows.setdefault(text, bits) == bits, "the same text gave other logits in the same engine"
                at += 1
        assert at == len(logits)
        return logits


@dataclass(frozen=True)
class Said:
    """What came of one request."""

    token_ids: tuple[int, ...]
    text: str
    finished: Finished


class Eager:
    """Takes every guess of the first drafter that has some, up to a row budget, whatever it costs."""

    def __init__(self, drafters: Sequence[Drafter], most_rows: int = MOST_DRAFTS) -> None:
        self.drafters, self.most_rows, self.why_off = drafters, most_rows, ""
        self.reads = any(isinstance(drafter, Reads) for drafter in drafters)
        self._step: list[tuple[int, Chain]] = []

    def draft(self, parts: Sequence[Part], asks: Sequence[Ask], indices: Sequence[int]) -> list[Chain]:
        assert [parts[index].rows for index in indices] == [1] * len(asks)
        chains, left = [NO_CHAIN] * len(asks), self.most_rows
        for drafter in self.drafters:
            for i, draft in enumerate(drafter.propose(asks)):
                tokens = tuple(draft.tokens[: min(left, asks[i].most)])
                if tokens and chains[i] is NO_CHAIN:
                    chains[i] = Chain(drafter.name, tokens, tuple(draft.confidence[: len(tokens)]))
                    left -= len(tokens)
        self._step = [(ask.handle, chain) for ask, chain in zip(asks, chains, strict=True)]
        return chains

    def settle(self, accepted: Sequence[int], seconds: float) -> Worth:
        for (handle, chain), right in zip(self._step, accepted, strict=True):
            for drafter in self.drafters:
                if drafter.name == chain.drafter:
                    drafter.observe(handle, len(chain.tokens), right)
        return Worth(seconds, seconds)

    def read(self, handle: int, tokens: Sequence[int], start: int, end: int, hidden: Any) -> None:
        for drafter in self.drafters:
            if isinstance(drafter, Reads):
                drafter.read(handle, tokens, start, end, hidden)

    def forget(self, handle: int) -> None:
        for drafter in self.drafters:
            drafter.forget(handle)

    def close(self) -> None:
        for drafter in self.drafters:
            drafter.close()


def open_tiny(path: Path, *, reuse: bool = True, drafter: Drafter | None = None, **config: Any) -> StepEngine:
    """An engine on a tiny model: one thread unless said otherwise; `reuse` is the prefix cache."""
    usual: dict[str, Any] = {"threads": 1, "context": 256, "draft": "off", "reuse": reuse}
    settings = EngineConfig(**(usual | config))
    engine = open_engine(path, settings)
    assert isinstance(engine, StepEngine)
    engine.runner = Recorder(engine.runner)
    if drafter is not None:
        engine.speculator, engine.draft_mode = Eager([drafter]), drafter.name
    return engine


def rows_of(engine: StepEngine) -> dict[tuple[int, ...], bytes]:
    assert isinstance(engine.runner, Recorder)
    return engine.runner.rows


def said(events: Iterable[Event], handle: int) -> Said:
    """What one request said, from the events of many. Checks that the pieces make up the whole."""
    mine = [event for event in events if event.handle == handle]
    texts = [event for event in mine if isinstance(event, Text)]
    finished = mine[-1]
    assert isinstance(finished, Finished)
    assert finished.token_ids == tuple(token for event in texts for token in event.token_ids)
    return Said(finished.token_ids, "".join(event.text for event in texts), finished)


def run_one(engine: StepEngine, prompt: Sequence[int], sampling: SamplingParams = GREEDY, **request: Any) -> Said:
    events = list(engine.stream(Request(tuple(prompt), sampling, **request)))
    return said(events, events[0].handle)


def run_all(engine: StepEngine, prompts: Sequence[Sequence[int]], sampling: SamplingParams = GREEDY) -> list[Said]:
    """All at once, to the end."""
    handles = [engine.add(Request(tuple(prompt), sampling)) for prompt in prompts]
    events = finish(engine)
    return [said(events, handle) for handle in handles]


def finish(engine: StepEngine) -> list[Event]:
    """Step until there is nothing to do."""
    events: list[Event] = []
    while step := engine.step():
        events += step
    assert engine.scheduler.idle
    cache = engine.scheduler.cache
    assert isinstance(cache, PagedCache)
    assert cache.allocator.available == cache.allocator.count
    return events


def make_prompts(count: int = 6, seed: int = 1) -> list[list[int]]:
    """Prompts of many lengths; the last ones repeat themselves, for drafters and prefix caches to find."""
    rng = np.random.default_rng(seed)
    lengths = [1, 5, 33, 64, 100, 31, 32, 47, 90, 12, 3, 70, 2, 40, 65, 9]
    return [[int(t) for t in rng.integers(0, 256, lengths[i % len(lengths)])] for i in range(count)]
