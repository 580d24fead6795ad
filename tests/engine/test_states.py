"""Models with recurrent layers: the same bits in whatever company, and beginnings that are read once."""

import math
import random
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer import native
from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Request
from localinfer.errors import NotSupported
from localinfer.events import Finished
from localinfer.graph import kv_bits as four_bits
from localinfer.graph.memory import states_bytes
from localinfer.graph.weights import Checkpoint
from localinfer.scheduler.sequence import Work
from tests.engine.running import Eager, Passing, make_prompts, open_tiny, rows_of, run_all, run_one
from tests.engine.test_equality_sweep import drafters
from tests.tiny import make_checkpoint

PROMPTS = [prompt[:20] * (1 + i % 4) for i, prompt in enumerate(make_prompts(8, seed=5))]
SAMPLING = SamplingParams(temperature=0.7, top_k=40, top_p=0.95, seed=3, max_tokens=60, ignore_eos=True)
LONG = SamplingParams(temperature=0, max_tokens=70, ignore_eos=True)


@pytest.fixture(scope="module", autouse=True)
def all_layers_bear_4_bits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(four_bits, "LIMIT", math.inf)
        yield


@pytest.fixture(scope="module", params=["lfm2", "qwen3_5_text", "granitemoehybrid", "nemotron_h"])
def hybrid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    latent = {"layers_block_type": ["linear_attention", "moe", "full_attention", "moe"], "moe_latent_size": 32}
    more: dict[str, Any] = latent if request.param == "nemotron_h" else {}
    return make_checkpoint(tmp_path_factory.mktemp("hybrid") / "m", request.param, seed=11, head_dim=32, **more)


@pytest.fixture(scope="module")
def plain(hybrid: Path) -> Any:
    @cache
    def said(kv_bits: Literal[4, 8, 16]) -> tuple[list[Any], dict[tuple[int, ...], bytes]]:
        rows: dict[tuple[int, ...], bytes] = {}
        with open_tiny(hybrid, reuse=False, kv_bits=kv_bits, isa="scalar") as engine:
            texts = [run_all(engine, [prompt], SAMPLING)[0] for prompt in PROMPTS]
            rows |= rows_of(engine)
        return [text.token_ids for text in texts], rows

    return said


CASES = [
    (who, isa, threads, chunk, parallel, kv_bits)
    for seed in range(16)
    for rng in [random.Random(seed)]
    for who in [rng.choice(("off", "suffix", "lookup", "oracle", "anti-oracle", "end of turn"))]
    for isa in [rng.choice(native.supported_isas())]
    for threads, chunk, parallel in [(rng.choice((1, 2)), rng.choice((8, 32, 256)), rng.choice((1, 3, 8)))]
    for kv_bits in [rng.choice((4, 8, 16))]
]


@pytest.mark.parametrize(("who", "isa", "threads", "chunk", "parallel", "kv_bits"), CASES)
def test_the_same_bits_in_whatever_company(
    hybrid: Path, plain: Any, who: str, isa: str, threads: int, chunk: int, parallel: int, kv_bits: Literal[4, 8, 16]
) -> None:
    tokens, rows = plain(kv_bits)
    with open_tiny(
        hybrid, kv_bits=kv_bits, isa=isa, threads=threads, prefill_chunk=chunk, parallel=parallel, kv_tokens=512
    ) as engine:
        if who != "off":
            truths = [(*prompt, *said) for prompt, said in zip(PROMPTS, tokens, strict=True)]
            engine.speculator, engine.draft_mode = Eager(drafters(engine, who, hybrid, parallel, truths)), who
        for _ in range(2):  # the second time beginnings are there
            assert [said.token_ids for said in run_all(engine, PROMPTS, SAMPLING)] == tokens
        computed = rows_of(engine)
        assert all(bits == rows[text] for text, bits in computed.items() if text in rows)
        assert len(computed.keys() & rows.keys()) >= len(PROMPTS)


def test_a_second_turn_reads_only_what_is_new(hybrid: Path) -> None:
    prompt = list(range(100))
    with open_tiny(hybrid) as engine:
        first = run_one(engine, prompt, LONG)
        text = [*prompt, *first.token_ids]
        turn = [*text, *range(40)]
        second = run_one(engine, turn, LONG)
    assert second.finished.stats.cached_tokens == (len(text) - 1) // 32 * 32
    with open_tiny(hybrid, reuse=False) as engine:
        assert run_one(engine, turn, LONG).token_ids == second.token_ids


@pytest.mark.parametrize("mark", [40, 64, 99])
def test_an_edited_turn_and_a_fork_go_on_from_the_mark(hybrid: Path, mark: int) -> None:
    prompt = list(range(100))
    with open_tiny(hybrid, parallel=2) as engine:
        run_one(engine, prompt, LONG, marks=(mark,))
        edited = [*prompt[:mark], *range(100, 130)]
        ones = [run_one(engine, edited, LONG) for _ in range(2)]
        both = run_all(engine, [edited, edited], LONG)
    assert ones[0].finished.stats.cached_tokens == mark // 32 * 32
    with open_tiny(hybrid, reuse=False) as engine:
        assert {run_one(engine, edited, LONG).token_ids} == {said.token_ids for said in (*ones, *both)}


def test_states_outlive_the_engine_on_disk(hybrid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALINFER_HOME", str(tmp_path / "home"))
    prompt = list(range(100))
    with open_tiny(hybrid, kv_disk_gb=0.1) as engine:
        first = run_one(engine, prompt, LONG, marks=(64,))
    text = [*prompt, *first.token_ids]
    with open_tiny(hybrid, kv_disk_gb=0.1) as engine:
        second = run_one(engine, [*text, 5, 6], LONG)
        edited = run_one(engine, [*prompt[:70], 9], LONG)
    assert second.finished.stats.cached_tokens == (len(text) - 1) // 32 * 32
    assert edited.finished.stats.cached_tokens == 64
    with open_tiny(hybrid, reuse=False) as engine:
        assert run_one(engine, [*text, 5, 6], LONG).token_ids == second.token_ids
        assert run_one(engine, [*prompt[:70], 9], LONG).token_ids == edited.token_ids


class Interrupting(Passing):
    """Runs each third step, and then says that somebody pressed Ctrl-C."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.steps = 0

    def forward(self, batch: Sequence[Work]) -> NDArray[np.float32]:
        self.steps += 1
        logits = self.inner.forward(batch)
        if self.steps % 3 == 0:
            raise KeyboardInterrupt
        return logits


def test_after_an_interrupt_texts_go_on_from_a_state_that_is_whole(hybrid: Path) -> None:
    with open_tiny(hybrid, reuse=False) as engine:
        expected = [run_one(engine, prompt, LONG).token_ids for prompt in PROMPTS[:3]]
    with open_tiny(hybrid, parallel=2, prefill_chunk=32) as engine:
        engine.runner = Interrupting(engine.runner)
        handles = [engine.add(Request(tuple(prompt), LONG)) for prompt in PROMPTS[:3]]
        ended: dict[int, tuple[int, ...]] = {}
        for _ in range(2000):
            try:
                events = engine.step()
            except KeyboardInterrupt:
                continue
            ended |= {event.handle: event.token_ids for event in events if isinstance(event, Finished)}
            if len(ended) == 3:
                break
    assert [ended[handle] for handle in handles] == expected


def test_a_shifted_text_goes_on(hybrid: Path) -> None:
    many = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True)
    said = []
    for reuse in (True, False):
        with open_tiny(hybrid, reuse=reuse, context=128) as engine:
            said.append(run_one(engine, PROMPTS[2], many, on_overflow="shift", keep=4).token_ids)
    assert said[0] == said[1]
    assert len(said[0]) == 200


def test_what_states_take_is_what_was_said(hybrid: Path) -> None:
    for parallel in (1, 5):
        with open_tiny(hybrid, parallel=parallel) as engine:
            program = engine.runner.inner.program  # type: ignore[attr-defined]
            assert program.state_cache_bytes == states_bytes(Checkpoint(hybrid).graph, parallel)
            assert engine.info.state_bytes == program.state_bytes == Checkpoint(hybrid).graph.slot_bytes


def test_who_cannot_guess_yet_is_refused(hybrid: Path) -> None:
    with pytest.raises(NotSupported, match="recurrent"):
        open_engine(hybrid, EngineConfig(draft="model", draft_model=hybrid, context=64))
