"""Earlier texts: kept privately, found again, and no trouble whatever the file holds."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from localinfer.config import EngineConfig
from localinfer.engine import ngram_store
from localinfer.engine.ngram_store import END, NgramStore, forget_all, open_ngram_store
from localinfer.engine.opening import open_engine
from localinfer.paths import texts_dir
from tests.engine.running import GREEDY, make_prompts, run_one

TEXT = list(range(100, 140))


def test_a_text_is_found_from_the_next_opening_on(tmp_path: Path) -> None:
    file = tmp_path / "t.i32"
    first = NgramStore(file, 500)
    first.remember(TEXT)
    assert first.locations(TEXT[:3], 5) == []
    again = NgramStore(file, 500)
    for order in (3, 6, 12):
        ((text, at),) = again.locations(TEXT[4 : 4 + order], 5)
        assert list(text[at : at + 3]) == TEXT[4 + order : 7 + order]
    assert again.locations(TEXT[-3:], 5) == []  # nothing follows
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_only_what_is_new_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "t.i32"
    here = NgramStore(file, 500)
    here.remember(TEXT)
    size = file.stat().st_size
    here.remember([*TEXT, *range(200, 220)])
    assert file.stat().st_size - size == 4 * (20 + 12 + 1)
    here.remember([*TEXT, *range(200, 220)])
    here.remember([1, 2, 3])
    assert file.stat().st_size - size == 4 * (20 + 12 + 1)


@pytest.mark.parametrize("data", [b"", b"\x01", b"\xff" * 41, os.urandom(4096), b"\x00" * 400])
def test_garbage_is_passed_over(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "t.i32"
    file.write_bytes(data)
    here = NgramStore(file, 50)
    assert all(token == END or 0 <= token < 50 for token in here._tokens)
    here.locations([1, 2, 3], 4)
    here.remember(TEXT)


def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    here = NgramStore(tmp_path / "file" / "t.i32", 500)
    here.remember(TEXT)
    assert len(here) == 0


def test_it_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram_store, "MOST_TOKENS", 1000)
    file = tmp_path / "t.i32"
    rng = np.random.default_rng(1)
    for _ in range(60):
        NgramStore(file, 500).remember([int(t) for t in rng.integers(0, 500, 100)])
        assert file.stat().st_size <= 4 * (2 * 1000 + 101)
    assert len(NgramStore(file, 500)) == 1000
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_two_writers_do_not_mix_their_texts(tmp_path: Path) -> None:
    file = tmp_path / "t.i32"
    one, two = NgramStore(file, 500), NgramStore(file, 500)
    for i in range(20):
        one.remember([i] * 20)
        two.remember([100 + i] * 20)
    texts = np.split(np.fromfile(file, "<i4"), np.flatnonzero(np.fromfile(file, "<i4") == END) + 1)[:-1]
    assert len(texts) == 40
    assert all(len(set(text[:-1].tolist())) == 1 for text in texts)


def test_the_engine_remembers_only_when_asked(llama: Path) -> None:
    prompt = make_prompts(4)[3]
    for remember, count in ((False, 0), (True, 1), (True, 1)):
        with open_engine(llama, EngineConfig(context=256, threads=1, remember=remember)) as engine:
            said = run_one(engine, prompt, GREEDY)  # type: ignore[arg-type]
        assert len(list(texts_dir().glob("*.i32"))) == count
        assert len(said.token_ids) == GREEDY.max_tokens
    found = open_ngram_store(llama, 320)
    assert len(found) > len(prompt)
    (text, at), *_ = found.locations([*prompt, *said.token_ids][-6:-3], 5)
    assert text[at] == said.token_ids[-3]
    assert forget_all() > 0
    assert not list(texts_dir().glob("*.i32"))
