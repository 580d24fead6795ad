"""Hunyuan dense (Tencent, 2025): Llama's layer, but each head of queries and keys is normed after it is rotated."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import Style, decoder
from localinfer.graph.fields import Fields
from localinfer.graph.graph import Graph
from localinfer.graph.rope import Rope, read_rope, rope_settings
from localinfer.graph.spec import ModelSpec, read_activation, read_config, read_sizes, read_tied


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "hunyuan_v1_dense")
    if not config.has("head_dim"):
        raise config.bad("head_dim", "a whole number from 2 to 4096")  # without it transformers has no model
    sizes = read_sizes(config)
    bias = config.flag("attention_bias")
    return ModelSpec(
        model_type="hunyuan_v1_dense",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        qkv_bias=bias,
        o_bias=bias,
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=(0,) * sizes["layers"],
        ropes=(_rope(config, sizes["head_dim"]),) * sizes["layers"],
    )


def graph(spec: ModelSpec) -> Graph:
    """x += attention(norm(x)); x += mlp(norm(x)); a layer."""
    return decoder(spec, Style(qk_norm="after rope", q_norm="query_layernorm", k_norm="key_layernorm"))


def _rope(config: Fields, head_dim: int) -> Rope:
    """`dynamic` with an `alpha` multiplies the base by a power of it, whatever the length of the text."""
    settings = rope_settings(config)
    kind = settings.get("rope_type") if settings.has("rope_type") else settings.get("type")
    if kind != "dynamic" or not settings.get("alpha"):
        return read_rope(config, head_dim)
    alpha = settings.number("alpha", 1e-3, 1e9)
    said = settings if "rope_theta" in settings.values else config
    theta = said.number("rope_theta", 1.0, 1e15) * alpha ** (head_dim / (head_dim - 2))
    return Rope(tuple(theta ** (-2.0 * i / head_dim) for i in range(head_dim // 2)))
