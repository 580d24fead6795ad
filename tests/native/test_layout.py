"""What the native code says of its layouts is what packing and the cache really take."""

from itertools import product

import numpy as np
import pytest
from numpy.random import default_rng

from localinfer import native
from tests.native.matrices import BITS, pack, random_matrix
from tests.native.meaning import Shape, random_model
from tests.native.running import build

FORMS = [("bf16", 0), *product(("int3", "int4", "int5", "int8", "affine4", "affine5"), (32, 64, 128))]


@pytest.mark.parametrize(("kind", "group"), FORMS)
@pytest.mark.parametrize("rows", [[1], [32], [33], [40, 7, 96]], ids=str)
def test_bytes_of_a_packed_matrix(kind: str, group: int, rows: list[int]) -> None:
    weight = pack(*(random_matrix(default_rng(0), kind, n, 256, group or 32) for n in rows))
    assert native.packed_bytes(BITS.get(kind, 16), group, 256, rows, weight.wide) == weight.nbytes


@pytest.mark.parametrize("isa", native.supported_isas())
@pytest.mark.parametrize("kind", ["bf16", "int3", "int4", "int5", "int8", "affine4", "affine5"])
def test_bytes_of_the_weights_of_a_program(kind: str, isa: str) -> None:
    model = random_model(Shape(kind=kind))
    program = build(model, isa=isa)
    body = [m for one in model.layers for m in (*one.qkv, one.o, one.gate, one.up, one.down)]
    said = 0
    for matrix in (model.embed, *body, model.head):
        rows, cols = matrix.values.shape
        said += native.packed_bytes(BITS.get(matrix.kind, 16), matrix.group, cols, [rows], matrix.wide)
    assert program.weight_bytes == said


@pytest.mark.parametrize("isa", native.supported_isas())
@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("head_dim", [32, 64, 96])
def test_bytes_of_a_kv_block(bits: int, head_dim: int, isa: str) -> None:
    """As many as the program's cache has a block, and as come out of it."""
    model = random_model(Shape(head_dim=head_dim))
    program = build(model, kv_bits=bits, isa=isa, blocks=4)
    layers = len(model.layers)
    said = layers * native.kv_block_bytes(model.shape.kv_heads, head_dim, bits)
    assert program.kv_block_bytes == said
    assert program.kv_bytes == 4 * said
    program.read_kv(0, np.empty(said, np.uint8))
    with pytest.raises(ValueError, match=f"{said + 1} bytes"):
        program.read_kv(0, np.empty(said + 1, np.uint8))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((6, 32, 64, [1]), "bits is 6"),
        ((4, 48, 96, [1]), "group is 48"),
        ((4, 64, 96, [1]), "whole groups"),
        ((16, 0, 0, [1]), "0 columns"),
        ((16, 0, 64, []), "at least one part"),
        ((16, 0, 64, [1 << 40]), "rows"),
    ],
)
def test_shapes_that_cannot_be_packed(arguments: tuple[int, int, int, list[int]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        native.packed_bytes(*arguments)


def test_caches_that_there_are_not() -> None:
    with pytest.raises(ValueError, match="kv_bits is 5"):
        native.kv_block_bytes(1, 64, 5)
    with pytest.raises(ValueError, match="multiple of 32"):
        native.kv_block_bytes(1, 48, 4)
