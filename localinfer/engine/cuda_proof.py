"""A card proves itself before it serves: tiny random models are run on it and on the processor, and every number must
be the same to the last bit. What came out is kept for this card, driver and these kernels.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from localinfer import native
from localinfer.config import BLOCK_TOKENS
from localinfer.engine import cuda
from localinfer.engine.cuda import Card
from localinfer.errors import LocalInferError
from localinfer.formats.durable import write_json
from localinfer.formats.json_files import read_object
from localinfer.paths import cuda_dir

STEPS = (40, 1, 2, 4, 8, 16, 230, 1, 3, 20)
"""Rows of the steps: each way of multiplying, few rows and many; then past the 256 tokens where attention is cut."""

HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM, VOCAB, INPUTS = 128, 384, 2, 1, 64, 96, 128
KINDS = ("int4", "int3", "int8", "int8a16", "bf16")
FORMAT = 2

Move = Callable[[native.Program], object]


@dataclass(frozen=True, slots=True)
class Proof:
    """How a card's test ended."""

    card: str
    """Its uuid."""
    driver: int
    kernels: str
    """As `kernels_of`."""
    checks: int
    failures: tuple[str, ...]
    """What differed, in words; none: the card has passed."""
    seconds: float

    @property
    def passed(self) -> bool:
        return not self.failures


@dataclass(frozen=True, slots=True)
class Toy:
    """A model of two or three layers; `kind` of its matrices, and what of the optional parts it has."""

    kind: str
    group: int
    kv_bits: int
    rich: bool
    """With biases, norms of heads and after layers, GELU, a window and a soft cap; a layer more, which reads the keys
    of the first, and inputs for each layer."""

    def __str__(self) -> str:
        group = f" by {self.group}" if self.kind != "bf16" else ""
        return f"{self.kind}{group}, {self.kv_bits}-bit cache{', all optional parts' if self.rich else ''}"


TOYS = tuple(
    Toy(kind, group, kv_bits, rich)
    for kind, group, kv_bits, rich in (
        ("int4", 32, 8, False),
        ("int4", 128, 4, True),
        ("int3", 64, 16, True),
        ("int3", 128, 8, False),
        ("int8", 32, 4, False),
        ("int8a16", 64, 8, True),
        ("bf16", 0, 16, False),
    )
)


def proof_of(card: Card, *, again: bool = False) -> Proof:
    """The kept proof for this card, driver and these kernels, or else a new one, which is kept."""
    key = (card.uuid, card.driver, kernels_of(card))
    cached = None if again else next((p for p in _cached() if (p.card, p.driver, p.kernels) == key), None)
    if cached is not None:
        return cached
    found = prove(card, lambda program: cuda.move(program, card))
    _keep(found)
    return found


def kernels_of(card: Card) -> str:
    """What the machine code depends on: sources, and the compiler's version. Raises `NotSupported` without one."""
    version = cuda.compiler(card.driver)[0].rpartition(" ")[2]
    return f"{native.cuda_sources_hash()} by NVRTC {version}"


def prove(card: Card, move: Move) -> Proof:
    """Run all toys on the card and on the processor. Raises what `move` raises, and `NotSupported` when the card fails
    in a step: that may be over tomorrow, so nothing is kept of it."""
    started, failures, checks = time.monotonic(), list[str](), 0
    for toy in TOYS:
        for what, same in _compare(toy, move):
            checks += 1
            if not same:
                failures.append(f"{toy}: {what}")
    seconds = time.monotonic() - started
    return Proof(card.uuid, card.driver, kernels_of(card), checks, tuple(failures), seconds)


def _compare(toy: Toy, move: Move) -> Iterator[tuple[str, bool]]:
    """What was compared, and whether it was the same: logits of every step, and the cache at the end."""
    on_cpu, on_card = build(toy), build(toy, move)
    position = 0
    for rows in STEPS:
        ours, theirs = (_step(program, position, rows) for program in (on_cpu, on_card))
        yield f"{rows} rows at token {position}", np.array_equal(ours, theirs, equal_nan=True)
        position += rows
    blocks = [np.zeros(on_cpu.kv_block_bytes, np.uint8) for _ in range(2)]
    same = True
    for block in range(-(-position // BLOCK_TOKENS)):
        for program, into in zip((on_cpu, on_card), blocks, strict=True):
            program.read_kv(block, into)
        same = same and np.array_equal(blocks[0], blocks[1])
    yield "keys and values", same


def _step(program: native.Program, position: int, rows: int) -> NDArray[np.float32]:
    """Logits of all rows; tokens depend on their position alone."""
    positions = np.arange(position, position + rows, dtype=np.int32)
    tokens = (positions * 7919 + 13) % np.int32(program.vocab)
    table = np.arange(sum(STEPS) // BLOCK_TOKENS + 1, dtype=np.int32)[None]
    logits = np.full((rows, program.vocab), np.nan, np.float32)
    program.step(tokens, positions, np.zeros(rows, np.int32), table, np.arange(rows, dtype=np.int32), logits)
    return logits


def build(toy: Toy, move: Move | None = None) -> native.Program:
    """The toy as a program, taken where `move` takes it."""
    program = unmoved(toy)
    if move is not None:
        move(program)
    program.make_kv(sum(STEPS) // BLOCK_TOKENS + 1, toy.kv_bits)
    return program


class _Numbers:
    """A toy's numbers, the same each time."""

    def __init__(self, toy: Toy) -> None:
        self.toy, self.rng = toy, np.random.default_rng(8)

    def weight(self, *rows: int, cols: int, interleave: bool = False) -> native.Weight:
        return random_weight(self.rng, self.toy.kind, self.toy.group, rows, cols, interleave)

    def vector(self, n: int) -> NDArray[np.float32]:
        return self.rng.normal(1, 0.3, n).astype(np.float32)

    def optional(self, n: int) -> NDArray[np.float32] | None:
        return self.vector(n) if self.toy.rich else None


def unmoved(toy: Toy) -> native.Program:
    """The toy before its cache is made."""
    of, rich, layers = _Numbers(toy), toy.rich, 3 if toy.rich else 2
    program = native.Program(HIDDEN, max_rows=64)
    rope = program.rope_table(1e4 ** -np.linspace(0, 1, HEAD_DIM // 2, endpoint=False), sum(STEPS))
    program.embed(of.weight(VOCAB, cols=HIDDEN), 1.5 if rich else 1.0)
    if rich:
        table, project = of.weight(VOCAB, cols=layers * INPUTS), of.weight(layers * INPUTS, cols=HIDDEN)
        program.layer_inputs(table, 0.5, project, of.vector(INPUTS), 1e-5)
    for layer in range(layers):
        _attend(program, of, rope, layer)
        gate_up, activation = of.weight(FFN, FFN, cols=HIDDEN, interleave=True), "gelu_tanh" if rich else "silu"
        down = of.weight(HIDDEN, cols=FFN)
        program.gated_mlp(of.vector(HIDDEN), 1e-5, gate_up, activation, down, of.optional(HIDDEN))
        if rich:
            gate, project = of.weight(INPUTS, cols=HIDDEN), of.weight(HIDDEN, cols=INPUTS)
            program.layer_input(gate, activation, project, of.vector(HIDDEN), 1e-5, 0.8)
    program.head(of.vector(HIDDEN), 1e-5, of.weight(VOCAB, cols=HIDDEN), 9.0 if rich else 0.0)
    return program


def _attend(program: native.Program, of: _Numbers, rope: int, layer: int) -> None:
    """The third one reads keys and values of the first."""
    q, kv, borrows = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, layer == 2
    program.attend(
        norm=of.vector(HIDDEN),
        eps=1e-5,
        qkv=of.weight(q, *(() if borrows else (kv, kv)), cols=HIDDEN),
        bias=of.optional(q if borrows else q + 2 * kv),
        q_norm=of.optional(HEAD_DIM),
        k_norm=None if borrows else of.optional(HEAD_DIM),
        v_norm=None if borrows else of.optional(HEAD_DIM),
        o=of.weight(HIDDEN, cols=q),
        o_bias=of.optional(HIDDEN),
        post_norm=of.optional(HIDDEN),
        heads=HEADS,
        kv_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        rope=rope,
        scale=HEAD_DIM**-0.5,
        window=50 if of.toy.rich and layer == 1 else 0,
        kv_of=0 if borrows else None,
    )


def random_weight(
    rng: Generator, kind: str, group: int, rows: tuple[int, ...], cols: int, interleave: bool = False, threads: int = 1
) -> native.Weight:
    """Parts of so many rows, of one of `KINDS`; about unit output for unit input."""
    if kind == "bf16":  # signs and fractions at random, of the size that is wanted
        exponent = np.float32(cols**-0.5).view(np.uint32) >> 23 << 7
        random = [rng.integers(0, 1 << 16, (n, cols), dtype=np.uint16) for n in rows]
        parts = [(bits & 0x807F | exponent).astype(np.uint16) for bits in random]
        return native.pack_bf16(parts, interleave, threads)
    bits = int(kind[3])
    size = cols**-0.5 / (1 << (bits - 2))
    pairs = [
        (
            rng.integers(-(1 << 31), 1 << 31, (n, cols * bits // 32), dtype=np.int32),
            rng.uniform(0.5 * size, 1.5 * size, (n, cols // group)).astype(np.float16),
        )
        for n in rows
    ]
    activation_bits = 16 if kind.endswith("a16") else 8
    return native.pack_int(bits, group, pairs, interleave, threads, activation_bits=activation_bits)


def _cached() -> list[Proof]:
    """What is kept; a file that cannot be read only means to prove again."""
    path = cuda_dir() / "proofs.json"
    try:
        stored: Any = read_object(path) if path.exists() else {}
        if stored.get("format") != FORMAT:
            return []
        return [Proof(**(one | {"failures": tuple(one["failures"])})) for one in stored["proofs"]]
    except (LocalInferError, OSError, TypeError, KeyError):
        return []


def _keep(proof: Proof) -> None:
    """Write it down before the others; a home that cannot be written only means to prove again."""
    others = [one for one in _cached() if one.card != proof.card]
    try:
        cuda_dir().mkdir(parents=True, exist_ok=True)
        write_json(cuda_dir() / "proofs.json", {"format": FORMAT, "proofs": [asdict(one) for one in (proof, *others)]})
    except (LocalInferError, OSError):
        return
