"""Powers of two between queries and keys, so that no column of the keys drowns the others in a cache of few bits.

A column of the keys times 2^p and the same column of the queries times 2^-p give the same product, in floats too. RoPE
turns two columns together, so both get one power. Large biases of keys and large gains of their norms are evened out so
when a model is loaded; what is stored stays as it is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from localinfer.graph.ops import Attend
from localinfer.graph.stored import IntLinear, StoredLinear

Vector = NDArray[np.float32]
Doubles = NDArray[np.float64]
Powers = NDArray[np.int32]
"""[kv_heads, head_dim] or, where all heads share them, [1, head_dim], in the order that the kernels take columns in."""

LARGE_BIAS = 8.0
"""Keys are about 1 to 3 without their biases. Columns with smaller biases are left to the rotation (attend.cpp)."""
LARGE_GAIN = 4.0
"""Of a norm's gains, over their median."""
MOST = 6
CHOICE = 1
"""Another number where powers are chosen otherwise: keys on disk are then others."""

Read = Callable[[str], StoredLinear]
"""The matrix of this name, its rows in the order of the kernels."""

Changed = Mapping[str, StoredLinear]
"""Matrices that are not taken as they are stored, by name, their rows in the order of the kernels."""
AS_STORED: Changed = {}


@dataclass(frozen=True, slots=True)
class Heads:
    """What an attention makes its heads by, in the order of the kernels: the biases of queries, keys and values, and
    the weights of norms."""

    bias: Vector | None
    q_norm: Vector | None
    k_norm: Vector | None
    changed: Changed = field(default_factory=dict)


class Evening:
    """Takes one attention of a model after the other, and remembers the powers of those that keep keys."""

    def __init__(self, *, wanted: bool, shares_kv: bool) -> None:
        self._wanted, self._shares_kv = wanted, shares_kv
        self._powers: list[Powers | None] = []

    def __call__(self, op: Attend, heads: Heads, input_gain: Vector | None, read: Read) -> Heads:
        """`heads` with the powers in it."""
        if op.k is None:
            return _in_norms(op, heads, self._powers[op.kv_of])
        gain = np.ones(op.q.cols, np.float32) if input_gain is None else input_gain
        powers = None
        if self._wanted and heads.q_norm is not None and heads.k_norm is not None:
            powers = from_gains(op, heads.k_norm, heads.q_norm, gain, read)
            heads = _in_norms(op, heads, powers)
        elif self._wanted and heads.bias is not None and op.v is not None and not self._shares_kv:
            assert op.gate is None
            q_bias, k_bias, rest = np.split(heads.bias, np.cumsum([op.q.rows, op.k.rows]))
            if (found := from_biases(op, k_bias, q_bias, gain, read)) is not None:
                powers, q, k = found
                q_bias = np.ldexp(q_bias, of_queries(op, powers, op.q.rows))
                k_bias = np.ldexp(k_bias, of_keys(op, powers))
                bias = np.concatenate([q_bias, k_bias, rest])
                heads = replace(heads, bias=bias, changed={op.q.name: q, op.k.name: k})
        self._powers.append(powers)
        return heads


def _in_norms(op: Attend, heads: Heads, powers: Powers | None) -> Heads:
    if powers is None or heads.q_norm is None:
        return heads
    q_norm = gains_of(heads.q_norm, of_queries(op, powers, op.heads * op.head_dim))
    k_norm = None if heads.k_norm is None else gains_of(heads.k_norm, of_keys(op, powers))
    return replace(heads, q_norm=q_norm, k_norm=k_norm)


def pairs(op: Attend) -> NDArray[np.intp]:
    """Of each column of a head, the one that is turned with it, or itself."""
    half = 0 if op.norm_after_rope else len(op.rope.inv_freq)
    other = np.arange(op.head_dim)
    other[: 2 * half] = np.roll(other[: 2 * half], half)
    return other


def from_gains(op: Attend, k_gain: Vector, q_gain: Vector, input_gain: Vector, read: Read) -> Powers | None:
    """Of queries and keys that are normed, by the norms' weights. None: no column stands out, nothing is read."""
    assert op.k is not None
    gains = _paired(k_gain.reshape(-1, op.head_dim), pairs(op))
    if gains.max() < LARGE_GAIN * np.median(gains):
        return None
    keys = _normed(op, k_gain, row_lengths(read(op.k.name), input_gain))
    queries = _normed(op, q_gain, row_lengths(read(op.q.name), input_gain)[: op.heads * op.head_dim])
    shared = k_gain.size == op.head_dim
    return _powers(op, keys, queries, shared=shared)


def from_biases(
    op: Attend, k_bias: Vector, q_bias: Vector, input_gain: Vector, read: Read
) -> tuple[Powers, StoredLinear, StoredLinear] | None:
    """Of queries and keys with biases: the powers, and the matrices of queries and keys times them. None: no bias
    stands out, nothing is read."""
    assert op.k is not None
    if np.abs(k_bias).max() < LARGE_BIAS:
        return None
    q, k = read(op.q.name), read(op.k.name)
    rows = op.heads * op.head_dim
    keys = np.hypot(row_lengths(k, input_gain), k_bias).reshape(-1, op.head_dim)
    queries = np.hypot(row_lengths(q, input_gain), q_bias)[:rows].reshape(-1, op.head_dim)
    powers = _powers(op, keys, queries, shared=False)
    while powers.any():
        new_q, q_same = q.times(of_queries(op, powers, q.rows))
        new_k, k_same = k.times(of_keys(op, powers))
        same = k_same.reshape(powers.shape) & q_same[:rows].reshape(op.kv_heads, -1, op.head_dim).all(axis=1)
        same &= same[:, pairs(op)]
        if same.all():
            return powers, new_q, new_k
        powers = np.where(same, powers, powers - np.sign(powers))  # scales of 16 bits end somewhere
    return None


def of_keys(op: Attend, powers: Powers) -> Powers:
    """One power a row of all key heads."""
    return np.broadcast_to(powers, (op.kv_heads, op.head_dim)).reshape(-1)


def of_queries(op: Attend, powers: Powers, rows: int) -> Powers:
    """One power a row of all query heads; none for rows behind them, which are gates."""
    heads = np.repeat(np.broadcast_to(powers, (op.kv_heads, op.head_dim)), op.heads // op.kv_heads, axis=0).reshape(-1)
    return np.pad(-heads, (0, rows - heads.size))


def gains_of(gain: Vector, powers: Powers) -> Vector:
    """The weight of a norm, of one head or of all, times one power a row."""
    return np.ldexp(gain, powers[: gain.size])


def row_lengths(matrix: StoredLinear, gain: Vector) -> Doubles:
    """Root mean square of each row's product with an input whose columns are independent, of mean square gain^2; of
    integers roughly, from their scales."""
    weight = np.square(gain, dtype=np.float64)
    if isinstance(matrix, IntLinear):
        group = weight.reshape(-1, matrix.group).sum(axis=1) * (2.0 ** (matrix.bits - 1) / 2.5) ** 2
        square: Doubles = np.square(matrix.scales, dtype=np.float64) @ group
    else:
        square = np.square(matrix.float32(), dtype=np.float64) @ weight
    lengths: Doubles = np.sqrt(square)
    return lengths


def _normed(op: Attend, gain: Vector, lengths: Doubles) -> Doubles:
    """[heads, head_dim]: how large columns are behind the norm, whose gains are those of one head or of all."""
    parts = lengths.reshape(-1, gain.size)
    mean = np.sqrt(np.square(parts).mean(axis=1, keepdims=True))
    sizes: Doubles = (parts / np.maximum(mean, 1e-30) * np.abs(gain)).reshape(-1, op.head_dim)
    return sizes


def _powers(op: Attend, keys: Doubles, queries: Doubles, *, shared: bool) -> Powers:
    """What makes column by column keys and queries of equal size: the sum of |key * query| is then what a cache loses
    by. `keys` and `queries` are [their heads, head_dim]."""
    queries = np.sqrt(np.square(queries).reshape(op.kv_heads, -1, op.head_dim).mean(axis=1))
    if shared:
        keys, queries = (np.sqrt(np.square(x).mean(axis=0, keepdims=True)) for x in (keys, queries))
    keys, queries = (_paired(x, pairs(op)) for x in (keys, queries))
    keys, queries = (np.maximum(x, 1e-6 * x.max() + 1e-30) for x in (keys, queries))
    half = np.log2(queries / keys) / 2
    powers = np.rint(half - np.median(half, axis=1, keepdims=True))
    return np.clip(powers, -MOST, MOST).astype(np.int32)


def _paired(x: NDArray[np.floating], other: NDArray[np.intp]) -> Doubles:
    """The root mean square of each column and of the one that is turned with it."""
    square = np.square(x, dtype=np.float64)
    both: Doubles = np.sqrt((square + square[:, other]) / 2)
    return both
