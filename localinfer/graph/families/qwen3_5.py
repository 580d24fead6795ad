"""Qwen3.5, 3.6 and 3.8, which see pictures: the text half, which is `qwen3_5_text` in a nested config."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families import qwen3_5_text, qwen3_next
from localinfer.graph.families.wrapped import text_name, text_spec
from localinfer.graph.graph import Graph
from localinfer.graph.spec import ModelSpec

tensor_name = text_name
ahead = qwen3_next.ahead


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """The spec of the text model."""
    return text_spec(values, qwen3_5_text.spec, tied=False)


def graph(spec: ModelSpec) -> Graph:
    """The graph of the text model."""
    return qwen3_5_text.graph(spec)
