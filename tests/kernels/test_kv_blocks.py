"""KV blocks: what a token's bytes are, the same on every ISA."""

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from localinfer import _native as native

from .arrays import Floats, Guarded, aligned, same_bits, shifted
from .kv import PUT, allowed, block_bytes, in_4_bits, stored

ISAS = native.supported_isas()


def walsh_hadamard(x: Floats) -> Floats:
    """The butterflies in float32, distances ascending."""
    n = len(x) & -len(x)
    x = x.copy()
    for h in 2 ** np.arange(n.bit_length() - 1):
        a, b = np.moveaxis(x.reshape(-1, 2, h), 1, 0)
        x = np.stack([a + b, a - b], 1).ravel()
    return x


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("head_dim", [16, 48, 64, 128, 512])
def test_put_writes_one_slot_and_the_same_bytes_everywhere(bits: int, head_dim: int, rng: Generator) -> None:
    head_dim = allowed(head_dim, bits)
    k, v = shifted(rng.normal(size=(2, head_dim)).astype(np.float32), 1)
    k[:4] = [0, 1e-7, 65519, -65520] if bits == 16 else [0, 1e-7, 3, -3]
    for token in (0, 13, 31):
        written = []
        for isa in ISAS:
            block = aligned(block_bytes(head_dim, bits))
            block[:] = 0x5A
            PUT[bits](block, token, k, v, isa=isa)
            written.append(block)
            assert (block == written[0]).all(), isa
        touched = np.flatnonzero(written[0] != 0x5A)
        keys, values, scales = slots(token, head_dim, bits)
        assert set(touched.tolist()) <= {*keys.ravel().tolist(), *values.ravel().tolist(), *scales.tolist()}
        if bits == 16:
            with np.errstate(over="ignore"):
                assert (written[0][keys].ravel().view(np.float16) == k.astype(np.float16)).all()
                assert (written[0][values].ravel().view(np.float16) == v.astype(np.float16)).all()
        elif bits == 4:
            (k_q, v_q), (k_scale, v_scale) = in_4_bits(np.stack([k, v]))
            assert (written[0][scales].view(np.float16) == np.concatenate([k_scale, v_scale]).ravel()).all()
            pairs = k_q.reshape(-1, 2, 4)  # columns 8j + t and 8j + 4 + t
            assert (written[0][keys].reshape(-1, 4) == (pairs[:, 0] + 8) + 16 * (pairs[:, 1] + 8)).all()
            pairs = v_q.reshape(-1, 2, 16)  # columns 32g + i and 32g + 16 + i
            assert (written[0][values].reshape(-1, 16) == (pairs[:, 0] + 8) + 16 * (pairs[:, 1] + 8)).all()
        else:
            k_scale, v_scale = written[0][scales].view(np.float32)
            assert k_scale == np.abs(k).max() / np.float32(127)
            assert v_scale == np.abs(v).max() / np.float32(127)
            assert (written[0][keys].ravel().astype(np.int64) - 128 == np.rint(stored(k[None], 8)[0] / k_scale)).all()
            assert (written[0][values].ravel().view(np.int8) == np.rint(stored(v[None], 8)[0] / v_scale)).all()


def slots(token: int, head_dim: int, bits: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Byte positions of a token's key, value and scales in a block, from block.h."""
    d = np.arange(head_dim)[:, None]
    if bits == 8:
        keys = d // 4 * 128 + token * 4 + d % 4
        values = 32 * head_dim + token * head_dim + d
        scales = 64 * head_dim + token * 4 + np.array([[0], [128]]) + np.arange(4)
        return keys, values, scales.ravel()
    two = np.arange(2)
    if bits == 4:
        byte, group = np.arange(head_dim // 2), np.arange(head_dim // 32)[:, None]
        k_scales = 32 * head_dim + 2 * (group * 32 + token) + two
        v_scales = 34 * head_dim + 2 * (token * (head_dim // 32) + group) + two
        keys = byte // 4 * 128 + token * 4 + byte % 4
        return keys, 16 * head_dim + token * (head_dim // 2) + byte, np.concatenate([k_scales, v_scales]).ravel()
    return 64 * d + 2 * token + two, 64 * head_dim + 2 * (token * head_dim + d) + two, np.zeros(0, np.intp)


@pytest.mark.parametrize("head_dim", [16, 32, 48, 64, 80, 96, 128, 160, 192, 256, 512])
def test_rotate(head_dim: int, rng: Generator) -> None:
    """Its own inverse but for n, and what numpy's butterflies give, to the bit, on every ISA."""
    x = rng.normal(size=head_dim).astype(np.float32)
    for case in (x, np.where(np.arange(head_dim) == 5, np.float32(np.inf), x), 1e38 * x, np.zeros_like(x)):
        with np.errstate(over="ignore", invalid="ignore"):
            expected = walsh_hadamard(case)
        for isa in ISAS:
            seen = Guarded(case.shape)
            seen.view[:] = case
            native.rotate(seen.view, isa=isa)
            seen.check()
            assert same_bits(seen.view, expected), isa
    n = head_dim & -head_dim
    ones = np.array([[(-1) ** (i & j).bit_count() for i in range(n)] for j in range(n)])
    np.testing.assert_allclose(walsh_hadamard(x).reshape(-1, n), x.reshape(-1, n) @ ones, atol=n * 1e-5)


def test_4_bits_of_every_size(rng: Generator) -> None:
    """Ties, tiny, huge, infinite and NaN groups: the bytes that numpy's rounding gives, on every ISA."""
    x = rng.normal(size=(64, 128)).astype(np.float32) * np.exp(rng.uniform(-100, 80, (64, 1))).astype(np.float32)
    x[:16, ::32] = 7  # ties: halves of one seventh of the largest
    x[:16] = np.where(np.abs(x[:16]) <= 7, np.rint(2 * x[:16]) / 2, np.float32(3.5))
    x[20, 3], x[21, 40], x[22, 70], x[23] = np.nan, np.inf, -np.inf, 0
    x[24], x[25] = 1e-39, np.float32(3e-38)
    q, scales = in_4_bits(x)
    for isa in ISAS:
        for row in range(64):
            block = aligned(block_bytes(128, 4))
            native.kv_put_4(block, 0, x[row], x[row], isa=isa)
            for at, kind in ((16 * 128, 16), (0, 4)):
                pairs = q[row].reshape(-1, 2, kind)
                expected = ((pairs[:, 0] + 8) + 16 * (pairs[:, 1] + 8)).ravel()
                seen = block[at : at + 64] if kind == 16 else block[: 16 * 128].reshape(-1, 32, 4)[:, 0].ravel()
                assert (seen == expected).all(), (isa, row)
            told = block.view(np.float16)[16 * 128 :][: 4 * 32].reshape(4, 32)[:, 0]
            assert np.array_equal(told, scales[row, :, 0], equal_nan=True), (isa, row)
            assert np.array_equal(block.view(np.float16)[17 * 128 :][:4], scales[row, :, 0], equal_nan=True), (isa, row)


def test_half_precision_of_every_size(rng: Generator) -> None:
    """Rounding to float16 on every ISA as numpy does it: normal, subnormal, ties, overflow, NaN."""
    halves = np.arange(0, 0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    ties = (halves[:-1] + halves[1:]) / 2
    near = np.concatenate([ties, np.nextafter(ties, np.float32(0)), np.nextafter(ties, np.float32(np.inf)), halves])
    x = np.concatenate([near, -near, np.array([65519.99, 65520, 1e30, np.inf, -np.inf, 1e-45, 2e-8, 3e-8], np.float32)])
    x = np.concatenate([x, np.zeros(-len(x) % 512, np.float32)])
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16).view(np.uint16)
    block = aligned(block_bytes(512, 16))
    for isa in ISAS:
        for start in range(0, len(x), 512):
            row = x[start : start + 512]
            native.kv_put_16(block, 3, row, row, isa=isa)
            assert (block.view(np.uint16)[3 : 512 * 32 : 32] == expected[start : start + 512]).all()
