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
    gates: bool = False
    """Of what attention gives."""
    last_offset: float | None = None
    """Of the last norm, if it is another one."""


_AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")
_GEMMA = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
LAYERS: dict[str, Layer] = {
    "olmoe": Layer(head_norms=("q_norm", "k_norm"), all_heads=True),
    "granitemoe": Layer(),
    "ernie4_5_moe": Layer(biases=()),
    "glm4_moe": Layer(biases=(("attention_bias", "qkv"),)),
    "gpt_oss": Layer(),
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
    "muse_glimmer_text": Layer(norms=_GEMMA, offset=1.0, gates=True, last_offset=0.0),
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

    def norm(name: str, size: int, bias: bool = False, offset: float | None = None) -> None:
        less = kind.offset if offset is None else offset
        weights[f"{name}.weight"] = np.asarray(rng.uniform(0.5, 1.5, size) - less, np.float32)
        if bias:
            weights[f"{name}.bias"] = np.asarray(rng.standard_normal(size) * 0.3, np.float32)

    weights["model.embed_tokens.weight"] = (rng.standard_normal((vocab, hidden)) * kind.embed).astype(np.float32)
    for layer in range(int(config["num_hidden_layers"])):
        at = f"model.layers.{layer}"
        for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            gain = 1.5 if name == "v" else 2.0
            linear(f"{at}.self_attn.{name}_proj", count * head_dim, hidden, gain, name in biased)
        if kind.gates:
            linear(f"{at}.self_attn.gate_proj", heads * head_dim, hidden, 2.0, False)
        linear(f"{at}.self_attn.o_proj", hidden, heads * head_dim, 1.5, "o" in biased)
        head_norms = ("q_norm", "k_norm") if config.get("use_qk_norm") else kind.head_norms
        for name, count in zip(head_norms, (heads, kv_heads), strict=False):
            norm(f"{at}.self_attn.{name}", head_dim * (count if kind.all_heads else 1))
        if has_experts(config, layer):
            weights.update(mixture(config, at, rng))
        else:
            for name in kind.mlp[:-1]:
                linear(f"{at}.mlp.{name}", inner, hidden, 1.5, "m" in biased)
            linear(f"{at}.mlp.{kind.mlp[-1]}", hidden, inner, 1.5, "m" in biased)
        for name in kind.norms:
            norm(f"{at}.{name}", hidden, kind.norm_bias)
        fuse(weights, at, kind.fused)
    norm("model.norm", hidden, kind.norm_bias, kind.last_offset)
    if config.get("num_nextn_predict_layers"):  # the last layer again, under another number
        last, at = (f"model.layers.{int(config['num_hidden_layers']) + i}." for i in (-1, 0))
        weights |= {at + name.removeprefix(last): 0.9 * one for name, one in weights.items() if name.startswith(last)}
        linear(f"{at}eh_proj", hidden, 2 * hidden, 1.5, False)
        for name in ("enorm", "hnorm", "shared_head.norm"):
            norm(f"{at}{name}", hidden, False)
        weights |= {f"{at}embed_tokens.weight": weights["model.embed_tokens.weight"]}
    if not config["tie_word_embeddings"]:
        linear("lm_head", vocab, hidden, 2.0, False)
    return weights


def has_experts(config: Json, layer: int) -> bool:
    """Whether this layer has a mixture of experts."""
    if config["model_type"] == "ernie4_5_moe":
        last = int(config["moe_layer_end_index"]) % int(config["num_hidden_layers"])
        within = int(config["moe_layer_start_index"]) <= layer <= last
        return within and (layer + 1) % int(config["moe_layer_interval"]) == 0
    if config["model_type"] == "glm4_moe":
        return layer >= int(config["first_k_dense_replace"])
    return config["model_type"] in ("olmoe", "granitemoe", "gpt_oss")


def mixture(config: Json, at: str, rng: np.random.Generator) -> dict[str, Tensor]:
    """The tensors of a mixture of experts, as published checkpoints hold them."""
    model, hidden = config["model_type"], int(config["hidden_size"])
    inner = int(config.get("moe_intermediate_size") or config["intermediate_size"])
    names = ("num_experts", "num_local_experts", "moe_num_experts", "n_routed_experts")
    count = int(next(config[name] for name in names if name in config))

    def draw(*shape: int, gain: float = 1.5, across: int = -1) -> Tensor:
        return np.asarray(rng.standard_normal(shape) * (gain / np.sqrt(shape[across])), np.float32)

    def vector(*shape: int, size: float) -> Tensor:
        return np.asarray(rng.standard_normal(shape) * size, np.float32)

    def expert(name: str, width: int) -> dict[str, Tensor]:
        shapes = {"gate": (width, hidden), "up": (width, hidden), "down": (hidden, width)}
        return {f"{name}.{part}_proj.weight": draw(*shape) for part, shape in shapes.items()}

    if model == "granitemoe":
        return {
            f"{at}.block_sparse_moe.router.layer.weight": draw(count, hidden, gain=2.0),
            f"{at}.block_sparse_moe.input_linear.weight": draw(count, 2 * inner, hidden),
            f"{at}.block_sparse_moe.output_linear.weight": draw(count, hidden, inner),
        }
    if model == "gpt_oss":
        return {
            f"{at}.self_attn.sinks": vector(int(config["num_attention_heads"]), size=2.0),
            f"{at}.mlp.router.weight": draw(count, hidden, gain=2.0),
            f"{at}.mlp.router.bias": vector(count, size=0.5),
            f"{at}.mlp.experts.gate_up_proj": draw(count, hidden, 2 * inner, across=1),
            f"{at}.mlp.experts.gate_up_proj_bias": vector(count, 2 * inner, size=0.5),
            f"{at}.mlp.experts.down_proj": draw(count, inner, hidden, across=1),
            f"{at}.mlp.experts.down_proj_bias": vector(count, hidden, size=0.5),
        }
    steep = {"glm4_moe": 0.7, "ernie4_5_moe": 1.0}.get(model, 2.0)  # so that scores are not alike
    found = {f"{at}.mlp.gate.weight": draw(count, hidden, gain=steep)}
    for number in range(count):
        found |= expert(f"{at}.mlp.experts.{number}", inner)
    if model == "ernie4_5_moe":
        found[f"{at}.mlp.moe_statics.e_score_correction_bias"] = vector(1, count, size=0.1)
    if model == "glm4_moe":
        found[f"{at}.mlp.gate.e_score_correction_bias"] = vector(count, size=0.2)
    if shared := int(config.get("moe_num_shared_experts") or config.get("n_shared_experts") or 0):
        found |= expert(f"{at}.mlp.shared_experts", shared * inner)
    return found


def fuse(weights: dict[str, Tensor], at: str, fused: tuple[str, ...]) -> None:
    """Put matrices of the layer together that are stored as one."""
    groups = {"qkv": ("self_attn", ("q_proj", "k_proj", "v_proj")), "gate_up": ("mlp", ("gate_proj", "up_proj"))}
    for name in fused:
        half, parts = groups[name]
        weights[f"{at}.{half}.{name}_proj.weight"] = np.concatenate(
            [weights.pop(f"{at}.{half}.{part}.weight") for part in parts]
        )
