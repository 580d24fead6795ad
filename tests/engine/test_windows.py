"""Models with sliding layers, which give blocks behind their window back: the same bits as with all of them."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer import native
from localinfer.config import EngineConfig, SamplingParams, kv_blocks, window_blocks
from localinfer.cost.fit import estimate
from localinfer.engine.engine import StepEngine
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Request
from localinfer.events import Finished
from localinfer.graph import kv_bits as four_bits
from localinfer.graph.memory import kv_bytes
from localinfer.graph.program import load_program
from localinfer.graph.weights import Checkpoint
from localinfer.kv.blocks import NONE, blocks_for
from localinfer.kv.cache import PagedCache
from localinfer.scheduler.sequence import Work
from localinfer.speculation.lookup import LookupDrafter
from tests.engine.running import Eager, Passing, finish, make_prompts, open_tiny, rows_of, run_all, run_one, said
from tests.engine.test_equality_sweep import drafters
from tests.tiny import make_checkpoint

CONTEXT, WINDOW = 448, 40
MODELS: dict[str, dict[str, Any]] = {
    "some slide": {"family": "gemma3_text", "seed": 2, "sliding_window": WINDOW},
    "all slide": {"family": "mistral", "seed": 8, "sliding_window": WINDOW, "head_dim": 32},
    "some borrow": {"family": "gemma4_text", "seed": 8, "sliding_window": WINDOW},
    "keys are values": {"family": "gemma4_unified", "seed": 5, "sliding_window": WINDOW},
}
SAMPLING = SamplingParams(temperature=0.7, top_k=40, top_p=0.95, seed=3, max_tokens=50, ignore_eos=True)
LONG = SamplingParams(temperature=0, max_tokens=70, ignore_eos=True)
SYSTEM = make_prompts(1, seed=9)[0] * 70
PROMPTS = [[*SYSTEM, *prompt[:30] * (1 + 3 * (i % 3))] for i, prompt in enumerate(make_prompts(8, seed=5))]


@pytest.fixture(scope="module", autouse=True)
def all_layers_bear_4_bits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(four_bits, "LIMIT", math.inf)
        yield


@pytest.fixture(scope="module", params=MODELS)
def sliding(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("sliding") / "m", **MODELS[request.param])


class Truth:
    """Logits of each row of a text that is read whole, in a cache that keeps every position of every layer."""

    def __init__(self, path: Path, kv_bits: Literal[4, 8, 16]) -> None:
        blocks = blocks_for(CONTEXT)
        self.program = load_program(Checkpoint(path), threads=2, context=CONTEXT, kv_blocks=blocks, kv_bits=kv_bits)
        self.table = np.arange(blocks, dtype=np.int32)[None]

    def rows(self, text: Sequence[int]) -> NDArray[np.float32]:
        n = np.arange(len(text), dtype=np.int32)
        logits = np.empty((len(text), self.program.vocab), np.float32)
        self.program.step(np.array(text, np.int32), n, 0 * n, self.table, n, logits)
        return logits

    def agrees(self, computed: dict[tuple[int, ...], bytes]) -> bool:
        """Is every row that was computed the one of its text? Of many texts, a sample and the longest ones."""
        texts = sorted(computed)
        whole = [text for text, after in zip(texts, [*texts[1:], ()], strict=True) if after[: len(text)] != text]
        chosen = {*random.Random(1).sample(whole, min(20, len(whole))), *sorted(whole, key=len)[-20:]}
        for text in chosen:
            rows, known = self.rows(text), [n for n in range(1, len(text) + 1) if text[:n] in computed]
            if any(computed[text[:n]] != rows[n - 1].tobytes() for n in known):
                return False
        return bool(chosen)


@pytest.fixture(scope="module")
def truth(sliding: Path) -> Callable[[Literal[4, 8, 16]], Truth]:
    return cache(lambda kv_bits: Truth(sliding, kv_bits))


def groups_of(engine: StepEngine) -> PagedCache:
    assert isinstance(engine.scheduler.cache, PagedCache)
    return engine.scheduler.cache


CASES = [
    (who, isa, threads, chunk, parallel, kv_bits, reuse)
    for seed in range(16)
    for rng in [random.Random(seed)]
    for who in [rng.choice(("off", "suffix", "lookup", "early", "model", "oracle", "anti-oracle", "all"))]
    for isa in [rng.choice(native.supported_isas())]
    for threads, chunk, parallel in [(rng.choice((1, 2)), rng.choice((8, 32, 100, 256)), rng.choice((1, 3, 8)))]
    for kv_bits, reuse in [(rng.choice((4, 8, 16)), rng.random() < 0.8)]
]


@pytest.mark.parametrize(("who", "isa", "threads", "chunk", "parallel", "kv_bits", "reuse"), CASES)
def test_the_same_bits_in_whatever_company(
    sliding: Path,
    truth: Callable[[int], Truth],
    who: str,
    isa: str,
    threads: int,
    chunk: int,
    parallel: int,
    kv_bits: Literal[4, 8, 16],
    reuse: bool,
) -> None:
    with open_tiny(
        sliding,
        reuse=reuse,
        kv_bits=kv_bits,
        isa=isa,
        threads=threads,
        prefill_chunk=chunk,
        parallel=parallel,
        context=CONTEXT,
        kv_tokens=CONTEXT + 160,
    ) as engine:
        if who != "off":
            guesses = [[*prompt, *make_prompts(4, seed=3)[3]] for prompt in PROMPTS]
            engine.speculator = Eager(drafters(engine, who, sliding, parallel, guesses))
        first = run_all(engine, PROMPTS, SAMPLING)
        again = run_all(engine, PROMPTS, SAMPLING)  # beginnings are there, as far as there was room for them
        assert [one.token_ids for one in again] == [one.token_ids for one in first]
        assert not reuse or sum(one.finished.stats.cached_tokens for one in again) > 0
        assert truth(kv_bits).agrees(rows_of(engine))


def test_a_running_text_holds_its_window_and_a_step(sliding: Path) -> None:
    with open_tiny(sliding, context=CONTEXT, prefill_chunk=64) as engine:
        engine.add(Request(tuple(PROMPTS[2]), LONG))
        most = 0
        while engine.step():
            for sequence in engine.scheduler.running:
                assert sequence.lease is not None
                for group, table in zip(groups_of(engine).groups, sequence.lease.tables, strict=True):
                    held = sum(block != NONE for block in table)
                    assert held == len(table) if not group.window else held <= window_blocks(WINDOW, 64)
                    most = max(most, len(table))
        assert most > 2 * window_blocks(WINDOW, 64)


@pytest.mark.parametrize("parallel", [1, 6])
def test_what_it_takes_is_what_fit_says_and_less_than_it_took(sliding: Path, parallel: int) -> None:
    config = EngineConfig(context=480, parallel=parallel, prefill_chunk=32, threads=1, draft="off")
    with open_engine(sliding, config) as engine:
        taken, load = engine.info.kv_bytes, engine.load()
    tokens = config.pool_tokens(480)
    fit = estimate(sliding, context=480, parallel=parallel, kv_tokens=tokens, rows=config.most_rows)
    assert fit.kv_bytes == taken
    graph = Checkpoint(sliding).graph
    assert taken < tokens * sum(kv_bytes(graph, 8))
    assert load.blocks == (tokens // 32 if 0 in graph.kv_windows() else kv_pool(graph.kv_windows(), config, tokens)[0])
    assert (load.window_blocks > 0) == (0 in graph.kv_windows())


def kv_pool(windows: Sequence[int], config: EngineConfig, tokens: int) -> tuple[int, ...]:
    return kv_blocks(windows, kv_tokens=tokens, parallel=config.parallel, rows=config.most_rows)


def test_a_second_turn_reads_only_what_is_new(sliding: Path, truth: Callable[[int], Truth]) -> None:
    with open_tiny(sliding, context=CONTEXT) as engine:
        first = run_one(engine, PROMPTS[2], LONG)
        text = [*PROMPTS[2], *first.token_ids]
        second = run_one(engine, [*text, *range(40)], LONG)
        assert truth(8).agrees(rows_of(engine))
    assert second.finished.stats.cached_tokens == (len(text) - 1) // 32 * 32


@pytest.mark.parametrize("mark", [32, 70, 130])
def test_an_edited_turn_and_a_fork_go_on_from_the_mark(sliding: Path, truth: Callable[[int], Truth], mark: int) -> None:
    prompt = PROMPTS[2]
    with open_tiny(sliding, context=CONTEXT, parallel=2, prefill_chunk=32) as engine:
        run_one(engine, prompt, LONG, marks=(mark,))
        edited = [*prompt[:mark], *range(100, 130)]
        ones = [run_one(engine, edited, LONG) for _ in range(2)]
        run_all(engine, [edited, edited[: mark + 3], prompt], LONG)
        assert truth(8).agrees(rows_of(engine))
    assert ones[0].finished.stats.cached_tokens == mark // 32 * 32


def test_blocks_outlive_the_engine_on_disk(
    sliding: Path, truth: Callable[[int], Truth], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALINFER_HOME", str(tmp_path / "home"))
    with open_tiny(sliding, context=CONTEXT, kv_disk_gb=0.1) as engine:
        first = run_one(engine, PROMPTS[2], LONG)
    text = [*PROMPTS[2], *first.token_ids]
    with open_tiny(sliding, context=CONTEXT, kv_disk_gb=0.1) as engine:
        second = run_one(engine, [*text, 5, 6], LONG)
        edited = run_one(engine, [*text[:100], 9], LONG)
        assert truth(8).agrees(rows_of(engine))
        load = engine.load()
    assert second.finished.stats.cached_tokens >= (len(text) - 1) // 32 * 32
    assert edited.finished.stats.cached_tokens == 96
    assert load.on_disk >= len(text) // 32


def test_a_file_that_breaks_costs_time_and_no_answer(
    sliding: Path, truth: Callable[[int], Truth], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALINFER_HOME", str(tmp_path / "home"))
    with open_tiny(sliding, context=CONTEXT, kv_disk_gb=0.1) as engine:
        first = run_one(engine, PROMPTS[2], LONG)
    files = sorted(path for path in (tmp_path / "home").rglob("*") if path.is_file() and len(path.name) == 32)
    for path in files[:: len(files) // 3]:
        path.write_bytes(path.read_bytes()[:-1])
    with open_tiny(sliding, context=CONTEXT, kv_disk_gb=0.1) as engine:
        for _ in range(2):
            run_one(engine, [*PROMPTS[2], *first.token_ids, 5, 6], LONG)
        assert truth(8).agrees(rows_of(engine))


def test_preempted_texts_go_on(sliding: Path, truth: Callable[[int], Truth]) -> None:
    long = SamplingParams(temperature=0, max_tokens=150, ignore_eos=True)
    with open_tiny(sliding, context=CONTEXT, parallel=4, kv_tokens=CONTEXT, prefill_chunk=32) as engine:
        run_all(engine, PROMPTS[:6], long)
        assert truth(8).agrees(rows_of(engine))
        assert engine.scheduler.preemptions > 0 or len(groups_of(engine).groups) == 1


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


def test_interrupted_and_cancelled_texts_leave_nothing_behind(sliding: Path, truth: Callable[[int], Truth]) -> None:
    with open_tiny(sliding, context=CONTEXT, parallel=3, prefill_chunk=32) as engine:
        recorder, engine.runner = engine.runner, Interrupting(engine.runner)
        handles = [engine.add(Request(tuple(prompt), LONG)) for prompt in PROMPTS[:5]]
        ended = set[int]()
        for step in range(2000):
            if step == 20:
                engine.cancel(handles[1])
            try:
                events = engine.step()
            except KeyboardInterrupt:
                continue
            ended |= {event.handle for event in events if isinstance(event, Finished)}
            if len(ended) == 5:
                break
        engine.runner = recorder
        finish(engine)
        assert truth(8).agrees(rows_of(engine))
        for group in groups_of(engine).groups:
            assert group.allocator.available == group.allocator.count


def test_a_shifted_text_goes_on(sliding: Path, truth: Callable[[int], Truth]) -> None:
    many = SamplingParams(temperature=0, max_tokens=300, ignore_eos=True)
    for keep in (4, 70):
        with open_tiny(sliding, context=160) as engine:
            events = list(engine.stream(Request(tuple(PROMPTS[1][:100]), many, on_overflow="shift", keep=keep)))
            assert len(said(events, events[0].handle).token_ids) == 300
            assert truth(8).agrees(rows_of(engine))


@pytest.mark.parametrize("seed", range(3))
def test_everything_at_once(
    sliding: Path, truth: Callable[[int], Truth], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Forks, edits, marks, guesses, shifts, cancelled texts, little room, and two engines one after the other."""
    monkeypatch.setenv("LOCALINFER_HOME", str(tmp_path / "home"))
    rng = random.Random(seed)
    settings: dict[str, Any] = {
        "parallel": 4,
        "prefill_chunk": rng.choice((32, 90)),
        "kv_disk_gb": rng.choice((0, 0.1)),
    }
    texts, cached = [SYSTEM], 0
    for _ in range(2):
        with open_tiny(
            sliding, context=256, kv_tokens=rng.choice((416, 1000)), drafter=LookupDrafter(), threads=2, **settings
        ) as engine:
            left, asked = 24, dict[int, list[int]]()
            while left or not engine.idle:
                if left and rng.random() < 0.3:
                    left -= 1
                    start = rng.choice(texts)
                    prompt = [
                        *start[: rng.randint(len(start) // 2, len(start))],
                        *rng.choice(PROMPTS)[70 : rng.randint(72, 200)],
                    ]
                    sampling = replace(SAMPLING, max_tokens=rng.choice((3, 40, 150)), seed=left)
                    marks = (len(SYSTEM), rng.randint(1, len(prompt)))
                    request = Request(tuple(prompt), sampling, "shift", keep=rng.choice((0, 5, 70)), marks=marks)
                    asked[engine.add(request)] = prompt
                if asked and rng.random() < 0.02:
                    engine.cancel(rng.choice(list(asked)))
                for event in engine.step():
                    if isinstance(event, Finished):
                        cached += event.stats.cached_tokens
                        texts.append([*asked[event.handle], *event.token_ids])
            engine.step()
            for group in groups_of(engine).groups:
                assert group.allocator.available == group.allocator.count
            assert truth(8).agrees(rows_of(engine))
    assert cached > 100
