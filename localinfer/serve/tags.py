"""`/api/tags` and `/api/version`, as Ollama's clients ask them."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from localinfer import __version__
from localinfer.serve.models import Served
from localinfer.serve.service import Service


async def tags(service: Service) -> dict[str, Any]:
    """The models that may be asked for."""
    return {"models": _rows(await asyncio.to_thread(service.models.served))}


def _rows(served: Sequence[Served]) -> list[dict[str, Any]]:
    return [_row(one) for one in served]


def _row(served: Served) -> dict[str, Any]:
    model = served.model
    kind = "gguf" if model.kind == "gguf" else "safetensors"
    details = {"format": kind, "family": "", "families": None, "parameter_size": "", "parent_model": ""}
    return {
        "name": served.name,
        "model": served.name,
        "modified_at": datetime.fromtimestamp(model.modified, UTC).isoformat().replace("+00:00", "Z"),
        "size": model.size_bytes,
        "digest": model.revision or "",
        "details": {**details, "quantization_level": model.variant},
    }


async def version(_service: Service) -> dict[str, Any]:
    """Ours."""
    return {"version": __version__}
