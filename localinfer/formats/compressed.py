"""Integer weights as the compressed-tensors library stores them (`pack-quantized`), and the words that describe them.

A row of K values of b bits becomes one little-endian bit stream in ceil(K * b / 32) int32 words: value i occupies bits
[b * i, b * (i + 1)) and is stored as `value + 2**(b - 1)`. Beside `weight_packed` lie `weight_scale` (one float16 per
group along K; it may be negative) and `weight_shape` (int64 [2]). A weight is `value * scale`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt

BITS = (3, 4, 8)

MINIMA = "packed-with-minima"
"""Our own `format` of 4 bits with minima (graph/affine.py), which other programs do not know."""


def packed_words(columns: int, bits: int) -> int:
    """How many int32 words hold one row."""
    return -(-columns * bits // 32)


def pack(values: NDArray[np.int8], bits: int) -> NDArray[np.int32]:
    """`values` int8 [N, K] in [-2**(bits-1), 2**(bits-1) - 1] → int32 [N, ceil(K * bits / 32)]; unused bits are 0."""
    rows, columns = values.shape
    words = packed_words(columns, bits)
    # Padding is stored as zero bits, so it is added after the offset.
    unsigned = np.zeros((rows, -(-columns // 32) * 32), np.uint8)
    np.add(values.view(np.uint8), np.uint8(1 << (bits - 1)), out=unsigned[:, :columns])
    match bits:
        case 8:
            stream = unsigned
        case 4:
            stream = unsigned[:, 0::2] | unsigned[:, 1::2] << 4
        case 3:
            stream = _pack3(unsigned)
        case _:
            raise ValueError(f"{bits} bits")
    return np.ascontiguousarray(np.ascontiguousarray(stream).view("<i4")[:, :words]).astype(np.int32, copy=False)


def unpack(packed: NDArray[np.int32], bits: int, columns: int) -> NDArray[np.int8]:
    """The inverse of `pack`: int32 [N, words] → int8 [N, columns]. Raises `Corrupt` when the width does not match."""
    rows, words = packed.shape
    if words != packed_words(columns, bits):
        raise Corrupt(
            f"{columns} values of {bits} bits take {packed_words(columns, bits)} words a row, but {words} are there",
            hint="download or quantize the model again",
        )
    stream = np.ascontiguousarray(packed.astype("<i4", copy=False)).view(np.uint8)
    match bits:
        case 8:
            unsigned = stream
        case 4:
            unsigned = np.empty((rows, stream.shape[1] * 2), np.uint8)
            unsigned[:, 0::2] = stream & 15
            unsigned[:, 1::2] = stream >> 4
        case 3:
            unsigned = _unpack3(stream)
        case _:
            raise ValueError(f"{bits} bits")
    return (unsigned[:, :columns] - np.uint8(1 << (bits - 1))).view(np.int8)


def _pack3(unsigned: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [N, 8 * m] of values below 8 → the dense stream uint8 [N, 3 * m]: eight values are three bytes."""
    v = [unsigned[:, i::8] for i in range(8)]
    stream = np.empty((unsigned.shape[0], unsigned.shape[1] // 8 * 3), np.uint8)
    stream[:, 0::3] = v[0] | v[1] << 3 | v[2] << 6
    stream[:, 1::3] = v[2] >> 2 | v[3] << 1 | v[4] << 4 | v[5] << 7
    stream[:, 2::3] = v[5] >> 1 | v[6] << 2 | v[7] << 5
    return stream


def _unpack3(stream: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, length = stream.shape
    padded = stream
    if length % 3:
        padded = np.zeros((rows, length + 3 - length % 3), np.uint8)
        padded[:, :length] = stream
    a, b, c = (padded[:, i::3] for i in range(3))
    unsigned = np.empty((rows, padded.shape[1] // 3 * 8), np.uint8)
    unsigned[:, 0::8] = a & 7
    unsigned[:, 1::8] = a >> 3 & 7
    unsigned[:, 2::8] = a >> 6 | (b & 1) << 2
    unsigned[:, 3::8] = b >> 1 & 7
    unsigned[:, 4::8] = b >> 4 & 7
    unsigned[:, 5::8] = b >> 7 | (c & 3) << 1
    unsigned[:, 6::8] = c >> 2 & 7
    unsigned[:, 7::8] = c >> 5
    return unsigned


def dequantize(values: NDArray[np.int8], scales: NDArray[np.float16]) -> NDArray[np.float32]:
    """int8 [N, K] times float16 [N, K / group] → float32 [N, K]."""
    rows, columns = values.shape
    grouped = values.reshape(rows, scales.shape[1], -1).astype(np.float32)
    return (grouped * scales.astype(np.float32)[:, :, None]).reshape(rows, columns)


def config_group(targets: Sequence[str], bits: int, group: int, minima: bool = False) -> dict[str, Any]:
    """One entry of `config_groups`: weight-only integers, one scale per `group` values; symmetric, or with `minima`."""
    weights = {
        "num_bits": bits,
        "type": "int",
        "symmetric": not minima,
        "strategy": "group",
        "group_size": group,
        "dynamic": False,
        "actorder": None,
        "block_structure": None,
        "observer": "minmax",
        "observer_kwargs": {},
    }
    return {
        "targets": list(targets),
        "weights": weights,
        "input_activations": None,
        "output_activations": None,
        "format": MINIMA if minima else "pack-quantized",
    }


Group = tuple[Sequence[str], int, int] | tuple[Sequence[str], int, int, bool]


def quantization_config(groups: Sequence[Group], ignore: Sequence[str] = ()) -> dict[str, Any]:
    """What `config.json` says of `[(targets, bits, group, minima), ...]`; targets are modules or `re:` patterns."""
    minima = any(len(one) == 4 and one[3] for one in groups)
    return {
        "quant_method": "compressed-tensors",
        "format": "mixed-precision" if minima else "pack-quantized",
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "kv_cache_scheme": None,
        "config_groups": {f"group_{i}": config_group(*one) for i, one in enumerate(groups)},
        "ignore": list(ignore),
    }
