"""What a model holds of which a token takes a part: experts, and weights that stay in their file."""

from pathlib import Path

from localinfer.errors import LocalInferError
from localinfer.formats.json_files import read_object
from localinfer.formats.layout import CONFIG
from localinfer.graph.memory import in_file_bytes
from localinfer.graph.registry import read_graph
from localinfer.graph.weights import Checkpoint


def experts_of(path: Path) -> tuple[int, int] | None:
    """Of the model in the directory `path`, how many numbers it holds, and how many of them one token is multiplied by;
    None for a model without experts, or of a family that the native engine does not know."""
    try:
        graph = read_graph(read_object(path / CONFIG))
    except LocalInferError:
        return None
    return (graph.parameters(), graph.active_parameters()) if graph.spec.mixture else None


def stays_in_file(path: Path) -> int:
    """Bytes of the model's weights that stay in their file while it runs; 0 also where it cannot be read."""
    try:
        return in_file_bytes(Checkpoint(path))
    except LocalInferError:
        return 0
