"""Qwen3.5, 3.6 and 3.8 dense (Qwen team, 2026): the layers of Qwen3-Next without experts, their matrices apart."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families import qwen3_next
from localinfer.graph.families.wrapped import text_name
from localinfer.graph.graph import Graph
from localinfer.graph.spec import ModelSpec, read_config

tensor_name = text_name
ahead = qwen3_next.ahead


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    return qwen3_next.read_spec(read_config(values, "qwen3_5_text"), "qwen3_5_text", None)


def graph(spec: ModelSpec) -> Graph:
    """x += attention or delta net of norm(x); x += mlp(norm(x)); a layer."""
    return qwen3_next.layered(spec, fused=False)
