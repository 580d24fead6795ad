"""One meaning, bit for bit: how a text is computed never changes it. Compared with `==`, never with a tolerance."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer import native
from localinfer.config import SamplingParams
from localinfer.engine.engine import StepEngine
from localinfer.engine.protocol import Request
from localinfer.events import Event
from localinfer.scheduler.sequence import Work
from tests.engine.running import (
    GREEDY,
    SAMPLED,
    SAMPLINGS,
    Passing,
    Recorder,
    Said,
    make_prompts,
    open_tiny,
    rows_of,
    run_all,
    run_one,
    said,
)

PROMPTS = make_prompts()


class Plain:
    """Texts, and every row of logits behind them."""

    def __init__(self, texts: list[Said], rows: dict[tuple[int, ...], bytes]) -> None:
        self.texts, self.rows = texts, rows

    def check(self, engine: StepEngine, texts: list[Said]) -> None:
        assert [t.token_ids for t in texts] == [t.token_ids for t in self.texts]
        assert [t.text for t in texts] == [t.text for t in self.texts]
        differ = [text for text, bits in rows_of(engine).items() if self.rows.get(text, bits) != bits]
        assert not differ, f"{len(differ)} rows of logits differ, the first after {len(differ[0])} tokens"
        assert self.rows.keys() <= rows_of(engine).keys()


def alone(path: Path, sampling: SamplingParams, prompts: Sequence[Sequence[int]] = PROMPTS, **config: Any) -> Plain:
    """The plain way: one prompt at a time, read whole, nothing shared, nothing guessed."""
    with open_tiny(path, reuse=False, **config) as engine:
        return Plain([run_one(engine, prompt, sampling) for prompt in prompts], rows_of(engine))


@pytest.mark.parametrize("kv_bits", [8, 16])
@pytest.mark.parametrize("chunk", [1, 7, 32])
def test_whole_prefill_is_any_chunks(model: Path, chunk: int, kv_bits: int) -> None:
    plain = alone(model, GREEDY, prefill_chunk=512, kv_bits=kv_bits)
    with open_tiny(model, reuse=False, prefill_chunk=chunk, kv_bits=kv_bits) as engine:
        plain.check(engine, [run_one(engine, prompt) for prompt in PROMPTS])


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
@pytest.mark.parametrize("parallel", [2, 5, 16])
def test_alone_is_in_company(llama: Path, parallel: int, sampling: SamplingParams) -> None:
    """Others come and go at random, some are cancelled half way."""
    prompts = make_prompts(16)
    plain = alone(llama, sampling, prompts)
    rng = random.Random(parallel)
    with open_tiny(llama, parallel=parallel, prefill_chunk=40, reuse=False) as engine:
        todo = [tuple(prompt) for prompt in prompts]
        handles: list[int] = []
        others: list[int] = []
        events: list[Event] = []
        while todo or not engine.idle:
            if todo and rng.random() < 0.3:
                handles.append(engine.add(Request(todo.pop(0), sampling)))
            if rng.random() < 0.2:
                noise = tuple(rng.randrange(256) for _ in range(rng.randint(1, 60)))
                others.append(engine.add(Request(noise, SAMPLED)))
            if others and rng.random() < 0.2:
                engine.cancel(others.pop(rng.randrange(len(others))))
            if not todo and others and rng.random() < 0.5:
                engine.cancel(others.pop())
            events += engine.step()
        plain.check(engine, [said(events, handle) for handle in handles])
        assert isinstance(engine.runner, Recorder)
        assert max(engine.runner.batch_rows) >= parallel


def test_every_family_is_the_same_in_company(model: Path) -> None:
    plain = alone(model, SAMPLED)
    with open_tiny(model, parallel=4, prefill_chunk=24, reuse=False) as engine:
        plain.check(engine, run_all(engine, PROMPTS, SAMPLED))


@pytest.mark.parametrize("kv_bits", [8, 16])
def test_cold_is_from_the_prefix_cache(model: Path, kv_bits: int) -> None:
    """Again the same prompts; then what they said as the beginning of a longer one, as a chat does it."""
    plain = alone(model, SAMPLED, kv_bits=kv_bits)
    longer = [[*prompt, *text.token_ids, 7, 8, 9] for prompt, text in zip(PROMPTS, plain.texts, strict=True)]
    plain_longer = alone(model, SAMPLED, longer, kv_bits=kv_bits)
    with open_tiny(model, kv_bits=kv_bits, parallel=4) as engine:
        for prompt in PROMPTS:
            run_one(engine, prompt, SAMPLED)
        again = [run_one(engine, prompt, SAMPLED) for prompt in PROMPTS]
        assert sum(text.finished.stats.cached_tokens for text in again) >= 32 + 32 + 96
        assert [t.token_ids for t in again] == [t.token_ids for t in plain.texts]
        further = run_all(engine, longer, SAMPLED)
        assert sum(text.finished.stats.cached_tokens for text in further) > 200
        assert [t.token_ids for t in further] == [t.token_ids for t in plain_longer.texts]
        for rows in (plain.rows, plain_longer.rows):
            assert all(rows_of(engine).get(text, bits) == bits for text, bits in rows.items())


def test_one_thread_is_two(model: Path) -> None:
    plain = alone(model, SAMPLED)
    with open_tiny(model, threads=2, parallel=3, reuse=False) as engine:
        plain.check(engine, run_all(engine, PROMPTS, SAMPLED))


@pytest.mark.parametrize("isa", native.supported_isas())
@pytest.mark.parametrize("kv_bits", [8, 16])
def test_every_isa_is_scalar(model: Path, isa: str, kv_bits: int) -> None:
    plain = alone(model, SAMPLED, isa="scalar", kv_bits=kv_bits)
    with open_tiny(model, isa=isa, kv_bits=kv_bits, reuse=False) as engine:
        assert engine.info.isa == isa
        plain.check(engine, [run_one(engine, prompt, SAMPLED) for prompt in PROMPTS])


@pytest.mark.parametrize("kv_bits", [8, 16])
def test_a_long_text_crosses_kv_splits(model: Path, kv_bits: int) -> None:
    """A KV split has 256 tokens: prompts that end before, at and after its border, and texts that grow across it."""
    rng = np.random.default_rng(4)
    prompts = [[int(t) for t in rng.integers(0, 256, n)] for n in (250, 256, 257, 400)]
    plain = alone(model, SAMPLED, prompts, kv_bits=kv_bits, context=512, prefill_chunk=512)
    with open_tiny(model, kv_bits=kv_bits, context=512, prefill_chunk=50, parallel=3, threads=2) as engine:
        plain.check(engine, run_all(engine, prompts, SAMPLED))


def test_the_same_seed_is_the_same_text_and_another_seed_another(llama: Path) -> None:
    other = SamplingParams(temperature=0.9, top_k=0, seed=12, max_tokens=24, ignore_eos=True)
    first, second = alone(llama, SAMPLED), alone(llama, SAMPLED)
    assert [t.text for t in first.texts] == [t.text for t in second.texts]
    assert [t.token_ids for t in first.texts] != [t.token_ids for t in alone(llama, other).texts]


class RowDependent(Passing):
    """Breaks the rule on purpose: a step of many rows rounds one logit differently."""

    def forward(self, batch: Sequence[Work]) -> NDArray[np.float32]:
        logits = self.inner.forward(batch)
        if sum(work.count for work in batch) > 2:
            logits[:, 3] = np.nextafter(logits[:, 3], np.float32(np.inf))
        return logits


def test_control_a_result_that_depends_on_the_rows_is_caught(llama: Path) -> None:
    plain = alone(llama, GREEDY)
    with open_tiny(llama, parallel=4, reuse=False) as engine:
        assert isinstance(engine.runner, Recorder)
        engine.runner.inner = RowDependent(engine.runner.inner)
        texts = run_all(engine, PROMPTS)
        with pytest.raises(AssertionError, match="logits"):
            plain.check(engine, texts)
