"""StarCoder2 (Lozhkov et al., 2024): LayerNorm, an MLP without a gate, and biases everywhere."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import Style, decoder
from localinfer.graph.graph import Graph
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import MOST_CONTEXT, ModelSpec, read_activation, read_config, read_sizes, read_tied


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "starcoder2")
    sizes = read_sizes(config, norm_eps="norm_epsilon")
    bias = config.flag("use_bias")
    window = config.integer("sliding_window", 1, MOST_CONTEXT) if config.has("sliding_window") else 0
    return ModelSpec(
        model_type="starcoder2",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=bias,
        norm_bias=True,
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=(window,) * sizes["layers"],
        ropes=(read_rope(config, sizes["head_dim"]),) * sizes["layers"],
    )


def graph(spec: ModelSpec) -> Graph:
    """x += attention(norm(x)); x += down(gelu(up(norm(x)))); a layer."""
    return decoder(spec, Style(centered=True, gate="", up="c_fc", down="c_proj"))
