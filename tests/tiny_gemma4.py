"""Random weights of tiny Gemma 4 models, whose layers differ in heads, widths, and what they read of others."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensor = NDArray[np.float32]
Json = dict[str, Any]
SLIDING, FULL = "sliding_attention", "full_attention"

GEMMA4_FIELDS: Json = {
    "num_hidden_layers": 6,
    "head_dim": 32,
    "global_head_dim": 64,
    "layer_types": [SLIDING, FULL, SLIDING, FULL, SLIDING, FULL],
    "hidden_activation": "gelu_pytorch_tanh",
    "sliding_window": 8,
    "rope_theta": None,
    "pad_token_id": 0,
    "attention_bias": False,
    "attention_k_eq_v": False,
    "num_kv_shared_layers": 2,
    "use_double_wide_mlp": True,
    "hidden_size_per_layer_input": 64,
    "vocab_size_per_layer_input": 320,
    "final_logit_softcapping": 10.0,
    "tie_word_embeddings": True,
}
UNIFIED_FIELDS: Json = {
    **{name: value for name, value in GEMMA4_FIELDS.items() if "per_layer" not in name},
    "num_hidden_layers": 4,
    "layer_types": [SLIDING, FULL, SLIDING, FULL],
    "num_kv_shared_layers": 0,
    "use_double_wide_mlp": False,
    "attention_k_eq_v": True,
    "num_global_key_value_heads": 1,
}


def gemma4_weights(config: Json, seed: int) -> dict[str, Tensor]:
    """Every tensor of the model as float32."""
    rng = np.random.default_rng(seed)
    hidden, inner, vocab = (int(config[key]) for key in ("hidden_size", "intermediate_size", "vocab_size"))
    layers, heads = int(config["num_hidden_layers"]), int(config["num_attention_heads"])
    bias, size = bool(config["attention_bias"]), int(config.get("hidden_size_per_layer_input") or 0)
    types = config.get("layer_types") or [SLIDING if (i + 1) % 6 else FULL for i in range(layers)]
    own = layers - int(config["num_kv_shared_layers"])
    weights: dict[str, Tensor] = {}

    def linear(name: str, rows: int, cols: int, gain: float, bias: bool = False) -> None:
        weights[f"{name}.weight"] = np.asarray(rng.standard_normal((rows, cols)) * (gain / np.sqrt(cols)), np.float32)
        if bias:
            weights[f"{name}.bias"] = np.asarray(rng.standard_normal(rows) * 0.5, np.float32)

    def norm(name: str, size: int, low: float = 0.5, high: float = 1.5) -> None:
        weights[f"{name}.weight"] = np.asarray(rng.uniform(low, high, size), np.float32)

    weights["model.embed_tokens.weight"] = (rng.standard_normal((vocab, hidden)) * 0.05).astype(np.float32)
    if size:
        table = rng.standard_normal((int(config["vocab_size_per_layer_input"]), layers * size)) * 0.2
        weights["model.embed_tokens_per_layer.weight"] = table.astype(np.float32)
        linear("model.per_layer_model_projection", layers * size, hidden, 8.0)
        norm("model.per_layer_projection_norm", size)
    for layer in range(layers):
        at = f"model.layers.{layer}"
        full = types[layer] == FULL or layer == layers - 1
        dim = int(config["global_head_dim"] if full else config["head_dim"])
        kv_heads = int(config["num_key_value_heads"])
        same = full and bool(config["attention_k_eq_v"])
        if same:
            kv_heads = int(config.get("num_global_key_value_heads") or kv_heads)
        linear(f"{at}.self_attn.q_proj", heads * dim, hidden, 2.0, bias)
        norm(f"{at}.self_attn.q_norm", dim, 0.1, 0.5)  # scores are not divided by the root of the heads' size
        if layer < own:
            linear(f"{at}.self_attn.k_proj", kv_heads * dim, hidden, 2.0, bias)
            norm(f"{at}.self_attn.k_norm", dim)
            if not same:
                linear(f"{at}.self_attn.v_proj", kv_heads * dim, hidden, 1.5, bias)
        linear(f"{at}.self_attn.o_proj", hidden, heads * dim, 1.5, bias)
        width = inner * (2 if config["use_double_wide_mlp"] and layer >= own else 1)
        for name, rows, cols in (("gate", width, hidden), ("up", width, hidden), ("down", hidden, width)):
            linear(f"{at}.mlp.{name}_proj", rows, cols, 1.5)
        if config.get("enable_moe_block"):
            weights |= _experts(config, at, rng)
        for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            norm(f"{at}.{name}_layernorm", hidden, *((0.2, 0.7) if "post" in name else (0.5, 1.5)))
        if size:
            linear(f"{at}.per_layer_input_gate", size, hidden, 1.5)
            linear(f"{at}.per_layer_projection", hidden, size, 1.5)
            norm(f"{at}.post_per_layer_input_norm", hidden, 0.2, 0.7)
        weights[f"{at}.layer_scalar"] = np.asarray(rng.uniform(0.7, 1.1, 1), np.float32)
    norm("model.norm", hidden)
    if not config["tie_word_embeddings"]:
        linear("lm_head", vocab, hidden, 1.0)
    return weights


def _experts(config: Json, at: str, rng: np.random.Generator) -> dict[str, Tensor]:
    """Of one layer as published checkpoints hold them, all experts in one."""
    hidden, count, inner = (int(config[key]) for key in ("hidden_size", "num_experts", "moe_intermediate_size"))

    def draw(*shape: int, gain: float = 1.5) -> Tensor:
        return np.asarray(rng.standard_normal(shape) * (gain / np.sqrt(shape[-1])), np.float32)

    found = {f"{at}.router.proj.weight": draw(count, hidden, gain=2.0 * np.sqrt(hidden))}  # its input is divided by it
    for name, size in (("scale", hidden), ("per_expert_scale", count)):
        found[f"{at}.router.{name}"] = np.asarray(rng.uniform(0.5, 1.5, size), np.float32)
    found[f"{at}.experts.gate_up_proj"] = draw(count, 2 * inner, hidden)
    found[f"{at}.experts.down_proj"] = draw(count, hidden, inner)
    for name in ("pre_feedforward_layernorm_2", "post_feedforward_layernorm_1", "post_feedforward_layernorm_2"):
        found[f"{at}.{name}.weight"] = np.asarray(rng.uniform(0.5, 1.5, hidden), np.float32)
    return found
