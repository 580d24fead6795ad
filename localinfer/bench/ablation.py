"""The ablation: from the naive way to everything on, step by step, all of it in one run on this machine.

The variants take turns, round by round, on the same prompts; a token's price is that of the whole answer, its prompt
included. A variant that may not change a token is checked token by token against the one it stands on.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from localinfer.bench.measure import Clock
from localinfer.bench.naive import Naive, answer, open_naive
from localinfer.bench.run import pool_for
from localinfer.config import Draft, EngineConfig, KvBits, SamplingParams
from localinfer.cost.energy import Meter
from localinfer.cost.roofline import Traffic, traffic
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Engine, Request
from localinfer.errors import LocalInferError
from localinfer.events import Finished, OnProgress, Stats, output_hash, tokens_of
from localinfer.graph.weights import Checkpoint

NAIVE, NATIVE = "naive bf16", "native bf16"
REPEATS = 4
"""How often the many-streams variant answers each prompt, so that its streams are busy most of the time."""

Prompts = Sequence[tuple[int, ...]]
ToPrompts = Callable[[Engine], Prompts]
TakeTurn = Callable[["Prompts"], "Turn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What one variant of the ablation runs, and how."""

    name: str
    path: Path
    stands_on: str | None
    """The variant that it is compared with as the one before; the lowest stands on nothing."""
    kv_bits: KvBits = 16
    draft: Draft = "off"
    streams: int = 1
    same_text: bool = False
    """Whether every token must be that of the variant it stands on."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One variant's answers to all prompts, once. Times in seconds."""

    ids: tuple[tuple[int, ...], ...]
    seconds: float
    decode_s: float
    """From first tokens to last ones, summed; of many streams: like `seconds`."""
    steps: int
    """Times that the weights were read to write tokens."""
    joules: float | None
    prompt: float = 0.0
    """Tokens of a prompt, on average."""
    drafts: tuple[int, ...] = ()
    """How many steps checked 0, 1, 2, … guesses."""

    @property
    def tokens(self) -> int:
        return sum(map(len, self.ids))


@dataclass(slots=True)
class VariantResult:
    """A variant and its turns, one a round."""

    variant: Variant
    reads: Traffic
    bits_per_weight: float
    settings: str
    step_s: Mapping[int, float]
    """Seconds of a step by its rows, as measured at load; empty for the naive way."""
    turns: list[Turn] = field(default_factory=list)

    @property
    def tok_s(self) -> float:
        """Tokens of answers a second, prompts included; the median of the rounds."""
        return statistics.median(turn.tokens / turn.seconds for turn in self.turns)

    @property
    def is_steady(self) -> bool:
        """The same tokens in each round."""
        return all(turn.ids == self.turns[0].ids for turn in self.turns)


def variants_of(forms: Mapping[str, Path], base: str, kv_bits: KvBits, streams: int, *, drafts: bool) -> list[Variant]:
    """The variants over `forms` (`BF16`, `INT8`, `INT4`, `INT3` and their paths); the upper ones stand on form `base`.

    Without `drafts` nothing guesses: text of random weights cannot be guessed.
    """
    found = [Variant(name=NAIVE, path=forms["BF16"], stands_on=None)]
    found.append(Variant(name=NATIVE, path=forms["BF16"], stands_on=NAIVE))
    for form in ("INT8", "INT4", "INT3"):
        found.append(Variant(name=form, path=forms[form], stands_on=found[-1].name))
    draft: Draft = "off"
    below = base
    if drafts:
        draft, name = "auto", f"{base} + speculation"
        found.append(
            Variant(name=name, path=forms[base], stands_on=below, draft=draft, same_text=True),
        )
        below = name
    name = f"{below} + KV INT{kv_bits}"
    found.append(Variant(name=name, path=forms[base], stands_on=below, kv_bits=kv_bits, draft=draft))
    found.append(
        Variant(
            name=f"{name} + {streams} streams",
            path=forms[base],
            stands_on=name,
            kv_bits=kv_bits,
            draft=draft,
            streams=streams,
            same_text=True,
        )
    )
    return found


def measure_variants(
    variants: Sequence[Variant],
    config: EngineConfig,
    to_prompts: ToPrompts,
    *,
    most: int,
    context: int,
    rounds: int,
    to_the_end: bool,
    meter: Meter | None = None,
    plain: bool = False,
    on_progress: OnProgress = lambda what, done, total: None,
    clock: Clock = time.perf_counter,
) -> list[VariantResult]:
    """Answer all prompts on each variant, `rounds` times, in turn. Answers have at most `most` tokens; with
    `to_the_end` they end where the model ends them, else they have exactly so many. `plain` as in `open_naive`.

    Raises `LocalInferError` when a variant that may not change a token does, or a variant another from round to round.
    """
    with ExitStack() as stack:
        found: dict[str, VariantResult] = {}
        turns: dict[str, TakeTurn] = {}
        for number, variant in enumerate(variants[1:]):  # ours first: they know the tokens of the prompts
            on_progress(f"loading {variant.name}", number, len(variants))
            engine = stack.enter_context(
                open_engine(variant.path, _config(config, variant, context), backend="cpu", name=variant.name)
            )
            found[variant.name] = _empty_result(variant, engine)
            turns[variant.name] = _our_turn(engine, variant, most, to_the_end, meter, clock)
        prompts = to_prompts(engine)
        ends = frozenset(engine.tokenizer.eos_ids) if to_the_end else frozenset[int]()
        naive = open_naive(variants[0].path, engine.info.threads, plain=plain)
        found[NAIVE] = VariantResult(variants[0], traffic(variants[0].path, 16), 16.0, naive.name, {})
        turns[NAIVE] = _naive_turn(naive, most, ends, meter, clock)
        for variant in variants:
            on_progress(f"warming {variant.name}", 0, rounds)
            turns[variant.name](prompts[:1])
        for turn in range(rounds):
            for number, variant in enumerate(variants):
                on_progress(variant.name, turn * len(variants) + number, rounds * len(variants))
                found[variant.name].turns.append(turns[variant.name](prompts))
        on_progress("done", 1, 1)
    results = [found[variant.name] for variant in variants]
    _check(results)
    return results


def _empty_result(variant: Variant, engine: Engine) -> VariantResult:
    info = engine.info
    return VariantResult(
        variant,
        traffic(variant.path, info.kv_layers or variant.kv_bits),
        8 * info.weight_bytes / Checkpoint(variant.path).graph.parameters(),
        f"{info.isa} kernels, {info.threads} threads",
        dict(info.step_timing.step_s) if info.step_timing else {},
    )


def _config(config: EngineConfig, variant: Variant, context: int) -> EngineConfig:
    return replace(
        config,
        context=context,
        parallel=variant.streams,
        kv_tokens=pool_for(context, variant.streams),
        kv_bits=variant.kv_bits,
        draft=variant.draft,
        draft_model=None,
        reuse=False,
    )


def _naive_turn(naive: Naive, most: int, ends: frozenset[int], meter: Meter | None, clock: Clock) -> TakeTurn:
    def turn(prompts: Prompts) -> Turn:
        before, ids, decode = _joules(meter), list[tuple[int, ...]](), 0.0
        started = clock()
        for prompt in prompts:
            said, first, total = answer(naive, prompt, most, ends, clock)
            ids.append(tuple(said))
            decode += total - first
        seconds = clock() - started
        joules = _since(before, meter)
        return Turn(tuple(ids), seconds, decode, sum(map(len, ids)), joules, fmean(map(len, prompts)))

    return turn


def _our_turn(
    engine: Engine, variant: Variant, most: int, to_the_end: bool, meter: Meter | None, clock: Clock
) -> TakeTurn:
    sampling = SamplingParams(temperature=0.0, max_tokens=most, ignore_eos=not to_the_end)
    many = variant.streams > 1

    def turn(prompts: Prompts) -> Turn:
        asked = list(prompts) * (REPEATS if many else 1)
        before, said, steps = _joules(meter), dict[int, Finished](), 0
        decode, first = 0.0, dict[int, float]()
        started = clock()
        for group in [asked] if many else [[prompt] for prompt in asked]:
            for step in engine.driver.steps([Request(prompt, sampling) for prompt in group]):
                now, spoke = clock(), False
                for events in filter(None, step):
                    last = events[-1]
                    if tokens_of(events):
                        first.setdefault(last.handle, now)
                        spoke = True
                    if isinstance(last, Finished):
                        said[last.handle] = last
                        decode += now - first.get(last.handle, now)
                steps += spoke
        seconds = clock() - started
        ids = tuple(said[handle].token_ids for handle in sorted(said))
        drafts = _histogram([one.stats for one in said.values()])
        read, joules = fmean(map(len, prompts)), _since(before, meter)
        return Turn(ids, seconds, seconds if many else decode, steps, joules, read, drafts)

    return turn


def _histogram(stats: Sequence[Stats]) -> tuple[int, ...]:
    """How many steps checked 0, 1, 2, … guesses: a draft of k guesses was tried at its first k places."""
    tried: list[int] = [sum(one.steps for one in stats)]
    for one in stats:
        for position, (count, _) in enumerate(one.drafting.by_position if one.drafting else (), 1):
            if position == len(tried):
                tried.append(0)
            tried[position] += count
    return tuple(now - after for now, after in pairwise([*tried, 0]))


def _joules(meter: Meter | None) -> float | None:
    return meter.joules() if meter else None


def _since(before: float | None, meter: Meter | None) -> float | None:
    now = _joules(meter)
    return None if before is None or now is None else now - before


def _check(results: Sequence[VariantResult]) -> None:
    """The same tokens in each round, and those of the variant below where nothing may change them."""
    below = {one.variant.name: one for one in results}
    for one in results:
        ids = one.turns[0].ids
        if not one.is_steady and one.variant.name != NAIVE:
            raise LocalInferError(
                f"{one.variant.name}: other tokens in another round", hint="this is a bug of ours; please report it"
            )
        if one.variant.same_text and one.variant.stands_on:
            wanted = below[one.variant.stands_on].turns[0].ids
            if ids != wanted * (len(ids) // len(wanted)):
                raise LocalInferError(
                    f"{one.variant.name}: other tokens than {one.variant.stands_on}",
                    hint="this is a bug of ours; please report it with the model and this command",
                )


def hash_of(results: VariantResult) -> str:
    """Of the answers to all prompts, once."""
    ids = results.turns[0].ids
    once = ids[: len(ids) // REPEATS] if results.variant.streams > 1 else ids
    return output_hash([token for one in once for token in one])
