"""Random weights of families whose layers differ from Llama's in names, norms and biases: one table for all."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensor = NDArray[np.float32]
Json = dict[str, Any]


@dataclass(frozen=True)
class Layer:
    """The tensors of one layer. Biases: of which matrices, where the field of config.json is true."""

    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    norm_bias: bool = False
    offset: float = 0.0
    head_norms: tuple[str, ...] = ()
    all_heads: bool = False
    fused: tuple[str, ...] = ()
    mlp: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")
    biases: tuple[tuple[str, str], ...] = (("attention_bias", "qkvo"),)
    """Fields, and what they are of: q, k, v, o, m for the MLP."""
    embed: float = 0.25


_AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")
_GEMMA = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
LAYERS: dict[str, Layer] = {
    "cohere2": Layer(norms=("input_layernorm",)),
    "ernie4_5": Layer(biases=(("use_bias", "qkvom"),)),
    "exaone4": Layer(norms=_AFTER, head_norms=("q_norm", "k_norm"), biases=()),
    "gemma2": Layer(norms=_GEMMA, offset=1.0, embed=0.02),
    "glm4": Layer(
        norms=("input_layernorm", "post_attention_layernorm", "post_self_attn_layernorm", "post_mlp_layernorm"),
        fused=("gate_up",),
        biases=(("attention_bias", "qkv"),),
    ),
    "granite": Layer(biases=(("attention_bias", "qkvo"), ("mlp_bias", "m"))),
    "hunyuan_v1_dense": Layer(head_norms=("query_layernorm", "key_layernorm")),
    "ministral3": Layer(biases=()),
    "olmo2": Layer(norms=_AFTER, head_norms=("q_norm", "k_norm"), all_heads=True),
    "olmo3": Layer(norms=_AFTER, head_norms=("q_norm", "k_norm"), all_heads=True),
    "phi3": Layer(fused=("qkv", "gate_up"), biases=()),
    "starcoder2": Layer(norm_bias=True, mlp=("c_fc", "c_proj"), biases=(("use_bias", "qkvom"),)),
}


def layered_weights(config: Json, seed: int) -> dict[str, Tensor]:
    """Every tensor of a model of one of `LAYERS` as float32."""
    rng = np.random.default_rng(seed)
    kind = LAYERS[config["model_type"]]
    hidden, inner, vocab = (int(config[key]) for key in ("hidden_size", "intermediate_size", "vocab_size"))
    heads = int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head_dim = int(config.get("head_dim") or hidden // heads)
    biased = "".join(of for field, of in kind.biases if config.get(field))
    weights: dict[str, Tensor] = {}

    def linear(name: str, rows: int, cols: int, gain: float, bias: bool) -> None:
        weights[f"{name}.weight"] = np.asarray(rng.standard_normal((rows, cols)) * (gain / np.sqrt(cols)), np.float32)
        if bias:
            weights[f"{name}.bias"] = np.asarray(rng.standard_normal(rows) * 0.5, np.float32)

    def norm(name: str, size: int, bias: bool = False) -> None:
        weights[f"{name}.weight"] = np.asarray(rng.uniform(0.5, 1.5, size) - kind.offset, np.float32)
        if bias:
            weights[f"{name}.bias"] = np.asarray(rng.standard_normal(size) * 0.3, np.float32)

    weights["model.embed_tokens.weight"] = (rng.standard_normal((vocab, hidden)) * kind.embed).astype(np.float32)
    for layer in range(int(config["num_hidden_layers"])):
        at = f"model.layers.{layer}"
        for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            gain = 1.5 if name == "v" else 2.0
            linear(f"{at}.self_attn.{name}_proj", count * head_dim, hidden, gain, name in biased)
        linear(f"{at}.self_attn.o_proj", hidden, heads * head_dim, 1.5, "o" in biased)
        for name, count in zip(kind.head_norms, (heads, kv_heads), strict=False):
            norm(f"{at}.self_attn.{name}", head_dim * (count if kind.all_heads else 1))
        for name in kind.mlp[:-1]:
            linear(f"{at}.mlp.{name}", inner, hidden, 1.5, "m" in biased)
        linear(f"{at}.mlp.{kind.mlp[-1]}", hidden, inner, 1.5, "m" in biased)
        for name in kind.norms:
            norm(f"{at}.{name}", hidden, kind.norm_bias)
        fuse(weights, at, kind.fused)
    norm("model.norm", hidden, kind.norm_bias)
    if not config["tie_word_embeddings"]:
        linear("lm_head", vocab, hidden, 2.0, False)
    return weights


def fuse(weights: dict[str, Tensor], at: str, fused: tuple[str, ...]) -> None:
    """Put matrices of the layer together that are stored as one."""
    groups = {"qkv": ("self_attn", ("q_proj", "k_proj", "v_proj")), "gate_up": ("mlp", ("gate_proj", "up_proj"))}
    for name in fused:
        half, parts = groups[name]
        weights[f"{at}.{half}.{name}_proj.weight"] = np.concatenate(
            [weights.pop(f"{at}.{half}.{part}.weight") for part in parts]
        )
