"""Packing: what went in comes out, value by value, whatever the padding and the order of panels."""

from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng

from localinfer import native
from tests.native.matrices import BITS, Matrix, pack, pack_words, random_matrix

KINDS = ["int3", "int4", "int5", "int8", "bf16"]
ALL = [*KINDS, "affine4", "affine5"]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("rows", [1, 31, 32, 33, 100])
@pytest.mark.parametrize("threads", [1, 3])
def test_rows_come_back(kind: str, group: int, rows: int, threads: int) -> None:
    matrix = random_matrix(default_rng(rows), kind, rows, 256, group)
    weight = pack(matrix, threads=threads)
    assert (weight.kind, weight.rows, weight.cols, weight.group) == (kind, rows, 256, matrix.group)
    seen = np.stack([weight.row(i) for i in range(rows)])
    assert np.array_equal(seen, matrix.values.astype(np.float32))  # integer times f16: exact in float32


@pytest.mark.parametrize("kind", ALL)
def test_parts_keep_their_order(kind: str) -> None:
    rng = default_rng(5)
    parts = [random_matrix(rng, kind, rows, 64) for rows in (40, 7, 33)]
    weight = pack(*parts)
    seen = np.stack([weight.row(i) for i in range(weight.rows)])
    assert np.array_equal(seen, np.concatenate([p.values for p in parts]).astype(np.float32))


@pytest.mark.parametrize("kind", ALL)
def test_interleaved_parts_keep_their_order(kind: str) -> None:
    rng = default_rng(6)
    gate, up = random_matrix(rng, kind, 75, 64), random_matrix(rng, kind, 75, 64)
    weight = pack(gate, up, interleave=True)
    seen = np.stack([weight.row(i) for i in range(150)])
    assert np.array_equal(seen, np.concatenate([gate.values, up.values]).astype(np.float32))


def test_mxfp4_comes_back() -> None:
    rng = default_rng(8)
    gate, up = (random_matrix(rng, "mxfp4", 75, 96) for _ in range(2))
    for interleave in (False, True):
        weight = pack(gate, up, interleave=interleave, threads=2)
        seen = np.stack([weight.row(i) for i in range(150)])
        assert np.array_equal(seen, np.concatenate([gate.values, up.values]).astype(np.float32))
    assert (weight.kind, weight.group) == ("mxfp4", 32)
    assert weight.nbytes == 192 * 48 + 6 * 128 == native.packed_bytes(4, 32, 96, [75, 75], mxfp4=True)
    with pytest.raises(ValueError, match="group is 64, but that of MXFP4 is 32"):
        native.packed_bytes(4, 64, 128, [75], mxfp4=True)
    with pytest.raises(ValueError, match="12 words and 2 exponents a row do not make 64 columns"):
        native.pack_mxfp4([(np.zeros((4, 12), np.int32), np.zeros((4, 2), np.uint8))])


@pytest.mark.parametrize("kind", KINDS)
def test_size_in_memory_counts_padding(kind: str) -> None:
    matrix = random_matrix(default_rng(0), kind, 33, 128, 64)
    per_row = 128 * 2 if kind == "bf16" else 2 * 2 + 128 * BITS[kind] // 8
    assert pack(matrix).nbytes == 64 * per_row


def test_every_column_of_three_bits() -> None:
    """Each of 32 columns of a superblock takes each of eight values, alone: no bit lands in a neighbour's place."""
    q = np.full((256, 32), -4)
    for i in range(256):
        q[i, i // 8] = i % 8 - 4
    weight = native.pack_int(3, 32, [(pack_words(q, 3), np.ones((256, 1), np.float16))])
    assert np.array_equal(np.stack([weight.row(i) for i in range(256)]), q.astype(np.float32))


def test_odd_column_counts_of_bf16() -> None:
    matrix = random_matrix(default_rng(0), "bf16", 5, 77)
    weight = pack(matrix)
    assert np.array_equal(weight.row(4), matrix.values[4].astype(np.float32))


def files_of(folder: Path, parts: list[Matrix]) -> tuple[Path, list[tuple[int, int, int]]]:
    """One file with all arrays one after the other, after five bytes of something else; (rows, values, scales)."""
    data, places = b"other", []
    for part in parts:
        arrays = part.stored if isinstance(part.stored, tuple) else (part.stored, np.empty(0))
        places.append((len(part.values), len(data), len(data) + arrays[0].nbytes))
        data += arrays[0].tobytes() + arrays[1].tobytes()
    (folder / "weights").write_bytes(data)
    return folder / "weights", places


def pack_files(
    path: Path, places: list[tuple[int, int, int]], parts: list[Matrix], interleave: bool = False, threads: int = 3
) -> native.Weight | None:
    with path.open("rb") as file:
        handle, kind, cols = file.fileno(), parts[0].kind, parts[0].values.shape[1]
        program = native.Program(64, threads=threads)
        files = [(rows, handle, values, handle, scales) for rows, values, scales in places]
        job = (BITS.get(kind, 16), parts[0].group, cols, files, interleave, 8)
        (weight,) = native.pack_files(program, [job])
        return weight


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "interleave"), [((1,), False), ((40, 7, 700), False), ((333, 333), True)])
@pytest.mark.parametrize("threads", [1, 3])
def test_from_files_as_from_arrays(
    tmp_path: Path, kind: str, rows: tuple[int, ...], interleave: bool, threads: int
) -> None:
    parts = [random_matrix(default_rng(7), kind, n, 384, 128) for n in rows]
    weight = pack_files(*files_of(tmp_path, parts), parts, interleave, threads)
    assert weight is not None
    seen = np.stack([weight.row(i) for i in range(weight.rows)])
    assert np.array_equal(seen, np.concatenate([p.values for p in parts]).astype(np.float32))
    assert weight.nbytes == pack(*parts, interleave=interleave).nbytes


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_short(tmp_path: Path, kind: str) -> None:
    parts = [random_matrix(default_rng(7), kind, 1000, 256, 64)]
    path, places = files_of(tmp_path, parts)
    path.write_bytes(path.read_bytes()[:-1])
    assert pack_files(path, places, parts) is None


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_are_none(tmp_path: Path, kind: str, bad: float, threads: int) -> None:
    part = random_matrix(default_rng(7), kind, 1000, 256, 64)
    if isinstance(part.stored, tuple):
        part.stored[1][999, 3] = bad
    else:
        part.stored[999, 255] = np.array([bad], np.float32).view(np.uint32)[0] >> 16
    assert pack_files(*files_of(tmp_path, [part]), [part], threads=threads) is None


def test_subnormal_scales() -> None:
    scales = np.array([[2.0**-24], [-(2.0**-15)], [0.0]], np.float16)
    q = np.full((3, 32), 3)
    weight = native.pack_int(8, 32, [(pack_words(q, 8), scales)])
    for i in range(3):
        assert np.array_equal(weight.row(i), np.full(32, 3 * np.float32(scales[i, 0])))


@pytest.mark.parametrize(
    ("bits", "group", "words", "scales", "says"),
    [
        (6, 32, (4, 8), (4, 2), "bits is 6"),
        (4, 48, (4, 8), (4, 2), "group is 48"),
        (4, 32, (4, 7), (4, 2), "8 words a row, but there are 7"),
        (4, 32, (4, 8), (3, 2), "3 rows of scales"),
        (3, 32, (4, 7), (4, 2), "6 words a row, but there are 7"),
        (4, 32, (0, 8), (0, 2), "0 rows"),
        (4, 32, (4, 0), (4, 0), "0 columns"),
    ],
)
def test_shapes_that_disagree(
    bits: int, group: int, words: tuple[int, int], scales: tuple[int, int], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        native.pack_int(bits, group, [(np.zeros(words, np.int32), np.zeros(scales, np.float16))])


@pytest.mark.parametrize(
    ("group", "wide", "scales", "factors", "says"),
    [
        (32, 96, (4, 1), (4, 6), "96 columns share a scale"),
        (32, 512, (4, 1), (4, 6), "512 columns share a scale"),
        (32, 128, (4, 1), (4, 6), "128 columns share a scale, .* divide 96"),
        (32, 32, (4, 2), (4, 6), r"minima must be \[4, 3\]"),
        (32, 32, (4, 3), (4, 3), r"factors must be \[4, 6\]"),
        (48, 48, (4, 2), (4, 4), "group is 48"),
        (0, 0, (4, 2), (4, 4), "group is 0"),
    ],
)
def test_affine_shapes_that_disagree(
    group: int, wide: int, scales: tuple[int, int], factors: tuple[int, int], says: str
) -> None:
    halves = np.zeros(scales, np.float16)
    part = (np.zeros((4, 12), np.int32), halves, halves, np.zeros(factors, np.uint8))
    with pytest.raises(ValueError, match=says):
        native.pack_affine(group, wide, [part])


@pytest.mark.parametrize(("bits", "activation_bits"), [(3, 16), (4, 16), (8, 0), (8, 12)])
def test_activations_that_do_not_exist(bits: int, activation_bits: int) -> None:
    part = (np.zeros((4, 2 * bits), np.int32), np.zeros((4, 2), np.float16))
    with pytest.raises(ValueError, match=f"activation_bits is {activation_bits}, but .*; these are int{bits}"):
        native.pack_int(bits, 32, [part], activation_bits=activation_bits)


def test_what_a_weight_says_of_its_activations() -> None:
    kinds = {"int3": 8, "int4": 8, "int8": 8, "int8a16": 16, "bf16": 0}
    assert {k: pack(random_matrix(default_rng(0), k, 5, 32)).activation_bits for k in kinds} == kinds


def test_parts_that_cannot_be_stacked() -> None:
    with pytest.raises(ValueError, match="at least one part"):
        native.pack_bf16([])
    with pytest.raises(ValueError, match="32 and 64 columns"):
        native.pack_bf16([np.zeros((4, 32), np.uint16), np.zeros((4, 64), np.uint16)])
    with pytest.raises(ValueError, match="two parts of the same number of rows"):
        native.pack_bf16([np.zeros((4, 32), np.uint16), np.zeros((5, 32), np.uint16)], interleave=True)


def test_nothing_is_converted_in_silence() -> None:
    with pytest.raises(TypeError):
        native.pack_bf16([np.zeros((4, 32), np.float32)])
    with pytest.raises(TypeError):
        native.pack_bf16([np.zeros((32, 4), np.uint16).T])


def test_a_row_that_is_not_there() -> None:
    weight = native.pack_bf16([np.zeros((4, 32), np.uint16)])
    with pytest.raises(ValueError, match="row 4 of a weight of 4 rows"):
        weight.row(4)
