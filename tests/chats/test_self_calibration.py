"""What a model says by itself: the same however often it was stopped, texts and conversations in turn."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from localinfer.chats.self_calibration import TOGETHER, write_self_calibration
from localinfer.config import EngineConfig
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Engine
from localinfer.errors import UsageError
from tests.tiny import make_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("own-words") / "m")


@pytest.fixture
def engine(folder: Path) -> Iterator[Engine]:
    config = EngineConfig(context=512, parallel=TOGETHER, kv_bits=16, threads=1)
    with open_engine(folder, config) as opened:
        yield opened


def test_texts_and_conversations(engine: Engine, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = tmp_path / "words.jsonl"
    write_self_calibration(engine, path, tokens=6000, seed=1, on_progress=lambda *steps: seen.append(steps))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) % TOGETHER == 0
    assert all(isinstance(line, str) for line in lines[::2])
    assert all([turn["role"] for turn in line] == ["user", "assistant"] for line in lines[1::2])
    assert sum(len(engine.tokenizer.encode_text(line)) for line in lines[::2]) > 1000
    assert len(set(lines[::2])) == len(lines) // 2
    assert "<|im_" not in path.read_text()
    assert seen[-1] == (6000, 6000)
    write_self_calibration(engine, tmp_path / "other.jsonl", tokens=1000, seed=2)
    assert (tmp_path / "other.jsonl").read_text().splitlines()[0] != path.read_text().splitlines()[0]


def test_stopped_and_gone_on(engine: Engine, tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    write_self_calibration(engine, whole, tokens=8000, seed=0)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_self_calibration(engine, torn, tokens=8000, seed=0, on_progress=interrupt)
    with torn.open("ab") as file:
        file.write(b'"a whole line"\n"a torn li')
    write_self_calibration(engine, torn, tokens=8000, seed=0)
    assert torn.read_bytes() == whole.read_bytes()
    write_self_calibration(engine, torn, tokens=100, seed=0)  # there is enough
    assert torn.read_bytes() == whole.read_bytes()


def test_without_a_template(engine: Engine, tmp_path: Path) -> None:
    engine.chat_template = None
    write_self_calibration(engine, tmp_path / "words.jsonl", tokens=2000, seed=0)
    lines = (tmp_path / "words.jsonl").read_text().splitlines()
    assert all(isinstance(json.loads(line), str) for line in lines)


def test_a_model_that_says_nothing(folder: Path, tmp_path: Path) -> None:
    """Every token ends the text, so only the first words are there."""
    silent = make_checkpoint(tmp_path / "silent")
    config = json.loads((silent / "generation_config.json").read_text())
    (silent / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": list(range(320))}))
    engine_config = EngineConfig(context=512, parallel=TOGETHER, kv_bits=16, threads=1)
    with (
        open_engine(silent, engine_config) as engine,
        pytest.raises(UsageError, match="the model's own words are too few") as caught,
    ):
        write_self_calibration(engine, tmp_path / "words.jsonl", tokens=400, seed=0)
    assert caught.value.hint


def test_when_it_gets_late_texts_end_where_they_are(engine: Engine, tmp_path: Path) -> None:
    """Those that were begun count; nothing runs on in the engine."""
    asked = 0

    def late() -> bool:
        nonlocal asked
        asked += 1
        return asked > 40

    path = tmp_path / "words.jsonl"
    said = write_self_calibration(engine, path, tokens=10**6, seed=3, late=late)
    assert 0 < said < 40 * TOGETHER * 2
    assert len(path.read_text().splitlines()) == TOGETHER
    assert engine.step() == []
    assert write_self_calibration(engine, path, tokens=10**6, seed=3, late=lambda: True) == said
