"""A tiny model with finite weights in which reading one token makes everything NaN, and nothing else does.

The last column of the residual stream is 1 for that token and 0 for all others, and no layer writes to it. The norm
before the first layer's feed-forward half multiplies it by 1e20: gate times up overflows float32, and the sum over
such products is NaN. No matrix has large numbers, so that all can be rounded to integers.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny import make_checkpoint, random_weights, tiny_config, write_weights

LARGE = np.float32(1e20)


def make_trap(path: Path, token: int, *, seed: int = 1, **config: Any) -> Path:
    """A Llama whose answers are the same for every `token`, as long as it is not read."""
    make_checkpoint(path, "llama", seed=seed, **config)
    weights = random_weights(tiny_config("llama", **config), seed=seed)
    for name, value in weights.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            value[-1] = 0
    weights["model.embed_tokens.weight"][:, -1] = 0
    weights["model.embed_tokens.weight"][token, -1] = 1
    weights["model.layers.0.post_attention_layernorm.weight"][-1] = LARGE
    for part in ("gate", "up"):
        weights[f"model.layers.0.mlp.{part}_proj.weight"][:, -1] = 1
    write_weights(path, weights, "bfloat16")
    return path
