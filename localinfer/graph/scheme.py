"""How config.json says the weights were quantized: compressed-tensors `pack-quantized`, symmetric integers by group."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.fields import Fields

Scheme = frozenset[tuple[int, int]]
"""The (bits, group) pairs that config.json announces."""

BITS = (3, 4, 8)
GROUPS = (32, 64, 128)


def read_scheme(values: Mapping[str, Any]) -> Scheme:
    """The schemes of `quantization_config`, empty for plain weights. Raises `NotSupported` for any other method."""
    config = Fields(values)
    if not config.has("quantization_config"):
        return frozenset()
    settings = config.table("quantization_config")
    _one_of(settings, "quant_method", ("compressed-tensors",))
    _one_of(settings, "format", ("pack-quantized", "mixed-precision"))
    settings.refuse("kv_cache_scheme")
    groups = settings.table("config_groups")
    found = set()
    for name in groups.values:
        group = groups.table(name)
        if group.has("format"):
            _one_of(group, "format", ("pack-quantized",))
        group.refuse("input_activations")
        group.refuse("output_activations")
        found.add(_weights(group.table("weights")))
    return frozenset(found)


def _weights(weights: Fields) -> tuple[int, int]:
    _one_of(weights, "type", ("int",))
    _one_of(weights, "symmetric", (True,))
    _one_of(weights, "strategy", ("group",))
    _one_of(weights, "num_bits", BITS)
    _one_of(weights, "group_size", GROUPS)
    weights.refuse("dynamic", False)
    weights.refuse("actorder", False, "static", "weight")
    return weights.integer("num_bits", 3, 8), weights.integer("group_size", 32, 128)


def _one_of(settings: Fields, name: str, known: tuple[object, ...]) -> None:
    value = settings.values.get(name)
    if any(type(value) is type(k) and value == k for k in known):
        return
    raise settings.unknown(name, value, known)
