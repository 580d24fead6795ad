"""Texts as vectors: as transformers has them, and the same bits in any company."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localinfer.config import Pool, SamplingParams
from localinfer.engine.request import Request
from localinfer.errors import ContextOverflow, NotFinite
from localinfer.events import Event, Finished
from tests.engine.running import Recorder, open_tiny
from tests.graph.oracle import transformers_model
from tests.tiny import Family, make_checkpoint

TEXTS = [random.Random(i).choices(range(256), k=n) for i, n in enumerate((1, 20, 33, 70, 100))]
POOLS: tuple[Pool, ...] = ("last", "mean")


def vector(engine: Any, text: list[int], pool: Pool) -> tuple[float, ...]:
    *_, last = engine.stream(Request(tuple(text), pool=pool))
    assert isinstance(last, Finished)
    assert (last.reason, last.token_ids) == ("stop", ())
    assert last.vector is not None
    return last.vector


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "cohere2", "lfm2"])
def test_as_transformers(tmp_path: Path, family: Family) -> None:
    """Cohere's norm takes the mean away; Gemma's adds one to its weight; the cache of LFM2 is partly a state."""
    import torch

    path = make_checkpoint(tmp_path / family, family, seed=4, dtype="float32")
    model = transformers_model(path)
    with open_tiny(path, kv_bits=16) as engine:
        for text in TEXTS[1:4]:
            with torch.no_grad():
                hidden = model.model(torch.tensor([text])).last_hidden_state[0].double().numpy()
            for pool, wanted in (("last", hidden[-1]), ("mean", hidden.mean(axis=0))):
                found: Any = np.array(vector(engine, text, pool))  # type: ignore[arg-type]
                assert (
                    np.dot(found, wanted) / np.linalg.norm(found) / np.linalg.norm(wanted) > 0.998
                )  # weights and activations are rounded to 16 bits
                assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(wanted), rel=0.01)


@pytest.mark.parametrize("pool", POOLS)
def test_company_chunks_and_the_cache_change_nothing(circling: Path, pool: Pool) -> None:
    with open_tiny(circling, reuse=False, prefill_chunk=256) as engine:
        alone = [vector(engine, text, pool) for text in TEXTS]
    for parallel, chunk, draft in ((1, 7, "off"), (3, 32, "auto"), (5, 64, "suffix")):
        with open_tiny(circling, parallel=parallel, prefill_chunk=chunk, draft=draft, kv_tokens=300) as engine:
            for _ in range(2):  # the second time their beginnings are in the cache
                heard: list[list[Event]] = [[] for _ in TEXTS]
                with engine.driver.here() as driver:
                    for text, mine in zip(TEXTS, heard, strict=True):
                        driver.submit(Request(tuple(text), pool=pool), mine.extend)
                    driver.submit(Request((1, 2, 3), SamplingParams(max_tokens=20, ignore_eos=True)), lambda _: None)
                    while driver.turn():
                        pass
                assert [mine[-1].vector for mine in heard if isinstance(mine[-1], Finished)] == alone
            assert engine.idle


def test_a_whole_context_and_no_more(circling: Path) -> None:
    with open_tiny(circling, context=64) as engine:
        assert len(vector(engine, TEXTS[3][:64], "mean")) == engine.runner.hidden.shape[1]
        with pytest.raises(ContextOverflow):
            engine.add(Request(tuple(TEXTS[3][:65]), pool="mean"))


def test_numbers_that_overflow_are_told(circling: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_tiny(circling) as engine:
        assert isinstance(engine.runner, Recorder)
        whole = engine.runner.inner.forward

        def broken(batch: Any) -> Any:
            found = whole(batch)
            engine.runner.hidden[:1] = np.nan
            return found

        monkeypatch.setattr(engine.runner.inner, "forward", broken)
        with pytest.raises(NotFinite):
            list(engine.stream(Request((1, 2, 3), pool="last")))
