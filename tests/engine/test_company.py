"""Requests in company: on time, in turn, and the same text whatever the others do."""

import random
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer.config import SamplingParams
from localinfer.engine.protocol import Request
from localinfer.events import Event, Finished, Stats
from localinfer.scheduler.sequence import Work
from tests.engine.running import open_tiny

PAIRS, VOCAB = 1000, 256


def request(rng: random.Random, vocab: int) -> Request:
    """A random text of 1 to 60 tokens, greedy or sampled, with 1 to 12 more to come."""
    prompt = tuple(rng.randrange(3, vocab) for _ in range(rng.randint(1, 60)))
    params = SamplingParams(
        temperature=rng.choice([0.0, 0.8]), seed=rng.randrange(99), max_tokens=rng.randint(1, 12), ignore_eos=True
    )
    return Request(prompt, params)


def ended(events: list[Event]) -> dict[int, Finished]:
    return {event.handle: event for event in events if isinstance(event, Finished)}


def test_a_thousand_pairs_alone_and_in_company(llama: Path) -> None:
    """One joins while the other runs; prefix reuse is on, so pairs also meet what earlier ones left."""
    rng = random.Random(5)
    with open_tiny(llama, parallel=1, reuse=False) as alone, open_tiny(llama, parallel=2, prefill_chunk=16) as engine:
        for _ in range(PAIRS):
            two = [request(rng, VOCAB) for _ in range(2)]
            want = [next(e for e in alone.stream(one) if isinstance(e, Finished)).token_ids for one in two]
            handles, events = [engine.add(two[0])], list[Event]()
            for _ in range(rng.randint(0, 4)):
                events += engine.step()
            handles.append(engine.add(two[1]))
            while len(found := ended(events)) < 2:
                events += engine.step()
            assert [found[handle].token_ids for handle in handles] == want


def test_parked_texts_say_the_same(llama: Path) -> None:
    """Six texts in a cache for two: they are preempted and come back, with drafts and without, to the same end."""
    rng = random.Random(7)
    params = SamplingParams(temperature=0.7, max_tokens=150, ignore_eos=True)
    asked = [Request(tuple(rng.randrange(3, VOCAB) for _ in range(20)), params) for _ in range(6)]
    with open_tiny(llama, context=192, reuse=False) as alone:
        want = [next(e for e in alone.stream(one) if isinstance(e, Finished)).token_ids for one in asked]
    for draft in ("off", "lookup"):
        with open_tiny(llama, parallel=6, context=192, kv_tokens=400, draft=draft) as engine:
            handles = [engine.add(one) for one in asked]
            events = list[Event]()
            while len(ended(events)) < 6:
                events += engine.step()
            load = engine.load()
        assert [ended(events)[handle].token_ids for handle in handles] == want
        assert load.preemptions > 0
        assert any(isinstance(event, Stats) and event.phase == "preempted" for event in events)
        assert (load.running, load.waiting, load.used, load.shared) == (0, 0, 0, 0)
        assert load.kept > 0


def test_load_counts_what_a_step_holds(llama: Path) -> None:
    with open_tiny(llama, parallel=3, prefill_chunk=64) as engine:
        prompt = tuple(range(3, 3 + 40))
        engine.add(Request(prompt, SamplingParams(max_tokens=30, ignore_eos=True)))
        engine.step()
        assert (engine.load().prefill_rows, engine.load().decode_rows) == (40, 0)
        engine.add(Request((*prompt, 3), SamplingParams(max_tokens=30, ignore_eos=True)))
        engine.step()
        load = engine.load()
        assert (load.prefill_rows, load.decode_rows, load.running) == (9, 1, 2)
        assert (load.used, load.shared) == (3, 1)


def test_load_names_those_that_have_not_begun(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks while a step is under way learns who is in it."""
    with open_tiny(llama, parallel=1) as engine:
        one, two = (engine.add(Request((3, 4, 5), SamplingParams(max_tokens=2, ignore_eos=True))) for _ in range(2))
        assert engine.load().queued == {one, two}
        forward, seen = engine.runner.forward, list[frozenset[int]]()

        def watched(batch: list[Work]) -> NDArray[np.float32]:
            seen.append(engine.load().queued)
            return forward(batch)

        monkeypatch.setattr(engine.runner, "forward", watched)
        while engine.step():
            pass
        assert seen == [{two}, {two}, set(), set()]
        assert engine.load().queued == set()
