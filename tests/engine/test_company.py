"""Requests in company: on time, in turn, and the same text whatever the others do."""

import random
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer.config import SamplingParams
from localinfer.engine.fair_lock import FairLock
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


def test_the_lock_is_given_in_turn() -> None:
    """A thread that takes it in a loop lets others in after one round."""
    lock, stop, rounds = FairLock(), threading.Event(), 0

    def loop() -> None:
        nonlocal rounds
        while not stop.is_set():
            with lock, lock:
                rounds += 1
                time.sleep(0.002)

    thread = threading.Thread(target=loop)
    thread.start()
    while rounds < 2:
        time.sleep(0.001)
    waited = []
    for _ in range(30):
        before = rounds
        with lock:
            waited.append(rounds - before)
    stop.set()
    thread.join()
    assert sorted(waited)[len(waited) // 2] <= 2


def test_the_lock_is_given_to_many_in_the_order_they_asked() -> None:
    """Of eight that ask again and again, none comes twice before another one that waits."""
    lock, order = FairLock(), list[int]()

    def loop(which: int) -> None:
        for _ in range(60):
            with lock:
                order.append(which)
                time.sleep(0.002)  # all others ask meanwhile

    threads = [threading.Thread(target=loop, args=(which,)) for which in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    full = order[40:-80]
    waited = [full.index(which, at + 1) - at for at, which in enumerate(full[:-40])]
    assert max(waited) <= 12


def test_who_is_ahead_comes_before_all_that_wait() -> None:
    lock, order = FairLock(), list[str]()

    def take(name: str, *, ahead: bool) -> None:
        with lock.ahead() if ahead else lock:
            order.append(name)

    threads = [threading.Thread(target=take, args=(name,), kwargs={"ahead": name == "c"}) for name in "abc"]
    with lock, lock.ahead():
        for thread in threads:
            thread.start()
            while len(lock._line) <= threads.index(thread):
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == ["c", "a", "b"]


def test_the_lock_goes_on_when_one_that_waits_is_interrupted() -> None:
    lock, got = FairLock(), list[int]()

    def take(which: int) -> None:
        with lock:
            got.append(which)

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    holds, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            holds.set()
            let_go.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert holds.wait(60)
    try:
        threading.Timer(0.1, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1)).start()
        with pytest.raises(KeyboardInterrupt):
            take(1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    let_go.set()
    holder.join()
    take(2)
    assert got == [2]


def test_cancelling_from_another_thread_takes_effect_with_the_next_step(llama: Path) -> None:
    with open_tiny(llama, parallel=4, context=512) as engine:
        params = SamplingParams(max_tokens=400, ignore_eos=True)
        ends: dict[int, int] = {}

        def stream(which: int) -> None:
            for event in engine.stream(Request((5 + which,), params)):
                if isinstance(event, Finished):
                    ends[which] = len(event.token_ids)

        threads = [threading.Thread(target=stream, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        while engine.load().decode_rows < 4:
            time.sleep(0.001)
        for handle in (1, 2, 3, 4):
            engine.cancel(handle)
        assert engine.load().used == 0
        for thread in threads:
            thread.join(10)
        assert len(ends) == 4
        assert min(ends.values()) < 400
