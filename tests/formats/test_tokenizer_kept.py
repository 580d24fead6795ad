"""A tokenizer that was kept is the one that was read; whatever is wrong with what was kept, it is read again."""

import json
import os
import stat
from pathlib import Path

import pytest

from localinfer.formats import tokenizer_kept
from localinfer.formats.tokenizer import Tokenizer
from localinfer.paths import tokenizers_dir
from tests.formats.small_tokenizers import KINDS, save
from tests.formats.test_tokenizer import GUARD, TEXTS

SAID = (
    "chat_templates",
    "eos_ids",
    "vocab_size",
    "special_strings",
    "special_tokens",
    "bos_id",
    "adds_bos",
    "after",
    "notes",
)


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_kept, "WORTH_BYTES", 0)


def kept() -> list[Path]:
    return sorted(tokenizers_dir().glob("*"))


def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(directory: Path) -> None:
        raise AssertionError(f"{directory} is read")

    monkeypatch.setattr(tokenizer_kept, "read_parts", refuse)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_comes_back(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(kind, tmp_path)
    first = Tokenizer(tmp_path)
    (file,) = kept()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    no_reading(monkeypatch)
    second = Tokenizer(tmp_path)
    assert all(getattr(first, name) == getattr(second, name) for name in SAID)
    for text in TEXTS:
        assert first.encode_text(text) == second.encode_text(text)
        for shown in (text, f"{''.join(first.special_strings)}{text}"):
            assert first.encode_rendered(shown, GUARD) == second.encode_rendered(shown, GUARD)
    for token in range(-1, first.vocab_size + 1):
        assert first.spelling(token) == second.spelling(token)
        assert first.token_bytes(token, specials=True) == second.token_bytes(token, specials=True)


def test_other_files_are_another_tokenizer(tmp_path: Path) -> None:
    save(KINDS[0], tmp_path)
    Tokenizer(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    said = json.loads(config.read_text()) if config.exists() else {}
    config.write_text(json.dumps(said | {"chat_template": "{{ messages }}!"}))
    assert Tokenizer(tmp_path).chat_template == "{{ messages }}!"
    assert len(kept()) == 2


@pytest.mark.parametrize("at", [0, 40, -1])
def test_a_damaged_one_is_read_again(at: int, tmp_path: Path) -> None:
    save(KINDS[0], tmp_path)
    whole = Tokenizer(tmp_path).encode_text(TEXTS[2])
    (file,) = kept()
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    assert Tokenizer(tmp_path).encode_text(TEXTS[2]) == whole
    assert file.read_bytes() != data
    file.write_bytes(data[:20])
    assert Tokenizer(tmp_path).encode_text(TEXTS[2]) == whole


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    save(KINDS[0], tmp_path)
    tokenizers_dir().parent.mkdir(parents=True, exist_ok=True)
    tokenizers_dir().write_text("in the way")
    assert Tokenizer(tmp_path).encode_text("Hello")


def test_the_oldest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_kept, "MOST_KEPT", 2)
    for number, kind in enumerate(KINDS[:3]):
        (tmp_path / kind).mkdir()
        save(kind, tmp_path / kind)
        Tokenizer(tmp_path / kind)
        for file in kept():
            age = file.stat().st_mtime - 1
            os.utime(file, (age, age))
        assert len(kept()) == min(number + 1, 2)
