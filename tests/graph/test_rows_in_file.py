"""The table of inputs by layer stays in its file: the bits of one that is held, no memory, and damage that is told."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer import native
from localinfer.cost.fit import estimate
from localinfer.errors import Corrupt
from localinfer.formats.compressed import pack
from localinfer.graph import memory
from localinfer.graph.weights import Checkpoint
from tests.graph.oracle import oracle
from tests.graph.packed import quantized, round_to
from tests.graph.running import load, run

TABLE = "model.embed_tokens_per_layer"
Kind = Literal[16, 8, 5, 4, 3]


def stored(bits: Kind, rows: int = 70, cols: int = 384, group: int = 64) -> tuple[NDArray[Any], NDArray[Any]]:
    """Values and scales of a random matrix as they lie on disk."""
    matrix = np.random.default_rng(bits).standard_normal((rows, cols)).astype(np.float32)
    if bits == 16:
        return (matrix.view(np.uint32) >> 16).astype(np.uint16), np.zeros((0,), np.float16)
    values, scales = round_to(matrix, bits, group)
    return pack(values, bits), scales


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[int]:
    number = os.open(tmp_path / "rows", os.O_RDWR | os.O_CREAT)
    yield number
    os.close(number)


@pytest.mark.parametrize("bits", [16, 8, 5, 4, 3])
@pytest.mark.parametrize("group", [32, 64, 128])
def test_each_row_is_that_of_the_packed_matrix(handle: int, bits: Kind, group: int) -> None:
    values, scales = stored(bits, group=group)
    os.pwrite(handle, values.tobytes(), 7)  # no border that anything needs
    os.pwrite(handle, scales.tobytes(), 7 + values.nbytes)
    at = handle, 7, handle, 7 + values.nbytes
    rows = native.open_rows(bits, 0 if bits == 16 else group, 384, 70, at, "x")
    whole = native.pack_bf16([values]) if bits == 16 else native.pack_int(bits, group, [(values, scales)])
    for i in range(70):
        assert np.array_equal(rows.row(i), whole.row(i)), i
    assert rows.nbytes == values.nbytes + scales.nbytes
    with pytest.raises(ValueError, match="row 70 of a matrix of 70 rows"):
        rows.row(70)


@pytest.mark.parametrize(
    ("at", "rows"),
    [((1000, 0), 70), ((0, 1 << 40), 70), ((0, (1 << 64) - 1), 70), ((0, 70 * 384), 71), ((0, 70 * 384), 1 << 28)],
)
def test_a_file_that_is_too_short_is_refused_before_it_is_read(handle: int, at: tuple[int, int], rows: int) -> None:
    values, scales = stored(8)
    os.pwrite(handle, values.tobytes() + scales.tobytes(), 0)
    with pytest.raises(Corrupt, match="the table is shorter than its header says"):
        native.open_rows(8, 64, 384, rows, (handle, at[0], handle, at[1]), "the table")


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ((6, 64, 384, 70), "bits is 6"),
        ((8, 48, 384, 70), "group is 48"),
        ((8, 64, 100, 70), "not whole groups"),
        ((8, 64, 0, 70), "0 columns"),
        ((8, 64, 1 << 40, 70), "1099511627776 columns"),
        ((8, 64, 384, 0), "0 rows"),
        ((8, 64, 384, 1 << 40), "1099511627776 rows"),
    ],
)
def test_other_shapes_are_refused(handle: int, form: tuple[int, int, int, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        native.open_rows(*form, (handle, 0, handle, 0), "x")


@pytest.mark.parametrize("variant", ["gemma4_text", "gemma4-biases"])
@pytest.mark.parametrize("bits", [16, 8, 5, 4, 3])
def test_a_step_has_the_bits_of_one_with_the_table_in_memory(
    tmp_path: Path, variant: str, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = oracle(variant)
    path = said.path if bits == 16 else quantized(said.path, tmp_path / "packed", bits, 32)
    here = load(path, 8)
    monkeypatch.setattr(Checkpoint, "in_file", lambda self, linear: False)
    held = load(path, 8)
    assert np.array_equal(run(here, said.tokens), run(held, said.tokens))
    table = Checkpoint(path).graph.inputs
    assert table is not None
    packed = memory.packed_bytes(table.table, *Checkpoint(path).form(TABLE))
    assert held.weight_bytes - here.weight_bytes == packed


def test_its_memory_is_counted_as_it_is() -> None:
    """What is said of memory leaves it out, what is said of the disk does not."""
    checkpoint = Checkpoint(oracle("gemma4_text").path)
    vectors = 4 * checkpoint.graph.vector_values()
    assert memory.weights_bytes(checkpoint) - vectors == load(checkpoint.path).weight_bytes
    assert memory.in_file_bytes(checkpoint) == checkpoint.stored_bytes(TABLE) == 320 * 6 * 64 * 2
    fit = estimate(checkpoint, free_bytes=1 << 40)
    assert fit.in_file_bytes == checkpoint.stored_bytes(TABLE)
    assert fit.total_bytes == fit.weights_bytes + fit.kv_bytes + fit.other_bytes
    in_8_bits = estimate(checkpoint, free_bytes=1 << 40, form=lambda name: (8, 32))
    assert in_8_bits.in_file_bytes == 320 * 6 * 64 * 17 // 16


def copied(tmp_path: Path) -> tuple[Path, int]:
    """A checkpoint of its own, and where its table begins in its file."""
    path = tmp_path / "m"
    shutil.copytree(oracle("gemma4_text").path, path)
    tensor = Checkpoint(path).stored[f"{TABLE}.weight"]
    return tensor.file.path, tensor.info.begin


def test_a_file_that_is_cut_short_while_it_is_in_use_ends_a_step_and_no_more(tmp_path: Path) -> None:
    file, begin = copied(tmp_path)
    program = load(file.parent, 8)
    whole, tokens = file.read_bytes(), oracle("gemma4_text").tokens
    expected = run(program, tokens)
    os.truncate(file, begin + 100)
    with pytest.raises(Corrupt, match=rf"{TABLE}. was cut short, or cannot be read any more, while it was in use") as e:
        run(program, tokens)
    assert e.value.hint
    with file.open("r+b") as again:  # the same file, whole again
        again.write(whole)
    assert np.array_equal(run(program, tokens), expected)


def test_a_row_that_is_no_number_is_told_when_it_is_asked_for(tmp_path: Path) -> None:
    """Nobody reads all of the table: a model opens at once."""
    file, begin = copied(tmp_path)
    with file.open("r+b") as damaged:
        damaged.seek(begin + (65 * 6 * 64 + 9) * 2)
        damaged.write(b"\xc0\x7f")
    program = load(file.parent, 8)
    assert np.isfinite(run(program, [66, 67, 68])).all()
    with pytest.raises(Corrupt, match="holds NaN or infinity"):
        run(program, [66, 65, 68])
    assert np.isfinite(run(program, [66, 67, 68])).all()


def test_a_file_that_takes_its_place_changes_nothing(tmp_path: Path) -> None:
    file, _ = copied(tmp_path)
    program, tokens = load(file.parent, 8), oracle("gemma4_text").tokens
    expected = run(program, tokens)
    file.with_name("other").write_bytes(bytes(100))
    file.with_name("other").replace(file)
    assert np.array_equal(run(program, tokens), expected)
