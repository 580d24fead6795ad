"""Mistral Small 3.1 and 3.2, which see pictures: the text half, which is `mistral` in a nested config."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families import mistral
from localinfer.graph.families.wrapped import text_spec
from localinfer.graph.fields import Fields
from localinfer.graph.ops import Graph
from localinfer.graph.spec import ModelSpec


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """The spec of the text model. Ministral 3 and others in the same wrapping are refused by their type."""
    Fields(values).table("text_config").word("model_type", {"mistral": "mistral"}, "mistral")
    return text_spec(values, mistral.spec)


def graph(spec: ModelSpec) -> Graph:
    """The graph of the text model."""
    return mistral.graph(spec)
