"""What the engine says, when requests come, end, are cancelled, overflow or are interrupted."""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer.config import SamplingParams
from localinfer.engine.protocol import Request
from localinfer.engine.runner import Runner
from localinfer.errors import ContextOverflow, UsageError
from localinfer.events import Event, Finished, Progress, Shifted, Started, Stats, Text
from localinfer.kv.cache import PagedCache
from localinfer.scheduler.sequence import Work
from tests.engine.running import GREEDY, SAMPLED, Passing, finish, make_prompts, open_tiny, rows_of, run_one, said
from tests.tiny import IM_END, make_checkpoint

PROMPT = tuple(make_prompts(4)[3])  # 64 tokens


def kinds(events: Sequence[Event]) -> list[str]:
    return [type(event).__name__ for event in events if not isinstance(event, Stats)]


def test_the_events_of_a_request_in_order(llama: Path) -> None:
    with open_tiny(llama, prefill_chunk=30) as engine:
        events = list(engine.stream(Request(PROMPT, SamplingParams(temperature=0, max_tokens=3, ignore_eos=True))))
    assert kinds(events) == ["Started", *["Progress"] * 3, *["Text"] * 3, "Finished"]
    assert events[0] == Started(1, 64, 256)
    progress = [event for event in events if isinstance(event, Progress)]
    assert [(p.done, p.total) for p in progress] == [(30, 64), (60, 64), (64, 64)]
    assert said(events, 1).finished.reason == "length"


def test_the_text_is_what_the_tokens_decode_to(llama: Path) -> None:
    """Random bytes: most are no whole character, and none is ever cut."""
    with open_tiny(llama) as engine:
        for seed in range(8):
            sampling = SamplingParams(temperature=2, top_k=0, top_p=1, max_tokens=60, seed=seed, ignore_eos=True)
            text = run_one(engine, PROMPT, sampling)
            assert text.text == engine.tokenizer.decode(text.token_ids)
            text.text.encode()


def ending_prompt(llama: Path, token: int) -> tuple[tuple[int, ...], SamplingParams]:
    """A prompt and a seed after which `token` comes within a few tokens, though not at once."""
    with open_tiny(llama) as engine:
        for seed in count():
            sampling = SamplingParams(temperature=1.5, top_k=0, top_p=1, max_tokens=40, seed=seed, ignore_eos=True)
            ids = run_one(engine, PROMPT, sampling).token_ids
            if token in ids[1:]:
                return ids, sampling
    raise AssertionError


def test_the_end_of_turn_ends_it_and_is_not_shown(llama: Path) -> None:
    ids, wild = ending_prompt(llama, IM_END)
    at = ids.index(IM_END)
    with open_tiny(llama) as engine:
        text = run_one(engine, PROMPT, SamplingParams(temperature=1.5, top_k=0, top_p=1, seed=wild.seed))
        assert text.token_ids == ids[:at]
        assert text.finished.reason == "stop"
        assert text.finished.stop is None
        assert "<|im_end|>" not in text.text
        ignored = run_one(engine, PROMPT, wild)
        assert ignored.token_ids == ids
        assert "<|im_end|>" not in ignored.text


def test_a_stop_string_across_tokens(llama: Path) -> None:
    with open_tiny(llama) as engine:
        whole = run_one(engine, PROMPT, GREEDY)
        ids = whole.token_ids
        cut = len(engine.tokenizer.decode(ids[:8]))
        stop = whole.text[cut - 1 : cut + 2]
        first = whole.text.index(stop)
        text = run_one(engine, PROMPT, SamplingParams(temperature=0, stop=("never", stop), max_tokens=24))
    assert text.text == whole.text[:first]
    assert text.finished.reason == "stop"
    assert text.finished.stop == stop
    assert ids[: len(text.token_ids)] == text.token_ids


def test_held_back_text_is_shown_when_nothing_follows(llama: Path) -> None:
    with open_tiny(llama) as engine:
        whole = run_one(engine, PROMPT, GREEDY)
        stop = whole.text[-2:] + "\0"
        text = run_one(engine, PROMPT, SamplingParams(temperature=0, stop=(stop,), max_tokens=24, ignore_eos=True))
    assert text.text == whole.text


def test_cancel_frees_with_the_next_step_and_keeps_what_was_written(llama: Path) -> None:
    with open_tiny(llama, parallel=2) as engine:
        plain = run_one(engine, PROMPT, GREEDY)
        handle, other = engine.add(Request(PROMPT, GREEDY)), engine.add(Request(PROMPT[:9], GREEDY))
        events = [event for _ in range(6) for event in engine.step()]
        engine.cancel(handle)
        events += engine.step()
        assert [s.handle for s in engine.scheduler.running] == [other]
        events += finish(engine)
        text = said(events, handle)
        assert text.finished.reason == "cancelled"
        assert 0 < len(text.token_ids) < 24
        assert plain.text.startswith(text.text)
        assert said(events, other).finished.reason == "length"
        engine.cancel(handle)
        engine.cancel(999)
        assert engine.step() == []


def test_cancel_while_waiting_and_while_reading(llama: Path) -> None:
    with open_tiny(llama, prefill_chunk=8) as engine:
        reading, waiting = engine.add(Request(PROMPT)), engine.add(Request(PROMPT))
        first = engine.step()
        assert kinds(first) == ["Started", "Started", "Progress"]
        engine.cancel(waiting)
        engine.cancel(reading)
        events = finish(engine)
        assert [event.handle for event in events] == [waiting, reading]
        phases = [event.stats.phase for event in events if isinstance(event, Finished)]
        assert phases == ["queued", "prefill"]


@pytest.mark.parametrize("length", [256, 300])
def test_a_prompt_longer_than_the_context(llama: Path, length: int) -> None:
    with open_tiny(llama) as engine:
        with pytest.raises(ContextOverflow, match=f"{length} tokens.* 256") as caught:
            engine.add(Request((1,) * length))
        assert caught.value.exit_code == 8
        assert "-c" in str(caught.value.hint)
        assert "--on-overflow shift" in str(caught.value.hint)
        assert engine.step() == []


def test_a_full_context_ends_the_text(llama: Path) -> None:
    with open_tiny(llama, context=70) as engine:
        text = run_one(engine, PROMPT, SamplingParams(temperature=0, ignore_eos=True))
    assert text.finished.reason == "overflow"
    assert len(text.token_ids) == 70 - 64
    assert text.finished.stats.context_used == text.finished.stats.context_size == 70


def test_shift_forgets_the_oldest_says_so_and_goes_on(llama: Path) -> None:
    sampling = SamplingParams(temperature=0, ignore_eos=True, max_tokens=60)
    with open_tiny(llama, context=70) as engine:
        events = list(engine.stream(Request(PROMPT, sampling, on_overflow="shift", keep=10)))
        text = said(events, 1)
        shifts = [event for event in events if isinstance(event, Shifted)]
        assert shifts == [Shifted(1, 30, 40)] * 2
        assert len(text.token_ids) == 60
        assert text.finished.reason == "length"
        at = events.index(shifts[0])
        before = [event.token_ids[0] for event in events[:at] if isinstance(event, Text)]
        kept = [*PROMPT[:10], *PROMPT[40:], *before]
        fresh = run_one(engine, kept, SamplingParams(temperature=0, ignore_eos=True, max_tokens=20))
        assert text.token_ids[len(before) :][:20] == fresh.token_ids, "after a shift it is the text of what was kept"


def test_a_long_prompt_is_shortened_visibly(llama: Path) -> None:
    prompt = tuple(i % 256 for i in range(500))
    sampling = SamplingParams(temperature=0, ignore_eos=True, max_tokens=5)
    with open_tiny(llama, context=100) as engine:
        events = list(engine.stream(Request(prompt, sampling, on_overflow="shift", keep=20)))
        assert events[:2] == [Started(1, 500, 100), Shifted(1, 440, 60)]
        kept = run_one(engine, [*prompt[:20], *prompt[460:]], sampling)
        assert said(events, 1).token_ids == kept.token_ids
        assert kept.finished.stats.prompt_tokens == 60
        with pytest.raises(ContextOverflow, match="98 tokens of the prompt must be kept"):
            engine.add(Request(prompt, sampling, on_overflow="shift", keep=98))
        with pytest.raises(ContextOverflow, match="97 tokens of the prompt must be kept"):
            engine.add(Request(prompt[:97], sampling, on_overflow="shift", keep=200))
        with pytest.raises(UsageError, match="-1 tokens"):
            engine.add(Request(prompt[:97], sampling, on_overflow="shift", keep=-1))


def test_requests_that_make_no_sense(llama: Path) -> None:
    with open_tiny(llama) as engine:
        with pytest.raises(UsageError, match="empty"):
            engine.add(Request(()))
        with pytest.raises(UsageError, match="token 320"):
            engine.add(Request((1, 320)))
        with pytest.raises(UsageError, match="token -1"):
            engine.add(Request((1, -1)))


class Interrupted(Passing):
    """Ctrl-C in every third step: before the native call, or after it wrote keys and values but before it returned."""

    def __init__(self, inner: Runner) -> None:
        super().__init__(inner)
        self._calls = 0

    def forward(self, batch: Sequence[Work]) -> NDArray[np.float32]:
        self._calls += 1
        if self._calls % 3 == 1:
            raise KeyboardInterrupt
        logits = self.inner.forward(batch)
        if self._calls % 3 == 2:
            raise KeyboardInterrupt
        return logits


def test_an_interrupted_step_is_as_if_it_had_not_been(llama: Path) -> None:
    with open_tiny(llama, parallel=2, reuse=False) as engine:
        plain = [run_one(engine, prompt, SAMPLED) for prompt in (PROMPT, PROMPT[:7])]
        rows = rows_of(engine)
    with open_tiny(llama, parallel=2, reuse=False, prefill_chunk=16, draft="lookup") as engine:
        engine.runner = Interrupted(engine.runner)
        handles = [engine.add(Request(prompt, SAMPLED)) for prompt in (PROMPT, PROMPT[:7])]
        third = engine.add(Request(PROMPT, SAMPLED))
        events: list[Event] = []
        interrupts = 0
        while not engine.idle:
            try:
                events += engine.step()
            except KeyboardInterrupt:
                interrupts += 1
            if interrupts == 20:
                engine.cancel(third)
        events += engine.step()
        assert interrupts > 20
        assert [said(events, h).token_ids for h in handles] == [p.token_ids for p in plain]
        assert isinstance(engine.scheduler.cache, PagedCache)
        assert engine.scheduler.cache.allocator.available == engine.scheduler.cache.allocator.count
        assert rows


def test_ctrl_c_inside_the_native_call(tmp_path: Path) -> None:
    """A real signal while a long prompt is read in one step; afterwards the same engine goes on as if nothing was."""
    path = make_checkpoint(tmp_path / "m", hidden_size=256, intermediate_size=1024, max_position_embeddings=4096)
    long = tuple(i % 256 for i in range(4000))
    with open_tiny(path, context=4096, prefill_chunk=4096, isa="scalar") as engine:
        handle = engine.add(Request(long, GREEDY))
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            engine.step()
        timer.join()
        assert engine.scheduler.running[0].computed == 0
        engine.cancel(handle)
        after = run_one(engine, PROMPT)
    with open_tiny(path) as engine:
        assert run_one(engine, PROMPT).token_ids == after.token_ids


def test_a_closed_engine_says_so(llama: Path) -> None:
    engine = open_tiny(llama)
    engine.close()
    engine.close()
    for use in (engine.step, lambda: engine.add(Request(PROMPT))):
        with pytest.raises(UsageError, match="closed"):
            use()


def ticking(step: float) -> Iterator[float]:
    return (i * step for i in count())


def test_stats_are_counted_with_the_clock_that_was_handed_in(llama: Path) -> None:
    """Each look at the clock is one second later: add, then twice a step (before and after the computation)."""
    with open_tiny(llama, prefill_chunk=32) as engine:
        run_one(engine, PROMPT[:40], SamplingParams(temperature=0, max_tokens=1, ignore_eos=True))
        ticks = ticking(1.0)
        engine.clock = lambda: next(ticks)
        sampling = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
        events = list(engine.stream(Request(PROMPT, sampling)))
    stats = said(events, 2).finished.stats
    assert stats == Stats(
        handle=2,
        phase="decode",
        prompt_tokens=64,
        cached_tokens=32,
        completion_tokens=4,
        context_used=68,
        context_size=256,
        queued_s=1.0,
        ttft_s=2.0,
        prefill_tok_s=32.0,
        decode_tok_s=0.5,
        recent_tok_s=0.5,
        itl_s=2.0,
        itl_p99_s=2.0,
        total_s=8.0,
        drafted=0,
        accepted=0,
        steps=4,
    )
    shown = [event for event in events if isinstance(event, Stats)]
    assert [(s.completion_tokens, s.ttft_s) for s in shown] == [(1, 2.0), (2, 2.0), (3, 2.0)]


def test_stats_come_ten_times_a_second_at_most(llama: Path) -> None:
    with open_tiny(llama) as engine:
        ticks = ticking(0.01)
        engine.clock = lambda: next(ticks)
        sampling = SamplingParams(temperature=0, max_tokens=100, ignore_eos=True)
        events = list(engine.stream(Request(PROMPT, sampling)))
    shown = [event for event in events if isinstance(event, Stats)]
    assert 18 <= len(shown) <= 22
    assert all(s.recent_tok_s == pytest.approx(50) for s in shown[1:])
