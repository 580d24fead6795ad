"""Random weights of families with gated delta nets: one function for all."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensor = NDArray[np.float32]
Json = dict[str, Any]
DELTA = ("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next", "olmo_hybrid")


def delta_weights(config: Json, seed: int) -> dict[str, Tensor]:
    """Every tensor of a model of one of `DELTA` as float32. Decays lie between 0.2 and nearly 1. With
    `mtp_num_hidden_layers` there is a head that guesses ahead."""
    maker = _Maker(config, seed)
    weights = maker.make()
    if config.get("mtp_num_hidden_layers"):
        maker.ahead()
    return weights


class _Maker:
    """Draws the tensors of one model, in the order of its layers."""

    def __init__(self, config: Json, seed: int) -> None:
        self.config, self.kind = config, config["model_type"]
        self.rng = np.random.default_rng(seed)
        self.hidden = int(config["hidden_size"])
        self.is_olmo = self.kind == "olmo_hybrid"
        self.weights: dict[str, Tensor] = {}

    def make(self) -> dict[str, Tensor]:
        config, vocab = self.config, int(self.config["vocab_size"])
        self.put("model.embed_tokens.weight", self.rng.standard_normal((vocab, self.hidden)) * 0.25)
        for layer, word in enumerate(config["layer_types"]):
            at, is_linear = f"model.layers.{layer}", word == "linear_attention"
            if is_linear:
                self.delta(f"{at}.linear_attn")
            else:
                self.attention(f"{at}.self_attn")
            self.feed_forward(f"{at}.mlp")
            first = "post_feedforward_layernorm" if self.is_olmo and not is_linear else "input_layernorm"
            for name in (first, "post_attention_layernorm"):
                self.norm(f"{at}.{name}", self.hidden)
        self.norm("model.norm", self.hidden)
        if not config["tie_word_embeddings"]:
            self.linear("lm_head", vocab, self.hidden, 2.0)
        return self.weights

    def ahead(self) -> None:
        at = "mtp.layers.0"
        self.linear("mtp.fc", self.hidden, 2 * self.hidden)
        self.attention(f"{at}.self_attn")
        self.feed_forward(f"{at}.mlp")
        norms = ("pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm")
        for name in (*(f"mtp.{one}" for one in norms), f"{at}.input_layernorm", f"{at}.post_attention_layernorm"):
            self.norm(name, self.hidden)

    def put(self, name: str, values: Any) -> None:
        self.weights[name] = np.asarray(values, np.float32)

    def linear(self, name: str, rows: int, cols: int, gain: float = 1.5) -> None:
        self.put(f"{name}.weight", self.rng.standard_normal((rows, cols)) * (gain / np.sqrt(cols)))

    def norm(self, name: str, size: int, is_plain: bool = False) -> None:
        offset = 0.0 if is_plain or self.is_olmo else 1.0
        self.put(f"{name}.weight", self.rng.uniform(0.5, 1.5, size) - offset)

    def mlp(self, at: str, width: int) -> None:
        for name in ("gate_proj", "up_proj"):
            self.linear(f"{at}.{name}", width, self.hidden)
        self.linear(f"{at}.down_proj", self.hidden, width)

    def feed_forward(self, at: str) -> None:
        if "num_experts" not in self.config:
            self.mlp(at, int(self.config["intermediate_size"]))
            return
        count, width = int(self.config["num_experts"]), int(self.config["moe_intermediate_size"])
        self.linear(f"{at}.gate", count, self.hidden, 2.0)
        if self.kind == "qwen3_5_moe_text":  # published with all experts of a layer in one tensor
            for name, rows, cols in (("gate_up", 2 * width, self.hidden), ("down", self.hidden, width)):
                drawn = self.rng.standard_normal((count, rows, cols)) * (1.5 / np.sqrt(cols))
                self.put(f"{at}.experts.{name}_proj", drawn)
        else:
            for number in range(count):
                self.mlp(f"{at}.experts.{number}", width)
        self.mlp(f"{at}.shared_expert", int(self.config["shared_expert_intermediate_size"]))
        self.linear(f"{at}.shared_expert_gate", 1, self.hidden, 2.0)

    def attention(self, at: str) -> None:
        heads, kv_heads = int(self.config["num_attention_heads"]), int(self.config["num_key_value_heads"])
        head_dim = int(self.config.get("head_dim") or self.hidden // heads)
        q_rows = heads * head_dim * (1 if self.is_olmo else 2)
        for name, rows, gain in (("q", q_rows, 2.0), ("k", kv_heads * head_dim, 2.0), ("v", kv_heads * head_dim, 1.5)):
            self.linear(f"{at}.{name}_proj", rows, self.hidden, gain)
        self.linear(f"{at}.o_proj", self.hidden, heads * head_dim)
        for name, count in (("q_norm", heads), ("k_norm", kv_heads)):
            self.norm(f"{at}.{name}", head_dim * (count if self.is_olmo else 1))

    def delta(self, at: str) -> None:
        names = ("linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim")
        key_heads, value_heads, key_dim, value_dim = (int(self.config[name]) for name in names)
        keys, values, length = key_heads * key_dim, value_heads * value_dim, int(self.config["linear_conv_kernel_dim"])
        apart = {"in_proj_qkv": 2 * keys + values, "in_proj_z": values}
        apart |= {"in_proj_b": value_heads, "in_proj_a": value_heads}
        matrices = {
            "qwen3_5_text": apart,
            "qwen3_5_moe_text": apart,
            "qwen3_next": {"in_proj_qkvz": 2 * keys + 2 * values, "in_proj_ba": 2 * value_heads},
            "olmo_hybrid": {
                "q_proj": keys,
                "k_proj": keys,
                "v_proj": values,
                "g_proj": values,
                "b_proj": value_heads,
                "a_proj": value_heads,
            },
        }[self.kind]
        for name, rows in matrices.items():
            self.linear(f"{at}.{name}", rows, self.hidden)
        each = {"q_conv1d": keys, "k_conv1d": keys, "v_conv1d": values}
        for name, rows in (each if self.is_olmo else {"conv1d": 2 * keys + values}).items():
            self.put(f"{at}.{name}.weight", self.rng.standard_normal((rows, 1, length)) * (1.5 / np.sqrt(length)))
        self.put(f"{at}.A_log", np.log(self.rng.uniform(0.05, 1.0, value_heads)))
        self.put(f"{at}.dt_bias", self.rng.uniform(-2, 1, value_heads))
        self.norm(f"{at}.{'o_norm' if self.is_olmo else 'norm'}", value_dim, is_plain=True)
        self.linear(f"{at}.{'o_proj' if self.is_olmo else 'out_proj'}", self.hidden, values)
