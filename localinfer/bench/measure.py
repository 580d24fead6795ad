"""One repetition of one test, through the engine as everybody uses it; nothing is timed from inside.

Prompts are random tokens from a seed, another one each repetition: no prefix can be found in the cache unless the test
puts it there. Generation is greedy and does not stop at the end-of-turn token, so its ids are a fingerprint of the
arithmetic.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from localinfer.bench.plan import BenchTest
from localinfer.config import SamplingParams
from localinfer.cost.energy import Meter
from localinfer.engine.protocol import Engine, Request
from localinfer.errors import LocalInferError, UsageError
from localinfer.events import Event, Finished, Text

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Sample:
    """What one repetition gave. Times in seconds."""

    tok_s: float
    """Prompt tokens computed a second up to the first new token, or new tokens a second after the first."""
    ttft_s: float
    gaps_s: tuple[float, ...]
    """Of each new token after the first step's: the time of its step over the tokens that landed in it."""
    token_ids: tuple[int, ...]
    seconds: float
    """The timed part."""
    tokens: int
    """Tokens in the timed part."""
    joules: float | None
    drafted: int
    accepted: int


def measure(engine: Engine, test: BenchTest, repetition: int, seed: int, clock: Clock, meter: Meter | None) -> Sample:
    """Run `test` once. Raises `UsageError` when the engine's context is too short for it."""
    if test.context > engine.context_size:
        raise UsageError(
            f"`{test.name}` needs a context of {test.context} tokens, but it is {engine.context_size}",
            hint=f"add `-c {test.context}`",
        )
    if test.streams > 1:
        return _run_together(engine, test, f"{seed}/{test.name}", clock, meter)
    # Named after the test, so that one more test in the list does not change the others' prompts.
    # What lies before is the same each time and so found in the cache.
    before = random_tokens(engine, test.depth, f"{seed}/{test.name}/before")
    tokens = before + random_tokens(engine, max(test.prompt, 1), f"{seed}/{test.name}/{repetition}")
    if test.prompt:
        if test.depth:
            _drain(engine, before)
        return _run(engine, tokens, 1, clock, meter)
    return _run(engine, tokens, test.generate + 1, clock, meter)


def random_tokens(engine: Engine, count: int, seed: str) -> tuple[int, ...]:
    """`count` ordinary token ids, the same for a seed on every machine."""
    rng = random.Random(seed)
    special = {*engine.tokenizer.eos_ids, engine.tokenizer.bos_id}
    allowed = [token for token in range(engine.tokenizer.vocab_size) if token not in special]
    return tuple(rng.choice(allowed) for _ in range(count))


def _drain(engine: Engine, prompt: tuple[int, ...]) -> None:
    for _ in engine.stream(Request(prompt, SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True))):
        pass


def _run(engine: Engine, prompt: tuple[int, ...], new: int, clock: Clock, meter: Meter | None) -> Sample:
    request = Request(prompt, SamplingParams(temperature=0.0, max_tokens=new, ignore_eos=True))
    times: list[float] = []
    gaps: list[float] = []
    heard = 0
    ended: Finished | None = None
    before = meter.joules() if meter else None
    started = clock()
    handle = engine.add(request)
    try:
        while ended is None:
            events = engine.step()
            landed = sum(len(one.token_ids) for one in events if isinstance(one, Text) and one.handle == handle)
            if landed:
                now, heard = clock(), heard + landed
                gaps += [(now - times[-1]) / landed] * landed if times else []
                times.append(now)
                if len(times) == 1 and new > 1:
                    before = meter.joules() if meter else None  # generation is counted from its first token on
            ended = next((one for one in events if isinstance(one, Finished) and one.handle == handle), None)
    finally:
        if ended is None:
            engine.cancel(handle)
            engine.step()
    after = meter.joules() if meter else None
    ended.raise_error()
    stats, made = ended.stats, len(ended.token_ids)
    if made != new or heard != new:
        raise LocalInferError(f"the engine made {made} of {new} tokens", hint="report this, with the command")
    seconds = times[-1] - times[0] if new > 1 else times[0] - started
    count = new - 1 if new > 1 else stats.prompt_tokens - stats.cached_tokens
    return Sample(
        tok_s=count / seconds if seconds > 0 else 0.0,
        ttft_s=times[0] - started,
        gaps_s=tuple(gaps),
        token_ids=ended.token_ids,
        seconds=seconds,
        tokens=count,
        joules=None if before is None or after is None else after - before,
        drafted=stats.drafted,
        accepted=stats.accepted,
    )


def _run_together(engine: Engine, test: BenchTest, seed: str, clock: Clock, meter: Meter | None) -> Sample:
    """All streams of a test, timed from when the last of them has spoken: `generate` steps, one token each."""
    sampling = SamplingParams(temperature=0.0, max_tokens=test.generate + 2 * test.streams, ignore_eos=True)
    prompts = [random_tokens(engine, test.depth + 1, f"{seed}/{i}") for i in range(test.streams)]
    for prompt in prompts if test.depth else []:
        _drain(engine, prompt)
    started = clock()
    handles = [engine.add(Request(prompt, sampling)) for prompt in prompts]
    ids: dict[int, list[int]] = {handle: [] for handle in handles}
    try:
        while not all(ids.values()):
            _take(engine.step(), ids)
        times = [clock()]
        before = meter.joules() if meter else None
        for _ in range(test.generate):
            if _take(engine.step(), ids) != test.streams:
                raise UsageError(
                    f"{test.streams} sequences do not run at once", hint=f"add `--prefill-chunk {32 * test.streams}`"
                )
            times.append(clock())
        after = meter.joules() if meter else None
    finally:
        for handle in handles:
            engine.cancel(handle)
        engine.step()
    seconds = times[-1] - times[0]
    tokens = test.generate * test.streams
    return Sample(
        tok_s=tokens / seconds if seconds > 0 else 0.0,
        ttft_s=times[0] - started,
        gaps_s=tuple(b - a for a, b in pairwise(times)),
        token_ids=tuple(token for handle in handles for token in ids[handle][: test.generate]),
        seconds=seconds,
        tokens=tokens,
        joules=None if before is None or after is None else after - before,
        drafted=0,
        accepted=0,
    )


def _take(events: Iterable[Event], ids: dict[int, list[int]]) -> int:
    """Note the new tokens of every sequence; gives how many sequences spoke."""
    spoke = set()
    for event in events:
        if isinstance(event, Text) and event.token_ids and event.handle in ids:
            ids[event.handle] += event.token_ids
            spoke.add(event.handle)
        elif isinstance(event, Finished):
            event.raise_error()
    return len(spoke)


def measure_step(engine: Engine, rows: int, steps: int, seed: int, clock: Clock) -> list[float]:
    """Seconds of `steps` steps that move `rows` sequences forward together, each by one token.

    The engine must have been opened for at least `rows` sequences, without drafts.
    """
    sampling = SamplingParams(temperature=0.0, max_tokens=steps + rows + 2, ignore_eos=True)
    prompts = [random_tokens(engine, 8, f"{seed}/rows{rows}/{i}") for i in range(rows)]
    handles = [engine.add(Request(prompt, sampling)) for prompt in prompts]
    seconds: list[float] = []
    try:
        speaking: set[int] = set()
        while len(speaking) < rows:
            speaking |= {event.handle for event in engine.step() if isinstance(event, Text)}
        while len(seconds) < steps:
            started = clock()
            events = engine.step()
            ended = clock()
            if len({event.handle for event in events if isinstance(event, Text)}) != rows:
                raise UsageError(f"{rows} sequences do not run at once", hint=f"add `--parallel {rows}`")
            seconds.append(ended - started)
    finally:
        for handle in handles:
            engine.cancel(handle)
        engine.step()
    return seconds
