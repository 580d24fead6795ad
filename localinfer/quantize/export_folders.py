"""`export` to folders that servers on GPUs read: GPTQ's first layout, or compressed-tensors with plain tables."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import NotSupported
from localinfer.formats.bf16 import to_bf16
from localinfer.formats.compressed import quantization_config
from localinfer.formats.durable import sync, write_bytes, write_failed, write_json
from localinfer.formats.gptq import to_gptq
from localinfer.formats.json_files import TOKENIZER_LIMIT, read_bytes
from localinfer.formats.layout import INDEX
from localinfer.formats.safetensors import write_safetensors
from localinfer.graph.ops import Linear
from localinfer.graph.scheme import GPTQ_BITS
from localinfer.graph.stored import IntLinear
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.export import OnProgress, halves, integers_of, must_be_new, whole_bits
from localinfer.quantize.origin import copied
from localinfer.quantize.plan import TABLES

Tensors = Mapping[str, tuple[str, NDArray[Any]]]
SHARD_BYTES = 1 << 30

Head = Literal["bf16", "f16"]
"""What embedding and head become."""

DTYPES: Mapping[Head, str] = {"bf16": "bfloat16", "f16": "float16"}
"""What config.json says of it: the type in which others compute, unless they are told otherwise."""


def export_gptq(source: Path, dest: Path, on_progress: OnProgress | None = None, head: Head = "f16") -> tuple[int, int]:
    """Write the model in `source` in GPTQ's first layout to the folder `dest`; returns (bits, group) of the layers.

    Embedding and head become floats, `head`, as that form has no integers for them. Raises `UsageError` (dest exists),
    `NotSupported` (plain weights, several widths), `DoesNotFit`.
    """
    must_be_new(dest)
    checkpoint = Checkpoint(source)
    forms = _forms(checkpoint, "GPTQ")
    if checkpoint.graph.unquantized:
        name = min(one.name for one in checkpoint.graph.unquantized)
        raise NotSupported(f"`{name}` stays a float, which GPTQ has no word for", hint="export as compressed-tensors")
    bits, group = min(forms)
    if len(forms) > 1:
        raise NotSupported(
            f"the layers have several widths ({_told(forms)}), GPTQ has one",
            hint="export them as compressed-tensors, or quantize without --bpw",
        )
    if bits not in GPTQ_BITS:
        raise NotSupported(f"GPTQ has no words for {bits} bits", hint="export them as compressed-tensors, or as gguf")
    odd = next((one for one in _layers(checkpoint) if one.rows * bits % 32), None)
    if odd is not None:
        raise NotSupported(f"`{odd.name}` has {odd.rows} rows, which no whole words hold", hint="export it as gguf")

    def tensors(one: Linear) -> Tensors:
        if one.name in TABLES:
            return {f"{one.name}.weight": _floats(checkpoint, one, head)}
        stored = cast(IntLinear, integers_of(checkpoint, one))
        return {f"{one.name}.{k}": v for k, v in to_gptq(stored.packed, stored.scales, bits, group, one.cols).items()}

    said = {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": group,
        "sym": True,
        "desc_act": False,
        "checkpoint_format": "gptq",
        "lm_head": False,
    }
    _write(checkpoint, dest, tensors, {"torch_dtype": DTYPES[head], "quantization_config": said}, on_progress)
    return bits, group


def export_compressed(source: Path, dest: Path, on_progress: OnProgress | None = None, head: Head = "bf16") -> str:
    """Write the model in `source` as compressed-tensors whose layers are as they are, and whose embedding and head are
    floats, `head`, to the folder `dest`; returns the layers' forms in words.

    vLLM reads no packed embedding (0.32), and takes the layers' integers as they are. Raises `UsageError` (dest
    exists), `NotSupported` (plain weights, weights with minima), `DoesNotFit`.
    """
    must_be_new(dest)
    checkpoint = Checkpoint(source)
    forms = _forms(checkpoint, "compressed-tensors, as others read it,")

    def tensors(one: Linear) -> Tensors:
        if one.name in TABLES:
            return {f"{one.name}.weight": _floats(checkpoint, one, head)}
        if one in checkpoint.graph.unquantized:
            return {f"{one.name}.weight": ("F32", checkpoint.matrix(one.name))}
        stored = cast(IntLinear, integers_of(checkpoint, one))
        return {
            f"{one.name}.weight_packed": ("I32", stored.packed),
            f"{one.name}.weight_scale": ("F16", stored.scales),
            f"{one.name}.weight_shape": ("I64", np.array([one.rows, one.cols], np.int64)),
        }

    groups = [(["Linear"] if len(forms) == 1 else names, *form) for form, names in sorted(forms.items())]
    said = quantization_config(groups, ["lm_head", *sorted(one.name for one in checkpoint.graph.unquantized)])
    _write(checkpoint, dest, tensors, {"torch_dtype": DTYPES[head], "quantization_config": said}, on_progress)
    return _told(forms)


def _floats(checkpoint: Checkpoint, one: Linear, head: Head) -> tuple[str, NDArray[Any]]:
    """The matrix as it is stored. Raises `NotSupported` for numbers that float16 has not."""
    matrix = checkpoint.matrix(one.name)
    return ("BF16", to_bf16(matrix)) if head == "bf16" else ("F16", halves(one.name, matrix))


def _layers(checkpoint: Checkpoint) -> list[Linear]:
    """All matrices of integers but the tables."""
    floats = checkpoint.graph.unquantized
    return [one for one in checkpoint.graph.linears() if one.name not in TABLES and one not in floats]


def _forms(checkpoint: Checkpoint, reader: str) -> dict[tuple[int, int], list[str]]:
    """The layers' matrices by (bits, group). Raises `NotSupported` where they are none that `reader` has."""
    forms: dict[tuple[int, int], list[str]] = {}
    for one in _layers(checkpoint):
        if checkpoint.has_minima(one.name):
            raise NotSupported(f"these weights have minima, which {reader} has not", hint="export them as gguf")
        forms.setdefault((whole_bits(checkpoint, one), checkpoint.form(one.name)[1]), []).append(one.name)
    if any(bits == 16 for bits, _ in forms):
        raise NotSupported("these weights are no integers", hint="`localinfer quantize` it first, then export that")
    return forms


def _told(forms: Mapping[tuple[int, int], object]) -> str:
    return ", ".join(f"{bits} bits by {group}" for bits, group in sorted(forms))


def _write(
    checkpoint: Checkpoint,
    dest: Path,
    tensors_of: Callable[[Linear], Tensors],
    said: Mapping[str, Any],
    on_progress: OnProgress | None,
) -> None:
    """The folder, whole or not at all. `said` goes into config.json."""
    part = dest.with_name(dest.name + ".partial")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        _write_weights(checkpoint, part, tensors_of, on_progress or (lambda done, total: None))
        for name in copied(checkpoint.path):
            (part / name).parent.mkdir(exist_ok=True)
            write_bytes(part / name, read_bytes(checkpoint.path / name, TOKENIZER_LIMIT))
        config = {key: value for key, value in checkpoint.config.items() if key != "dtype"}
        config |= {"tie_word_embeddings": False} if checkpoint.own_head else {}
        write_json(part / "config.json", {**config, **said})
        part.rename(dest)
        sync(dest.parent)
    except OSError as error:
        raise write_failed(dest, 0, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_weights(
    checkpoint: Checkpoint, folder: Path, tensors_of: Callable[[Linear], Tensors], on_progress: OnProgress
) -> None:
    """Files of at most a gigabyte or so, and their index."""
    linears, number, done = list(checkpoint.graph.linears()), 0, 0
    where: dict[str, str] = {}
    total = sum(one.rows * one.cols for one in linears)
    tensors: dict[str, tuple[str, NDArray[Any]]] = {
        name: ("F32", checkpoint.vector(name)) for name, _ in checkpoint.graph.vectors()
    }
    for count, one in enumerate(linears, 1):
        tensors |= tensors_of(one)
        done += one.rows * one.cols
        on_progress(done, total)
        if count == len(linears) or sum(array.nbytes for _, array in tensors.values()) >= SHARD_BYTES:
            number += 1
            file = f"model-{number:05d}.safetensors"
            write_safetensors(folder / file, tensors)
            where |= dict.fromkeys(tensors, file)
            tensors = {}
    write_json(folder / INDEX, {"metadata": {}, "weight_map": where})
