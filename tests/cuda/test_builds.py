"""The kernels as the real compilers make them, for every architecture: nothing spills, the instructions are the ones
meant, and arithmetic is as strict as the processor's. What a card would run is looked at; no card is needed."""

import functools
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cuda.disassembly import FILES, FLAGS, KERNELS, Built, Kernel, Nvrtc, built_by_nvcc, nvcc, read, tool
from tests.cuda.test_dev import ARCHITECTURES, nvrtc_path

pytestmark = pytest.mark.xdist_group("builds")

NVCC_ARCHITECTURES = (75, 100)
"""Without and with the wide products; a compilation takes seconds, and NVRTC makes the others."""
TILES = {"i4": 1, "i3": 0, "i8": 2, "i8x16": 2}
"""Loads of 16 bytes that a lane makes for a tile of weights: int3 is read 8 and 4 at a time."""
PLANES = {"i4": 1, "i3": 1, "i8": 1, "i8x16": 2}
ROWS = [(kind, rows) for kind in TILES for rows in (1, 2, 4)]
STRIPS = [(kind, rows) for kind in TILES for rows in (8, 16, 32)]
EXACT = re.compile(r"(add|sub|mul|fma|div|rcp|sqrt)\.rn\.f32")
ARITHMETIC = re.compile(
    r"^\s*(?:@!?%p\d+ )?((?:add|sub|mul|fma|mad|div|rcp|sqrt|rsqrt|ex2|lg2|tanh)\.[\w.]*f32)\s", re.M
)


@pytest.fixture(scope="session")
def nvrtc() -> Nvrtc:
    path = nvrtc_path()
    if path is None:
        pytest.skip("not installed: nvidia-cuda-nvrtc-cu12")
    return Nvrtc(path)


@pytest.fixture(scope="session")
def building(nvrtc: Nvrtc, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Built]:
    """`building(86)`: the kernels for that architecture; a compilation takes seconds, so each is done once."""
    for name in ("cuobjdump", "nvdisasm"):
        if tool(name) is None:
            pytest.skip(f"not installed: {name}")
    folder = tmp_path_factory.mktemp("cubins")

    @functools.cache
    def made(architecture: int) -> Built:
        image, ptx = nvrtc.compiled(f"sm_{architecture}")
        cubin = folder / f"sm_{architecture}.cubin"
        cubin.write_bytes(image)
        return Built(ptx, read(cubin))

    return made


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def built(architecture: int, building: Callable[[int], Built]) -> Built:
    return building(architecture)


def strays(ptx: str) -> set[str]:
    """Float instructions that may give other bits than the processor: fused by the compiler, approximate, or flushing
    small numbers. What the compiler must not fuse says `.rn`."""
    return {name for name in ARITHMETIC.findall(ptx) if not EXACT.fullmatch(name)}


def faults(kernels: dict[str, Kernel], fault: Callable[[Kernel], bool]) -> list[str]:
    return [name for name, kernel in kernels.items() if fault(kernel)]


def test_what_is_built_is_what_is_shipped() -> None:
    assert FILES[:2] == ("kernels.cuh", "dev.cuh")
    assert {"-fmad=false", "-prec-div=true", "-prec-sqrt=true", "-ftz=false"} <= set(FLAGS)
    assert len(KERNELS) == len(set(KERNELS)) > 30


def test_every_kernel_is_there(built: Built) -> None:
    assert sorted(built.kernels) == sorted(KERNELS)


def test_nothing_is_kept_outside_registers(built: Built) -> None:
    """A spill, or an array indexed at run time, is memory traffic that no kernel asked for."""
    kernels = dict(built.kernels)
    assert faults(kernels, lambda k: k.stack != 0 or k.local != 0) == []
    assert faults(kernels, lambda k: k.count("LDL", "STL") != 0) == []
    assert max(k.shared for k in kernels.values()) <= 48 << 10


def test_memory_is_known_and_order_is_fixed(built: Built) -> None:
    """Every access is known to be global or shared, and no sum is left to whichever thread comes first."""
    kernels = dict(built.kernels)
    assert faults(kernels, lambda k: k.count("LD", "ST") != 0) == []
    assert faults(kernels, lambda k: k.count("ATOM", "ATOMG", "ATOMS", "RED", "REDG") != 0) == []


def test_floats_are_strict(built: Built) -> None:
    assert strays(built.ptx) == set()
    approximate = ("MUFU.EX2", "MUFU.LG2", "MUFU.SIN", "MUFU.COS", "MUFU.TANH", "MUFU.SQRT")
    assert faults(dict(built.kernels), lambda k: k.count(*approximate) != 0) == []


def test_loose_flags_would_be_noticed(nvrtc: Nvrtc) -> None:
    loose = {"-fmad=false": "-fmad=true", "-prec-div=true": "-prec-div=false", "-prec-sqrt=true": "-prec-sqrt=false"}
    _, ptx = nvrtc.compiled("compute_75", tuple(loose.get(flag, flag) for flag in FLAGS))
    assert strays(ptx) >= {"add.f32", "sub.f32", "mul.f32", "div.full.f32"}
    assert strays(ptx) & {"sqrt.approx.f32", "rsqrt.approx.f32"}
    assert strays("\tfma.rn.ftz.f32 \t%f1, %f2, %f3, %f4;") == {"fma.rn.ftz.f32"}


def test_rows_multiply_four_bytes_at_once(built: Built) -> None:
    """Decode and verify: weights and activations by 16 bytes, dp4a; dots meet in 2 shuffles, or 3 for four rows."""
    for kind, rows in ROWS:
        kernel, inputs = built.kernels[f"linear_{kind}_{rows}"], rows * PLANES[kind]
        tiles = 4 if inputs < 8 else 2
        assert kernel.wide_loads >= tiles * (TILES[kind] + 2 * inputs), (kind, rows)
        assert kernel.count("IDP.4A.S8.S8") >= tiles * 8 * inputs, (kind, rows)
        assert kernel.count("SHFL") >= tiles * 4 * (3 if rows == 4 else 2), (kind, rows)
        assert kernel.count("IMMA") == 0, (kind, rows)


def test_prefill_multiplies_matrices(built: Built, architecture: int) -> None:
    """Tensor cores, for every tile, plane and block of 32 columns; sm_75 makes one product of four."""
    name, parts = ("IMMA.8816.S8.S8", 4) if architecture == 75 else ("IMMA.16832.S8.S8", 1)
    for kind, rows in STRIPS:
        kernel, planes = built.kernels[f"linear_{kind}_{rows}"], PLANES[kind]
        strips, inputs, tiles = (2, 4, 1) if rows == 32 else (1, rows // 8, 4)
        assert kernel.count(name) == tiles * 4 * strips * inputs * planes * parts, (kind, rows)
        assert kernel.wide_loads >= tiles * (2 * strips * TILES[kind] + 2 * inputs * planes), (kind, rows)
        assert kernel.count("IDP", "BAR", "SHFL") == 0, (kind, rows)


def test_attention_scores_are_of_integers(built: Built) -> None:
    for bits in (4, 8):
        kernel = built.kernels[f"attend_{bits}"]
        assert kernel.count("IDP.4A.S8.S8") >= 4
        assert kernel.count("SHFL") >= 10
    wide = built.kernels["attend_16"]
    assert wide.count("LDG.E.64") >= 4
    assert wide.count("IDP") == 0


def test_bfloat_weights_come_by_sixteen_bytes(built: Built) -> None:
    for rows in (1, 4, 16):
        kernel = built.kernels[f"linear_bf16_{rows}"]
        assert kernel.wide_loads >= 4
        assert kernel.count("FFMA") >= 4 * 8 * rows
        assert kernel.count("FMUL", "FADD") == 0


@pytest.mark.skipif(nvcc() is None, reason="nvcc is neither on the path nor below CUDA_HOME")
@pytest.mark.parametrize("architecture", NVCC_ARCHITECTURES)
def test_nvcc_builds_them_too(architecture: int, tmp_path: Path) -> None:
    """An independent front end, all warnings on; it says what spills."""
    path = nvcc()
    assert path is not None
    said = built_by_nvcc(path, f"sm_{architecture}", tmp_path / "kernels.cubin")
    clean = "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"
    assert said.count("Compiling entry function") == said.count(clean) == len(KERNELS), said
