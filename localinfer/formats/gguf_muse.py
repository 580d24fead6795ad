"""Muse Glimmer in GGUF files: the scale of its scores is a norm of queries there, one number in all layers, and keys
have a norm of ones. Which layers rotate their heads is said by windows."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_names import ATTENTION, GEMMA_NORMS, MLP, Names
from localinfer.formats.gguf_values import bounded, number, positive, refused, windowed_layers

Config = dict[str, Any]

LAYER: Names = {
    **GEMMA_NORMS,
    **ATTENTION,
    "attn_gate.weight": ("self_attn.gate_proj.weight", "gates"),
    **MLP,
}
FINAL = ("output_norm.weight", "model.norm.weight", "last_norm")
POST_EPS = 1e-8
"""Of the norms behind each half, in llama.cpp's own code."""


def scale_norms(layers: int) -> Iterator[tuple[str, str]]:
    """The names of the norms of queries and of keys, layer by layer."""
    return ((f"blk.{i}.attn_q_norm.weight", f"blk.{i}.attn_k_norm.weight") for i in range(layers))


def muse(file: GgufFile, arch: str, config: Config) -> Config:
    """What config.json says beyond what all say. Raises `NotSupported` and `Corrupt`."""
    layers, theta = config["num_hidden_layers"], config["rope_theta"]
    types = windowed_layers(file, arch, layers, 4)
    return {
        "qk_scale_factor": _scale(file, config),
        "output_multiplier": positive(file, f"{arch}.logit_scale"),
        "final_logit_softcapping": number(file, f"{arch}.final_logit_softcapping"),
        "post_norm_eps": POST_EPS,
        "sliding_window": bounded(file, f"{arch}.attention.sliding_window", 1 << 24),
        "layer_types": types,
        "layer_rope_theta": [theta if one == "sliding_attention" else 0 for one in types],
    }


def _scale(file: GgufFile, config: Config) -> float:
    found = set[float]()
    for of_queries, of_keys in scale_norms(config["num_hidden_layers"]):
        for name in (of_queries, of_keys):
            tensor = file.tensors.get(name)
            if tensor is None or tensor.shape != (config["head_dim"],):
                raise file.error(f"`{name}` {'is missing' if tensor is None else 'has the wrong shape'}")
        if not (file.dequantize(of_keys) == 1).all():
            raise refused(file, f"`{of_keys}` is no norm of ones")
        found |= {float(one) for one in np.unique(file.dequantize(of_queries))}
    scale = found.pop()
    if found or not 0 < scale < np.inf:
        raise refused(file, "norms of queries are not one number in all layers")
    return float(f"{scale:.7g}")
