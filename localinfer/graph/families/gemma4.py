"""Gemma 4 with pictures and sounds: the text half of the checkpoint, in a nested config."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families import gemma4_text
from localinfer.graph.families.wrapped import text_name, text_spec
from localinfer.graph.graph import Graph
from localinfer.graph.spec import ModelSpec


def tensor_name(stored: str) -> str | None:
    """The graph's name of a stored tensor; `None` for what is no part of the text model."""
    name = text_name(stored)
    return name if name is None else gemma4_text.tensor_name(name)


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """The spec of the text model."""
    return text_spec(values, gemma4_text.spec)


def graph(spec: ModelSpec) -> Graph:
    """The graph of the text model."""
    return gemma4_text.graph(spec)
