"""Safetensors: what the format's own library writes is read; whatever lies is refused before it costs anything."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors

from localinfer.errors import Corrupt, DoesNotFit, LocalInferError, NotFound, NotSupported
from localinfer.formats.safetensors import MAX_HEADER, SafetensorsFile, write_safetensors
from tests.formats.files import entry, safetensors_bytes, write

# The library's stub leaves this function untyped.
LIBRARY: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize
TWO = {"a": entry("F32", [2, 3], 0, 24), "b": entry("BF16", [4], 24, 32)}
DATA = bytes(range(32))


def open_bytes(tmp_path: Path, data: bytes) -> SafetensorsFile:
    return SafetensorsFile(write(tmp_path / "model.safetensors", data))


def test_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    arrays: dict[str, tuple[str, np.ndarray[Any, Any]]] = {
        "f32": ("F32", rng.standard_normal((3, 5)).astype(np.float32)),
        "f16": ("F16", rng.standard_normal(7).astype(np.float16)),
        "bf16": ("BF16", rng.integers(0, 1 << 16, (4, 3)).astype(np.uint16)),
        "i32": ("I32", rng.integers(-9, 9, (2, 2, 2)).astype(np.int32)),
        "i64": ("I64", np.array([3, 4])),
        "one": ("F32", np.array(2.5, np.float32)),
        "turned": ("F32", rng.standard_normal((3, 5)).astype(np.float32).T),
    }
    path = tmp_path / "x.safetensors"
    write_safetensors(path, arrays, {"format": "pt"})
    file = SafetensorsFile(path)
    assert file.metadata == {"format": "pt"}
    assert {name: info.dtype for name, info in file.tensors.items()} == {name: a[0] for name, a in arrays.items()}
    for name, (_, array) in arrays.items():
        seen = file.read(name)
        assert seen.shape == array.shape
        assert seen.tobytes() == np.ascontiguousarray(array).tobytes()
    np.testing.assert_array_equal(file.read_rows("bf16", 1, 3), arrays["bf16"][1][1:3])
    assert file.read_rows("bf16", 2, 9).shape == (2, 3)
    assert file.read_rows("bf16", 3, 2).shape == (0, 3)
    library = {name: bytes(info["data"]) for name, info in LIBRARY(path.read_bytes())}
    assert library == {name: file.read(name).tobytes() for name in arrays}


def test_written_bytes_are_the_same_each_time(tmp_path: Path) -> None:
    arrays = {f"t{i}": ("F32", np.full(3, i, np.float32)) for i in range(20)}
    write_safetensors(tmp_path / "a", arrays)
    write_safetensors(tmp_path / "b", dict(reversed(arrays.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_order_in_the_header_is_free(tmp_path: Path) -> None:
    header = {"__metadata__": {"k": "v"}, "b": TWO["b"], "a": TWO["a"]}
    file = open_bytes(tmp_path, safetensors_bytes(header, DATA))
    assert file.read("b").tobytes() == DATA[24:]


def header(**changed: Any) -> bytes:
    """The good file with entries replaced or added."""
    return safetensors_bytes(TWO | changed, DATA)


GOOD = safetensors_bytes(TWO, DATA)
BAD = {
    "empty file": b"",
    "seven bytes": GOOD[:7],
    "header length only": GOOD[:8],
    "header length 0": safetensors_bytes(b"", length=0),
    "header length 2**63": safetensors_bytes(TWO, DATA, length=1 << 63),
    "header length 2**64-1": safetensors_bytes(TWO, DATA, length=(1 << 64) - 1),
    "header over the cap": safetensors_bytes(TWO, DATA, length=MAX_HEADER + 1),
    "header beyond the file": safetensors_bytes(TWO, DATA, length=len(GOOD)),
    "header one short": safetensors_bytes(TWO, DATA, length=len(GOOD) - 8 - 32 - 1),
    "array": safetensors_bytes([], DATA),
    "leading space": safetensors_bytes(b" {}"),
    "bom": safetensors_bytes(b"\xef\xbb\xbf{}"),
    "not utf-8": safetensors_bytes(b'{"\xff": 1}'),
    "key twice": safetensors_bytes(b'{"a":' + b"1," + b'"a":2}'),
    "deep": safetensors_bytes(b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "entry is a list": header(a=[1]),
    "entry without dtype": header(a={"shape": [6], "data_offsets": [0, 24]}),
    "entry with more": header(a=TWO["a"] | {"more": 1}),
    "name empty": header(**{"": entry("F32", [2, 3], 0, 24)}),
    "name long": safetensors_bytes({"n" * 513: entry("U8", [1], 0, 1)}, b"x"),
    "name with escape": safetensors_bytes({"\x1b]0;x\x07": entry("U8", [1], 0, 1)}, b"x"),
    "metadata not text": header(__metadata__={"a": 1}),
    "metadata a list": header(__metadata__=["a"]),
    "shape not a list": header(a=TWO["a"] | {"shape": 6}),
    "shape negative": header(a=entry("F32", [-2, -3], 0, 24)),
    "shape fractional": header(a=entry("F32", [2.0, 3], 0, 24)),
    "shape true": header(a=entry("F32", [True, 6], 0, 24)),
    "shape text": header(a=entry("F32", ["2", 3], 0, 24)),
    "shape huge": header(a=entry("F32", [1 << 62, 1 << 62], 0, 24)),
    "shape overflows to the right size": header(a=entry("F32", [(1 << 32) + 2, (1 << 32) + 3], 0, 24)),
    "shape of 10**5 ones": header(a=entry("F32", [1] * 100_000, 0, 24)),
    "rank 9": header(a=entry("F32", [2, 3, 1, 1, 1, 1, 1, 1, 1], 0, 24)),
    "no values": header(c=entry("F32", [0], 32, 32)),
    "no values elsewhere": header(c=entry("F32", [0, 5], 8, 8)),
    "size too small": header(a=entry("F32", [2, 2], 0, 24)),
    "size too large": header(a=entry("F32", [2, 4], 0, 24)),
    "wider dtype": header(a=entry("F64", [2, 3], 0, 24)),
    "sub-byte": safetensors_bytes({"a": entry("F4", [3], 0, 1)}, b"x"),
    "offsets not two": header(a=TWO["a"] | {"data_offsets": [0, 24, 32]}),
    "offsets negative": header(a=entry("F32", [2, 3], -24, 0)),
    "offsets text": header(a=entry("F32", [2, 3], "0", "24")),
    "offsets null": header(a=entry("F32", [2, 3], None, 24)),
    "offsets float": header(a=entry("F32", [2, 3], 0.0, 24.0)),
    "offsets descending": header(a=entry("F32", [2, 3], 24, 0)),
    "offsets beyond the file": header(b=entry("BF16", [1 << 30], 24, 24 + (1 << 31))),
    "offsets 2**63": header(b=entry("BF16", [4], 1 << 63, (1 << 63) + 8)),
    "overlap by one": safetensors_bytes({"a": entry("U8", [24], 0, 24), "b": entry("U8", [9], 23, 32)}, DATA),
    "same place twice": header(c=TWO["b"]),
    "hole of one": safetensors_bytes({"a": entry("U8", [24], 0, 24), "b": entry("U8", [7], 25, 32)}, DATA),
    "hole at the start": safetensors_bytes({"a": entry("U8", [31], 1, 32)}, DATA),
    "end one short": GOOD + b"x",
    "end one over": GOOD[:-1],
    "zip appended": GOOD + b"PK\x05\x06" + bytes(18),
    "git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
    "web page": b"<!DOCTYPE html><html><body>Not found</body></html>",
    "json error body": b'{"error": "Repository not found, please check the name of the repository"}',
    "torch zip": b"PK\x03\x04" + bytes(200),
    "pickle": b"\x80\x02}q\x00." + bytes(100),
    "gguf": b"GGUF\x03\x00\x00\x00" + bytes(100),
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_malformed(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Corrupt, match=r"model\.safetensors: ") as caught:
        open_bytes(tmp_path, data)
    assert caught.value.hint
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("git-lfs pointer", "git-LFS pointer"),
        ("web page", "web page"),
        ("torch zip", "pickle"),
        ("pickle", "pickle"),
        ("gguf", "GGUF"),
        ("size too small", "`a`: shape"),
        ("overlap by one", "`b` begins at byte"),
        ("end one over", "end at byte"),
    ],
)
def test_message_names_the_cause(tmp_path: Path, case: str, words: str) -> None:
    with pytest.raises(Corrupt, match=words):
        open_bytes(tmp_path, BAD[case])


def test_too_many_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localinfer.formats.safetensors.MAX_TENSORS", 100)
    many = {f"t{i}": entry("U8", [1], i, i + 1) for i in range(101)}
    with pytest.raises(Corrupt, match="101 tensors, but at most 100"):
        open_bytes(tmp_path, safetensors_bytes(many, bytes(len(many))))


def test_dtypes(tmp_path: Path) -> None:
    with pytest.raises(NotSupported, match="dtype 'Q3' is not known"):
        open_bytes(tmp_path, safetensors_bytes({"a": entry("Q3", [4], 0, 4)}, b"1234"))
    file = open_bytes(tmp_path, safetensors_bytes({"a": entry("F8_E5M2", [4], 0, 4)}, b"1234"))
    with pytest.raises(NotSupported, match="`a` has dtype F8_E5M2"):
        file.read("a")


def test_header_of_60_bytes_is_no_web_page(tmp_path: Path) -> None:
    text = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(0x3C)
    assert open_bytes(tmp_path, safetensors_bytes(text, b"x")).read("a")[0] == ord("x")


def test_truncated_anywhere(tmp_path: Path) -> None:
    for length in range(len(GOOD)):
        with pytest.raises(Corrupt):
            open_bytes(tmp_path, GOOD[:length])


def test_bit_flips_in_the_header(tmp_path: Path) -> None:
    """Each flip is refused, or gives ranges inside the file; we never accept what the format's library refuses."""
    accepted = 0
    for position in range(len(GOOD) - len(DATA)):
        for bit in range(8):
            data = bytearray(GOOD)
            data[position] ^= 1 << bit
            try:
                file = open_bytes(tmp_path, bytes(data))
            except (Corrupt, NotSupported):
                continue
            accepted += 1
            LIBRARY(bytes(data))
            for name, info in file.tensors.items():
                assert len(GOOD) - len(DATA) <= info.begin < info.end <= len(GOOD)
                assert file.read(name).nbytes == info.nbytes
    assert 0 < accepted < 300  # another letter in a name is no damage we could see


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_the_library_is_never_stricter(tmp_path: Path, data: bytes) -> None:
    """A differential check: what we accept, the library accepts."""
    try:
        open_bytes(tmp_path, data)
    except LocalInferError:
        return
    try:
        LIBRARY(data)
    except safetensors.SafetensorError as error:  # pragma: no cover - a failure
        raise AssertionError("accepted what the library refuses") from error


def test_no_memory_for_a_lie(tmp_path: Path) -> None:
    """A header that promises 2 TB is refused although it could be mapped."""
    lie = safetensors_bytes({"a": entry("U8", [1 << 41], 0, 1 << 41)}, b"x")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Corrupt):
        open_bytes(tmp_path, lie)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10


def test_changed_after_opening(tmp_path: Path) -> None:
    file = open_bytes(tmp_path, GOOD)
    (tmp_path / "model.safetensors").write_bytes(GOOD[:-4])
    with pytest.raises(Corrupt, match="changed while"):
        file.read("b")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(NotFound):
        file.read("b")


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        SafetensorsFile(tmp_path / "none.safetensors")
    with pytest.raises(Corrupt):
        SafetensorsFile(tmp_path)


def test_disk_full_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(DoesNotFit, match=r"needs 1\.0 MB") as caught:
            write_safetensors(path, {"a": ("F32", np.zeros(1 << 18, np.float32))})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="cannot be written"):
        write_safetensors(tmp_path / "none" / "x.safetensors", {"a": ("U8", np.zeros(1, np.uint8))})
