"""Mistral Small 3.1 and 3.2, and Ministral 3, which see pictures: the text half, `mistral` or `ministral3` in a nested
config."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families import ministral3, mistral
from localinfer.graph.families.wrapped import text_name, text_spec
from localinfer.graph.fields import Fields
from localinfer.graph.graph import Graph
from localinfer.graph.spec import ModelSpec

tensor_name = text_name


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """The spec of the text model. Others in the same wrapping are refused by their type."""
    known = {"mistral": "mistral", "ministral3": "ministral3"}
    kind = Fields(values).table("text_config").word("model_type", known, "mistral")
    return text_spec(values, mistral.spec if kind == "mistral" else ministral3.spec)


def graph(spec: ModelSpec) -> Graph:
    """The graph of the text model."""
    return mistral.graph(spec)
