"""Everything wrong is refused at the door, by a ValueError with the numbers; nothing is written."""

from typing import Any

import numpy as np
import pytest

from localinfer import native
from tests.native.matrices import pack, random_matrix
from tests.native.meaning import Shape, random_model
from tests.native.running import build

RNG = np.random.default_rng(0)


def ints(*values: int) -> Any:
    return np.array(values, np.int32)


GOOD: dict[str, Any] = {
    "tokens": ints(1, 2, 3),
    "positions": ints(0, 1, 0),
    "sequences": ints(0, 0, 1),
    "block_tables": ints(0, 1, 2, 3).reshape(2, 2),
    "out_rows": ints(0, 2),
    "logits": np.zeros((2, 77), np.float32),
}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"tokens": ints(1, 2, 77)}, "row 2: token 77 is not below 77"),
    ({"tokens": ints(1, -1, 7)}, "row 1: token -1"),
    ({"tokens": ints(1, 2)}, "2 tokens, 3 positions"),
    ({"positions": ints(0, 1, -1)}, "row 2: position -1"),
    ({"positions": ints(0, 1, 384)}, "row 2: position 384 is not below 384"),
    ({"positions": ints(0, 2, 0)}, "row 1 is at position 2, but its sequence's row before is at 0"),
    ({"positions": ints(1, 0, 0)}, "row 1 is at position 0"),
    ({"positions": ints(0, 1, 64)}, "sequence 1 has 65 tokens in 3 blocks, but its block table has 2"),
    ({"sequences": ints(0, 0, 2)}, "row 2: sequence 2, but there are 2 block tables"),
    ({"sequences": ints(0, 0, -1)}, "row 2: sequence -1"),
    ({"block_tables": ints(0, 1, 128, 3).reshape(2, 2)}, "sequence 1: block 128 is not below 128"),
    ({"block_tables": ints(-1, 1, 2, 3).reshape(2, 2)}, "sequence 0: block -1"),
    ({"block_tables": ints(5, 1, 5, 3).reshape(2, 2)}, "writes in another place too"),
    ({"out_rows": ints(0, 3)}, r"out_rows\[1\] is 3, but the step has 3 rows"),
    ({"out_rows": ints(-1, 2)}, r"out_rows\[0\] is -1"),
    ({"out_rows": ints(2, 0)}, "out_rows must ascend"),
    ({"out_rows": ints(0, 0)}, "out_rows must ascend"),
    ({"out_rows": ints(0)}, "logits is 2 x 77, but must be 1 x 77"),
    ({"logits": np.zeros((2, 76), np.float32)}, "logits is 2 x 76"),
    ({k: GOOD[k][:0] for k in ("tokens", "positions", "sequences", "out_rows", "logits")}, "at least one row"),
]


@pytest.mark.parametrize(("change", "says"), BAD, ids=[says for _, says in BAD])
def test_step(change: dict[str, Any], says: str) -> None:
    program = build(random_model(Shape()))
    logits = np.full((2, 77), np.nan, np.float32)
    arguments = GOOD | {"logits": logits} | change
    with pytest.raises(ValueError, match=says):
        program.step(**arguments)
    assert np.isnan(logits).all()
    program.step(**(GOOD | {"logits": logits}))
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": np.array([1, 2, 3], np.int64)},
        {"logits": np.zeros((2, 77), np.float64)},
        {"logits": np.zeros((2, 154), np.float32)[:, ::2]},
        {"block_tables": ints(0, 1, 2, 3)},
        {"tokens": [1, 2, 3]},
        {"logits": None},
    ],
    ids=["int64", "float64", "strided", "flat table", "list", "none"],
)
def test_types_are_not_converted(change: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        build(random_model(Shape())).step(**(GOOD | change))


def test_read_only_logits() -> None:
    logits = np.zeros((2, 77), np.float32)
    logits.flags.writeable = False
    with pytest.raises(TypeError):
        build(random_model(Shape())).step(**(GOOD | {"logits": logits}))


def test_a_block_that_is_written_in_two_places_of_one_sequence() -> None:
    program = build(random_model(Shape()))
    n = np.arange(40, dtype=np.int32)
    with pytest.raises(ValueError, match="sequence 0 has a block that this step writes in another place too"):
        program.step(n, n, 0 * n, ints(4, 4).reshape(1, 2), n[:0], np.zeros((0, 77), np.float32))


def test_a_block_that_one_writes_and_another_reads() -> None:
    program = build(random_model(Shape()))
    two = ints(0, 1)
    tables = ints(3, 4, 5, 3).reshape(2, 2)  # sequence 1 reads block 5, then writes into 3, which sequence 0 reads
    with pytest.raises(ValueError, match="writes in another place too"):
        program.step(two, ints(32, 32), two, tables, two[:0], np.zeros((0, 77), np.float32))


def attend_arguments(**change: Any) -> dict[str, Any]:
    norm = np.ones(96, np.float32)
    qkv = pack(*(random_matrix(RNG, "int4", rows, 96) for rows in (128, 64, 64)))
    o = pack(random_matrix(RNG, "int4", 96, 128))
    base = {
        "norm": norm, "eps": 1e-5, "qkv": qkv, "bias": None, "q_norm": None, "k_norm": None, "o": o, "o_bias": None,
        "post_norm": None, "heads": 4, "kv_heads": 2, "head_dim": 32, "rope": 0, "scale": 0.2, "window": 0,
    }  # fmt: skip
    return base | change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kv_heads": 3}, "4 query heads cannot share 3 key heads"),
        ({"kv_heads": 0}, "cannot share 0"),
        ({"heads": 130, "kv_heads": 2}, "65 query heads share one key head"),
        ({"head_dim": 24}, "head_dim is 24"),
        ({"head_dim": 16}, "RoPE table 0 turns 32 values, but heads have 16"),
        ({"rope": 1}, "there is no RoPE table 1"),
        ({"heads": 2}, "qkv is 256 x 96, but must be 192 x 96"),
        ({"qkv": pack(random_matrix(RNG, "int4", 256, 96))}, "3 stacked parts, of 128 rows, and the others of 64"),
        ({"o": pack(random_matrix(RNG, "int4", 96, 96))}, "o is 96 x 96, but must be 96 x 128"),
        ({"norm": np.ones(95, np.float32)}, "has 95 values, but 96 are needed"),
        ({"bias": np.ones(255, np.float32)}, "the bias of qkv has 255 values, but 256"),
        ({"q_norm": np.ones(31, np.float32)}, "q_norm has 31"),
        ({"post_norm": np.ones(1, np.float32)}, "the norm after attention has 1"),
        ({"eps": -1.0}, "epsilon of a norm is -1"),
        ({"eps": float("nan")}, "epsilon of a norm is"),
    ],
)
def test_attend(change: dict[str, Any], says: str) -> None:
    program = native.Program(96, 1)
    program.rope_table(np.ones(16), 64)
    program.embed(pack(random_matrix(RNG, "int8", 77, 96)))
    with pytest.raises(ValueError, match=says):
        program.attend(**attend_arguments(**change))
    program.attend(**attend_arguments())


def test_gated_mlp() -> None:
    program = native.Program(96, 1)
    norm = np.ones(96, np.float32)
    gate, up = random_matrix(RNG, "int4", 160, 96), random_matrix(RNG, "int4", 160, 96)
    both, down = pack(gate, up, interleave=True), pack(random_matrix(RNG, "int4", 96, 160))
    with pytest.raises(ValueError, match="gated_mlp before embed"):
        program.gated_mlp(norm, 1e-5, both, "silu", down)
    program.embed(pack(random_matrix(RNG, "int8", 77, 96)))
    with pytest.raises(ValueError, match="activation is 'relu'"):
        program.gated_mlp(norm, 1e-5, both, "relu", down)
    with pytest.raises(ValueError, match="gate_up must be one part, not interleaved"):
        program.gated_mlp(norm, 1e-5, pack(gate, up), "silu", down)
    with pytest.raises(ValueError, match="down is 96 x 128, but must be 96 x 160"):
        program.gated_mlp(norm, 1e-5, both, "silu", pack(random_matrix(RNG, "int4", 96, 128)))


def test_the_order_of_building() -> None:
    table = pack(random_matrix(RNG, "int8", 77, 96))
    norm = np.ones(96, np.float32)
    program = native.Program(96, 1)
    with pytest.raises(ValueError, match="head before embed"):
        program.head(norm, 1e-5, table)
    program.embed(table)
    with pytest.raises(ValueError, match="a second time"):
        program.embed(table)
    with pytest.raises(ValueError, match="make_kv before head"):
        program.make_kv(4, 8)
    program.head(norm, 1e-5, table)
    with pytest.raises(ValueError, match="step before make_kv"):
        program.step(**GOOD)
    with pytest.raises(ValueError, match="head after head"):
        program.head(norm, 1e-5, table)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((0, 1, "", 8), "hidden size is 0"),
        ((96, 5000, "", 8), "5000 threads"),
        ((96, 1, "", 0), "max_rows is 0"),
        ((96, 1, "", 1 << 40), "max_rows is"),
    ],
)
def test_program(arguments: tuple[int, int, str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        native.Program(*arguments)


def test_rope_tables() -> None:
    program = native.Program(96, 1)
    for bad in (np.array([np.nan]), np.array([np.inf]), np.zeros(0), np.zeros(300)):
        with pytest.raises(ValueError, match="frequenc"):
            program.rope_table(bad, 64)
    with pytest.raises(ValueError, match="0 positions"):
        program.rope_table(np.ones(16), 0)
    with pytest.raises(TypeError):
        program.rope_table(np.ones(16, np.float32), 64)


def test_a_cache_that_does_not_fit() -> None:
    program = build(random_model(Shape()))
    for blocks in (1 << 31, 1 << 30):  # petabytes
        with pytest.raises(MemoryError, match="no memory for the KV cache"):
            program.make_kv(blocks, 16)
    with pytest.raises(ValueError, match="kv_bits is 5"):
        program.make_kv(8, 5)
    with pytest.raises(ValueError, match="kv_bits of 3 layers, but there are 2"):
        program.make_kv(8, [8, 4, 8])
    with pytest.raises(ValueError, match="heads of a multiple of 32 values, and these have 48"):
        build(random_model(Shape(head_dim=48)), kv_bits=[8, 4])
    with pytest.raises(ValueError, match="cannot have 0 blocks"):
        program.make_kv(0, 8)
    with pytest.raises(ValueError, match="step before make_kv"):  # the old cache went first
        program.step(**GOOD)
    program.make_kv(8, 8)
    program.step(**GOOD)


def test_a_probe() -> None:
    program = build(random_model(Shape()))
    with pytest.raises(ValueError, match="0 tokens to probe with"):
        program.probe_kv(np.zeros(0, np.int32))
    with pytest.raises(ValueError, match="token 77 is not below 77"):
        program.probe_kv(np.array([1, 77], np.int32))
    with pytest.raises(ValueError, match="position 384 is not below 384"):
        program.probe_kv(np.zeros(385, np.int32))
    with pytest.raises(TypeError):
        program.probe_kv(np.zeros(4, np.int64))
    with pytest.raises(ValueError, match="heads of a multiple of 32 values"):
        build(random_model(Shape(head_dim=48))).probe_kv(np.zeros(4, np.int32))
