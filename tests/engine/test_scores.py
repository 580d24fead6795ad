"""Scores of tokens: against softmax in float64, and the same whoever guesses, in whatever company."""

import random
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng

from localinfer.config import SamplingParams
from localinfer.engine.request import Request, scoring
from localinfer.engine.scores import scored
from localinfer.errors import ContextOverflow, UsageError
from localinfer.events import Finished, Scored, Text
from tests.engine.running import open_tiny

PROMPT = tuple(random.Random(3).choices(range(256), k=40))


def scores_of(engine: object, request: Request) -> list[Scored]:
    events = list(engine.stream(request))  # type: ignore[attr-defined]
    assert isinstance(events[-1], Finished)
    return [event.score for event in events if isinstance(event, Text) and event.score is not None]


def test_a_row_of_logits() -> None:
    logits = default_rng(1).normal(0, 3, 50).astype(np.float32)
    logits[[7, 30]] = logits.max() + 1  # equal ones: the lower token first
    x = logits.astype(np.float64)
    wanted = x - np.log(np.exp(x).sum())
    found = scored(logits, 11, 3)
    assert found.logprob == pytest.approx(wanted[11], abs=1e-12)
    assert found.rank == (x > x[11]).sum()
    assert [token for token, _ in found.top][:2] == [7, 30]
    assert [value for _, value in found.top] == pytest.approx(sorted(wanted)[::-1][:3], abs=1e-12)
    assert len(scored(logits, 0, 20).top) == 20
    assert len(scored(logits[:4].copy(), 0, 20).top) == 4


@pytest.mark.parametrize("draft", ["off", "suffix", "lookup", "auto"])
def test_scores_are_of_the_model_not_of_what_was_drawn_with(circling: Path, draft: str) -> None:
    plain = SamplingParams(temperature=0.9, seed=3, max_tokens=24, ignore_eos=True)
    held = SamplingParams(
        temperature=0.9, seed=3, max_tokens=24, ignore_eos=True, frequency_penalty=0.5, logit_bias=((101, 5.0),)
    )
    for sampling in (plain, held):
        with open_tiny(circling, draft="off", reuse=False) as engine:
            alone = scores_of(engine, Request(PROMPT, sampling, logprobs=2))
        with open_tiny(circling, draft=draft, parallel=3) as engine:
            others = [Request(PROMPT[i:], plain) for i in (1, 2)]
            with engine.driver.here() as driver:
                said: list[Text] = []
                driver.submit(Request(PROMPT, sampling, logprobs=2), said.extend)  # type: ignore[arg-type]
                for other in others:
                    driver.submit(other, lambda _: None)
                while driver.turn():
                    pass
        assert [one.score for one in said if isinstance(one, Text) and one.token_ids] == alone
        assert len(alone) == 24
        given = scores_again(circling, PROMPT, [one.token for one in alone])
        assert [(one.token, one.logprob, one.top) for one in given] == [
            (one.token, one.logprob, one.top) for one in alone
        ]


def scores_again(path: Path, prompt: tuple[int, ...], answer: list[int]) -> list[Scored]:
    """The scores of an answer that is given, in rows of many."""
    with open_tiny(path, draft="off") as engine:
        return scores_of(engine, scoring([*prompt, *answer], len(prompt), 2))


def test_given_texts_take_few_steps_and_any_company(circling: Path) -> None:
    texts = [[*PROMPT, *random.Random(i).choices(range(256), k=50)] for i in range(4)]
    alone = [scores_again(circling, (text[0],), text[1:]) for text in texts]
    with open_tiny(circling, draft="auto", parallel=4) as engine, engine.driver.here() as driver:
        heard: list[list[object]] = [[] for _ in texts]
        for text, mine in zip(texts, heard, strict=True):
            driver.submit(scoring(text, 1, 2), mine.extend)
        turns = 0
        while driver.turn():
            turns += 1
    assert [[one.score for one in mine if isinstance(one, Text) and one.token_ids] for mine in heard] == alone
    assert turns < 30
    for text, mine in zip(texts, heard, strict=True):
        last = mine[-1]
        assert isinstance(last, Finished)
        assert list(last.token_ids) == text[1:]
        assert last.reason == "length"


def test_what_cannot_be_scored(circling: Path) -> None:
    with pytest.raises(UsageError, match="cannot be scored"):
        scoring([5], 1, 0)
    with pytest.raises(UsageError, match="logprobs is 21"):
        scoring([5, 6], 1, 21)
    with open_tiny(circling, context=32) as engine:
        assert len(scores_of(engine, scoring(PROMPT[:32], 5, 0))) == 27
        with pytest.raises(ContextOverflow):
            engine.add(scoring(PROMPT[:33], 5, 0))
        with pytest.raises(UsageError, match="has token 99999"):
            engine.add(scoring([1, 99999], 1, 0))
