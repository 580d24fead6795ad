"""What a mixture of experts holds, and what one token takes of it."""

from pathlib import Path

from localinfer.errors import LocalInferError
from localinfer.formats.json_files import read_object
from localinfer.formats.layout import CONFIG
from localinfer.graph.registry import read_graph


def experts_of(path: Path) -> tuple[int, int] | None:
    """Of the model in the directory `path`, how many numbers it holds, and how many of them one token is multiplied by;
    None for a model without experts, or of a family that the native engine does not know."""
    try:
        graph = read_graph(read_object(path / CONFIG))
    except LocalInferError:
        return None
    return (graph.parameters(), graph.active_parameters()) if graph.spec.mixture else None
