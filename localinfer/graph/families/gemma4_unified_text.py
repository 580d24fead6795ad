"""The text half of `gemma4_unified`, stored alone."""

from localinfer.graph.families.gemma4_text import graph as graph
from localinfer.graph.families.gemma4_unified import text_alone as spec

__all__ = ["graph", "spec"]
