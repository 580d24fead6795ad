"""Random weights of families with Mamba-2 layers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensor = NDArray[np.float32]
Json = dict[str, Any]

GRANITE_FIELDS: Json = {
    "hidden_act": "silu",
    "attention_bias": False,
    "num_hidden_layers": 3,
    "layer_types": ["mamba", "attention", "mamba"],
    "embedding_multiplier": 3.0,
    "logits_scaling": 2.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.2,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "intermediate_size": 32,
    "shared_intermediate_size": 64,
    "position_embedding_type": None,
    "mamba_n_heads": 4,
    "mamba_d_head": 32,
    "mamba_n_groups": 1,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_conv_bias": True,
    "mamba_proj_bias": False,
}
FALCON_FIELDS: Json = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "projectors_bias": False,
    "mamba_d_ssm": 96,
    "mamba_n_heads": 6,
    "mamba_d_head": 16,
    "mamba_n_groups": 2,
    "mamba_d_state": 32,
    "mamba_d_conv": 4,
    "mamba_conv_bias": True,
    "mamba_proj_bias": False,
    "mamba_rms_norm": False,
    "mamba_norm_before_gate": False,
    "embedding_multiplier": 2.0,
    "lm_head_multiplier": 0.5,
    "mlp_multipliers": [0.8, 1.25],
    "key_multiplier": 0.75,
    "attention_in_multiplier": 0.9,
    "attention_out_multiplier": 1.1,
    "ssm_multipliers": [0.7, 1.2, 0.8, 1.3, 0.6],
    "ssm_in_multiplier": 1.25,
    "ssm_out_multiplier": 0.7,
}
NEMOTRON_FIELDS: Json = {
    "rms_norm_eps": None,
    "rope_theta": None,
    "layer_norm_epsilon": 1e-5,
    "num_hidden_layers": 4,
    "head_dim": 32,
    "layers_block_type": ["linear_attention", "mlp", "full_attention", "linear_attention"],
    "mlp_hidden_act": "relu2",
    "mamba_num_heads": 6,
    "mamba_head_dim": 16,
    "n_groups": 2,
    "ssm_state_size": 32,
    "conv_kernel": 4,
    "use_conv_bias": True,
    "attention_bias": False,
    "mlp_bias": False,
    "use_bias": False,
    "mamba_proj_bias": False,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 64,
    "moe_shared_expert_intermediate_size": 96,
    "moe_latent_size": None,
    "routed_scaling_factor": 1.5,
    "norm_topk_prob": True,
    "n_group": 1,
    "topk_group": 1,
}
MAMBA = ("granitemoehybrid", "falcon_h1", "nemotron_h")


def mamba_weights(config: Json, seed: int) -> dict[str, Tensor]:
    """Every tensor of a model of one of `MAMBA` as float32. Decays lie between 0.2 and nearly 1."""
    maker = _Maker(config, seed)
    return maker.nemotron() if config["model_type"] == "nemotron_h" else maker.make()


class _Maker:
    """Draws the tensors of one model, in the order of its layers."""

    def __init__(self, config: Json, seed: int) -> None:
        self.config = config
        self.rng = np.random.default_rng(seed)
        self.hidden = int(config["hidden_size"])
        self.weights: dict[str, Tensor] = {}

    def make(self) -> dict[str, Tensor]:
        vocab = int(self.config["vocab_size"])
        self.put("model.embed_tokens.weight", self.rng.standard_normal((vocab, self.hidden)) * 0.25)
        is_falcon = self.config["model_type"] == "falcon_h1"
        both = ["both"] * int(self.config["num_hidden_layers"])
        for layer, kind in enumerate(both if is_falcon else self.config["layer_types"]):
            at = f"model.layers.{layer}"
            if kind != "attention":
                self.mamba(f"{at}.mamba")
            if kind != "mamba":
                self.attention(f"{at}.self_attn")
            if is_falcon:
                self.mlp(f"{at}.feed_forward")
            else:
                self.feed_forward(at)
            for name in ("input_layernorm", "pre_ff_layernorm" if is_falcon else "post_attention_layernorm"):
                self.norm(f"{at}.{name}", self.hidden)
        self.norm("model.final_layernorm" if is_falcon else "model.norm", self.hidden)
        if not self.config["tie_word_embeddings"]:
            self.linear("lm_head", vocab, self.hidden, 2.0)
        return self.weights

    def nemotron(self) -> dict[str, Tensor]:
        vocab = int(self.config["vocab_size"])
        self.put("backbone.embeddings.weight", self.rng.standard_normal((vocab, self.hidden)) * 0.25)
        for layer, kind in enumerate(self.config["layers_block_type"]):
            at = f"backbone.layers.{layer}"
            if kind == "linear_attention":
                self.mamba(f"{at}.mixer")
            elif kind == "full_attention":
                self.attention(f"{at}.mixer")
            elif kind == "moe":
                self.experts(f"{at}.mixer")
            else:
                self.ungated(f"{at}.mixer", int(self.config["intermediate_size"]), self.hidden)
            self.norm(f"{at}.norm", self.hidden)
        self.norm("backbone.norm_f", self.hidden)
        self.linear("lm_head", vocab, self.hidden, 2.0)
        return self.weights

    def ungated(self, at: str, inner: int, width: int) -> None:
        self.linear(f"{at}.up_proj", inner, width)
        self.linear(f"{at}.down_proj", width, inner)

    def experts(self, at: str) -> None:
        config = self.config
        count, latent = int(config["n_routed_experts"]), config.get("moe_latent_size")
        self.linear(f"{at}.gate", count, self.hidden)
        self.put(f"{at}.gate.e_score_correction_bias", self.rng.standard_normal(count) * 0.2)
        for number in range(count):
            self.ungated(f"{at}.experts.{number}", int(config["moe_intermediate_size"]), latent or self.hidden)
        self.ungated(f"{at}.shared_experts", int(config["moe_shared_expert_intermediate_size"]), self.hidden)
        if latent:
            self.linear(f"{at}.fc1_latent_proj", latent, self.hidden)
            self.linear(f"{at}.fc2_latent_proj", self.hidden, latent)

    def put(self, name: str, values: Any) -> None:
        self.weights[name] = np.asarray(values, np.float32)

    def draw(self, *shape: int, gain: float = 1.5) -> Any:
        return self.rng.standard_normal(shape) * (gain / np.sqrt(shape[-1]))

    def linear(self, name: str, rows: int, cols: int, gain: float = 1.5) -> None:
        self.put(f"{name}.weight", self.draw(rows, cols, gain=gain))

    def norm(self, name: str, size: int) -> None:
        self.put(f"{name}.weight", self.rng.uniform(0.5, 1.5, size))

    def attention(self, at: str) -> None:
        heads, kv_heads = int(self.config["num_attention_heads"]), int(self.config["num_key_value_heads"])
        head_dim = int(self.config.get("head_dim") or self.hidden // heads)
        for name, count, gain in (("q", heads, 2.0), ("k", kv_heads, 2.0), ("v", kv_heads, 1.5)):
            self.linear(f"{at}.{name}_proj", count * head_dim, self.hidden, gain)
        self.linear(f"{at}.o_proj", self.hidden, heads * head_dim)

    def mamba(self, at: str) -> None:
        names = ("mamba_n_heads", "mamba_d_head", "mamba_n_groups", "mamba_d_state", "mamba_d_conv")
        if self.config["model_type"] == "nemotron_h":
            names = ("mamba_num_heads", "mamba_head_dim", "n_groups", "ssm_state_size", "conv_kernel")
        heads, dim, groups, state, length = (int(self.config[name]) for name in names)
        inner = heads * dim
        channels = inner + 2 * groups * state
        self.linear(f"{at}.in_proj", inner + channels + heads, self.hidden)
        self.put(f"{at}.conv1d.weight", self.draw(channels, 1, length))
        if self.config.get("mamba_conv_bias", self.config.get("use_conv_bias", True)):
            self.put(f"{at}.conv1d.bias", self.rng.standard_normal(channels) * 0.3)
        self.put(f"{at}.A_log", np.log(self.rng.uniform(0.05, 1.0, heads)))
        self.put(f"{at}.dt_bias", self.rng.uniform(-2, 1, heads))
        self.put(f"{at}.D", self.rng.uniform(0.5, 1.5, heads))
        if self.config.get("mamba_rms_norm", True):
            self.norm(f"{at}.norm", inner)
        self.linear(f"{at}.out_proj", self.hidden, inner)

    def mlp(self, at: str) -> None:
        inner = int(self.config["intermediate_size"])
        for name in ("gate_proj", "up_proj"):
            self.linear(f"{at}.{name}", inner, self.hidden)
        self.linear(f"{at}.down_proj", self.hidden, inner)

    def feed_forward(self, at: str) -> None:
        shared, hidden = int(self.config["shared_intermediate_size"]), self.hidden
        self.linear(f"{at}.shared_mlp.input_linear", 2 * shared, hidden)
        self.linear(f"{at}.shared_mlp.output_linear", hidden, shared)
        count, inner = int(self.config["num_local_experts"]), int(self.config["intermediate_size"])
        if count:
            self.linear(f"{at}.block_sparse_moe.router.layer", count, hidden, 2.0)
            self.put(f"{at}.block_sparse_moe.input_linear.weight", self.draw(count, 2 * inner, hidden))
            self.put(f"{at}.block_sparse_moe.output_linear.weight", self.draw(count, hidden, inner))
