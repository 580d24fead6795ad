"""GGUF headers that lie and files that are cut: refused before anything large is read; whole files are read exactly."""

import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer.errors import Corrupt, LocalInferError, NotFound, NotSupported
from localinfer.formats.gguf import GgufFile
from tests.formats.files import gguf_bytes, gguf_pair, gguf_string, gguf_tensor, gguf_value, write

F32, F16, Q4_0, Q4_1, Q8_0, BF16 = 0, 1, 2, 3, 8, 30
PAIRS: dict[str, tuple[str, Any]] = {
    "general.architecture": ("str", "llama"),
    "small": ("u8", 7),
    "yes": ("bool", True),
    "eps": ("f32", 0.5),
    "names": ("arr", ("str", ["a", "é", ""])),
    "numbers": ("arr", ("i32", [1, -2, 3])),
    "none": ("arr", ("f32", [])),
}
DATA = np.arange(32, dtype=np.float32).tobytes()
TENSORS = [gguf_tensor("a", [4, 3], F32, 0), gguf_tensor("b", [5], F32, 64)]
GOOD = gguf_bytes(PAIRS, TENSORS, DATA)


def open_bytes(tmp_path: Path, data: bytes) -> GgufFile:
    return GgufFile(write(tmp_path / "x.gguf", data))


@pytest.mark.parametrize("version", [2, 3])
def test_a_good_file(tmp_path: Path, version: int) -> None:
    file = open_bytes(tmp_path, gguf_bytes(PAIRS, TENSORS, DATA, version=version))
    assert file.metadata == {
        "general.architecture": "llama",
        "small": 7,
        "yes": True,
        "eps": 0.5,
        "names": ["a", "é", ""],
        "numbers": [1, -2, 3],
        "none": [],
    }
    assert {name: tensor.shape for name, tensor in file.tensors.items()} == {"a": (3, 4), "b": (5,)}
    np.testing.assert_array_equal(file.dequantize("a"), np.arange(12, dtype=np.float32).reshape(3, 4))
    np.testing.assert_array_equal(file.dequantize("b"), np.arange(16, 21, dtype=np.float32))
    assert (file.text("general.architecture"), file.integer("small"), file.number("eps")) == ("llama", 7, 0.5)
    assert (file.text("no", "x"), file.integer("no", 3), file.number("no", 2.0)) == ("x", 3, 2.0)


@pytest.mark.parametrize("alignment", [8, 32, 4096])
def test_alignment(tmp_path: Path, alignment: int) -> None:
    pairs = {**PAIRS, "general.alignment": ("u32", alignment)}
    tensors = [gguf_tensor("a", [2], F32, 0), gguf_tensor("b", [2], F32, alignment)]
    data = struct.pack("<2f", 1, 2).ljust(alignment, b"\0") + struct.pack("<2f", 3, 4)
    file = open_bytes(tmp_path, gguf_bytes(pairs, tensors, data, alignment=alignment))
    assert file.dequantize("b").tolist() == [3, 4]


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q4_K", "Q6_K", "IQ4_NL"])
def test_every_kind_is_the_packages_own_meaning(tmp_path: Path, kind: str) -> None:
    number = gguf.GGMLQuantizationType[kind]
    block, size = gguf.constants.GGML_QUANT_SIZES[number]
    rng = np.random.default_rng(3)
    raw: NDArray[np.uint8] = rng.integers(0, 256, (6, 2 * size), dtype=np.uint8)
    raw[:, 1::2] &= 0x3B  # scales finite
    columns = 2 * block
    data = gguf_bytes({}, [gguf_tensor("w", [columns, 3, 2], int(number), 0)], raw.tobytes())
    seen = open_bytes(tmp_path, data).dequantize("w")
    assert seen.shape == (2, 3, columns)
    assert seen.dtype == np.float32
    expected = gguf.quants.dequantize(raw, number).reshape(seen.shape)
    np.testing.assert_array_equal(seen, expected)


def head(version: int = 3, tensors: int = 0, keys: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def pair(kind: int, value: bytes, key: bytes | str = "k") -> bytes:
    return gguf_bytes([gguf_string(key) + struct.pack("<I", kind) + value])


def tensors(*infos: bytes, data: bytes = DATA, **more: Any) -> bytes:
    return gguf_bytes({}, infos, data, **more)


def array(item: int, count: int, data: bytes = b"") -> bytes:
    return pair(9, struct.pack("<IQ", item, count) + data)


BAD: dict[str, bytes] = {
    "empty": b"",
    "magic only": b"GGUF",
    "other magic": b"GGJT" + GOOD[4:],
    "safetensors": struct.pack("<Q", 2) + b"{}" + bytes(100),
    "git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64,
    "2**64-1 tensors": head(tensors=(1 << 64) - 1),
    "2**63 keys": head(keys=1 << 63),
    "70000 keys": head(keys=70_000),
    "more keys than there are": gguf_bytes(PAIRS, TENSORS, DATA, counts=(2, 8)),
    "more tensors than there are": gguf_bytes(PAIRS, TENSORS, b"", counts=(9, 7)),
    "fewer keys than there are": gguf_bytes(PAIRS, TENSORS, DATA, counts=(2, 6)),
    "key of 2**63 bytes": head(keys=1) + struct.pack("<Q", 1 << 63) + bytes(64),
    "key over the cap": head(keys=1) + struct.pack("<Q", 1 << 17) + bytes(1 << 18),
    "key empty": pair(0, b"\1", ""),
    "key not utf-8": pair(0, b"\1", b"\xff"),
    "key twice": gguf_bytes([gguf_pair("a", "u8", 1), gguf_pair("a", "u8", 2)]),
    "type 13": pair(13, bytes(64)),
    "type 2**32-1": pair((1 << 32) - 1, bytes(64)),
    "bool 2": pair(7, b"\2"),
    "string beyond the file": pair(8, struct.pack("<Q", 1000) + b"x"),
    "string of 2**64-1": pair(8, struct.pack("<Q", (1 << 64) - 1) + b"x"),
    "string not utf-8": pair(8, struct.pack("<Q", 2) + b"\xc3\x28"),
    "array of type 13": array(13, 1, bytes(64)),
    "array beyond the file": array(6, 1000, bytes(8)),
    "array of 2**61 u64": array(10, 1 << 61, bytes(8)),
    "array of 2**40 strings": array(8, 1 << 40, bytes(64)),
    "array of many empty strings": array(8, 1000, bytes(64)),
    "array of a long string": array(8, 1, struct.pack("<Q", 1 << 20) + bytes(1 << 21)),
    "array of bools not bool": array(7, 2, b"\1\5"),
    "alignment 0": gguf_bytes({"general.alignment": ("u32", 0)}),
    "alignment 48": gguf_bytes({"general.alignment": ("u32", 48)}),
    "alignment 2**31": gguf_bytes({"general.alignment": ("u32", 1 << 31)}),
    "alignment text": gguf_bytes({"general.alignment": ("str", "32")}),
    "alignment true": gguf_bytes({"general.alignment": ("bool", True)}),
    "name empty": tensors(gguf_tensor("", [4], F32, 0)),
    "name long": tensors(gguf_tensor("n" * 600, [4], F32, 0)),
    "name with escape": tensors(gguf_tensor("\x1b[2J", [4], F32, 0)),
    "name not utf-8": tensors(gguf_tensor(b"\xff", [4], F32, 0)),
    "name twice": tensors(gguf_tensor("a", [4], F32, 0), gguf_tensor("a", [4], F32, 32)),
    "no dimensions": tensors(gguf_tensor("a", [], F32, 0)),
    "five dimensions": tensors(gguf_tensor("a", [1] * 5, F32, 0)),
    "2**32-1 dimensions": tensors(gguf_string("a") + struct.pack("<I", (1 << 32) - 1)),
    "dimension 0": tensors(gguf_tensor("a", [4, 0], F32, 0)),
    "dimension 2**63": tensors(gguf_tensor("a", [1 << 63, 2], F32, 0)),
    "product overflows": tensors(gguf_tensor("a", [1 << 32, 1 << 32, 4], F32, 0)),
    "product overflows to 16 bytes": tensors(gguf_tensor("a", [1 << 33, 1 << 31, 1], F32, 0)),
    "row is no whole block": tensors(gguf_tensor("a", [33, 2], Q8_0, 0)),
    "offset unaligned": tensors(gguf_tensor("a", [4], F32, 4)),
    "offset beyond the file": tensors(gguf_tensor("a", [4], F32, 1 << 20)),
    "offset 2**64-32": tensors(gguf_tensor("a", [4], F32, (1 << 64) - 32)),
    "overlap": tensors(gguf_tensor("a", [16], F32, 0), gguf_tensor("b", [4], F32, 32)),
    "same place": tensors(gguf_tensor("a", [4], F32, 0), gguf_tensor("b", [4], F32, 0)),
    "data cut": tensors(gguf_tensor("a", [4], F32, 0), data=DATA[:15]),
    "no data": tensors(gguf_tensor("a", [4], F32, 0), data=b""),
    "split far": gguf_bytes({"split.count": ("u16", 60000), "split.no": ("u16", 59999)}),
    "split beyond": gguf_bytes({"split.count": ("u16", 2), "split.no": ("u16", 2)}),
    "split text": gguf_bytes({"split.count": ("str", "2")}),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_malformed(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Corrupt, match=r"x\.gguf: ") as caught:
        open_bytes(tmp_path, data)
    assert caught.value.hint
    assert caught.value.message.isprintable()


UNSUPPORTED: dict[str, bytes] = {
    "version 1": gguf_bytes(PAIRS, TENSORS, DATA, version=1),
    "version 4": gguf_bytes(PAIRS, TENSORS, DATA, version=4),
    "big endian": gguf_bytes(PAIRS, TENSORS, DATA, version=3 << 24),
    "split": gguf_bytes({"split.count": ("u16", 2)}),
    "array of arrays": array(9, 1, bytes(64)),
    "tensor of type 99": tensors(gguf_tensor("a", [4], 99, 0)),
}


@pytest.mark.parametrize("data", UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
def test_not_supported(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(NotSupported, match=r"x\.gguf: "):
        open_bytes(tmp_path, data)


def test_a_kind_without_a_dequantizer(tmp_path: Path) -> None:
    file = open_bytes(tmp_path, tensors(gguf_tensor("a", [32], 9, 0), data=bytes(40)))  # Q8_1
    with pytest.raises(NotSupported, match="`a` has type Q8_1"):
        file.dequantize("a")


def test_wrong_types_are_named(tmp_path: Path) -> None:
    file = open_bytes(tmp_path, GOOD)
    calls: Sequence[tuple[Callable[[], object], str]] = [
        (lambda: file.text("small"), "`small` has the wrong type"),
        (lambda: file.integer("eps"), "`eps` has the wrong type"),
        (lambda: file.integer("yes"), "`yes` must be a whole number"),
        (lambda: file.number("yes"), "`yes` must be a number"),
        (lambda: file.number("names"), "`names` has the wrong type"),
        (lambda: file.text("nowhere"), "`nowhere` is missing"),
    ]
    for call, words in calls:
        with pytest.raises(Corrupt, match=words):
            call()


def test_truncated_anywhere(tmp_path: Path) -> None:
    end = len(GOOD) - 32 * 4 + 64 + 20  # the last byte of `b`
    for length in range(end):
        with pytest.raises(Corrupt):
            open_bytes(tmp_path, GOOD[:length])
    assert open_bytes(tmp_path, GOOD[:end]).dequantize("b")[-1] == 20


def test_bit_flips_in_the_header(tmp_path: Path) -> None:
    """Each flip is refused, or gives tensors inside the file that can be read."""
    accepted = 0
    for position in range(len(GOOD) - len(DATA)):
        for bit in range(8):
            data = bytearray(GOOD)
            data[position] ^= 1 << bit
            try:
                file = open_bytes(tmp_path, bytes(data))
                for name, tensor in file.tensors.items():
                    assert tensor.end <= len(GOOD)
                    file.dequantize(name)
                accepted += 1
            except LocalInferError as error:
                if not isinstance(error, (Corrupt, NotSupported)):
                    raise
    assert accepted > 0


def test_changed_after_opening(tmp_path: Path) -> None:
    file = open_bytes(tmp_path, GOOD)
    (tmp_path / "x.gguf").write_bytes(GOOD[:-60])
    with pytest.raises(Corrupt, match="changed while"):
        file.dequantize("a")


def test_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        GgufFile(tmp_path / "none.gguf")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(Corrupt, match="regular file"):
            GgufFile(path)


def test_our_builder_agrees_with_the_package(tmp_path: Path) -> None:
    """The files these tests are made of are GGUF to the reference reader too."""
    reader = gguf.GGUFReader(write(tmp_path / "x.gguf", GOOD))
    assert [tensor.name for tensor in reader.tensors] == ["a", "b"]
    assert reader.fields["names"].contents() == ["a", "é", ""]
    assert gguf_value("arr", ("u8", [1]))[-1] == 1
