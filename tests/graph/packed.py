"""Tiny checkpoints with integer weights, rounded plainly: the largest of a group becomes the largest integer."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.formats.compressed import pack, quantization_config
from localinfer.formats.safetensors import write_safetensors
from localinfer.graph.weights import Checkpoint


def quantized(source: Path, dest: Path, bits: int, group: int) -> Path:
    """Write `source` with body matrices of `bits`, embedding and head of 8 bits, all by `group`, into `dest`."""
    shutil.copytree(source, dest, ignore=shutil.ignore_patterns("*.safetensors"))
    checkpoint = Checkpoint(source)
    tensors: dict[str, tuple[str, NDArray[Any]]] = {}
    for linear in checkpoint.graph.linears():
        body = linear.name.startswith("model.layers.")
        values, scales = round_to(checkpoint.matrix(linear.name), bits if body else 8, group)
        tensors[f"{linear.name}.weight_packed"] = ("I32", pack(values, bits if body else 8))
        tensors[f"{linear.name}.weight_scale"] = ("F16", scales)
        tensors[f"{linear.name}.weight_shape"] = ("I64", np.array(values.shape, np.int64))
    for name, _ in checkpoint.graph.vectors():
        tensors[name] = ("F32", checkpoint.vector(name))
    write_safetensors(dest / "model.safetensors", tensors)
    scheme = quantization_config([(["re:.*layers.*"], bits, group), (["lm_head", "model.embed_tokens"], 8, group)])
    config = {**checkpoint.config, "quantization_config": scheme}
    (dest / "config.json").write_text(json.dumps(config))
    return dest


def round_to(matrix: NDArray[np.float32], bits: int, group: int) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Integers of `bits` bits [rows, cols] and scales [rows, cols / group]."""
    most = (1 << bits - 1) - 1
    groups = matrix.reshape(matrix.shape[0], -1, group)
    scales = (np.abs(groups).max(-1) / most).astype(np.float16)
    values = np.clip(np.rint(groups / scales[..., None].astype(np.float32)), -most - 1, most)
    return values.astype(np.int8).reshape(matrix.shape), scales
