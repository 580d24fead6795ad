"""Tiny checkpoints as other tools would write them: a second writer, which shares no packing code with ours.

Each function replaces the matrices of the layers in a tiny checkpoint and returns what they mean, in float32, and the
same model in our own form, wider integers with the same scales.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.formats.safetensors import SafetensorsFile
from tests.formats.files import entry, safetensors_bytes

Tensors = dict[str, tuple[str, NDArray[Any]]]
Meaning = dict[str, NDArray[np.float32]]
TYPES = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "I32": "<i4", "I64": "<i8", "I8": "i1", "F8_E4M3": "u1"}


def save(path: Path, tensors: Tensors, **quantization: Any) -> None:
    """Write the file by hand, and what config.json says of it."""
    header, data = {}, b""
    for name, (kind, values) in tensors.items():
        raw = np.ascontiguousarray(values.astype(TYPES[kind], copy=False)).tobytes()
        header[name] = entry(kind, list(values.shape), len(data), len(data) + len(raw))
        data += raw
    (path / "model.safetensors").write_bytes(safetensors_bytes(header, data))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}))


def rewrite(path: Path, change: Callable[[str, NDArray[np.float32], Tensors], NDArray[np.float32]]) -> Meaning:
    """Let `change(name, matrix, tensors)` put other tensors in a matrix's place; returns what it returns."""
    file = SafetensorsFile(path / "model.safetensors")
    tensors: Tensors = {name: (info.dtype, file.read(name)) for name, info in file.tensors.items()}
    meaning: Meaning = {}
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        module = name.removesuffix(".weight")
        matrix = (tensors.pop(name)[1].astype(np.uint32) << 16).view(np.float32)
        meaning[module] = change(module, matrix, tensors)
    save(path, tensors)
    return meaning


def words(values: NDArray[Any], bits: int) -> NDArray[np.int32]:
    """Unsigned [n, K] as streams of bits, the lowest first: int32 [n, ceil(K * bits / 32)]."""
    each = (values.astype(np.int64)[:, :, None] >> np.arange(bits)) & 1
    flat = each.reshape(len(values), -1).astype(np.uint8)
    flat = np.pad(flat, ((0, 0), (0, -flat.shape[1] % 32)))
    return np.packbits(flat, axis=1, bitorder="little").view("<i4")


def grid(
    matrix: NDArray[np.float32], bits: int, group: int, symmetric: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float16]]:
    """Unsigned q [N, groups, group], zero points [N, groups] and scales [N, groups], rounded plainly."""
    most = (1 << bits) - 1
    groups = matrix.reshape(len(matrix), -1, group or matrix.shape[1])
    low, high = np.minimum(groups.min(-1), 0), np.maximum(groups.max(-1), 0)
    if symmetric:
        scales = (np.abs(groups).max(-1) * 2 / most).astype(np.float16)
        zeros = np.full(scales.shape, 1 << bits - 1)
    else:
        scales = ((high - low) / most).astype(np.float16)
        zeros = np.clip(np.rint(-low / scales.astype(np.float32)), 1, most).astype(np.int64)
    q = np.rint(groups / scales.astype(np.float32)[:, :, None]).astype(np.int64) + zeros[:, :, None]
    return np.clip(q, 0, most), zeros, scales


def meant(q: NDArray[np.int64], zeros: NDArray[np.int64], scales: NDArray[np.float16]) -> NDArray[np.float32]:
    """Every weight in float32."""
    whole = (q - zeros[:, :, None]).astype(np.float32) * scales.astype(np.float32)[:, :, None]
    return whole.reshape(len(q), -1)


def gptq(path: Path, bits: int, group: int, *, symmetric: bool, version: int) -> Meaning:
    """AutoGPTQ's layout, with its biases of zeros."""

    def change(name: str, matrix: NDArray[np.float32], tensors: Tensors) -> NDArray[np.float32]:
        q, zeros, scales = grid(matrix, bits, group, symmetric)
        rows, cols = matrix.shape
        tensors[f"{name}.qweight"] = ("I32", words(q.reshape(rows, cols), bits).T)
        tensors[f"{name}.qzeros"] = ("I32", words((zeros - (version == 1)).T, bits))
        tensors[f"{name}.scales"] = ("F16", scales.T)
        tensors[f"{name}.g_idx"] = ("I32", np.arange(cols) // (group or cols))
        if f"{name}.bias" not in tensors:
            tensors[f"{name}.bias"] = ("F16", np.zeros(rows))
        return meant(q, zeros, scales)

    meaning = rewrite(path, change)
    said = {"quant_method": "gptq", "bits": bits, "group_size": group or -1, "sym": symmetric, "desc_act": False}
    resave(path, **said, **({"checkpoint_format": "gptq_v2"} if version == 2 else {}))
    return meaning


def awq(path: Path, group: int) -> Meaning:
    """AutoAWQ's `gemm` layout."""

    def shuffled(values: NDArray[np.int64]) -> NDArray[np.int32]:
        """[n, N] → [n, N / 8]: of eight neighbours, the even ones first."""
        eights = values.reshape(len(values), -1, 8)
        parts = np.concatenate([eights[:, :, 0::2], eights[:, :, 1::2]], axis=2)
        return words(parts.reshape(len(values), -1), 4)

    def change(name: str, matrix: NDArray[np.float32], tensors: Tensors) -> NDArray[np.float32]:
        q, zeros, scales = grid(matrix, 4, group, symmetric=False)
        tensors[f"{name}.qweight"] = ("I32", shuffled(q.reshape(matrix.shape).T))
        tensors[f"{name}.qzeros"] = ("I32", shuffled(zeros.T))
        tensors[f"{name}.scales"] = ("F16", scales.T)
        return meant(q, zeros, scales)

    meaning = rewrite(path, change)
    resave(path, quant_method="awq", bits=4, group_size=group or -1, zero_point=True, version="gemm")
    return meaning


def compressed(
    path: Path, bits: int, group: int, *, symmetric: bool, packed_zeros: bool = True, form: str = "pack-quantized"
) -> Meaning:
    """compressed-tensors: packed, or (`int-quantized`) a byte a weight; `group` 0 is one scale a row."""

    def change(name: str, matrix: NDArray[np.float32], tensors: Tensors) -> NDArray[np.float32]:
        q, zeros, scales = grid(matrix, bits, group, symmetric)
        flat = q.reshape(matrix.shape)
        if form == "int-quantized":
            tensors[f"{name}.weight"] = ("I8", (flat - 128).astype(np.int8))
        else:
            tensors[f"{name}.weight_packed"] = ("I32", words(flat, bits))
            tensors[f"{name}.weight_shape"] = ("I64", np.array(matrix.shape))
        tensors[f"{name}.weight_scale"] = ("F16", scales)
        if not symmetric:
            packed = ("I32", words(zeros.T, bits).T) if packed_zeros else ("I8", (zeros - (1 << bits - 1)))
            tensors[f"{name}.weight_zero_point"] = packed
        return meant(q, zeros, scales)

    meaning = rewrite(path, change)
    weights = {"type": "int", "num_bits": bits, "symmetric": symmetric, "strategy": "group" if group else "channel"}
    group_0 = {"targets": ["Linear"], "weights": {**weights, "group_size": group or None}}
    resave(path, quant_method="compressed-tensors", format=form, config_groups={"group_0": group_0})
    return meaning


def fp8(path: Path, scaled: str) -> Meaning:
    """e4m3 weights with scales for the whole, for rows, or (DeepSeek's way) for blocks of 48 by 40."""

    def change(name: str, matrix: NDArray[np.float32], tensors: Tensors) -> NDArray[np.float32]:
        rows, cols = matrix.shape
        high, wide = {"tensor": (rows, cols), "row": (1, cols), "block": (48, 40)}[scaled]
        table = np.array([decoded(code) for code in range(256)])
        scales = np.empty((-(-rows // high), -(-cols // wide)), np.float32)
        codes, whole = np.empty(matrix.shape, np.uint8), np.empty(matrix.shape, np.float32)
        for i, j in np.ndindex(scales.shape):
            part = np.s_[i * high : (i + 1) * high, j * wide : (j + 1) * wide]
            scales[i, j] = np.abs(matrix[part]).max() / 448
            codes[part] = np.abs((matrix[part] / scales[i, j])[..., None] - np.nan_to_num(table, nan=1e9)).argmin(-1)
            whole[part] = table[codes[part]].astype(np.float32) * scales[i, j]
        tensors[f"{name}.weight"] = ("F8_E4M3", codes)
        scale = scales.reshape(()) if scaled == "tensor" else scales
        tensors[f"{name}.weight_scale" + ("_inv" if scaled == "block" else "")] = ("F32", scale)
        return whole

    meaning = rewrite(path, change)
    resave(
        path, quant_method="fp8", activation_scheme="dynamic", weight_block_size=[48, 40] if scaled == "block" else None
    )
    return meaning


def decoded(code: int) -> float:
    """One e4m3 number, from its definition."""
    sign, exponent, fraction = -1.0 if code & 128 else 1.0, code >> 3 & 15, code & 7
    if exponent == 15 and fraction == 7:
        return float("nan")
    return sign * (fraction / 8 * 2.0**-6 if exponent == 0 else (1 + fraction / 8) * 2.0 ** (exponent - 7))


def resave(path: Path, **quantization: Any) -> None:
    """Change what config.json says."""
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}))


def edit(path: Path, change: Callable[[Tensors], object]) -> None:
    """Rewrite the tensors after `change`; config.json stays."""
    said = json.loads((path / "config.json").read_text())["quantization_config"]
    file = SafetensorsFile(path / "model.safetensors")
    tensors: Tensors = {name: (info.dtype, file.read(name)) for name, info in file.tensors.items()}
    change(tensors)
    save(path, tensors, **said)


def decoded_words(packed: NDArray[np.int32], bits: int) -> NDArray[np.int64]:
    """The inverse of `words`, for K a multiple of 32."""
    flat = np.unpackbits(np.ascontiguousarray(packed).view(np.uint8), axis=1, bitorder="little")
    each = flat.reshape(len(packed), -1, bits).astype(np.int64)
    out: NDArray[np.int64] = (each << np.arange(bits)).sum(-1)
    return out
