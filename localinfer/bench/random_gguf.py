"""The same shape as a GGUF file of random weights, so that another engine can be measured on it.

The layers are in the type that llama.cpp runs fastest at so many bits, embedding and head in the type that llama.cpp's
own quantizer gives them.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.bench.random_model import SEED, random_vector
from localinfer.bench.random_values import RandomValues
from localinfer.formats.gguf_writing import Written, tokenizer_metadata, write_gguf
from localinfer.formats.json_files import read_object
from localinfer.graph.ops import Linear
from localinfer.graph.weights import Checkpoint
from localinfer.hub.checkpoint import RECORD
from localinfer.quantize.export import factors_of
from localinfer.quantize.export_names import Stacked, describe, tensors_of

LAYOUTS: dict[str, tuple[int, "np.dtype[Any]", float]] = {
    "Q4_0": (32, np.dtype([("d", "<f2"), ("q", "u1", 16)]), 4.6),
    "Q5_0": (32, np.dtype([("d", "<f2"), ("h", "u1", 4), ("q", "u1", 16)]), 9.2),
    "Q8_0": (32, np.dtype([("d", "<f2"), ("q", "i1", 32)]), 73.9),
    "Q6_K": (256, np.dtype([("l", "u1", 128), ("h", "u1", 64), ("s", "i1", 16), ("d", "<f2")]), 18.5 * 73.9),
}
"""ggml's block types: weights a block, its bytes, and how far from 0 a weight with `d` = 1 usually is."""


def is_random(folder: Path) -> bool:
    """Whether the model there was made of random weights by us."""
    return (folder / RECORD).is_file() and read_object(folder / RECORD).get("kind") == "random"


def random_gguf(folder: Path) -> Path:
    """The GGUF file beside the random model in `folder`, made now unless it is there.

    Raises `NotSupported` for an architecture that GGUF has no words for, `DoesNotFit` for a full disk.
    """
    checkpoint = Checkpoint(folder)
    bits = min((bits for bits, _ in checkpoint.scheme.forms), default=16)
    body = {16: "BF16", 8: "Q8_0", 5: "Q5_0"}.get(bits, "Q4_0")
    path = folder / f"peer-{body}.gguf"
    if not path.exists():
        _write(checkpoint, body, path)
    return path


def head_type(body: str, hidden: int) -> str:
    """What llama.cpp's quantizer makes of embedding and head: Q6_K, or Q8_0 where rows are no whole blocks of it."""
    if body not in ("Q4_0", "Q5_0"):
        return body
    return "Q6_K" if hidden % LAYOUTS["Q6_K"][0] == 0 else "Q8_0"


def _write(checkpoint: Checkpoint, body: str, path: Path) -> None:
    import gguf

    form, metadata = describe(checkpoint)
    metadata["general.file_type"] = int(gguf.LlamaFileType[f"MOSTLY_{body}"])
    metadata |= tokenizer_metadata(checkpoint.path, checkpoint.spec.vocab_size, raw=form.raw_tokens)
    linears = {f"{linear.name}.weight": linear for linear in checkpoint.graph.linears()}
    values = RandomValues(SEED)
    kept = {one.name for one in checkpoint.graph.unquantized if ".layers." not in one.name}  # llama.cpp keeps these
    tensors = [
        _tensor(
            values, one, linears.get(one.parts[0]), "BF16" if one.parts[0].removesuffix(".weight") in kept else body
        )
        for one in tensors_of(form, checkpoint)
    ]
    write_gguf(path, form.arch, metadata, [*tensors, *factors_of(metadata)], lambda _: None)


def _tensor(values: RandomValues, one: Stacked, linear: Linear | None, body: str) -> Written:
    """One tensor of the file, its values made when it is written; `linear` is its first matrix, if it has any."""
    name, shape = one.first.source, one.shape
    if linear is None:
        return Written(name, shape, "F32", partial(random_vector, one.parts[0], shape))
    kind = head_type(body, linear.cols) if ".layers." not in linear.name else body
    return Written(name, shape, "F32" if one.first.is_float else kind, partial(_matrix, values, one, kind))


def _matrix(values: RandomValues, one: Stacked, kind: str) -> NDArray[Any]:
    name, cols = one.first.source, one.shape[-1]
    rows = int(np.prod(one.shape[:-1]))
    if one.first.is_float:
        words = values.bf16(name, rows, cols).astype(np.uint32) << np.uint32(16)
        return words.view(np.float32).reshape(one.shape)
    if kind == "BF16":
        return values.bf16(name, rows, cols).view(np.uint8).reshape(*one.shape[:-1], -1)
    block, layout, spread = LAYOUTS[kind]
    blocks = values.blocks(name, rows * cols // block, layout, cols**-0.5 / spread)
    return blocks.view(np.uint8).reshape(*one.shape[:-1], -1)
