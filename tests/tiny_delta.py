"""Random weights of families with gated delta nets: one function for all."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensor = NDArray[np.float32]
Json = dict[str, Any]
DELTA = ("qwen3_5_text", "qwen3_next", "olmo_hybrid")


def delta_weights(config: Json, seed: int) -> dict[str, Tensor]:
    """Every tensor of a model of one of `DELTA` as float32. Decays lie between 0.2 and nearly 1."""
    rng = np.random.default_rng(seed)
    kind, weights = config["model_type"], dict[str, Tensor]()
    hidden, inner, vocab = (int(config[key]) for key in ("hidden_size", "intermediate_size", "vocab_size"))
    heads, kv_heads = int(config["num_attention_heads"]), int(config["num_key_value_heads"])
    head_dim = int(config.get("head_dim") or hidden // heads)
    is_olmo = kind == "olmo_hybrid"

    def put(name: str, values: Any) -> None:
        weights[name] = np.asarray(values, np.float32)

    def linear(name: str, rows: int, cols: int, gain: float = 1.5) -> None:
        put(f"{name}.weight", rng.standard_normal((rows, cols)) * (gain / np.sqrt(cols)))

    def norm(name: str, size: int, offset: float = 0.0 if is_olmo else 1.0) -> None:
        put(f"{name}.weight", rng.uniform(0.5, 1.5, size) - offset)

    def mlp(at: str, width: int) -> None:
        for name in ("gate_proj", "up_proj"):
            linear(f"{at}.{name}", width, hidden)
        linear(f"{at}.down_proj", hidden, width)

    def attention(at: str) -> None:
        q_rows = heads * head_dim * (1 if is_olmo else 2)
        for name, rows, gain in (("q", q_rows, 2.0), ("k", kv_heads * head_dim, 2.0), ("v", kv_heads * head_dim, 1.5)):
            linear(f"{at}.{name}_proj", rows, hidden, gain)
        linear(f"{at}.o_proj", hidden, heads * head_dim)
        for name, count in (("q_norm", heads), ("k_norm", kv_heads)):
            norm(f"{at}.{name}", head_dim * (count if is_olmo else 1))

    def delta(at: str) -> None:
        names = ("linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim")
        key_heads, value_heads, key_dim, value_dim = (int(config[name]) for name in names)
        keys, values, length = key_heads * key_dim, value_heads * value_dim, int(config["linear_conv_kernel_dim"])
        inputs = {
            "qwen3_5_text": {"in_proj_qkv": 2 * keys + values, "in_proj_z": values},
            "qwen3_next": {"in_proj_qkvz": 2 * keys + 2 * values},
            "olmo_hybrid": {"q_proj": keys, "k_proj": keys, "v_proj": values, "g_proj": values},
        }[kind]
        gates = {
            "qwen3_5_text": {"in_proj_b": value_heads, "in_proj_a": value_heads},
            "qwen3_next": {"in_proj_ba": 2 * value_heads},
            "olmo_hybrid": {"b_proj": value_heads, "a_proj": value_heads},
        }[kind]
        for name, rows in (inputs | gates).items():
            linear(f"{at}.{name}", rows, hidden)
        convs = {"q_conv1d": keys, "k_conv1d": keys, "v_conv1d": values} if is_olmo else {"conv1d": 2 * keys + values}
        for name, rows in convs.items():
            put(f"{at}.{name}.weight", rng.standard_normal((rows, 1, length)) * (1.5 / np.sqrt(length)))
        put(f"{at}.A_log", np.log(rng.uniform(0.05, 1.0, value_heads)))
        put(f"{at}.dt_bias", rng.uniform(-2, 1, value_heads))
        norm(f"{at}.{'o_norm' if is_olmo else 'norm'}", value_dim, 0.0)
        linear(f"{at}.{'o_proj' if is_olmo else 'out_proj'}", hidden, values)

    put("model.embed_tokens.weight", rng.standard_normal((vocab, hidden)) * 0.25)
    for layer, word in enumerate(config["layer_types"]):
        at, is_linear = f"model.layers.{layer}", word == "linear_attention"
        if is_linear:
            delta(f"{at}.linear_attn")
        else:
            attention(f"{at}.self_attn")
        if kind == "qwen3_next":
            linear(f"{at}.mlp.gate", int(config["num_experts"]), hidden, 2.0)
            for number in range(int(config["num_experts"])):
                mlp(f"{at}.mlp.experts.{number}", int(config["moe_intermediate_size"]))
            mlp(f"{at}.mlp.shared_expert", int(config["shared_expert_intermediate_size"]))
            linear(f"{at}.mlp.shared_expert_gate", 1, hidden, 2.0)
        else:
            mlp(f"{at}.mlp", inner)
        first = "post_feedforward_layernorm" if is_olmo and not is_linear else "input_layernorm"
        for name in (first, "post_attention_layernorm"):
            norm(f"{at}.{name}", hidden)
    norm("model.norm", hidden)
    if not config["tie_word_embeddings"]:
        linear("lm_head", vocab, hidden, 2.0)
    return weights
