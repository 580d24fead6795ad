"""Everything at once: company, chunks, drafts, prefix reuse, shifts, stops, cancellations. Each text as if alone."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from localinfer.config import SamplingParams
from localinfer.engine.protocol import Request
from localinfer.events import Event, Shifted
from localinfer.kv.cache import PagedCache
from localinfer.speculation.lookup import LookupDrafter
from tests.engine.running import Said, open_tiny, said

CONTEXT = 120


def make_requests(seed: int, count: int) -> list[Request]:
    """Prompts that often begin alike, sampling of all kinds, some too long for the context."""
    rng = random.Random(seed)
    beginnings = [[rng.randrange(256) for _ in range(64)] for _ in range(2)]
    requests = []
    for i in range(count):
        prompt = rng.choice(beginnings)[: rng.choice([10, 64, 64])] + [
            rng.randrange(256) for _ in range(rng.randint(1, 60))
        ]
        sampling = SamplingParams(
            temperature=rng.choice([0.0, 0.0, 0.2, 1.2]),
            top_k=rng.choice([0, 5, 40]),
            repeat_penalty=rng.choice([1.0, 1.1]),
            frequency_penalty=rng.choice([0.0, 0.1]),
            dry_multiplier=rng.choice([0.0, 0.2]),
            xtc_probability=rng.choice([0.0, 0.5]),
            seed=i,
            max_tokens=rng.choice([1, 40, 80]),
            stop=rng.choice([(), (), ("e",), ("the", " a")]),
            ignore_eos=rng.random() < 0.8,
        )
        shift = len(prompt) >= CONTEXT or rng.random() < 0.5
        requests.append(Request(tuple(prompt), sampling, "shift" if shift else "error", keep=rng.choice([0, 5, 40])))
    return requests


def alone(path: Path, request: Request) -> tuple[Said, list[Shifted]]:
    with open_tiny(path, context=CONTEXT, reuse=False) as engine:
        events = list(engine.stream(request))
        return said(events, 1), [replace(event, handle=0) for event in events if isinstance(event, Shifted)]


@pytest.mark.parametrize("seed", range(3))
def test_everybody_gets_the_text_they_would_get_alone(circling: Path, seed: int) -> None:
    rng = random.Random(seed)
    requests = make_requests(seed, 40)
    cancelled: set[int] = set()
    events: list[Event] = []
    handles: list[int] = []
    with open_tiny(
        circling, context=CONTEXT, parallel=5, prefill_chunk=48, drafter=LookupDrafter(), threads=2
    ) as engine:
        while len(handles) < len(requests) or not engine.idle:
            if len(handles) < len(requests) and rng.random() < 0.4:
                handles.append(engine.add(requests[len(handles)]))
            if handles and rng.random() < 0.03:
                victim = rng.choice(handles)
                cancelled.add(victim)
                engine.cancel(victim)
            events += engine.step()
        events += engine.step()
        assert isinstance(engine.scheduler.cache, PagedCache)
        assert engine.scheduler.cache.allocator.available == engine.scheduler.cache.allocator.count
    reasons, accepted, cached = set(), 0, 0
    for handle, request in zip(handles, requests, strict=True):
        text, (plain, shifts) = said(events, handle), alone(circling, request)
        reasons.add(text.finished.reason)
        accepted += text.finished.stats.accepted
        cached += text.finished.stats.cached_tokens
        if text.finished.reason == "cancelled":
            assert handle in cancelled
            assert plain.token_ids[: len(text.token_ids)] == text.token_ids
            assert plain.text.startswith(text.text.removesuffix("\ufffd"))
            continue
        assert (text.token_ids, text.text) == (plain.token_ids, plain.text)
        assert (text.finished.reason, text.finished.stop) == (plain.finished.reason, plain.finished.stop)
        mine = [replace(event, handle=0) for event in events if isinstance(event, Shifted) and event.handle == handle]
        assert mine == shifts
    assert {"stop", "length"} <= reasons
    assert accepted > 0
    assert cached > 100
