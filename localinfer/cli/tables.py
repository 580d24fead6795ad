"""Models as rows: for tables, and for JSON."""

import time
from typing import Any

from localinfer.hub.model import LocalModel

SOURCES = {"hub": "Hub", "ours": "made here", "file": "file"}


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
