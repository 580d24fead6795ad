"""Which server of this user has a model open, as it is wanted."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from localinfer import __version__
from localinfer.config import EngineConfig
from localinfer.errors import LocalInferError
from localinfer.hub.model import LocalModel
from localinfer.remote.sockets import servers

FREE = ("parallel", "remember", "kv_disk_gb", "reuse", "experts", "experts_bytes")
"""Settings that are the server's own affair."""

DECIDE = ("context", "kv_bits")
"""Settings that change what is said: they must be the same. Others may be the server's where nothing is asked for."""


@dataclass(frozen=True, slots=True)
class Server:
    """One that answers, and what it says of itself."""

    path: Path
    says: dict[str, Any]

    @property
    def pid(self) -> int:
        return int(self.says["pid"])

    def its(self, model: LocalModel) -> dict[str, Any] | None:
        """What it says of this model; None where it does not serve it."""
        where = str(model.path.resolve())
        rows: list[dict[str, Any]] = self.says["models"]
        return next((one for one in rows if one["path"] == where and one["revision"] == model.revision), None)


def running() -> list[Server]:
    """All servers of this user that answer, the newest first."""
    found = list[Server]()
    for path in servers():
        from localinfer.remote.link import ask  # HTTP takes time to import, and mostly no server runs

        try:
            found.append(Server(path, ask(path, "/pipe")))
        except LocalInferError:
            continue
    return found


def why_not(server: Server, model: LocalModel, config: EngineConfig, backend: str) -> str:
    """Why the server cannot be asked for `model` as it is wanted; empty if it can."""
    says = server.says
    if says["version"] != __version__:
        return f"it is version {says['version']}"
    if says["ends"]:
        return "it ends"
    if (its := server.its(model)) is None:
        return "it does not serve this model"
    if its["modified"] != model.modified:
        return "the model was made anew since"
    return _other_settings(says, config, backend)


def _other_settings(says: dict[str, Any], config: EngineConfig, backend: str) -> str:
    ours, usual, its = asdict(config), asdict(EngineConfig()), says["config"]
    for name, value in ours.items():
        value = str(value) if isinstance(value, Path) else value
        if name in FREE or value == its[name] or (name not in DECIDE and value == usual[name]):
            continue
        return f"its {name.replace('_', '-')} is {its[name]}, not {value}"
    if backend not in ("auto", says["backend"]) or says["backend"] == "llamacpp":
        return f"its backend is {says['backend']}"
    if (isa := os.environ.get("LOCALINFER_ISA", "")) != says["isa"]:
        return f"its kernels are {says['isa'] or 'the best'}, not {isa or 'the best'}"
    return ""
