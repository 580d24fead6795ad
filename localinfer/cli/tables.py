"""Models as rows: for tables, and for JSON."""

import time
from typing import Any

from localinfer.hub.model import LocalModel
from localinfer.hub.unfinished import Unfinished

SOURCES = {"hub": "Hub", "ours": "made here", "file": "file"}


def unfinished_row(one: Unfinished) -> dict[str, Any]:
    """A model that was never finished, in `list` and `rm`: the same keys, and `unfinished`."""
    return {
        "ref": one.ref,
        "name": one.name,
        "variant": one.variant,
        "kind": "checkpoint",
        "source": one.source,
        "revision": None,
        "size_bytes": one.size_bytes,
        "path": str(one.paths[0]),
        "modified": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one.modified)),
        "unfinished": "being made" if one.busy else "stopped",
    }


def as_row(model: LocalModel) -> dict[str, Any]:
    """One model as scripts see it, in `list`, `show`, `pull`, `import`. `modified` is UTC."""
    return {
        "ref": model.ref,
        "name": model.name,
        "variant": model.variant,
        "kind": model.kind,
        "source": model.source,
        "revision": model.revision,
        "size_bytes": model.size_bytes,
        "path": str(model.path),
        "modified": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(model.modified)),
    }
