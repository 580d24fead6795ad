"""Models in several GGUF files: any one of them opens all, and what is missing is named."""

from pathlib import Path

import numpy as np
import pytest

from localinfer.errors import Corrupt, LocalInferError, NotFound, NotSupported
from localinfer.formats.gguf import GgufFile
from localinfer.hub.importing import default_name, import_file
from localinfer.quantize.from_gguf import GgufImporter
from tests.formats.files import write
from tests.formats.gguf_models import gguf_of, split_of
from tests.tiny import make_checkpoint

COUNT = 3


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "source", dtype="float32", seed=3)


@pytest.fixture
def parts(tmp_path: Path, source: Path) -> list[Path]:
    files = split_of(source, COUNT)
    return [write(part(tmp_path, number), data) for number, data in enumerate(files, 1)]


def part(folder: Path, number: int, count: int = COUNT) -> Path:
    return folder / f"my-{number:05d}-of-{count:05d}.gguf"


@pytest.mark.parametrize("given", range(COUNT))
def test_any_part_opens_the_model(tmp_path: Path, source: Path, parts: list[Path], given: int) -> None:
    whole = GgufFile(write(tmp_path / "whole.gguf", gguf_of(source)))
    file = GgufFile(parts[given])
    assert file.path == parts[0]
    assert file.paths == tuple(parts)
    assert file.text("general.architecture") == "llama"
    assert file.tensors.keys() == whole.tensors.keys()
    for name in whole.tensors:
        assert np.array_equal(file.dequantize(name), whole.dequantize(name))
    model = import_file(parts[given], importer=GgufImporter())
    assert model.ref == "my:BF16"
    assert import_file(parts[0]) == model


def test_names() -> None:
    assert default_name(Path("Big.Q4_K_M-00002-of-00009.gguf")) == "Big.Q4_K_M"


@pytest.mark.parametrize("gone", range(COUNT))
def test_a_missing_part_is_named(parts: list[Path], gone: int) -> None:
    parts[gone].unlink()
    given = parts[(gone + 1) % COUNT]
    with pytest.raises(NotFound, match=rf"my-0000{gone + 1}-of-00003\.gguf: no such file"):
        GgufFile(given)


def test_other_names(tmp_path: Path, parts: list[Path]) -> None:
    with pytest.raises(NotSupported, match="is part 2 of 3 of a model, which its name does not say"):
        GgufFile(parts[1].rename(tmp_path / "b.gguf"))
    with pytest.raises(NotSupported, match="is part 3 of 3"):
        GgufFile(parts[2].rename(part(tmp_path, 3, 4)))


def test_parts_of_other_models(tmp_path: Path, source: Path, parts: list[Path]) -> None:
    two = split_of(source, 2)
    parts[2].write_bytes(two[1])
    with pytest.raises(Corrupt, match="does not say that it is part 3 of 3"):
        GgufFile(parts[0])
    parts[2].write_bytes(parts[1].read_bytes())
    with pytest.raises(Corrupt, match="does not say that it is part 3 of 3"):
        GgufFile(parts[0])


def test_every_flip_in_a_part_is_clean(tmp_path: Path, parts: list[Path]) -> None:
    good = parts[1].read_bytes()
    rng = np.random.default_rng(5)
    errors = 0
    for _ in range(120):
        data = bytearray(good)
        data[rng.integers(8, 900)] ^= 1 << rng.integers(8)
        parts[1].write_bytes(bytes(data))
        try:
            GgufImporter().bits_of(parts[0])
        except LocalInferError:
            errors += 1
    assert errors > 10
