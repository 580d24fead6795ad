"""One repetition of one test, through the engine as everybody uses it; nothing is timed from inside.

Prompts are random tokens from a seed, another one each repetition: no prefix can be found in the cache unless the test
puts it there. Generation is greedy and does not stop at the end-of-turn token, so its ids are a fingerprint of the
arithmetic.
"""

import random
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

from localinfer.bench.plan import BenchTest
from localinfer.config import SamplingParams
from localinfer.cost.energy import Meter
from localinfer.engine.protocol import Engine, Request
from localinfer.errors import LocalInferError, UsageError
from localinfer.events import Event, Finished, tokens_of

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
            run_out(engine, before)
        return _run(engine, tokens, 1, clock, meter)
    return _run(engine, tokens, test.generate + 1, clock, meter)


def random_tokens(engine: Engine, count: int, seed: str) -> tuple[int, ...]:
    """`count` ordinary token ids, the same for a seed on every machine."""
    rng = random.Random(seed)
    special = {*engine.tokenizer.eos_ids, engine.tokenizer.bos_id}
    allowed = [token for token in range(engine.tokenizer.vocab_size) if token not in special]
    return tuple(rng.choice(allowed) for _ in range(count))


def run_out(engine: Engine, prompt: tuple[int, ...], new: int = 1) -> None:
    """Generate `new` tokens after `prompt`, for what is in the caches then."""
    for _ in engine.driver.steps([Request(prompt, _greedy(new))]):
        pass


def _greedy(new: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=new, ignore_eos=True)


def _run(engine: Engine, prompt: tuple[int, ...], new: int, clock: Clock, meter: Meter | None) -> Sample:
    times: list[float] = []
    gaps: list[float] = []
    heard = 0
    before = meter.joules() if meter else None
    started = clock()
    with closing(engine.driver.steps([Request(prompt, _greedy(new))])) as steps:
        for (events,) in steps:
            now, landed = clock(), len(tokens_of(events))
            if landed:
                heard += landed
                gaps += [(now - times[-1]) / landed] * landed if times else []
                times.append(now)
                if len(times) == 1 and new > 1:
                    before = meter.joules() if meter else None  # generation is counted from its first token on
            ended = events[-1]
    after = meter.joules() if meter else None
    assert isinstance(ended, Finished)
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
    prompts = [random_tokens(engine, test.depth + 1, f"{seed}/{i}") for i in range(test.streams)]
    for prompt in prompts if test.depth else []:
        run_out(engine, prompt)
    started = clock()
    ids: list[list[int]] = [[] for _ in prompts]
    sampling = _greedy(test.generate + 2 * test.streams)
    with closing(engine.driver.steps([Request(prompt, sampling) for prompt in prompts])) as steps:
        while not all(ids):
            _take(next(steps), ids)
        times = [clock()]
        before = meter.joules() if meter else None
        for _ in range(test.generate):
            if _take(next(steps), ids) != test.streams:
                raise UsageError(
                    f"{test.streams} sequences do not run at once", hint=f"add `--prefill-chunk {32 * test.streams}`"
                )
            times.append(clock())
        after = meter.joules() if meter else None
    seconds = times[-1] - times[0]
    tokens = test.generate * test.streams
    return Sample(
        tok_s=tokens / seconds if seconds > 0 else 0.0,
        ttft_s=times[0] - started,
        gaps_s=tuple(b - a for a, b in pairwise(times)),
        token_ids=tuple(token for mine in ids for token in mine[: test.generate]),
        seconds=seconds,
        tokens=tokens,
        joules=None if before is None or after is None else after - before,
        drafted=0,
        accepted=0,
    )


def _take(said: Sequence[list[Event]], ids: Sequence[list[int]]) -> int:
    """Note the new tokens of every sequence; gives how many sequences spoke."""
    new = [tokens_of(events) for events in said]
    for mine, tokens in zip(ids, new, strict=True):
        mine += tokens
    return sum(map(bool, new))


def measure_step(engine: Engine, rows: int, steps: int, seed: int, clock: Clock) -> list[float]:
    """Seconds of `steps` steps that move `rows` sequences forward together, each by one token.

    The engine must have been opened for at least `rows` sequences, without drafts.
    """
    prompts = [random_tokens(engine, 8, f"{seed}/rows{rows}/{i}") for i in range(rows)]
    ids: list[list[int]] = [[] for _ in prompts]
    seconds: list[float] = []
    with closing(engine.driver.steps([Request(prompt, _greedy(steps + rows + 2)) for prompt in prompts])) as stepping:
        while not all(ids):
            _take(next(stepping), ids)
        while len(seconds) < steps:
            started = clock()
            said = next(stepping)
            seconds.append(clock() - started)
            if _take(said, ids) != rows:
                raise UsageError(f"{rows} sequences do not run at once", hint=f"add `--parallel {rows}`")
    return seconds
