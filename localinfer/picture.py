"""Pictures to keep: what must be there before anything is measured for one, and how it is written."""

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localinfer.errors import NotFound, NotSupported, UsageError
from localinfer.extras import install_command
from localinfer.formats.durable import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS = (".svg", ".png")


def require_picture(path: Path, endings: Sequence[str] = ENDINGS) -> None:
    """Raise what would keep a picture from being drawn to `path`.

    `UsageError` for another ending or a folder, `NotSupported` without matplotlib, `NotFound` without the folder.
    """
    if path.suffix.lower() not in endings:
        kinds = " or ".join({".svg": "an SVG", ".png": "a PNG"}[ending] for ending in endings)
        raise UsageError(
            f"the picture would be {kinds}, but `{path.name}` says otherwise",
            hint=f"end its name in {' or '.join(endings)}",
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise NotSupported(
            "drawing needs matplotlib, which is not installed",
            hint=f"run `{install_command('plot')}`, or leave out `--plot`; `--json` prints the same figures",
        )
    if not path.absolute().parent.is_dir():
        raise NotFound(f"{path.parent}: no such folder", hint="make it first, or draw into another folder")
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="name a file for the picture")


def save_picture(figure: "Figure", path: Path) -> None:
    """Write `figure` to `path` in the form of its ending: the same figure, the same bytes."""
    from matplotlib import rc_context

    kind, picture = path.suffix[1:].lower(), io.BytesIO()
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
    with rc_context({"svg.hashsalt": "localinfer", "svg.fonttype": "none"}):
        figure.savefig(picture, format=kind, metadata=metadata)
    write_bytes(path, picture.getvalue())
