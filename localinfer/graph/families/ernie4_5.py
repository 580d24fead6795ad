"""ERNIE 4.5, dense (Baidu, 2025): Llama's layer, with neighbours rotated together, and biases everywhere if asked."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import decoder
from localinfer.graph.graph import Graph
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import ModelSpec, read_activation, read_config, read_sizes, read_tied


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "ernie4_5")
    sizes = read_sizes(config)
    bias = config.has("use_bias") and config.flag("use_bias")
    return ModelSpec(
        model_type="ernie4_5",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=bias,
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=(0,) * sizes["layers"],
        ropes=(read_rope(config, sizes["head_dim"], interleaved=True),) * sizes["layers"],
    )


def graph(spec: ModelSpec) -> Graph:
    """The same layers as Llama's; the spec has the rest."""
    return decoder(spec)
