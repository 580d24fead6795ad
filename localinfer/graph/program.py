"""From a checkpoint to a program that runs: what the native program is told of each operation.

Long because all operations stand side by side here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer import native
from localinfer.config import KvBits
from localinfer.errors import DoesNotFit
from localinfer.graph.experts import ExpertFile, Slots
from localinfer.graph.key_powers import Evening, Heads
from localinfer.graph.kv_bits import choose_bits, probe_length, probe_text, require_4_bit
from localinfer.graph.ops import (
    Attend,
    DeltaNet,
    DepthwiseConv,
    Embed,
    Expert,
    GatedMLP,
    Head,
    LayerInput,
    LayerInputs,
    Linear,
    Mamba2,
    Mix,
    Mixture,
    Norm,
    Op,
    ShortConv,
)
from localinfer.graph.packing import Calls, OnProgress, Packer, Place, with_weights
from localinfer.graph.prepared import (
    AS_THEY_ARE,
    Orders,
    Vector,
    around_experts,
    by_part,
    eps_of,
    gates_last,
    head_norm,
    norm_bias,
    norm_weight,
    ordered,
    rope_order,
    routing_of,
)
from localinfer.graph.rope import Rope
from localinfer.graph.stored import Order, StoredLinear
from localinfer.graph.weights import Checkpoint

Move = Callable[[native.Program], object]


def load_program(
    checkpoint: Checkpoint,
    *,
    threads: int = 0,
    isa: str = "",
    max_rows: int = 256,
    context: int,
    kv_blocks: int | Sequence[int],
    kv_bits: KvBits | Sequence[int] = 8,
    states: tuple[int, int, int] = (1, 0, 0),
    move: Move | None = None,
    on_progress: OnProgress | None = None,
    packed: dict[str, native.Weight] | None = None,
    experts: Slots | None = None,
) -> native.Program:
    """Load every weight of `checkpoint` and return its program, ready for `step`.

    `context` is the number of positions RoPE is prepared for; `kv_blocks` blocks of 32 tokens are allocated, for each
    group of layers that look back equally far (`Program.kv_windows`) or one number for all.
    `kv_bits` may be given layer by layer; with 4 for all, layers that do not bear it get 8 (`Program.kv_bits` tells).
    `states` are slots, snapshots and drafted rows of a slot for recurrent operations, where the model has such.
    `move` takes the program to a card before its cache is made.
    `on_progress(done, total)` is told the bytes read so far, of all, and may end it by raising. `packed` is filled
    with the weight that holds each matrix, by the matrix's name. Above the packed weights, memory holds the matrices of
    one fused operation at most. With `experts` those of mixtures stay in a file, and are read when a step wants them.
    Raises `Corrupt` for NaN or infinity, naming the tensor, `DoesNotFit` when memory runs
    out, and `NotSupported` for 4 bits where heads are too small.
    """
    if kv_bits == 4:
        require_4_bit(checkpoint.spec)
        context = max(context, probe_length(checkpoint.spec))
    try:
        even = any(bits != 16 for bits in ([kv_bits] if isinstance(kv_bits, int) else kv_bits))
        program = native.Program(checkpoint.spec.hidden_size, threads=threads, isa=isa, max_rows=max_rows)
        with ExitStack() as files:
            told = on_progress or (lambda done, total: None)
            loader = Loader(checkpoint, program, threads, context, files, told, even_keys=even)
            if experts is not None:
                loader.expert_file = ExpertFile(loader, experts)
            for op in checkpoint.graph.ops:
                loader.add(op)
            loader.build({} if packed is None else packed)
        if kv_bits == 4:
            kv_bits = choose_bits(program.probe_kv(probe_text(checkpoint.spec)))
        if move is not None:
            move(program)
        program.make_kv(_listed(kv_blocks), _listed(kv_bits))
        if program.states:
            program.make_state(*states)
    except MemoryError as error:
        raise DoesNotFit(
            f"not enough memory for the model: {error}", hint="lower `-c`, close a program, or use a smaller model"
        ) from error
    return program


def _listed(numbers: int | Sequence[int]) -> int | list[int]:
    return numbers if isinstance(numbers, int) else list(numbers)


class Loader(Packer):
    """Takes one operation of the graph at a time; `build` then packs the weights of all, while Python is free for other
    threads, and adds the operations to the program."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        program: native.Program,
        threads: int,
        context: int,
        files: ExitStack,
        on_progress: OnProgress,
        even_keys: bool,
        head_rows: Order | None = None,
        evening: Evening | None = None,
    ) -> None:
        """`even_keys`: columns of the keys that stand out are made smaller, those of the queries larger; `evening` is
        that of the model whose keys are read. `head_rows`: the tokens that the head scores, None: all."""
        super().__init__(checkpoint, program, threads, files, on_progress)
        self.program = Calls()
        self.context, self.head_rows = context, head_rows
        self.expert_file: ExpertFile | None = None
        self.ropes: dict[tuple[Rope, float], int] = {}
        self.evening = evening or Evening(wanted=even_keys, shares_kv=checkpoint.graph.shares_kv)

    def build(self, packed: dict[str, native.Weight]) -> None:
        """Pack what lies in files, and make the program. `packed` gets the weight of each matrix."""
        weights = self.pack_placed(packed)
        for name, given, named in self.program.kept:
            getattr(self.target, name)(*with_weights(given, weights), **with_weights(named, weights))

    def add(self, op: Op) -> None:
        ADD[type(op)](self, op)

    def embed(self, op: Embed) -> None:
        self.program.embed(self.table(op.table), op.scale, None if op.norm is None else op.norm.eps)

    def mix(self, op: Mix) -> None:
        """Whoever runs it norms both inputs."""
        self.program.mix(self.pack(op.matrix))

    def heads(self, op: Attend) -> tuple[Heads, Orders]:
        """What heads are made by, evened out, and the orders of rows."""
        turned = [linear for linear in (op.q, op.k) if linear is not None and op.rope.interleaved]
        orders = {linear.name: rope_order(op, linear.rows) for linear in turned}
        if op.gated and op.gate is None:
            orders[op.q.name] = gates_last(op)

        def read(name: str) -> StoredLinear:
            return self.checkpoint.linear(name).rows_in(orders.get(name))

        norms = ordered(self.optional_norm(op.q_norm), op), ordered(self.optional_norm(op.k_norm), op)
        heads = Heads(self.biases(*op.qkv(), orders=orders), *norms)
        return self.evening(op, heads, self.optional_norm(op.norm), read), orders

    def attend(self, op: Attend) -> None:
        heads, orders = self.heads(op)
        self.program.attend(
            norm=self.optional_norm(op.norm),
            norm_bias=self.norm_bias(op.norm),
            eps=eps_of(op),
            qkv=self.pack(*op.qkv(), orders=orders, changed=heads.changed, joined=1 if op.gate is None else 2),
            bias=heads.bias,
            q_norm=heads.q_norm,
            k_norm=heads.k_norm,
            norm_after_rope=op.norm_after_rope,
            o=self.pack(op.o),
            o_bias=self.biases(op.o),
            post_norm=self.optional_norm(op.post_norm),
            post_eps=None if op.post_norm is None else op.post_norm.eps,
            heads=op.heads,
            kv_heads=op.kv_heads,
            head_dim=op.head_dim,
            rope=self.rope(op.rope),
            query_rope=self.rope(op.rope, op.rope.growth),
            scale=op.scale,
            softcap=op.softcap,
            window=op.window,
            sinks=self.checkpoint.vector(op.sinks) if op.sinks else None,
            gated=op.gated,
            v_norm=self.optional_norm(op.v_norm),
            kv_of=op.kv_of if op.k is None else None,
            out_scale=op.out_scale,
        )

    def gated_mlp(self, op: GatedMLP) -> None:
        self.program.gated_mlp(
            norm=self.optional_norm(op.norm),
            norm_bias=self.norm_bias(op.norm),
            eps=eps_of(op),
            gate_up=self.pack(*op.fused()[0], interleave=op.gate is not None),
            gate_bias=None if op.gate is None else self.biases(op.gate),
            up_bias=self.biases(op.up),
            activation=op.activation,
            down=self.pack(op.down),
            down_bias=self.biases(op.down),
            post_norm=self.optional_norm(op.post_norm),
            post_eps=None if op.post_norm is None else op.post_norm.eps,
            beside=op.beside,
            inner_scale=op.inner_scale,
            scale=self.stream_scale(op),
        )

    def layer_inputs(self, op: LayerInputs) -> None:
        """A number on what is normed is one on the epsilon."""
        rows = self.rows(op.table)
        self.program.layer_inputs(
            table=self.pack(op.table) if rows is None else None,
            rows=rows,
            scale=op.table_scale * op.scale,
            project=self.pack(op.project),
            norm=self.norm(op.norm) * np.float32(op.scale),
            eps=op.norm.eps / op.project_scale**2,
        )

    def layer_input(self, op: LayerInput) -> None:
        self.program.layer_input(
            gate=self.pack(op.gate),
            activation=op.activation,
            project=self.pack(op.project),
            post_norm=self.norm(op.post_norm),
            eps=op.post_norm.eps,
            scale=self.stream_scale(op),
        )

    def stream_scale(self, op: Op) -> float:
        name = op.stream_scale()
        return float(self.checkpoint.vector(name)[0]) if name else 1.0

    def short_conv(self, op: ShortConv) -> None:
        self.program.short_conv(
            norm=self.norm(op.norm),
            eps=op.norm.eps,
            in_=self.pack(op.in_proj),
            in_bias=self.biases(op.in_proj),
            taps=np.ascontiguousarray(self.taps(op.conv)).reshape(-1),
            taps_bias=self.checkpoint.vector(f"{op.conv.name}.bias") if op.conv.bias else None,
            out=self.pack(op.out_proj),
            out_bias=self.biases(op.out_proj),
        )

    def taps(self, conv: DepthwiseConv) -> Vector:
        """[length, channels], the oldest row's first."""
        return self.checkpoint.vector(f"{conv.name}.weight").reshape(conv.channels, conv.length).T

    def delta_net(self, op: DeltaNet) -> None:
        each = op.value_heads // op.heads
        sizes = (op.key_dim, op.key_dim, each * op.value_dim, each * op.value_dim)
        self.program.delta_net(
            norm=self.norm(op.norm),
            eps=op.norm.eps,
            in_=self.pack(*op.inputs, orders=by_part(op, op.inputs, sizes)),
            gates=self.pack(*op.gates, orders=by_part(op, op.gates, (each, each))),
            taps=np.concatenate([self.taps(conv) for conv in op.convs], axis=1).reshape(-1),
            taps_bias=None,
            decay_rate=np.exp(self.checkpoint.vector(op.rates).astype(np.float64)),
            dt_bias=self.checkpoint.vector(op.dt_bias),
            beta_scale=op.beta_scale,
            out_norm=self.norm(op.out_norm),
            out_norm_eps=op.out_norm.eps,
            out=self.pack(op.out_proj),
            heads=op.heads,
            value_heads=op.value_heads,
            key_dim=op.key_dim,
            value_dim=op.value_dim,
        )

    def mamba2(self, op: Mamba2) -> None:
        """The convolution's columns are brought into the order of `inputs`; scales before it go into its taps, and the
        last one into the norm behind the heads, where there is one."""
        z, u, b, c, dt = op.scales
        inner, states = op.heads * op.head_dim, op.groups * op.state_dim
        order = np.roll(np.arange(op.conv.channels), -inner).reshape(-1)
        order = np.concatenate([order[states : 2 * states], order[:states], order[2 * states :]])
        scales = np.repeat(np.array([c, b, u], np.float32), (states, states, inner))
        low, high = op.dt_limit
        norm = None if op.out_norm is None else self.norm(op.out_norm)
        self.program.mamba2(
            norm=self.norm(op.norm),
            eps=op.norm.eps,
            in_=self.pack(*op.inputs),
            dt=self.pack(op.dt),
            taps=np.ascontiguousarray(self.taps(op.conv)[:, order] * scales).reshape(-1),
            taps_bias=self.checkpoint.vector(f"{op.conv.name}.bias")[order] if op.conv.bias else None,
            decay_rate=np.exp(self.checkpoint.vector(op.rates).astype(np.float64)),
            dt_bias=self.checkpoint.vector(op.dt_bias),
            skip=self.checkpoint.vector(op.skip),
            dt_low=low,
            dt_high=high,
            dt_scale=dt,
            z_scale=z,
            out_norm=None if norm is None else norm * np.float32(1.0 if op.norm_before_gate else op.out_scale),
            out_norm_eps=op.norm.eps if op.out_norm is None else op.out_norm.eps,
            norm_groups=op.norm_groups,
            norm_before_gate=op.norm_before_gate,
            out_scale=op.out_scale if norm is None or op.norm_before_gate else 1.0,
            out=self.pack(op.out_proj),
            groups=op.groups,
            heads=op.heads,
            state=op.state_dim,
            head_dim=op.head_dim,
            beside=op.beside,
        )

    def experts(self, op: Mixture) -> dict[str, Any]:
        """Those that rows choose among: packed, or in the pool."""
        if self.expert_file is None:
            return {"experts": [self.expert(one) for one in op.experts]}
        return self.expert_file.arguments(op)

    def mixture(self, op: Mixture) -> None:
        self.program.moe(
            norm=self.norm(op.norm),
            eps=op.norm.eps,
            router=self.pack(*op.unquantized()),
            **self.experts(op),
            **routing_of(op),
            router_bias=self.biases(op.router),
            gate_bias=self.table_of_biases(one.gate for one in op.experts if one.gate is not None),
            up_bias=self.table_of_biases(one.up for one in op.experts),
            down_bias=self.table_of_biases(one.down for one in op.experts),
            activation=op.activation,
            shared=self.expert(op.shared) if op.shared else None,
            shared_gated=op.shared_gate is not None,
            **({"into": self.pack(op.latent[0]), "out_of": self.pack(op.latent[1])} if op.latent else {}),
            **around_experts(self.checkpoint, op),
            stream_scale=self.stream_scale(op),
        )

    def expert(self, expert: Expert) -> tuple[native.Weight | Place, native.Weight | Place]:
        return self.pack(*expert.inputs(), interleave=expert.gate is not None), self.pack(expert.down)

    def head(self, op: Head) -> None:
        weight, bias = head_norm(self.checkpoint, op)
        if op.clusters is not None:
            table = self.pack(op.clusters)
        elif self.head_rows is None:
            table = self.table(op.table)
        else:
            table = self.pack(op.table, orders={op.table.name: self.head_rows})
        self.program.head(weight, op.norm.eps, table, op.softcap, bias)

    def norm(self, norm: Norm) -> Vector:
        return norm_weight(self.checkpoint, norm)

    def optional_norm(self, norm: Norm | None) -> Vector | None:
        return None if norm is None else self.norm(norm)

    def norm_bias(self, norm: Norm | None) -> Vector | None:
        return None if norm is None else norm_bias(self.checkpoint, norm)

    def biases(self, *linears: Linear, orders: Orders = AS_THEY_ARE) -> Vector | None:
        """The biases one after the other; `None` if there are none."""
        if not any(linear.bias for linear in linears):
            return None
        parts = [
            self.checkpoint.vector(f"{linear.name}.bias") if linear.bias else np.zeros(linear.rows, np.float32)
            for linear in linears
        ]
        in_order = zip(linears, parts, strict=True)
        return np.concatenate([part[orders.get(linear.name, slice(None))] for linear, part in in_order])

    def table_of_biases(self, linears: Iterable[Linear]) -> NDArray[np.float32] | None:
        """The biases of matrices of one size, one a row; `None` if there are none."""
        found = [bias for linear in linears if (bias := self.biases(linear)) is not None]
        return np.stack(found) if found else None

    def rope(self, rope: Rope, growth: float = 0.0) -> int:
        """The program's table of these frequencies, made once."""
        key = (rope, growth)
        if key not in self.ropes:
            frequencies = np.array(rope.frequencies(self.context), np.float64)
            factors = (rope.attention_factor, growth, rope.growth_every)
            self.ropes[key] = self.target.rope_table(frequencies, self.context, *factors)
        return self.ropes[key]


ADD: Mapping[type[Op], Callable[[Loader, Any], None]] = {
    Embed: Loader.embed,
    Mix: Loader.mix,
    Attend: Loader.attend,
    GatedMLP: Loader.gated_mlp,
    ShortConv: Loader.short_conv,
    DeltaNet: Loader.delta_net,
    Mamba2: Loader.mamba2,
    Mixture: Loader.mixture,
    LayerInputs: Loader.layer_inputs,
    LayerInput: Loader.layer_input,
    Head: Loader.head,
}
"""What adds each kind of operation to a program."""
