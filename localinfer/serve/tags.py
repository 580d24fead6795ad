"""`/api/tags` and `/api/version`, as Ollama's clients ask them."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from localinfer import __version__
from localinfer.serve.manifest import manifest
from localinfer.serve.models import Served
from localinfer.serve.service import Service
from localinfer.text import one_line


async def tags(service: Service) -> dict[str, Any]:
    """The models that may be asked for."""

    def rows() -> list[dict[str, Any]]:
        return [_row(one) for one in service.models.served()]

    return {"models": await asyncio.to_thread(rows)}


def _row(served: Served) -> dict[str, Any]:
    model, about = served.model, manifest(served.model)
    details = {
        "parent_model": "",
        "format": "gguf" if model.kind == "gguf" else "safetensors",
        "family": one_line(about.family, 80),
        "families": [one_line(about.family, 80)],
        "parameter_size": in_millions(about.parameters),
        "quantization_level": about.quantization,
    }
    return {
        "name": served.name,
        "model": served.name,
        "modified_at": datetime.fromtimestamp(model.modified, UTC).isoformat().replace("+00:00", "Z"),
        "size": model.size_bytes,
        "digest": about.digest,
        "details": details,
    }


def in_millions(count: int) -> str:
    """`134.52M` of 134,515,008, as Ollama writes it; empty for none."""
    if count >= 1e9:
        return f"{count / 1e9:.1f}B"
    return f"{count / 1e6:.2f}M" if count else ""


async def version(_service: Service) -> dict[str, Any]:
    """Ours."""
    return {"version": __version__}
