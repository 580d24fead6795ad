"""Run language models on your own machine. Public names are loaded on first use, so that `--help` stays light."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Chat": "localinfer.chats.chat",
    "ContextOverflow": "localinfer.errors",
    "Engine": "localinfer.engine.protocol",
    "EngineConfig": "localinfer.config",
    "Event": "localinfer.events",
    "Finished": "localinfer.events",
    "Grammar": "localinfer.engine.grammar",
    "LocalInferError": "localinfer.errors",
    "Message": "localinfer.chats.template",
    "Progress": "localinfer.events",
    "Request": "localinfer.engine.protocol",
    "SamplingParams": "localinfer.config",
    "Shifted": "localinfer.events",
    "Started": "localinfer.events",
    "Stats": "localinfer.events",
    "Text": "localinfer.events",
    "astream": "localinfer.api",
    "load": "localinfer.api",
    "open_engine": "localinfer.engine.opening",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
