"""A tiny model as a program, and ways to run sequences through it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from localinfer import native
from tests.native.matrices import Matrix, pack
from tests.native.meaning import Layer, Model, Shape

Floats = NDArray[np.float32]
Tokens = NDArray[np.int32]
WIDTH = 12
"""Blocks of a sequence: 384 tokens, more than one KV split."""


def build(
    model: Model,
    *,
    threads: int = 1,
    isa: str = "",
    max_rows: int = 64,
    kv_bits: int | list[int] = 8,
    blocks: int = 128,
    mix: Matrix | None = None,
    move: Callable[[native.Program], object] | None = None,
) -> native.Program:
    """`model` as a program; with `mix` it begins with that matrix instead of the embedding. `move` is called before
    the cache is made."""
    s = model.shape
    program = native.Program(s.hidden, threads, isa, max_rows)
    table = program.rope_table(model.inv_freq, WIDTH * 32)
    query_table = program.rope_table(model.inv_freq, WIDTH * 32, 1.0, s.growth, 8.0) if s.growth else None
    if mix is None:
        program.embed(pack(model.embed), s.embed_scale)
    else:
        program.mix(pack(mix))
    for layer in model.layers:
        add_layer(program, s, layer, table, query_table)
    norm_bias = model.norm_bias if s.layer_norm else None
    program.head(model.norm, s.eps, pack(model.head), s.softcap, norm_bias)
    if move is not None:
        move(program)
    program.make_kv(blocks, kv_bits)
    return program


def add_layer(program: native.Program, s: Shape, layer: Layer, table: int, query_table: int | None) -> None:
    """Attention and MLP of one layer."""
    extra = layer.extra
    program.attend(
        norm=layer.norm if s.pre_norm else None,
        norm_bias=extra.get("norm_bias"),
        eps=s.eps,
        qkv=pack(*layer.qkv),
        bias=extra.get("bias"),
        q_norm=extra.get("q_norm"),
        k_norm=extra.get("k_norm"),
        o=pack(layer.o),
        o_bias=extra.get("o_bias"),
        post_norm=extra.get("post_norm"),
        heads=s.heads,
        kv_heads=s.kv_heads,
        head_dim=s.head_dim,
        rope=table,
        query_rope=query_table,
        norm_after_rope=s.norm_after_rope,
        scale=s.head_dim**-0.5,
        softcap=s.score_cap,
        window=layer.window,
    )
    program.gated_mlp(
        layer.mlp_norm if s.pre_norm else None,
        s.eps,
        pack(layer.gate, layer.up, interleave=True) if s.gated else pack(layer.up),
        s.activation,
        pack(layer.down),
        post_norm=extra.get("mlp_post_norm"),
        norm_bias=extra.get("mlp_norm_bias"),
        gate_bias=extra.get("gate_bias") if s.gated else None,
        up_bias=extra.get("up_bias"),
        down_bias=extra.get("down_bias"),
        beside=s.beside,
    )


@dataclass
class Runner:
    """Keeps where each sequence stands; blocks are handed out in a scattered order."""

    program: native.Program
    sequences: int = 1
    lengths: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lengths = [0] * self.sequences
        order = np.random.default_rng(7).permutation(self.sequences * WIDTH).astype(np.int32)
        self.tables = order.reshape(self.sequences, WIDTH)

    def step(
        self,
        pieces: Sequence[tuple[int, Tokens]],
        *,
        begin: int = 0,
        end: int = 0,
        inputs: Floats | None = None,
        hidden: Floats | None = None,
    ) -> list[Floats]:
        """One step with `pieces` of (sequence, next tokens); the logits of every row, one array a piece."""
        tokens = np.concatenate([t for _, t in pieces]).astype(np.int32)
        positions = np.concatenate([np.arange(len(t)) + self.lengths[s] for s, t in pieces]).astype(np.int32)
        sequences = np.concatenate([np.full(len(t), s) for s, t in pieces]).astype(np.int32)
        out = np.full((len(tokens), self.program.vocab), np.nan, np.float32)
        every = np.arange(len(tokens), dtype=np.int32)
        self.program.step(tokens, positions, sequences, self.tables, every, out, begin, end, inputs, hidden)
        for s, t in pieces:
            self.lengths[s] += len(t)
        return np.split(out, np.cumsum([len(t) for _, t in pieces])[:-1])

    def feed(self, tokens: Tokens, chunk: int, sequence: int = 0) -> Floats:
        """One sequence in chunks of at most `chunk` rows; the logits of all its rows."""
        pieces = [tokens[i : i + chunk] for i in range(0, len(tokens), chunk)]
        return np.concatenate([self.step([(sequence, piece)])[0] for piece in pieces])

    def feed_part(self, tokens: Tokens, chunk: int, end: int, sequence: int = 0) -> tuple[Floats, Floats]:
        """As `feed`, through the layers before `end` only: logits and hidden rows."""
        hidden = np.full((len(tokens), self.program.hidden), np.nan, np.float32)
        logits = [
            self.step([(sequence, tokens[i : i + chunk])], end=end, hidden=hidden[i : i + chunk])[0]
            for i in range(0, len(tokens), chunk)
        ]
        return np.concatenate(logits), hidden


class Rings:
    """One sequence, whose blocks behind each KV group's window are used again at once; the tables say -1 there."""

    def __init__(self, program: native.Program) -> None:
        self.program, self.at = program, 0

    def step(self, tokens: Tokens) -> Floats:
        """The logits of every row."""
        n, groups = len(tokens), zip(self.program.kv_windows, self.program.kv_blocks, strict=True)
        tables = np.full((len(self.program.kv_windows), 1, WIDTH), -1, np.int32)
        for table, (window, count) in zip(tables, groups, strict=True):
            first, end = max(0, self.at + 1 - window) // 32 if window else 0, (self.at + n - 1) // 32 + 1
            table[0, first:end] = np.arange(first, end) % count
        out = np.full((n, self.program.vocab), np.nan, np.float32)
        every = np.arange(n, dtype=np.int32)
        self.program.step(tokens, every + self.at, 0 * every, tables, every, out)
        self.at += n
        return out


def some_tokens(n: int, vocab: int, seed: int = 1) -> Tokens:
    return np.random.default_rng(seed).integers(0, vocab, n).astype(np.int32)
