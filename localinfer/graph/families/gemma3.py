"""Gemma 3 with pictures (4B and larger): the text half of the checkpoint, which is `gemma3_text` in a nested config."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families import gemma3_text
from localinfer.graph.families.wrapped import text_name, text_spec
from localinfer.graph.graph import Graph
from localinfer.graph.spec import ModelSpec

tensor_name = text_name


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """The spec of the text model."""
    return text_spec(values, gemma3_text.spec)


def graph(spec: ModelSpec) -> Graph:
    """The graph of the text model."""
    return gemma3_text.graph(spec)
