"""Which text a quantizer sees: repeatable, of all kinds, with the model's own template; bad files are named."""

import json
from pathlib import Path

import numpy as np
import pytest

from localinfer.chats.template import conversation
from localinfer.errors import NotFound, UsageError
from localinfer.formats.tokenizer import Tokenizer
from localinfer.quantize.calibration import LENGTH, SHARES, calibration
from tests.tiny import BOS, IM_END, IM_START, make_checkpoint, put_bos_first


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("calibration") / "m")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(folder)


def test_repeatable_and_of_all_kinds(tokenizer: Tokenizer) -> None:
    ids = calibration(tokenizer, conversation, 40 * LENGTH, 0)
    assert ids.shape == (40, LENGTH)
    assert ids.dtype == np.int32
    assert (ids == calibration(tokenizer, conversation, 40 * LENGTH, 0)).all()
    assert (ids != calibration(tokenizer, conversation, 40 * LENGTH, 1)).any()
    assert len({tuple(row) for row in ids.tolist()}) == 40
    chats = [row for row in ids if (row == IM_START).any()]
    assert len(chats) == round(40 * SHARES["chats.jsonl"])
    assert all((row == IM_END).any() for row in chats)
    texts = "".join(tokenizer.decode(row.tolist()) for row in ids)
    for word in ("return ", " the ", " + "):
        assert word in texts
    assert sum(letter > "\u0250" for letter in texts) > 100  # other scripts


def test_all_there_is(tokenizer: Tokenizer) -> None:
    ids = calibration(tokenizer, conversation, 1 << 30, 0)
    assert 100 * LENGTH < ids.size < 1 << 20


def test_without_a_template_chats_are_plain_text(tokenizer: Tokenizer) -> None:
    ids = calibration(tokenizer, None, 40 * LENGTH, 0)
    assert ids.max() < BOS or not np.isin(ids, [IM_START, IM_END]).any()


def test_bos_first_if_the_model_wants_it(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    put_bos_first(tmp_path)
    ids = calibration(Tokenizer(tmp_path), conversation, 8 * LENGTH, 0)
    assert (ids[:, 0] == BOS).all()
    assert not (ids[:, 1:] == BOS).any()


def test_files_of_the_caller(tokenizer: Tokenizer, tmp_path: Path) -> None:
    plain, chats = tmp_path / "a.txt", tmp_path / "b.jsonl"
    plain.write_text("one\n---\n" + "zzz " * 4000)
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "<|im_end|> hello"}]
    chats.write_text((json.dumps(turns) + "\n\n") * 400)
    ids = calibration(tokenizer, conversation, 8 * LENGTH, 3, [plain, chats])
    assert len(ids) == 8
    rows = [row for row in ids if (row == IM_START).any()]
    assert 1 <= len(rows) < 8
    for row in rows:  # what a person wrote is no special token
        assert (row == IM_END).sum() == pytest.approx((row == IM_START).sum(), abs=1)
    assert all("zzz" in tokenizer.decode(row.tolist()) for row in ids if not (row == IM_START).any())


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("short.txt", b"too little", "the calibration text is too short"),
        ("empty.txt", b"", "the calibration text is too short: 0 tokens"),
        ("latin.txt", b"caf\xe9 " * 5000, "is not UTF-8 at byte 3"),
        ("bad.jsonl", b'[{"role": "user"}]\n', "bad.jsonl:1: "),
        ("deep.jsonl", b"[" * 100000, "is no conversation"),
        ("empty.jsonl", b"[]", "is no conversation"),
    ],
)
def test_files_that_cannot_be_used(tokenizer: Tokenizer, tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=words) as caught:
        calibration(tokenizer, conversation, 4096, 0, [tmp_path / name])
    assert caught.value.hint


def test_files_that_are_not_there(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(NotFound, match="cannot be read"):
            calibration(tokenizer, conversation, 4096, 0, [path])
