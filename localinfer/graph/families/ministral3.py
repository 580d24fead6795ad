"""Ministral 3 (Mistral AI, 2025): Mistral's layer; queries grow with the logarithm of how far into
the text they stand."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from localinfer.graph.families.layers import decoder
from localinfer.graph.fields import Fields
from localinfer.graph.graph import Graph
from localinfer.graph.rope import Rope, read_rope, rope_settings
from localinfer.graph.spec import MOST_CONTEXT, ModelSpec, read_activation, read_config, read_sizes, read_tied

_GIVEN = {
    "rope_type": "yarn",
    "rope_theta": 1_000_000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16_384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale_all_dim": 1.0,
    "mscale": 1.0,
    "llama_4_scaling_beta": 0.1,
}
"""What transformers takes where config.json says nothing of RoPE."""


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "ministral3")
    sizes = read_sizes(config)
    config.refuse("layer_types")
    window = config.integer("sliding_window", 1, MOST_CONTEXT) if config.has("sliding_window") else 0
    return ModelSpec(
        model_type="ministral3",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=(window,) * sizes["layers"],
        ropes=(_rope(config, sizes["head_dim"]),) * sizes["layers"],
    )


def graph(spec: ModelSpec) -> Graph:
    """The same layers as Llama's; the growth is in the spec's RoPE."""
    return decoder(spec)


def _rope(config: Fields, head_dim: int) -> Rope:
    settings = rope_settings(config)
    if not settings.values:
        config = Fields({**config.values, "rope_parameters": _GIVEN}, defaults=config.defaults)
        settings = config.table("rope_parameters")
    growth = settings.number("llama_4_scaling_beta", 0.0, 1e3)
    every = settings.number("original_max_position_embeddings", 1, MOST_CONTEXT)
    return replace(read_rope(config, head_dim), growth=growth, growth_every=every)
