"""Who steps an engine: requests from any thread, their events in order, and an end for each whatever happens."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer.config import SamplingParams
from localinfer.engine.engine import StepEngine
from localinfer.engine.protocol import Request
from localinfer.errors import LocalInferError, UsageError
from localinfer.events import Event, Finished, Started, Text
from localinfer.scheduler.sequence import Work
from tests.engine.running import GREEDY, SAMPLED, Passing, open_tiny, run_one, said

PROMPTS = [tuple(range(3, 3 + n)) for n in (1, 20, 40, 64)]
LONG = SamplingParams(temperature=0, max_tokens=150, ignore_eos=True)


class Held(Passing):
    """A runner that calls `before` with the number of each step."""

    before: Callable[[int], None]
    calls = 0

    def forward(self, batch: Sequence[Work]) -> NDArray[np.float32]:
        self.calls += 1
        self.before(self.calls)
        return self.inner.forward(batch)


def hold(engine: StepEngine, before: Callable[[int], None]) -> None:
    engine.runner = Held(engine.runner)
    engine.runner.before = before


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "engine"]


def together(*calls: Callable[[], object]) -> None:
    """Each in a thread, to its end."""
    running = [threading.Thread(target=call) for call in calls]
    for one in running:
        one.start()
    for one in running:
        one.join(60)
        assert not one.is_alive()


def test_streams_of_one_thread_and_of_many_say_what_each_says_alone(llama: Path) -> None:
    with open_tiny(llama, parallel=2) as engine:
        plain = [run_one(engine, prompt, SAMPLED).token_ids for prompt in PROMPTS]
        found: dict[int, tuple[int, ...]] = {}

        def read(i: int) -> None:
            found[i] = run_one(engine, PROMPTS[i], SAMPLED).token_ids

        together(*(lambda i=i: read(i) for i in range(4)))
        streams = [engine.stream(Request(prompt, SAMPLED)) for prompt in PROMPTS]
        events: list[Event] = []
        while streams:
            for stream in list(streams):
                event = next(stream, None)
                events += [event] if event else []
                streams = streams if event else [other for other in streams if other is not stream]
    assert [found[i] for i in range(4)] == plain
    assert [said(events, handle).token_ids for handle in sorted({event.handle for event in events})] == plain


def test_all_get_their_tokens_step_by_step(llama: Path) -> None:
    with open_tiny(llama, parallel=4) as engine:
        order = list[int]()

        def hear(events: list[Event]) -> None:
            order.extend(event.handle for event in events if isinstance(event, Text))

        with engine.driver.here() as driver:
            for prompt in PROMPTS:
                driver.submit(Request(prompt, GREEDY), hear)
            while driver.turn():
                pass
        assert [sorted(order[at : at + 4]) for at in range(0, 96, 4)] == [[1, 2, 3, 4]] * 24


def test_what_is_asked_during_a_step_is_told_at_once_and_a_cancel_waits_for_nobody(llama: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def before(step: int) -> None:
        if step == 3:
            begun.set()
            assert go_on.wait(60)

    with open_tiny(llama, parallel=4) as engine:
        hold(engine, before)
        first = engine.stream(Request(PROMPTS[0], LONG))
        assert isinstance(next(first), Started)
        assert begun.wait(60)
        second, third = (engine.stream(Request(prompt, GREEDY)) for prompt in PROMPTS[1:3])
        handles = [next(stream).handle for stream in (second, third)]
        assert handles == [2, 3]
        assert engine.load().queued == {2, 3}
        engine.cancel(1)
        engine.cancel(2)
        with pytest.raises(UsageError, match="another thread steps"):
            engine.step()
        go_on.set()
        ended = [list(stream)[-1] for stream in (first, second, third)]
        assert [one.reason for one in ended if isinstance(one, Finished)] == ["cancelled", "cancelled", "length"]
        assert [len(one.token_ids) for one in ended if isinstance(one, Finished)] == [3, 0, 24]
        assert engine.idle


def test_a_step_that_breaks_tells_all_who_wait_and_the_engine_goes_on(llama: Path) -> None:
    with open_tiny(llama, parallel=4) as engine:
        plain = [run_one(engine, prompt, GREEDY) for prompt in PROMPTS]
        inner, heard, errors = engine.runner, dict[int, list[Event]](), dict[int, BaseException]()
        all_in = threading.Barrier(4)

        def before(step: int) -> None:
            if engine.load().decode_rows == 4:
                raise RuntimeError("the card is gone")

        def read(i: int) -> None:
            stream = engine.stream(Request(PROMPTS[i], LONG))
            heard[i] = [next(stream)]
            all_in.wait(60)
            try:
                heard[i] += stream
            except LocalInferError as error:
                errors[i] = error

        hold(engine, before)
        together(*(lambda i=i: read(i) for i in range(4)))
        assert {str(error) for error in errors.values()} == {"RuntimeError: the card is gone"}
        assert len(errors) == 4
        for i, events in heard.items():
            tokens = [token for event in events if isinstance(event, Text) for token in event.token_ids]
            assert 0 < len(tokens) < 150
            assert tokens[:24] == list(plain[i].token_ids)[: len(tokens)]
        assert (engine.idle, engine.scheduler.idle) == (True, True)
        engine.runner = inner
        assert run_one(engine, PROMPTS[0], GREEDY).text == plain[0].text


def test_an_interrupt_in_the_drivers_own_thread_comes_out_of_the_stream(llama: Path) -> None:
    def interrupt(step: int) -> None:
        raise KeyboardInterrupt

    with open_tiny(llama) as engine:
        plain, inner = run_one(engine, PROMPTS[3]), engine.runner
        hold(engine, interrupt)
        with pytest.raises(KeyboardInterrupt):
            list(engine.stream(Request(PROMPTS[3])))
        assert engine.scheduler.idle
        engine.runner = inner
        assert run_one(engine, PROMPTS[3]).token_ids == plain.token_ids


@pytest.mark.parametrize("to", ["here", "process", "driver"])
def test_ctrl_c_ends_the_request_and_its_last_words_still_come(llama: Path, to: str) -> None:
    def before(step: int) -> None:
        if step == 5:
            time.sleep(0.0 if to == "here" else 2.0)  # whoever reads is in `stream` again, not in its own code
            if to == "driver":  # the reader is not woken: the signal is seen when the next event has come
                signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            else:
                os.kill(os.getpid(), signal.SIGINT)

    def read(engine: StepEngine) -> list[Event]:
        events = list[Event]()
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            for event in engine.stream(Request(PROMPTS[1], LONG)):
                events.append(event)
        return events

    with open_tiny(llama) as engine:
        hold(engine, before)
        if to == "here":
            with engine.driver.here():
                events = read(engine)
        else:
            events = read(engine)
        text = said(events, 1)
        assert text.finished.reason == "cancelled"
        assert 4 <= len(text.token_ids) < 150
        assert engine.scheduler.idle


def test_leaving_a_stream_cancels_it(llama: Path) -> None:
    with open_tiny(llama) as engine:
        stream = engine.stream(Request(PROMPTS[3], LONG))
        assert any(isinstance(event, Text) for event in stream)
        del stream
        engine.driver.drain()
        assert engine.scheduler.idle
        assert engine.step() == []


def test_closing_ends_streams_that_wait_and_closing_twice_is_fine(llama: Path) -> None:
    begun, heard = threading.Event(), list[str]()
    engine = open_tiny(llama)
    hold(engine, lambda step: begun.set() if step == 2 else None)

    def read() -> None:
        try:
            list(engine.stream(Request(PROMPTS[0], SamplingParams(ignore_eos=True), "shift")))
        except UsageError as error:
            heard.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(60)
    engine.close()
    engine.close()
    reader.join(60)
    assert heard == ["the engine is closed"]
    with pytest.raises(UsageError, match="closed"):
        next(engine.stream(Request(PROMPTS[0])))


def test_no_thread_is_there_when_nobody_waits(llama: Path) -> None:
    with open_tiny(llama) as engine:
        run_one(engine, PROMPTS[1])
        engine.driver.drain()
        for thread in threads():
            thread.join(60)
        assert threads() == []


def test_here_the_caller_steps_and_nothing_runs_on_afterwards(llama: Path) -> None:
    with open_tiny(llama, parallel=2) as engine:
        plain = [run_one(engine, prompt).token_ids for prompt in PROMPTS[:2]]
        who, heard = set[int](), list[Event]()
        hold(engine, lambda step: who.add(threading.get_ident()))
        ids: list[list[int]] = [[], []]
        for events in engine.driver.steps([Request(prompt, GREEDY) for prompt in PROMPTS[:2]]):
            for mine, one in zip(ids, events, strict=True):
                mine += [token for event in one if isinstance(event, Text) for token in event.token_ids]
        assert [tuple(mine) for mine in ids] == plain
        with engine.driver.here() as driver:
            driver.submit(Request(PROMPTS[0], LONG), heard.extend)
            assert driver.turn()
            text = next(event for event in engine.stream(Request(PROMPTS[1], GREEDY)) if isinstance(event, Finished))
        assert text.token_ids == plain[1]
        assert isinstance(heard[-1], Finished)
        assert heard[-1].reason == "cancelled"
        assert who == {threading.get_ident()}
        assert engine.step() == []


def test_an_error_here_is_raised_as_it_is(llama: Path) -> None:
    def broken(step: int) -> None:
        if step == 3:
            raise RuntimeError("the card is gone")

    with open_tiny(llama) as engine:
        hold(engine, broken)
        with pytest.raises(RuntimeError, match="the card is gone"):
            list(engine.driver.steps([Request(PROMPTS[0], LONG)]))
        assert engine.scheduler.idle


async def test_for_one_event_loop(llama: Path) -> None:
    with open_tiny(llama, parallel=2) as engine:
        plain = [run_one(engine, prompt, SAMPLED).token_ids for prompt in PROMPTS]

        async def read(prompt: tuple[int, ...]) -> tuple[int, ...]:
            events = [event async for event in engine.driver.astream(Request(prompt, SAMPLED))]
            return said(events, events[0].handle).token_ids

        assert list(await asyncio.gather(*map(read, PROMPTS))) == plain
        begun = asyncio.Event()

        async def endless() -> None:
            async for _ in engine.driver.astream(Request(PROMPTS[0], SamplingParams(ignore_eos=True), "shift")):
                begun.set()

        task = asyncio.create_task(endless())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(engine.driver.drain)
        assert engine.scheduler.idle
        with pytest.raises(UsageError, match="empty"):
            await anext(engine.driver.astream(Request(())))


def test_a_loop_that_is_gone_does_no_harm(llama: Path) -> None:
    with open_tiny(llama) as engine:
        loop = asyncio.new_event_loop()
        stream = engine.driver.astream(Request(PROMPTS[0], LONG))
        loop.run_until_complete(anext(stream))
        loop.close()
        assert len(run_one(engine, PROMPTS[1]).token_ids) == 24


def test_the_program_ends_while_a_stream_is_open(llama: Path) -> None:
    code = (
        "from localinfer import EngineConfig, Request, SamplingParams, open_engine\n"
        f"engine = open_engine({str(llama)!r}, EngineConfig(threads=1, context=256))\n"
        "stream = engine.stream(Request((1, 2, 3), SamplingParams(ignore_eos=True), 'shift'))\n"
        "print(next(stream))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("Started")


def test_one_that_is_read_no_more_holds_up_nobody(llama: Path) -> None:
    """What an unread stream says waits for its reader."""

    def others(engine: StepEngine) -> Iterator[tuple[int, ...]]:
        for prompt in PROMPTS:
            yield run_one(engine, prompt).token_ids

    with open_tiny(llama, parallel=2) as engine:
        plain = [run_one(engine, PROMPTS[0], LONG).token_ids, *others(engine)]
        unread = engine.stream(Request(PROMPTS[0], LONG))
        begun = next(unread)
        found = list(others(engine))
        assert [said([begun, *unread], begun.handle).token_ids, *found] == plain
