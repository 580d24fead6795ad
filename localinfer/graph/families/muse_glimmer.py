"""Muse Glimmer as it is published, with pictures: the text half of the checkpoint, in a nested config."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families import muse_glimmer_text
from localinfer.graph.families.wrapped import text_name, text_spec
from localinfer.graph.graph import Graph
from localinfer.graph.spec import ModelSpec

tensor_name = text_name


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """The spec of the text model."""
    return text_spec(values, muse_glimmer_text.spec, tied=False)


def graph(spec: ModelSpec) -> Graph:
    """The graph of the text model."""
    return muse_glimmer_text.graph(spec)
