"""The same tokens whoever guesses, however far, in whatever company: a seeded sample of all combinations, with ==."""

import math
import random
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from localinfer.config import SamplingParams
from localinfer.engine.draft_ahead import open_ahead
from localinfer.engine.draft_early import EarlyDraftRunner, TextsOf
from localinfer.engine.draft_model import open_model
from localinfer.engine.engine import StepEngine
from localinfer.engine.runner import NativeRunner
from localinfer.graph import kv_bits as four_bits
from localinfer.graph.weights import Checkpoint
from localinfer.speculation.chain import ChainDrafter
from localinfer.speculation.drafter import Drafter
from localinfer.speculation.lookup import LookupDrafter
from localinfer.speculation.suffix import SuffixDrafter
from tests.engine.running import Eager, Recorder, make_prompts, open_tiny, run_all
from tests.engine.test_drafts import DraftRunner
from tests.tiny import make_checkpoint

PROMPTS = [prompt[:20] * (1 + i % 4) for i, prompt in enumerate(make_prompts(8, seed=5))]
SAMPLINGS = {
    "greedy": SamplingParams(temperature=0, max_tokens=30, ignore_eos=True),
    "usual": SamplingParams(temperature=0.7, top_k=40, top_p=0.95, seed=3, max_tokens=30, ignore_eos=True),
    "hot": SamplingParams(
        temperature=1.3, top_k=0, top_p=1.0, repeat_penalty=1.2, seed=9, max_tokens=30, ignore_eos=True
    ),
    "held back": SamplingParams(
        temperature=0.4,
        presence_penalty=0.2,
        frequency_penalty=0.1,
        dry_multiplier=0.3,
        top_n_sigma=2.5,
        typical_p=0.95,
        xtc_probability=0.3,
        logit_bias=((101, 0.5), (32, -1.0)),
        seed=5,
        max_tokens=30,
        ignore_eos=True,
    ),
    "ends": SamplingParams(temperature=0.9, seed=4, max_tokens=30, stop=("e", "th")),
}
WHO = ["suffix", "lookup", "model", "early", "mtp", "oracle", "anti-oracle", "end of turn", "not in the vocabulary"]
WHO.append("all")
EVERY = list(product(WHO, (1, 2, 5, 16, 31), (4, 8, 16), (1, 3, 8), (8, 32, 256), SAMPLINGS, (True, False)))
CASES = random.Random(17).sample(EVERY, 90)


@pytest.fixture(scope="module", autouse=True)
def all_layers_bear_4_bits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(four_bits, "LIMIT", math.inf)
        yield


@pytest.fixture(scope="module")
def with_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Delta nets, and a head that guesses ahead."""
    path = tmp_path_factory.mktemp("with-head") / "m"
    return make_checkpoint(path, "qwen3_5_text", seed=6, head_dim=32, mtp_num_hidden_layers=1)


@pytest.fixture(scope="module")
def plain() -> Any:
    """The texts alone, in one chunk, without guesses."""

    @cache
    def said(path: Path, kv_bits: int, sampling: str) -> list[tuple[tuple[int, ...], str]]:
        with open_tiny(path, reuse=False, kv_bits=kv_bits) as engine:
            texts = [run_all(engine, [prompt], SAMPLINGS[sampling])[0] for prompt in PROMPTS]
        return [(text.token_ids, text.text) for text in texts]

    return said


def drafters(engine: StepEngine, who: str, path: Path, parallel: int, truths: Sequence[Sequence[int]]) -> list[Drafter]:
    assert isinstance(engine.runner, Recorder)
    runner = engine.runner.inner
    assert isinstance(runner, NativeRunner)
    found: list[Drafter] = []
    if who in ("suffix", "all"):
        found.append(SuffixDrafter())
    if who in ("lookup", "all"):
        found.append(LookupDrafter())
    if who in ("early", "all"):
        texts = TextsOf(engine.scheduler.running, engine.scheduler.reserve)
        found.append(ChainDrafter("early", EarlyDraftRunner(runner.program, runner, texts)))
    if who == "mtp":
        runner.want_hidden()
        head = open_ahead(Checkpoint(path), runner.program, parallel=parallel, threads=1, isa="")
        found.append(ChainDrafter("mtp", head))
    if who in ("model", "all"):
        draft_runner = open_model(
            path, Checkpoint(path), threads=1, isa="", parallel=parallel, context=256, chunk=32, kv_bits=8
        )
        found.append(ChainDrafter("model", draft_runner))
    return found or [DraftRunner(truths, who)]


@pytest.mark.parametrize(("who", "length", "kv_bits", "mates", "chunk", "sampling", "reuse"), CASES)
def test_the_same_tokens(
    circling: Path,
    with_head: Path,
    plain: Any,
    who: str,
    length: int,
    kv_bits: int,
    mates: int,
    chunk: int,
    sampling: str,
    reuse: bool,
) -> None:
    """`reuse`: behind a prefix cache, where a second round finds its prompts, and the answers as far as they go."""
    path = with_head if who == "mtp" else circling
    wanted = plain(path, kv_bits, sampling)
    truths = [[*prompt, *ids] for prompt, (ids, _) in zip(PROMPTS, wanted, strict=True)]
    with open_tiny(
        path, reuse=reuse, parallel=mates, prefill_chunk=max(chunk, mates), kv_bits=kv_bits, draft_tokens=length
    ) as engine:
        engine.speculator = Eager(drafters(engine, who, path, mates, truths))
        found = run_all(engine, PROMPTS, SAMPLINGS[sampling])
        if reuse:
            assert [(t.token_ids, t.text) for t in run_all(engine, PROMPTS, SAMPLINGS[sampling])] == wanted
    assert [(text.token_ids, text.text) for text in found] == wanted
    if who in ("oracle", "model", "all") and sampling != "ends":
        assert sum(text.finished.stats.accepted for text in found) > 0
    assert sum(text.finished.stats.drafted for text in found) > 0 or who in ("suffix", "lookup")


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_controller_changes_nothing_either(circling: Path, plain: Any, sampling: str) -> None:
    wanted = plain(circling, 8, sampling)
    with open_tiny(circling, parallel=3, draft="auto") as engine:
        found = run_all(engine, PROMPTS, SAMPLINGS[sampling])
    assert [(text.token_ids, text.text) for text in found] == wanted
