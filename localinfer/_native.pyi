# Written by tests/native/make_stub.py; do not edit.
# ruff: noqa: A002
"""
The native engine: packed weights, the program that runs them, sampling, and what this machine can do.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

class Weight:
    """A matrix packed for the kernels, in memory of its own. Immutable."""

    @property
    def kind(self) -> str:
        """
        `int3`, `int4`, `int5`, `int8`, `affine4`, `affine5`, `mxfp4` or `bf16`.
        """

    @property
    def rows(self) -> int:
        """Rows of all parts, without padding."""

    @property
    def cols(self) -> int:
        """Columns."""

    @property
    def group(self) -> int:
        """Columns that share a scale; 0 for bf16."""

    @property
    def wide(self) -> int:
        """
        Columns of affine weights that share scale and minimum, which each group has factors of; else 0.
        """

    @property
    def activation_bits(self) -> int:
        """
        Bits of the integers that its activations are rounded to, 8 or 16; 0 for bf16.
        """

    @property
    def nbytes(self) -> int:
        """Bytes in memory, padding included."""

    def row(self, i: int) -> NDArray[numpy.float32]:
        """
        Row `i` as float32, dequantized. Rows count over the parts in the order they were given.

        Raises ValueError when there is no such row.
        """

    def without_values(self) -> Weight:
        """What it is, for a pool that has its panels."""

    def write(self, file: int, at: int) -> None:
        """Write the panels into an open file from byte `at` on. Raises OSError."""

    def equals(self, file: int, at: int) -> bool:
        """Whether an open file has just these panels from byte `at` on."""

class RowFile:
    """
    A matrix that stays in its file, of which rows are read when they are asked for.
    """

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""

    def row(self, i: int) -> NDArray[numpy.float32]:
        """
        Row `i` as float32, dequantized. Raises ValueError when there is no such row, Corrupt when it cannot be had.
        """

def open_rows(bits: int, group: int, cols: int, rows: int, at: tuple[int, int, int, int], name: str) -> RowFile:
    """
    A matrix in open files, bf16 (`bits` 16, `group` 0) or integers as in `pack_int`; `at` is (file of the values,
    their first byte, file of the scales, their first byte). Both stay open. `name` is for people.

    Raises ValueError for a shape that cannot be read, Corrupt where a file is too short for it.
    """

def packed_bytes(bits: int, group: int, cols: int, rows: Sequence[int], wide: int = 0, mxfp4: bool = False) -> int:
    """
    Bytes that matrices of `cols` columns, stacked, take when packed, padding included; `rows` are those of each.

    `bits` 3, 4, 5, 8, or 16 for bf16, with `group` 0; `wide` of affine weights. Raises ValueError for a
    shape that cannot be packed.
    """

def pack_bf16(parts: Sequence[NDArray[numpy.uint16]], interleave: bool = False, threads: int = 0) -> Weight:
    """
    Pack bf16 matrices (as uint16, each [rows, cols]), stacked by rows, every part padded to whole panels.

    With `interleave`, two parts of equal shape alternate by panels (gate, up). `threads` 0: one a physical core.
    Raises ValueError on shapes that disagree, MemoryError with the size.
    """

def pack_int(
    bits: int,
    group: int,
    parts: Sequence[tuple[NDArray[numpy.int32], NDArray[numpy.float16]]],
    interleave: bool = False,
    threads: int = 0,
    *,
    activation_bits: int = 8,
) -> Weight:
    """
    Pack integer matrices in compressed-tensors `pack-quantized` form, each (int32 words [rows, ceil(cols * bits
    / 32)], float16 scales [rows, cols / group]); bits 3, 4, 5 or 8, group 32, 64 or 128.

    `activation_bits` is 8, or, for weights of 8 bits, 16: twice the work, activations 256 times as fine.
    Parts and errors as in `pack_bf16`.
    """

def pack_affine(
    group: int,
    wide: int,
    parts: Sequence[tuple[NDArray[numpy.int32], NDArray[numpy.float16], NDArray[numpy.float16], NDArray[numpy.uint8]]],
    interleave: bool = False,
    threads: int = 0,
    *,
    bits: int = 4,
) -> Weight:
    """
    Pack matrices of weights scale * factor * q + minimum * factor, q of 4 or 5 bits from 0 on, each (int32 words
    [rows, cols * bits / 32], float16 scales and minima [rows, cols / wide], uint8 factors [rows, 2 * cols / group]: of
    each group the scale's, then the minimum's); group 32, 64 or 128, `wide` that times 1, 2, 4 or 8.

    Parts and errors as in `pack_bf16`.
    """

def pack_mxfp4(
    parts: Sequence[tuple[NDArray[numpy.int32], NDArray[numpy.uint8]]], interleave: bool = False, threads: int = 0
) -> Weight:
    """
    Pack 4-bit floats, each (int32 words of codes [rows, cols / 8], uint8 e [rows, cols / 32]): a weight is twice the
    number of its code, times 2 to the power of e - 127; 0 where e is 0. Parts and errors as in `pack_bf16`.
    """

def pack_files(
    program: Program,
    jobs: Sequence[tuple[int, int, int, Sequence[tuple[int, int, int, int, int]], bool, int]],
    on_packed: Callable[[int], object] | None = None,
) -> list[Weight | None]:
    """
    Pack matrices straight from open files, on the threads of the `program` they are for; Python runs meanwhile.

    A job, one weight, is (bits, group, columns, parts, interleave, bits of activations); a part is (rows, file of
    the values, their first byte, file of the scales, their first byte). `bits` 16 is bf16, with `group` 0 and no
    scales. The rest as in `pack_int`. A weight is None when a file cannot be read as far as that, or holds NaN or
    infinity. `on_packed` is told five times a second at most how many weights are done; what it raises ends it.
    """

class ExpertPool:
    """
    Packed experts that stay in a file, of which those that steps want are read into slots; what
    was passed over longest makes room.
    """

    def __init__(self, file: int, name: str, layers: Sequence[tuple[int, int, int]], bytes: int) -> None:
        """
        `layers` are (first byte, experts, bytes of each), in the order in which steps want them. The slots take
        `bytes`, but as many as the experts of a layer are made at least. The file stays open; `name` is for people.

        Raises ValueError, Corrupt where the file is too short, MemoryError with the size.
        """

    @property
    def slots(self) -> int:
        """Experts that can be held at once."""

    @property
    def slots_bytes(self) -> int:
        """Bytes of the slots, whether touched yet or not."""

    @property
    def experts(self) -> int:
        """Experts of all layers."""

    @property
    def nbytes(self) -> int:
        """Their bytes."""

    @property
    def held(self) -> int:
        """Experts that are in memory."""

    @property
    def held_bytes(self) -> int:
        """Their bytes."""

    @property
    def wanted(self) -> int:
        """Experts that steps wanted so far; each once a step and layer."""

    @property
    def read(self) -> int:
        """Of these, those that had to be read."""

    @property
    def read_bytes(self) -> int:
        """Bytes that were read for them."""

def kv_block_bytes(kv_heads: int, head_dim: int, bits: int) -> int:
    """
    Bytes that 32 tokens of one layer take in the KV cache, 4, 8 or 16 bits a value, scales included.

    Raises ValueError for other bits, and for 4 where `head_dim` is no multiple of 32.
    """

class Program:
    """
    One model and the threads that run it: `embed`, then `attend` and `gated_mlp` in turn, then
    `head`, then `make_kv`; after that `step`. Raises ValueError on shapes that disagree.
    """

    def __init__(self, hidden: int, threads: int = 0, isa: str = "", max_rows: int = 256) -> None:
        """
        `threads` 0: one a physical core. `isa` "": the best kernels here. `max_rows`: rows computed at once.
        """

    def rope_table(
        self,
        inv_freq: NDArray[numpy.float64],
        positions: int,
        attention_factor: float = 1.0,
        growth: float = 0.0,
        every: float = 1.0,
    ) -> int:
        """
        Make cosines and sines of position * inv_freq (float64 [half of the values that are turned]), times
        `attention_factor` * (1 + `growth` * log(1 + floor(position / `every`))); returns the table's number.
        """

    def embed(self, weight: Weight, scale: float = 1.0, norm_eps: float | None = None) -> None:
        """
        x = row(token) * scale, then, with `norm_eps`, through a norm without a weight.
        """

    def embed_rows(self, tokens: NDArray[numpy.int32], out: NDArray[numpy.float32]) -> None:
        """
        The rows of the embedding, scaled as the first layer gets them, into `out` [n, hidden].
        """

    def mix(self, weight: Weight) -> None:
        """x = weight * input instead of `embed`, of `inputs` that a step brings."""

    def attend(
        self,
        norm: NDArray[numpy.float32] | None,
        eps: float,
        qkv: Weight,
        bias: NDArray[numpy.float32] | None,
        q_norm: NDArray[numpy.float32] | None,
        k_norm: NDArray[numpy.float32] | None,
        o: Weight,
        o_bias: NDArray[numpy.float32] | None,
        post_norm: NDArray[numpy.float32] | None,
        heads: int,
        kv_heads: int,
        head_dim: int,
        rope: int,
        scale: float,
        window: int = 0,
        norm_bias: NDArray[numpy.float32] | None = None,
        query_rope: int | None = None,
        norm_after_rope: bool = False,
        softcap: float = 0.0,
        sinks: NDArray[numpy.float32] | None = None,
        gated: bool = False,
        v_norm: NDArray[numpy.float32] | None = None,
        kv_of: int | None = None,
        out_scale: float = 1.0,
        post_eps: float | None = None,
    ) -> None:
        """
        x += o(attention(q, k, v of norm(x))), `post_norm` before the sum if there is one.

        norm: RMSNorm, or none; with `norm_bias`, which may be empty, LayerNorm.
        qkv: three stacked parts of heads * head_dim, kv_heads * head_dim, kv_heads * head_dim rows; `bias` is q | k | v
        without padding; `q_norm` and `k_norm` norm each head before RoPE (`norm_after_rope`: after it), or, with as
        many values as all heads have, all at once; all with the same `eps`; `rope` is a table's number, which turns the
        first values of each head, `query_rope` that of queries if it is another one; `scale` multiplies q . k, and
        `softcap` c makes c tanh(score / c) of that; `window` is how many tokens a query sees, itself included, 0 for
        all. `sinks` [heads] are scores that take part in the softmax and have no values. `gated`: the first part of
        qkv is the queries, then as many gates, whose sigmoid multiplies what o reads. `qkv` of two parts: values
        are the keys, before these are normed; `v_norm` norms each head of the values. `kv_of`: keys and values are
        those of that layer, counted over the layers that have such, and `qkv` is q alone. What o reads is multiplied
        by `out_scale`. `post_norm` has `post_eps` where that is given.
        """

    def gated_mlp(
        self,
        norm: NDArray[numpy.float32] | None,
        eps: float,
        gate_up: Weight,
        activation: str,
        down: Weight,
        post_norm: NDArray[numpy.float32] | None = None,
        norm_bias: NDArray[numpy.float32] | None = None,
        gate_bias: NDArray[numpy.float32] | None = None,
        up_bias: NDArray[numpy.float32] | None = None,
        down_bias: NDArray[numpy.float32] | None = None,
        beside: bool = False,
        inner_scale: float = 1.0,
        scale: float = 1.0,
        post_eps: float | None = None,
    ) -> None:
        """
        x += down(act(gate) * up), gate and up of norm(x), interleaved, or down(act(up)), with up alone in `gate_up`;
        `activation` is `silu`, `gelu`, `gelu_tanh` or `relu2`, the square of relu; norms as in `attend`. What down
        reads is multiplied by `inner_scale`. `beside`: it reads the x that the attention before it reads, and then
        both are added. Last of all x is multiplied by `scale`.
        """

    def layer_inputs(
        self,
        table: Weight | None,
        scale: float,
        project: Weight,
        norm: NDArray[numpy.float32],
        eps: float,
        rows: RowFile | None = None,
    ) -> None:
        """
        After `embed`: what each layer gets of a token, in parts of as many values as `norm` has. Part i is
        norm(part i of project * x) + row(token) of `table`, or of `rows` in their file, * scale.
        """

    def layer_input(
        self,
        gate: Weight,
        activation: str,
        project: Weight,
        post_norm: NDArray[numpy.float32] | None,
        eps: float,
        scale: float = 1.0,
    ) -> None:
        """
        x = (x + project(act(gate * x) * part)) * scale, `post_norm` before the sum if there is one; `part` is the
        next one of `layer_inputs`.
        """

    def short_conv(
        self,
        norm: NDArray[numpy.float32],
        eps: float,
        in_: Weight,
        in_bias: NDArray[numpy.float32] | None,
        taps: NDArray[numpy.float32],
        taps_bias: NDArray[numpy.float32] | None,
        out: Weight,
        out_bias: NDArray[numpy.float32] | None,
    ) -> None:
        """
        x += out(c * conv(b * u)), b, c and u the three thirds of `in_` * norm(x); conv is causal, by column,
        with `taps` [length * hidden], the oldest row's first.
        """

    def delta_net(
        self,
        norm: NDArray[numpy.float32],
        eps: float,
        in_: Weight,
        gates: Weight,
        taps: NDArray[numpy.float32],
        taps_bias: NDArray[numpy.float32] | None,
        decay_rate: NDArray[numpy.float64],
        dt_bias: NDArray[numpy.float32],
        beta_scale: float,
        out_norm: NDArray[numpy.float32],
        out_norm_eps: float,
        out: Weight,
        heads: int,
        value_heads: int,
        key_dim: int,
        value_dim: int,
    ) -> None:
        """
        x += out(out_norm(o) * silu(z)), o what value heads read of their states by the gated delta rule; q, k, v and
        z are the rows of `in_` * norm(x), b and a those of `gates`. q, k and v go through a causal convolution with
        `taps` [length * channels], the oldest row's first, and SiLU; q and k of a head get length 1, q also
        1 / sqrt(key_dim); beta is `beta_scale` * sigmoid(b), and a row keeps exp(-`decay_rate` * softplus(a +
        `dt_bias`)) of a state.
        """

    def mamba2(
        self,
        norm: NDArray[numpy.float32],
        eps: float,
        in_: Weight,
        dt: Weight,
        taps: NDArray[numpy.float32],
        taps_bias: NDArray[numpy.float32] | None,
        decay_rate: NDArray[numpy.float64],
        dt_bias: NDArray[numpy.float32],
        skip: NDArray[numpy.float32],
        dt_low: float,
        dt_high: float,
        dt_scale: float,
        z_scale: float,
        out_norm: NDArray[numpy.float32] | None,
        out_norm_eps: float,
        norm_groups: int,
        norm_before_gate: bool,
        out_scale: float,
        out: Weight,
        groups: int,
        heads: int,
        state: int,
        head_dim: int,
        beside: bool = False,
    ) -> None:
        """
        x += out(y), y = norm((C S + `skip` * u) * silu(`z_scale` * z)) * `out_scale`; C, B, u and z are the rows of
        `in_` * norm(x). C, B and u go through a causal convolution as in `delta_net`. A row's step d is
        softplus(`dt_scale` * `dt` * norm(x) + `dt_bias`) within [`dt_low`, `dt_high`], and a head's state
        [state, head_dim] S = exp(-`decay_rate` * d) * S + B (d * u)'. `out_norm` is of each of `norm_groups` groups of
        columns, 0: there is none; or before silu. `beside` as in `gated_mlp`.
        """

    def head(
        self,
        norm: NDArray[numpy.float32],
        eps: float,
        weight: Weight,
        softcap: float = 0.0,
        norm_bias: NDArray[numpy.float32] | None = None,
    ) -> None:
        """logits = weight * norm(x); with `softcap` c, c * tanh(logits / c)."""

    def make_kv(self, blocks: int | Sequence[int], kv_bits: int | Sequence[int]) -> None:
        """
        Allocate the cache: `blocks` blocks of 32 tokens, for all KV groups or one number for each, of 4, 8 or 16
        bits a value, for all layers or one number for each. Called again, it starts empty. 4 needs heads of a
        multiple of 32 values.

        Memory is taken when first written. Raises MemoryError with the size.
        """

    def borrow_kv(self, lender: Program) -> None:
        """
        After `mix`, instead of `make_kv`: each `attend` reads keys and values of `lender`, a program that is complete
        and on the CPU, by `kv_of`. Block tables of a step are the lender's. A row at position p is a query of
        position p + 1, which sees what is there before it. Steps of both may not run at once.
        """

    def read_kv(self, block: int, out: NDArray[numpy.uint8], group: int | None = None) -> None:
        """
        Copy one block of the cache, all layers of a KV group or of all, into `out` (uint8 [kv_block_bytes], or of
        [kv_group_bytes[group]]), to keep it elsewhere.

        Raises ValueError for a block that is not there, RuntimeError while a step is running.
        """

    def write_kv(self, block: int, values: NDArray[numpy.uint8], group: int | None = None) -> None:
        """
        The reverse of `read_kv`, for a cache of the same model and bits. Errors as there.
        """

    def make_state(self, slots: int, snapshots: int = 0, drafts: int = 0) -> None:
        """
        Allocate the states of recurrent operations: sequence i of a step has slot i, which keeps up to `drafts`
        drafted rows; `snapshots` more places hold states only. Called again, all are empty.
        """

    def advance_state(self, slot: int, rows: int) -> None:
        """
        The first `rows` of the rows that the last step drafted in `slot` are right: its state moves on by them.
        """

    def copy_state(self, from_: int, to: int, position: int = 0) -> None:
        """
        Copy a state from one place to another (slots first, then snapshots); a slot then stands at `position`.
        """

    def read_state(self, location: int, out: NDArray[numpy.uint8]) -> None:
        """Copy one state into `out` (uint8 [state_bytes]), to keep it elsewhere."""

    def write_state(self, location: int, values: NDArray[numpy.uint8]) -> None:
        """The reverse of `read_state`."""

    def clear_state(self, slot: int, position: int) -> None:
        """Zeros, as if `position` rows had been read: to measure a step there."""

    def probe_kv(self, tokens: NDArray[numpy.int32]) -> list[float]:
        """
        How much 4-bit keys and values change each layer's attention, while it reads a text of these tokens: the
        root of sum |from 4 bit - from 8 bit|^2 / sum |from 8 bit|^2 over all rows, from the same q, k and v.

        Caches of its own are used; may be called before `make_kv`. Errors as in `step`.
        """

    def step(
        self,
        tokens: NDArray[numpy.int32],
        positions: NDArray[numpy.int32],
        sequences: NDArray[numpy.int32],
        block_tables: NDArray[numpy.int32] | NDArray[numpy.int32],
        out_rows: NDArray[numpy.int32],
        logits: NDArray[numpy.float32],
        begin: int = 0,
        end: int = 0,
        inputs: NDArray[numpy.float32] | None = None,
        hidden: NDArray[numpy.float32] | None = None,
        drafted: NDArray[numpy.int32] | None = None,
    ) -> None:
        """
        Run `tokens` (n of them) through the program, and write the logits of rows `out_rows` (ascending).

        Row i stands at positions[i] of the sequence whose cache blocks are block_tables[sequences[i]], or, with a
        table for each KV group, block_tables[group, sequences[i]]. Blocks that no row of the step sees may be
        anything, -1 say. Rows of one sequence follow each other by one. Keys and values of all rows are written
        before any row attends. Any n: the result of a row depends neither on the other rows nor on the threads. The
        GIL is released; a signal is seen within 20 ms or one phase, then its exception is raised and the program
        stays usable.
        Only layers `begin` to `end` - 1 run (`end` 0: to the last); the head follows in any case. A program that
        begins with `mix` needs `inputs` [n, its columns], and with `begin` > 0 any needs the residual stream there,
        [n, hidden]; tokens then mean nothing, but for `layer_inputs`.
        `hidden` [n, hidden] is given the stream of all rows after these layers.
        With recurrent operations `drafted` [sequences] says how many of a sequence's last rows are drafts; the others
        move its state on, and a later step goes on where they end (`advance_state`), or at position 0.
        Raises ValueError, with the numbers, for anything out of range, RuntimeError when a step is running already.
        """

    def time_phases(self, on: bool) -> None:
        """From now on steps on the CPU keep what each of their phases took."""

    def phase_times(self) -> list[tuple[str, str, float, float]]:
        """
        Of the last step, phase by phase: operation, what it did, seconds that the calling thread was busy, and
        seconds it waited for the others. Empty unless `time_phases`.
        """

    def watch(self, weight: Weight) -> None:
        """
        From now on steps on the CPU add up the squares of what `weight`, one of bf16, is multiplied with; what was
        added before is forgotten. Raises ValueError for another weight, RuntimeError while a step is running.
        """

    def squares(self, weight: Weight) -> NDArray[numpy.float64]:
        """
        The sums, float64 [columns], over all rows since `watch`. Raises ValueError where it is not watched.
        """

    def set_threads(self, threads: int) -> None:
        """
        From now on so many threads compute; 0: one a physical core. No bit of what they compute changes.

        Fewer when the system has no more to give. Raises RuntimeError while a step is running.
        """

    def set_prefetch(self, bytes: int) -> None:
        """
        From now on one row asks for weights so many bytes ahead, a multiple of 64 up to 1 MiB; 0: not at all.
        No bit of what is computed changes. Raises RuntimeError while a step is running, ValueError.
        """

    @property
    def prefetch(self) -> int:
        """Bytes that one row asks for weights ahead."""

    @property
    def takes_prefetch(self) -> bool:
        """Whether its kernels heed `set_prefetch`."""

    @property
    def hidden(self) -> int:
        """Numbers of a row of the residual stream."""

    @property
    def layers(self) -> int:
        """Layers: each an `attend` or `short_conv` and the `gated_mlp` after it."""

    @property
    def kv_layers(self) -> int:
        """Layers with keys and values."""

    @property
    def vocab(self) -> int:
        """Logits of a row; 0 before `head`."""

    @property
    def kv_bits(self) -> list[int]:
        """
        Bits of each such layer's cached keys and values; empty before `make_kv`.
        """

    @property
    def kv_windows(self) -> list[int]:
        """
        Of each KV group, the layers that look back equally far: how many tokens a query sees, 0 for all; in
        the order of their first layers.
        """

    @property
    def kv_blocks(self) -> list[int]:
        """Blocks of each KV group; empty before `make_kv`."""

    @property
    def kv_group_bytes(self) -> list[int]:
        """Bytes of one block of each KV group, all its layers."""

    @property
    def kv_block_bytes(self) -> int:
        """Bytes of one block of the KV cache, all layers; 0 before `make_kv`."""

    @property
    def kv_bytes(self) -> int:
        """Bytes of the KV cache, whether touched yet or not."""

    @property
    def states(self) -> int:
        """Operations that keep a state; 0: sequences have keys and values only."""

    @property
    def state_bytes(self) -> int:
        """Bytes of one sequence's state, all operations together."""

    @property
    def state_cache_bytes(self) -> int:
        """Bytes of all states and snapshots."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of the packed weights; a tied head counts once."""

    @property
    def isa(self) -> str:
        """The kernel set that runs."""

    @property
    def phases(self) -> int:
        """Phases of the last step; its threads wait for each other after each."""

    @property
    def threads(self) -> int:
        """Threads, the calling one included."""

    @property
    def max_rows(self) -> int:
        """Rows computed at once; longer steps are cut."""

    @property
    def experts(self) -> ExpertPool:
        """The pool of its experts; None where all are in memory."""

    def moe(
        self,
        norm: NDArray[numpy.float32],
        eps: float,
        router: Weight,
        experts: Sequence[tuple[Weight, Weight]],
        top_k: int,
        score: str,
        renormalise: bool,
        scale: float,
        activation: str,
        choice_bias: NDArray[numpy.float32] | None = None,
        shared: tuple[Weight, Weight] | None = None,
        shared_gated: bool = False,
        post_norm: NDArray[numpy.float32] | None = None,
        router_bias: NDArray[numpy.float32] | None = None,
        gate_bias: NDArray[numpy.float32] | None = None,
        up_bias: NDArray[numpy.float32] | None = None,
        down_bias: NDArray[numpy.float32] | None = None,
        groups: int = 1,
        top_groups: int = 1,
        least_sum: float = 0.0,
        added_sum: float = 0.0,
        limit: float = 0.0,
        alpha: float = 0.0,
        into: Weight | None = None,
        out_of: Weight | None = None,
        pool: ExpertPool | None = None,
        pool_layer: int = 0,
        router_norm: NDArray[numpy.float32] | None = None,
        expert_scale: NDArray[numpy.float32] | None = None,
        beside_norm: NDArray[numpy.float32] | None = None,
        stream_scale: float = 1.0,
    ) -> None:
        """
        x += the sum over the `top_k` experts that a row's `router` chose, ascending, of weight * down(act(gate) *
        up), each a pair of gate_up (interleaved; up alone: no gates) and down; `activation` as in `gated_mlp`. With
        `into` they read into * norm(x), and their sum goes through `out_of`. Weights are the scores (`softmax` over
        all, `sigmoid`),
        renormalised to a sum of 1 or not, times `scale`. The shared expert takes every row, by the sigmoid of the
        router's second part with `shared_gated`. `choice_bias` is added to scores where experts are chosen only;
        with `groups` only experts of the `top_groups` groups are whose best two sum to the most. Weights are
        divided by their sum, `least_sum` at least, plus `added_sum`. Biases of experts are [experts, rows]. With
        `limit` an expert is down(g * sigmoid(alpha * g) * (u + 1)), g = min(gate, limit), u = up within +-limit.
        With `pool` the experts' weights have no values: layer `pool_layer` of it has them. The router reads
        router_norm(x), if there is such a norm; weights of each expert are multiplied by its `expert_scale`. With
        `beside_norm` the experts read the x that the MLP before it reads, and x += beside_norm(what that adds +
        post_norm(sum)); x is then multiplied by `stream_scale`.
        """

def all_finite(x: NDArray[numpy.float32]) -> bool:
    """False where a number is NaN or infinite."""

def hold(logits: NDArray[numpy.float32], bits: NDArray[numpy.uint8]) -> None:
    """
    Give the lowest score, in place, to every finite logit whose bit (the lowest first) is not set or not there.
    """

def sample(
    logits: NDArray[numpy.float32],
    recent: NDArray[numpy.int32],
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    repeat_penalty: float,
    seed: int,
    position: int,
    answer: NDArray[numpy.int32] | None = None,
    dry: NDArray[numpy.int32] | None = None,
    presence_penalty: float = 0.0,
    frequency_penalty: float = 0.0,
    dry_multiplier: float = 0.0,
    dry_base: float = 1.75,
    dry_allowed: int = 2,
    top_n_sigma: float = 0.0,
    typical_p: float = 1.0,
    xtc_probability: float = 0.0,
    xtc_threshold: float = 0.1,
) -> int:
    """
    Choose a token: a pure function of its arguments, the same on every machine.

    Each token of `recent` once has its logit divided by `repeat_penalty` (multiplied when negative); each of `answer`
    loses `presence_penalty`, and `frequency_penalty` as often as it is there; each that would make a repetition at
    the end of `dry` longer, `dry_multiplier` * `dry_base` ** (length - `dry_allowed`); all in place. Of the logits
    within `top_n_sigma` standard deviations of the largest, of the `top_k` largest (0: all), of the most typical that
    together reach `typical_p`, of the likeliest that together reach `top_p`, of those at least `min_p` times as
    likely as the likeliest, and (at a share `xtc_probability` of all positions) without those above `xtc_threshold`
    but the least of them, wins argmax(logit / temperature + gumbel(hash(seed, position, token))). Temperature 0
    takes the lowest index of the largest logit. -1, and nothing is changed, where a logit is NaN or infinite.
    """

class CudaUnusable(Exception):
    pass

def cuda_cards() -> dict[str, Any]:
    """
    What the NVIDIA driver says: its `library`, the newest CUDA `version` it knows (1000 * major + 10 * minor), and
    its `cards`, each with name, uuid, sm (10 * compute capability), multiprocessors, total_bytes and peak_gb_s.

    Raises CudaUnusable; its message is the reason and, on the next line, what to do.
    """

def cuda_compiler(libraries: Sequence[str], driver_version: int) -> tuple[str, list[str]]:
    """
    The NVRTC that is found in `libraries` or where the system looks, with its version, and all places in order.

    Raises CudaUnusable without one that this driver can follow.
    """

def cuda_sources_hash() -> str:
    """Hash of the kernels' sources and of how they are compiled."""

def use_cuda(program: Program, card: int, keep: str, libraries: Sequence[str], graphs: bool = True) -> str:
    """
    Move a program, complete but for `make_kv`, to NVIDIA card number `card`: its steps give the same bits there.

    Kernels are compiled for this card, by the NVRTC found in `libraries` or where the system looks, and kept in the
    directory `keep` ("": nowhere). Without `graphs` every step is launched kernel by kernel. Returns what a
    person should know of it, or nothing. Raises CudaUnusable as above. What a card fails in, here or in a step, is
    NotSupported, and DoesNotFit where its memory is full.
    """

def cuda_facts(program: Program) -> dict[str, Any]:
    """
    Of a program on a card: `launches` so far, without those that graphs repeat, `graphs` kept, `free_bytes` of the
    card, and of each matrix the address and bytes of its `weights`. Else empty.
    """

def supported_isas() -> list[str]:
    """Kernel sets that this machine can run, slowest first."""

def cpu() -> dict[str, str | list[str]]:
    """
    The processor: `vendor`, `model`, `features` the kernels ask for, `isas` that can run.
    """

def physical_cores() -> int:
    """
    Cores this process may use: threads of one core count once, a container's CPU quota is kept.
    """

def read_bandwidth(bytes: int, threads: int = 0) -> float:
    """
    Measure how many bytes a second `threads` threads read from a buffer of `bytes`; best of several passes.
    """

def int8_peak(isa: str = "", threads: int = 0) -> float:
    """
    Operations on int8 a second, a product with its sum counted as two, that `threads` threads of this kernel set do
    together on registers alone; takes some milliseconds.
    """

def linear_seconds(
    isa: str,
    bits: int,
    activation_bits: int,
    cols: int,
    group: int,
    rows: int,
    bytes: int,
    threads: int = 0,
    repeats: int = 1,
    passes: int = 5,
    wide: int = 0,
    mxfp4: bool = False,
) -> tuple[int, list[float]]:
    """
    Multiply `rows` rows with panels of at least `bytes` bytes, each thread its own part, `repeats` times a pass:
    (bytes that a pass reads, seconds of each pass). With 0 rows the panels are only read, word by word.
    With `wide`, weights of 4 or 5 bits are affine, and so many columns share scale and minimum.

    Raises ValueError for shapes that no kernel takes, MemoryError with the size.
    """

def quantize(
    q: NDArray[numpy.int8],
    scale: NDArray[numpy.float32],
    sum: NDArray[numpy.int32],
    x: NDArray[numpy.float32],
    *,
    isa: str = "",
) -> None:
    """
    Quantize x [k] to int8 q [k], with one scale and one sum a group of k / len(scale) values.
    """

def linear_i4(
    out: NDArray[numpy.float32],
    panel: NDArray[numpy.uint8],
    q: NDArray[numpy.int8],
    scale: NDArray[numpy.float32],
    sum: NDArray[numpy.int32],
    *,
    isa: str = "",
) -> None:
    """
    out [rows, 32] = one panel times quantized rows: q [rows, k], scale and sum [rows, k / group].
    """

def linear_i3(
    out: NDArray[numpy.float32],
    panel: NDArray[numpy.uint8],
    q: NDArray[numpy.int8],
    scale: NDArray[numpy.float32],
    sum: NDArray[numpy.int32],
    *,
    isa: str = "",
) -> None:
    """
    out [rows, 32] = one panel times quantized rows: q [rows, k], scale and sum [rows, k / group].
    """

def linear_i5(
    out: NDArray[numpy.float32],
    panel: NDArray[numpy.uint8],
    q: NDArray[numpy.int8],
    scale: NDArray[numpy.float32],
    sum: NDArray[numpy.int32],
    *,
    isa: str = "",
) -> None:
    """
    out [rows, 32] = one panel times quantized rows: q [rows, k], scale and sum [rows, k / group].
    """

def linear_i8(
    out: NDArray[numpy.float32],
    panel: NDArray[numpy.uint8],
    q: NDArray[numpy.int8],
    scale: NDArray[numpy.float32],
    sum: NDArray[numpy.int32],
    *,
    isa: str = "",
) -> None:
    """
    out [rows, 32] = one panel times quantized rows: q [rows, k], scale and sum [rows, k / group].
    """

def linear_mx4(
    out: NDArray[numpy.float32],
    panel: NDArray[numpy.uint8],
    q: NDArray[numpy.int8],
    scale: NDArray[numpy.float32],
    sum: NDArray[numpy.int32],
    *,
    isa: str = "",
) -> None:
    """
    out [rows, 32] = one panel times quantized rows: q [rows, k], scale and sum [rows, k / group].
    """

def linear_a4(
    out: NDArray[numpy.float32],
    panel: NDArray[numpy.uint8],
    q: NDArray[numpy.int8],
    scale: NDArray[numpy.float32],
    sum: NDArray[numpy.int32],
    wide: int,
    *,
    isa: str = "",
) -> None:
    """
    The same of one panel of affine weights, `wide` columns of which share scale and minimum.
    """

def linear_a5(
    out: NDArray[numpy.float32],
    panel: NDArray[numpy.uint8],
    q: NDArray[numpy.int8],
    scale: NDArray[numpy.float32],
    sum: NDArray[numpy.int32],
    wide: int,
    *,
    isa: str = "",
) -> None:
    """
    The same of one panel of affine weights, `wide` columns of which share scale and minimum.
    """

def quantize_16(
    planes: NDArray[numpy.int8],
    scale: NDArray[numpy.float32],
    sum: NDArray[numpy.int32],
    x: NDArray[numpy.float32],
    *,
    isa: str = "",
) -> None:
    """
    Quantize x [k] to 16 bits, 255 * planes[0] + planes[1] (int8 [2, k]), with one scale and one sum a group.
    """

def linear_i8_16(
    out: NDArray[numpy.float32],
    panel: NDArray[numpy.uint8],
    q: NDArray[numpy.int8],
    scale: NDArray[numpy.float32],
    sum: NDArray[numpy.int32],
    *,
    isa: str = "",
) -> None:
    """
    out [rows, 32] = one panel times rows of two planes: q [2 * rows, k], scale and sum [rows, k / group].
    """

def linear_bf16(
    out: NDArray[numpy.float32], panel: NDArray[numpy.uint8], x: NDArray[numpy.float32], *, isa: str = ""
) -> None:
    """out [rows, 32] = one bf16 panel times float rows x [rows, k]."""

def rms_norm(
    out: NDArray[numpy.float32], x: NDArray[numpy.float32], w: NDArray[numpy.float32], eps: float, *, isa: str = ""
) -> None:
    """out [n] = x / sqrt(mean(x * x) + eps) * w."""

def rope(x: NDArray[numpy.float32], cos: NDArray[numpy.float32], sin: NDArray[numpy.float32], *, isa: str = "") -> None:
    """
    Rotate one head x [d] in place by the angles whose cos and sin [d / 2] are given; halves are paired.
    """

def gated(
    out: NDArray[numpy.float32],
    gate: NDArray[numpy.float32],
    up: NDArray[numpy.float32],
    activation: str,
    *,
    isa: str = "",
) -> None:
    """
    out [n] = activation(gate) * up; activation is 'silu', 'gelu' or 'gelu_tanh'.
    """

def delta_rule(
    to: NDArray[numpy.float32],
    from_: NDArray[numpy.float32],
    out: NDArray[numpy.float32],
    delta: NDArray[numpy.float32],
    q: NDArray[numpy.float32],
    k: NDArray[numpy.float32],
    v: NDArray[numpy.float32],
    decay: float,
    beta: float,
    *,
    isa: str = "",
) -> None:
    """
    One row through a head's state [keys, values]: delta = beta * (v - decay * k from), to = decay * from + k delta,
    out = q to. `to` may be `from_`.
    """

def delta_scan(
    to: NDArray[numpy.float32],
    from_: NDArray[numpy.float32],
    out: NDArray[numpy.float32],
    delta: NDArray[numpy.float32],
    q: NDArray[numpy.float32],
    k: NDArray[numpy.float32],
    decay: float,
    *,
    isa: str = "",
) -> None:
    """to = decay * from + k delta, out = q to, as `delta_rule` makes them."""

def delta_replay(
    to: NDArray[numpy.float32],
    from_: NDArray[numpy.float32],
    k: NDArray[numpy.float32],
    delta: NDArray[numpy.float32],
    decay: float,
    *,
    isa: str = "",
) -> None:
    """to = decay * from + k delta, as `delta_rule` makes it."""

def add(out: NDArray[numpy.float32], a: NDArray[numpy.float32], b: NDArray[numpy.float32], *, isa: str = "") -> None:
    """out [n] = a + b."""

def argmax(x: NDArray[numpy.float32], *, isa: str = "") -> int:
    """Lowest index of the largest value; NaN is smallest."""

def exp(out: NDArray[numpy.float32], x: NDArray[numpy.float32], *, isa: str = "") -> None:
    """out [n] = exp(x)."""

def kv_put_8(
    block: NDArray[numpy.uint8], token: int, k: NDArray[numpy.float32], v: NDArray[numpy.float32], *, isa: str = ""
) -> None:
    """
    Write key and value [head_dim] into slot `token` (0 to 31) of a KV block.
    """

def kv_put_16(
    block: NDArray[numpy.uint8], token: int, k: NDArray[numpy.float32], v: NDArray[numpy.float32], *, isa: str = ""
) -> None:
    """
    Write key and value [head_dim] into slot `token` (0 to 31) of a KV block.
    """

def kv_put_4(
    block: NDArray[numpy.uint8], token: int, k: NDArray[numpy.float32], v: NDArray[numpy.float32], *, isa: str = ""
) -> None:
    """
    Write key and value [head_dim] into slot `token` (0 to 31) of a KV block.
    """

def rotate(x: NDArray[numpy.float32], *, isa: str = "") -> None:
    """
    Walsh-Hadamard transform in place of each run of n values of x, n being the largest power of two that divides
    their number; not scaled. Keys and queries of a cache of 8 or 4 bits are rotated before they are put and attend.
    """

def attend_8(
    out: NDArray[numpy.float32],
    blocks: NDArray[numpy.uint8],
    table: NDArray[numpy.int32],
    q: NDArray[numpy.float32],
    position: int,
    window: int,
    scale: float,
    *,
    rows: int = 1,
    apart: bool = False,
    isa: str = "",
    softcap: float = 0.0,
) -> None:
    """
    Softmax attention of `rows` rows of heads q [rows * heads, head_dim], row m at position + m; blocks[table[i]]
    holds tokens 32 i to 32 i + 31. `window`: tokens that a row sees, itself included, 0 for all. `apart`: each
    split of 256 tokens is computed alone and merged after. `softcap` c > 0: scores become c tanh(score / c).
    """

def attend_16(
    out: NDArray[numpy.float32],
    blocks: NDArray[numpy.uint8],
    table: NDArray[numpy.int32],
    q: NDArray[numpy.float32],
    position: int,
    window: int,
    scale: float,
    *,
    rows: int = 1,
    apart: bool = False,
    isa: str = "",
    softcap: float = 0.0,
) -> None:
    """
    Softmax attention of `rows` rows of heads q [rows * heads, head_dim], row m at position + m; blocks[table[i]]
    holds tokens 32 i to 32 i + 31. `window`: tokens that a row sees, itself included, 0 for all. `apart`: each
    split of 256 tokens is computed alone and merged after. `softcap` c > 0: scores become c tanh(score / c).
    """

def attend_4(
    out: NDArray[numpy.float32],
    blocks: NDArray[numpy.uint8],
    table: NDArray[numpy.int32],
    q: NDArray[numpy.float32],
    position: int,
    window: int,
    scale: float,
    *,
    rows: int = 1,
    apart: bool = False,
    isa: str = "",
    softcap: float = 0.0,
) -> None:
    """
    Softmax attention of `rows` rows of heads q [rows * heads, head_dim], row m at position + m; blocks[table[i]]
    holds tokens 32 i to 32 i + 31. `window`: tokens that a row sees, itself included, 0 for all. `apart`: each
    split of 256 tokens is computed alone and merged after. `softcap` c > 0: scores become c tanh(score / c).
    """

def group_scales(
    scale: NDArray[numpy.float32],
    w: NDArray[numpy.float32],
    share: NDArray[numpy.float32],
    trials: NDArray[numpy.float32],
    bits: int,
    *,
    isa: str = "",
) -> None:
    """
    scale [n] = the best signed scales of groups that stand side by side, w [group, n]; share [group, n or 1] weighs
    their squared errors. `trials` are inverses of shares of the scale that the largest weight asks for.
    """

def round_forward(
    q: NDArray[numpy.float32],
    off: NDArray[numpy.float32],
    w: NDArray[numpy.float32],
    scale: NDArray[numpy.float32],
    left: NDArray[numpy.float32],
    bits: int,
    *,
    isa: str = "",
) -> None:
    """
    Round groups that stand side by side, w [group, n], row by row: q = w / scale, off -= q * scale, and later rows
    of w take up left [group, group] of that; w itself stays.
    """

def round_again(
    q: NDArray[numpy.float32],
    w: NDArray[numpy.float32],
    scale: NDArray[numpy.float32],
    inner: NDArray[numpy.float32],
    bits: int,
    *,
    isa: str = "",
) -> None:
    """
    Change the integers q [group, n] row by row to the best ones given all others, w being slopes [group, n] and
    inner [group, group] the second moments; w itself stays.
    """
