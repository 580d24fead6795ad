"""How many bytes a decoded token must read, and so how fast it can be at most.

Decoding one stream reads every weight once a token, and the keys and values of all tokens before it. A machine that
reads `b` bytes a second cannot do more than `b / bytes_per_token` tokens a second.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localinfer.formats.gguf import GgufFile
from localinfer.graph.memory import Form, kv_bytes, packed_bytes
from localinfer.graph.weights import Checkpoint

_GATHERED = ("per_layer_token_embd.weight",)
"""Tables of a GGUF file of which a token reads one row, and nobody more."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one decoded token reads, in bytes."""

    weights: int
    kv_per_token: tuple[tuple[int, int], ...]
    """Of each layer: bytes a token of depth, and its window (0: none)."""
    slot: int = 0
    """Of a sequence's recurrent state, which is also written."""

    def bytes_per_token(self, depth: int = 0) -> int:
        """All bytes read for one token at `depth` tokens of context; a layer with a window reads no more than it."""
        return (
            self.weights
            + self.slot
            + sum(one * (min(depth, window) if window else depth) for one, window in self.kv_per_token)
        )


def traffic(path: Path, kv_bits: int | Sequence[int]) -> Traffic:
    """The traffic of a checkpoint directory, from headers alone; `kv_bits` of all layers, or one number for each.

    Raises what opening a checkpoint raises.
    """
    checkpoint = Checkpoint(path)
    weights = sum(weights_read(checkpoint).values())
    graph = checkpoint.graph
    windows = (state.window for state in graph.kv())
    return Traffic(weights, tuple(zip(kv_bytes(graph, kv_bits), windows, strict=True)), graph.slot_bytes)


def weights_read(checkpoint: Checkpoint, form: Form | None = None) -> dict[int, int]:
    """Bytes of weights that one decoded token reads, by their bits (16: vectors too); `form` as in `fit.estimate`."""
    graph, of = checkpoint.graph, form or checkpoint.form
    by_bits = {16: 4 * graph.vector_values()}
    for linear, part in graph.traffic(1).items():
        bits, *by = of(linear.name)
        by_bits[bits] = by_bits.get(bits, 0) + int(packed_bytes(linear, bits, *by) * part)
    return by_bits


def gguf_traffic(path: Path, kv_bits: int) -> Traffic:
    """The traffic of a GGUF file in llama.cpp: its tensors as stored, of experts those that a token is sent to; 8-bit
    keys and values are its q8_0."""
    file = GgufFile(path)
    arch = file.text("general.architecture")
    tied = "output.weight" not in file.tensors
    experts = max(file.integer(f"{arch}.expert_count", 0), 1)
    chosen = min(max(file.integer(f"{arch}.expert_used_count", 0), 1), experts)
    weights = 0
    for name, tensor in file.tensors.items():
        if name not in _GATHERED and (tied or name != "token_embd.weight"):
            nbytes = tensor.end - tensor.begin
            weights += nbytes * chosen // experts if "_exps." in name else nbytes
    return Traffic(weights, tuple(_gguf_kv(file, arch, kv_bits)))


def _gguf_kv(file: GgufFile, arch: str, kv_bits: int) -> Iterator[tuple[int, int]]:
    """Bytes of a token's keys and values in each layer that has its own, and its window where the file has a list of
    them (0: none, or not told)."""

    def said(key: str, default: int) -> int:
        return file.integer(f"{arch}.{key}", default)

    heads, layers = file.integer(f"{arch}.attention.head_count"), file.integer(f"{arch}.block_count")
    width = file.integer(f"{arch}.embedding_length") // max(heads, 1)
    slides, by_layer = (
        file.metadata.get(f"{arch}.attention.{key}") for key in ("sliding_window_pattern", "head_count_kv")
    )
    for layer in range(layers - said("attention.shared_kv_layers", 0)):
        sliding = isinstance(slides, list) and layer < len(slides) and bool(slides[layer])
        values = 0
        for kind in ("key", "value"):
            usual = said(f"attention.{kind}_length", width)
            values += said(f"attention.{kind}_length_swa", usual) if sliding else usual
        count: Any = by_layer[layer] if isinstance(by_layer, list) else said("attention.head_count_kv", heads)
        yield values * count * (34 if kv_bits == 8 else 64) // 32, said("attention.sliding_window", 0) if sliding else 0


def share(bytes_per_token: int, tok_s: float, bandwidth: float) -> float:
    """Which part of the measured read bandwidth (bytes a second) `tok_s` tokens a second use."""
    return bytes_per_token * tok_s / bandwidth if bandwidth > 0 else 0.0


def fastest(bytes_per_token: int, bandwidth: float) -> float:
    """Tokens a second that one stream cannot pass at this bandwidth (bytes a second)."""
    return bandwidth / bytes_per_token if bytes_per_token > 0 else 0.0
