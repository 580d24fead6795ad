"""Gemma 4 that sees and hears without towers (12B): the text half of the checkpoint, in a nested config."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families import gemma4_text
from localinfer.graph.families.wrapped import text_name, text_spec
from localinfer.graph.graph import Graph
from localinfer.graph.spec import ModelSpec

tensor_name = text_name


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """The spec of the text model."""
    return text_spec(values, text_alone)


def text_alone(values: Mapping[str, Any]) -> ModelSpec:
    """The same from the inner config."""
    return gemma4_text.spec(values, "gemma4_unified_text")


def graph(spec: ModelSpec) -> Graph:
    """The graph of the text model."""
    return gemma4_text.graph(spec)
