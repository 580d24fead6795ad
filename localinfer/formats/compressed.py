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

BITS = (3, 4, 5, 8)

MINIMA = "packed-with-minima"
"""Our own `format` of 4 and 5 bits with minima (graph/affine.py), which other programs do not know."""


INTEGERS = "pack-quantized"
MXFP4 = "mxfp4-pack-quantized"
"""4-bit floats by 32: `weight_packed`, two neighbours a byte, the first lowest, and `weight_scale`, powers of two."""


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
        case 3 | 5:
            stream = _packed_eights(unsigned, bits)
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
        case 3 | 5:
            unsigned = _unpacked_eights(stream, bits)
        case _:
            raise ValueError(f"{bits} bits")
    return (unsigned[:, :columns] - np.uint8(1 << (bits - 1))).view(np.int8)


def _packed_eights(unsigned: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """uint8 [N, 8 * m] of values of `bits` bits → the dense stream uint8 [N, bits * m]: eight values are as many bytes
    as one has bits."""
    words = np.zeros((len(unsigned), unsigned.shape[1] // 8), "<u8")
    for i in range(8):
        words |= unsigned[:, i::8].astype("<u8") << np.uint64(bits * i)
    return words.view(np.uint8).reshape(*words.shape, 8)[:, :, :bits].reshape(len(words), -1)


def _unpacked_eights(stream: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """The inverse; a stream that ends within eight values goes on with zeros."""
    rows, length = stream.shape
    eights = np.zeros((rows, -(-length // bits), 8), np.uint8)
    whole = length // bits
    eights[:, :whole, :bits] = stream[:, : whole * bits].reshape(rows, whole, bits)
    eights[:, whole:, : length % bits] = stream[:, None, whole * bits :]
    words = eights.view("<u8")[:, :, 0]
    unsigned = np.empty((rows, words.shape[1] * 8), np.uint8)
    for i in range(8):
        unsigned[:, i::8] = words >> np.uint64(bits * i) & np.uint64((1 << bits) - 1)
    return unsigned


def dequantize(values: NDArray[np.int8], scales: NDArray[np.float16]) -> NDArray[np.float32]:
    """int8 [N, K] times float16 [N, K / group] → float32 [N, K]."""
    rows, columns = values.shape
    grouped = values.reshape(rows, scales.shape[1], -1).astype(np.float32)
    return (grouped * scales.astype(np.float32)[:, :, None]).reshape(rows, columns)


def config_group(targets: Sequence[str], bits: int, group: int, form: str = INTEGERS) -> dict[str, Any]:
    """One entry of `config_groups`: weights alone, one scale per `group` values; `form` is their `format`."""
    weights: dict[str, Any] = {
        "num_bits": bits,
        "type": "float" if form == MXFP4 else "int",
        "symmetric": form != MINIMA,
        "strategy": "group",
        "group_size": group,
        "dynamic": False,
        "actorder": None,
        "block_structure": None,
        "observer": "minmax",
        "observer_kwargs": {},
    }
    if form == MXFP4:
        weights["scale_dtype"] = "torch.uint8"
    return {
        "targets": list(targets),
        "weights": weights,
        "input_activations": None,
        "output_activations": None,
        "format": form,
    }


Group = tuple[Sequence[str], int, int] | tuple[Sequence[str], int, int, str]


def quantization_config(groups: Sequence[Group], ignore: Sequence[str] = ()) -> dict[str, Any]:
    """What `config.json` says of `[(targets, bits, group, format), ...]`; targets are modules or `re:` patterns."""
    mixed = any(len(one) == 4 and one[3] != INTEGERS for one in groups)
    return {
        "quant_method": "compressed-tensors",
        "format": "mixed-precision" if mixed else INTEGERS,
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "kv_cache_scheme": None,
        "config_groups": {f"group_{i}": config_group(*one) for i, one in enumerate(groups)},
        "ignore": list(ignore),
    }
