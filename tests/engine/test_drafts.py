"""Whoever guesses, however well and however far: the same text, and the same bits behind it."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from localinfer.config import MOST_DRAFTS, SamplingParams
from localinfer.engine.protocol import Request
from localinfer.events import Finished, Text
from localinfer.speculation.drafter import Ask, Draft, Drafter
from localinfer.speculation.lookup import LookupDrafter
from tests.engine.running import (
    GREEDY,
    SAMPLED,
    SAMPLINGS,
    Recorder,
    finish,
    make_prompts,
    open_tiny,
    rows_of,
    run_all,
    run_one,
    said,
)

REPETITIVE = [prompt[:12] * 6 for prompt in make_prompts(6, seed=3)]


class DraftRunner:
    """A drafter for tests: guesses are made from the true continuation of each prompt."""

    name = "draft_runner"
    free = True

    def __init__(self, truths: Sequence[Sequence[int]], kind: str) -> None:
        self._truths, self._kind = truths, kind
        self._rng = random.Random(7)

    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        return [Draft(tokens, [0.5] * len(tokens)) for tokens in (self._guess(ask.tokens, ask.most) for ask in asks)]

    def _guess(self, tokens: Sequence[int], most: int) -> list[int]:
        right = next(
            (list(t[len(tokens) : len(tokens) + most]) for t in self._truths if list(t[: len(tokens)]) == list(tokens)),
            [],
        )
        match self._kind:
            case "oracle":
                return right
            case "anti-oracle":
                return [(token + 1) % 256 for token in right]
            case "half right":
                return [token if self._rng.random() < 0.7 else 3 for token in right]
            case "random":
                return [self._rng.randrange(320) for _ in range(self._rng.randint(0, most))]
            case "end of turn":
                return [258] * most
            case "too long":
                return [*right, *range(100)]
            case "not in the vocabulary":
                return [*right[:1], 320, -1, 1 << 40]
        raise AssertionError(self._kind)

    def observe(self, handle: int, guessed: int, accepted: int) -> None:
        assert 0 <= accepted <= guessed

    def forget(self, handle: int) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
@pytest.mark.parametrize("kv_bits", [8, 16])
@pytest.mark.parametrize(
    "kind", ["oracle", "anti-oracle", "half right", "random", "end of turn", "too long", "not in the vocabulary"]
)
def test_any_guesses(llama: Path, kind: str, kv_bits: int, sampling: SamplingParams) -> None:
    prompts = make_prompts(5)
    with open_tiny(llama, reuse=False, kv_bits=kv_bits) as engine:
        plain = [run_one(engine, prompt, sampling) for prompt in prompts]
        rows = rows_of(engine)
    truths = [[*prompt, *text.token_ids] for prompt, text in zip(prompts, plain, strict=True)]
    drafter: Drafter = DraftRunner(truths, kind)
    with open_tiny(llama, drafter=drafter, draft_tokens=6, reuse=False, kv_bits=kv_bits) as engine:
        guessed = [run_one(engine, prompt, sampling) for prompt in prompts]
        assert [t.token_ids for t in guessed] == [t.token_ids for t in plain]
        assert all(rows[text] == bits for text, bits in rows_of(engine).items() if text in rows)
    stats = [text.finished.stats for text in guessed]
    if kind == "oracle":
        assert all(s.accepted == s.drafted > 0 for s in stats)
        assert all(s.steps < s.completion_tokens / 4 for s in stats)
    if kind == "anti-oracle":
        assert all(s.drafted > 0 == s.accepted for s in stats)


def test_latency_is_the_time_of_steps_over_the_tokens_that_landed(llama: Path) -> None:
    """Each step takes a second, and most of them give several tokens."""
    prompt = make_prompts(1)[0]
    with open_tiny(llama, reuse=False) as engine:
        plain = run_one(engine, prompt, GREEDY)
    landed, finished = list[int](), list[Finished]()
    drafter = DraftRunner([[*prompt, *plain.token_ids]], "half right")
    with open_tiny(llama, drafter=drafter, draft_tokens=6, reuse=False) as engine:
        engine.clock = lambda: float(len(landed))
        engine.add(Request(tuple(prompt), GREEDY))
        while not finished:
            events = engine.step()
            landed.append(sum(len(event.token_ids) for event in events if isinstance(event, Text)))
            finished += [event for event in events if isinstance(event, Finished)]
    stats, steps = finished[0].stats, [count for count in landed if count][1:]
    assert max(steps) > 2
    assert stats.itl_s == pytest.approx(len(steps) / sum(steps))
    assert stats.itl_p99_s == pytest.approx(1 / min(steps))


CIRCLES = {
    "greedy": SamplingParams(temperature=0, max_tokens=120, ignore_eos=True),
    "sampled": SamplingParams(temperature=0.3, max_tokens=120, seed=3, ignore_eos=True),
    "penalized": SamplingParams(temperature=0.1, repeat_penalty=1.02, max_tokens=120, seed=4, ignore_eos=True),
}


@pytest.mark.parametrize("sampling", CIRCLES.values(), ids=CIRCLES.keys())
@pytest.mark.parametrize("length", range(1, 9))
def test_lookup_at_every_length(circling: Path, length: int, sampling: SamplingParams) -> None:
    """Text that repeats itself, though not for ever: copies that are right, and copies that are wrong."""
    prompts = make_prompts(6, seed=3)
    with open_tiny(circling, reuse=False) as engine:
        plain = [run_one(engine, prompt, sampling) for prompt in prompts]
        rows = rows_of(engine)
    with open_tiny(circling, drafter=LookupDrafter(), draft_tokens=length) as engine:
        drafted = [run_one(engine, prompt, sampling) for prompt in prompts]
        assert all(rows.get(text, bits) == bits for text, bits in rows_of(engine).items())
    assert [(t.token_ids, t.text) for t in drafted] == [(t.token_ids, t.text) for t in plain]
    stats = [text.finished.stats for text in drafted]
    assert sum(s.drafted for s in stats) >= sum(s.accepted for s in stats) > 5
    assert sum(s.steps + s.accepted for s in stats) == sum(s.completion_tokens for s in stats)
    assert all(s.drafting is not None and s.drafting.mode == "lookup" for s in stats)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_drafts_in_company(model: Path, sampling: SamplingParams) -> None:
    with open_tiny(model, reuse=False) as engine:
        plain = [run_one(engine, prompt, sampling) for prompt in REPETITIVE]
    truths = [[*prompt, *text.token_ids] for prompt, text in zip(REPETITIVE, plain, strict=True)]
    drafter = DraftRunner(truths, "half right")
    with open_tiny(model, drafter=drafter, draft_tokens=15, parallel=4, prefill_chunk=20) as engine:
        drafted = run_all(engine, REPETITIVE, sampling)
        assert isinstance(engine.runner, Recorder)
        assert max(engine.runner.batch_rows) <= 20 + 4 + MOST_DRAFTS
    assert [t.token_ids for t in drafted] == [t.token_ids for t in plain]
    assert sum(text.finished.stats.accepted for text in drafted) > 20


def test_drafts_stop_where_the_text_does(llama: Path) -> None:
    """At the token limit, at a stop string, at the end of the context: not one token more than without drafts."""
    prompt = make_prompts(4)[3]
    with open_tiny(llama, context=96) as engine:
        whole = run_one(engine, prompt, SamplingParams(temperature=0, ignore_eos=True))
    assert whole.finished.reason == "overflow"
    stop = whole.text[10:13]
    limits = [
        SamplingParams(temperature=0, ignore_eos=True, max_tokens=7),
        SamplingParams(temperature=0, ignore_eos=True, stop=(stop,)),
        SamplingParams(temperature=0, ignore_eos=True),
    ]
    with open_tiny(llama, context=96) as engine:
        plain = [run_one(engine, prompt, sampling) for sampling in limits]
    oracle = DraftRunner([[*prompt, *whole.token_ids, 1, 2, 3]], "oracle")
    with open_tiny(llama, context=96, drafter=oracle, draft_tokens=15) as engine:
        drafted = [run_one(engine, prompt, sampling) for sampling in limits]
    assert [t.finished.reason for t in drafted] == ["length", "stop", "overflow"]
    for a, b in zip(plain, drafted, strict=True):
        assert (a.token_ids, a.text, a.finished.stop) == (b.token_ids, b.text, b.finished.stop)


def test_drafts_survive_a_shift(circling: Path) -> None:
    sampling = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True)
    texts = []
    for drafter in (None, LookupDrafter()):
        with open_tiny(circling, context=64, drafter=drafter) as engine:
            engine.add(Request(tuple(make_prompts(2, seed=3)[1]), sampling, on_overflow="shift", keep=3))
            texts.append(said(finish(engine), 1))
    assert texts[0].token_ids == texts[1].token_ids
    assert texts[1].finished.stats.accepted > 0
