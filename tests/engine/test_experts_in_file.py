"""Engines whose experts stay in a file: the text of one that holds them all, in company and with drafts."""

import os
from pathlib import Path
from typing import Any

import pytest

from localinfer.engine.engine import StepEngine
from localinfer.errors import Corrupt
from localinfer.paths import experts_dir
from tests.engine.running import SAMPLED, make_prompts, open_tiny, rows_of, run_all, run_one
from tests.tiny import make_checkpoint


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("m") / "m", "qwen3_moe", num_experts=16, num_hidden_layers=3)


def mapped(path: Path, **how: Any) -> StepEngine:
    return open_tiny(path, experts="mapped", **how)


@pytest.mark.parametrize("nbytes", [0, 1 << 30])
@pytest.mark.parametrize("draft", ["off", "suffix", "auto", "early"])
def test_the_same_texts_and_bits(path: Path, nbytes: int, draft: str) -> None:
    prompts = make_prompts()
    with open_tiny(path) as held:
        meant = [run_one(held, prompt, SAMPLED).token_ids for prompt in prompts]
        bits = dict(rows_of(held))
    with mapped(path, experts_bytes=nbytes, parallel=6, draft=draft, prefill_chunk=16) as engine:
        assert [one.token_ids for one in run_all(engine, prompts, SAMPLED)] == meant
        assert [one.token_ids for one in run_all(engine, prompts, SAMPLED)] == meant
        found = rows_of(engine)
        shared = bits.keys() & found.keys()
        assert len(shared) > 100
        assert all(found[text] == bits[text] for text in shared)


def test_what_is_held_and_read_is_told(path: Path) -> None:
    with open_tiny(path) as held:
        run_one(held, [1, 2, 3])
        assert (held.load().experts_bytes, held.load().experts_hit) == (0, 0.0)
        resident = held.info.weight_bytes
    with mapped(path) as engine:
        before = engine.load()
        assert before.experts_bytes > 0
        assert engine.info.weight_bytes < resident
        run_one(engine, [1, 2, 3])
        load = engine.load()
        assert 0 < load.experts_held <= load.experts_bytes // 3  # one layer of three
        assert before.experts_read < load.experts_read
        assert 0 < load.experts_missed < load.experts_wanted
        assert 0 < load.experts_hit < 1


def test_a_file_that_is_cut_short_ends_the_answer_with_its_name(path: Path) -> None:
    with mapped(path) as engine:
        meant = run_one(engine, [1, 2, 3]).token_ids
        (file,) = experts_dir().glob("*.experts")
        whole = file.read_bytes()
        os.truncate(file, 5000)
        with pytest.raises(Corrupt, match=file.name):
            run_one(engine, [1, 2, 3])
        with file.open("r+b") as again:
            again.write(whole)
        engine.cancel(2)
        engine.step()
        assert run_one(engine, [1, 2, 3]).token_ids == meant
