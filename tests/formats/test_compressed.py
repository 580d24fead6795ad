"""Packed integers: the same bits as the compressed-tensors library writes, and back, for every value there is."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from compressed_tensors.compressors.pack_quantized import helpers  # type: ignore[import-untyped]
from compressed_tensors.quantization import QuantizationConfig  # type: ignore[import-untyped]
from numpy.typing import NDArray

from localinfer.errors import Corrupt
from localinfer.formats.compressed import BITS, dequantize, pack, packed_words, quantization_config, unpack

PACK: Callable[..., Any] = helpers.pack_to_int32
UNPACK: Callable[..., Any] = helpers.unpack_from_int32
COLUMNS = [1, 2, 5, 7, 8, 9, 31, 32, 33, 63, 64, 96, 100, 576]


def random_values(bits: int, rows: int, columns: int) -> NDArray[np.int8]:
    half = 1 << (bits - 1)
    values: NDArray[np.int8] = np.random.default_rng(bits).integers(-half, half, (rows, columns)).astype(np.int8)
    return values


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("columns", COLUMNS)
def test_same_words_as_the_library(bits: int, columns: int) -> None:
    values = random_values(bits, 5, columns)
    packed = pack(values, bits)
    assert packed.dtype == np.int32
    assert packed.shape == (5, packed_words(columns, bits))
    np.testing.assert_array_equal(packed, PACK(torch.from_numpy(values), bits).numpy())
    np.testing.assert_array_equal(unpack(packed, bits, columns), values)
    np.testing.assert_array_equal(UNPACK(torch.from_numpy(packed), bits, torch.Size(values.shape)).numpy(), values)


def test_every_three_bytes_of_int3() -> None:
    """All 2**24 groups of eight 3-bit values, four groups a row, as bytes and back."""
    shifts = 3 * np.arange(8, dtype=np.uint32)
    for start in range(0, 1 << 24, 1 << 20):
        groups = np.arange(start, start + (1 << 20), dtype=np.uint32)
        values = (groups[:, None] >> shifts & 7).astype(np.int8).reshape(-1, 32) - np.int8(4)
        packed = pack(values, 3)
        stream = packed.view(np.uint8).reshape(-1, 3).astype(np.uint32)
        np.testing.assert_array_equal(stream[:, 0] | stream[:, 1] << 8 | stream[:, 2] << 16, groups)
        np.testing.assert_array_equal(unpack(packed, 3, 32), values)


@pytest.mark.parametrize("bits", [4, 8])
def test_every_two_bytes(bits: int) -> None:
    words = np.arange(1 << 16, dtype=np.uint32)
    packed = (words | words << 16).view(np.int32).reshape(-1, 1)
    values = unpack(packed, bits, 32 // bits)
    assert values.min() == -(1 << (bits - 1))
    assert values.max() == (1 << (bits - 1)) - 1
    np.testing.assert_array_equal(pack(values, bits), packed)


def test_a_view_packs_like_its_copy() -> None:
    values = random_values(4, 64, 96)[::2, 3:67]
    np.testing.assert_array_equal(pack(values, 4), pack(values.copy(), 4))


def test_wrong_width() -> None:
    with pytest.raises(Corrupt, match="33 values of 3 bits take 4 words a row, but 3 are there"):
        unpack(np.zeros((2, 3), np.int32), 3, 33)


def test_dequantize_with_negative_scales() -> None:
    values = np.array([[-8, 7, 1, 0]], np.int8)
    scales = np.array([[-0.5, 2.0]], np.float16)
    np.testing.assert_array_equal(dequantize(values, scales), np.array([[4, -3.5, 2, 0]], np.float32))


def test_the_library_reads_our_words_of_config() -> None:
    config = QuantizationConfig.model_validate(
        quantization_config([(["re:.*_proj$"], 3, 32), (["re:.*embed_tokens$"], 8, 64)], ["lm_head"])
    )
    assert config.format == "pack-quantized"
    assert config.ignore == ["lm_head"]
    body, table = config.config_groups["group_0"], config.config_groups["group_1"]
    assert not isinstance(body, list)
    assert not isinstance(table, list)
    assert body.weights is not None
    assert (body.weights.num_bits, body.weights.group_size, body.weights.symmetric) == (3, 32, True)
    assert table.targets == ["re:.*embed_tokens$"]
