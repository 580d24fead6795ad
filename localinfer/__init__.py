"""Run language models on your own machine. Public names are loaded on first use, so that `--help` stays light."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Chat": "localinfer.chats.chat",
    "Engine": "localinfer.engine.protocol",
    "EngineConfig": "localinfer.config",
    "LocalInferError": "localinfer.errors",
    "Request": "localinfer.engine.protocol",
    "SamplingParams": "localinfer.config",
    "open_engine": "localinfer.engine.opening",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
