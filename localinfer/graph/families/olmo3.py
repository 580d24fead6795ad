"""OLMo 3 (Ai2, 2025): OLMo 2's layer; three with a sliding window, then one that sees everything, whose RoPE alone is
stretched."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families import olmo2
from localinfer.graph.families.layers import decoder
from localinfer.graph.fields import Fields
from localinfer.graph.graph import Graph
from localinfer.graph.rope import Rope, rope_from
from localinfer.graph.spec import ModelSpec, read_activation, read_config, read_sizes, read_tied, read_windows


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "olmo3")
    sizes = read_sizes(config)
    bias = config.flag("attention_bias")
    sliding, full = _ropes(config, sizes["head_dim"])
    windows = read_windows(config, sizes["layers"], tuple((i + 1) % 4 != 0 for i in range(sizes["layers"])))
    return ModelSpec(
        model_type="olmo3",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        qkv_bias=bias,
        o_bias=bias,
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=windows,
        ropes=tuple(sliding if window else full for window in windows),
    )


def graph(spec: ModelSpec) -> Graph:
    """The same layers as OLMo 2's."""
    return decoder(spec, olmo2.STYLE)


def _ropes(config: Fields, head_dim: int) -> tuple[Rope, Rope]:
    """RoPE of the sliding and of the full layers; a `rope_theta` beside them is that of the full ones, as in
    transformers."""
    settings = config.table("rope_parameters")
    full = settings.table("full_attention").under(config.table("rope_scaling"))
    full.refuse("truncate", True)  # transformers does not read it here
    local = Fields({**config.values, "rope_theta": 500_000.0}, defaults=config.defaults)
    sliding = settings.table("sliding_attention")
    sliding.refuse("truncate", True)
    return rope_from(sliding, local, head_dim), rope_from(full, config, head_dim)
