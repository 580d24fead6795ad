"""Ctrl-C in the middle of a step, forks, threads: the program comes out of each in working order."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from localinfer import native
from tests.native.meaning import Shape, random_model
from tests.native.running import WIDTH, Floats, Runner, build, some_tokens

SLOW = Shape(hidden=256, heads=8, kv_heads=4, ffn=512, layers=12)


@contextmanager
def signal_soon(seconds: float) -> Iterator[None]:
    """SIGINT for this process after `seconds`, from another thread."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        yield
    finally:
        timer.join()


def interrupted_step(program: native.Program) -> None:
    """Run long prefills until a SIGINT ends one."""
    tokens = some_tokens(WIDTH * 32, 77)
    with pytest.raises(KeyboardInterrupt), signal_soon(0.1):  # noqa: PT012
        while True:
            Runner(program).step([(0, tokens)])


@pytest.mark.parametrize("threads", [1, 2])
def test_interrupt(threads: int) -> None:
    model = random_model(SLOW)
    program = build(model, threads=threads, isa="scalar", max_rows=32)
    expected = Runner(build(model, isa="scalar")).feed(some_tokens(20, 77), 20)
    for _ in range(3):
        interrupted_step(program)
        assert np.array_equal(Runner(program).feed(some_tokens(20, 77), 20), expected)


def test_an_exception_of_the_handler_comes_through() -> None:
    class EnoughError(Exception):
        pass

    def stop(*_: object) -> None:
        raise EnoughError

    program = build(random_model(SLOW), threads=2, isa="scalar", max_rows=32)
    before = signal.signal(signal.SIGINT, stop)
    try:
        with pytest.raises(EnoughError), signal_soon(0.1):  # noqa: PT012
            while True:
                Runner(program).step([(0, some_tokens(WIDTH * 32, 77))])
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_step_inside_a_step_is_refused() -> None:
    """A signal handler runs while the program is busy: it may not use it."""
    program = build(random_model(SLOW), threads=2, isa="scalar", max_rows=32)
    tokens = some_tokens(WIDTH * 32, 77)
    with pytest.raises(KeyboardInterrupt), signal_soon(0.1):  # noqa: PT012
        runner = Runner(program)
        before = signal.getsignal(signal.SIGINT)

        def nested(*_: object) -> None:
            with pytest.raises(RuntimeError, match="running a step already"):
                runner.step([(0, tokens[:1])])
            signal.signal(signal.SIGINT, before)
            raise KeyboardInterrupt

        signal.signal(signal.SIGINT, nested)
        while True:
            Runner(program).step([(0, tokens)])


def test_other_threads_run_meanwhile() -> None:
    """The GIL is free during a step, also when the step does not run on the main thread."""
    program = build(random_model(SLOW), threads=1, isa="scalar")
    done = threading.Event()

    def work() -> None:
        Runner(program).step([(0, some_tokens(WIDTH * 32, 77))])
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    ticks = 0
    while not done.is_set():
        time.sleep(0.001)
        ticks += 1
    thread.join()
    assert ticks > 3


def run_in_child(program: native.Program, expected: Floats) -> None:
    same = np.array_equal(Runner(program).feed(some_tokens(20, 77), 20), expected)
    del program
    os._exit(0 if same else 9)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork() -> None:
    """Threads do not survive a fork; the child starts its own, and the parent keeps what it had."""
    program = build(random_model(Shape()), threads=3)
    expected = Runner(program).feed(some_tokens(20, 77), 20)
    child = multiprocessing.get_context("fork").Process(target=run_in_child, args=(program, expected))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert np.array_equal(Runner(program).feed(some_tokens(20, 77), 20), expected)


def test_threads_end_with_the_program() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208

    before = count()
    programs = [build(random_model(Shape()), threads=3) for _ in range(4)]
    assert count() == before + 8
    Runner(programs[0]).feed(some_tokens(20, 77), 20)
    programs.clear()
    assert count() == before


def test_one_thread_starts_nothing() -> None:
    before = len(os.listdir("/proc/self/task"))  # noqa: PTH208
    program = build(random_model(Shape()), threads=1)
    Runner(program).feed(some_tokens(20, 77), 20)
    assert len(os.listdir("/proc/self/task")) == before  # noqa: PTH208


def test_waiting_threads_sleep() -> None:
    """Between steps the workers yield for a moment, then cost nothing."""
    program = build(random_model(Shape()), threads=4)
    Runner(program).feed(some_tokens(20, 77), 20)
    time.sleep(0.2)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1
