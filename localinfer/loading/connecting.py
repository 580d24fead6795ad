"""An engine of a server of this user where one has the model as it is wanted, else one of our own."""

import time
from typing import TYPE_CHECKING, Any

from localinfer.config import EngineConfig
from localinfer.errors import LocalInferError
from localinfer.hub.model import LocalModel
from localinfer.loading.opened import Opened
from localinfer.loading.tell import Tell

if TYPE_CHECKING:
    from localinfer.remote.finding import Server


def connect_or_open(
    model: LocalModel, config: EngineConfig, *, backend: str, server: bool = True, private: bool = False, tell: Tell
) -> Opened:
    """`model`, of a server that runs, or opened here with `config`: the text is the same. Where a server runs and is
    not asked, that is said; with `server` false none is looked for. `private`: the server leaves nothing of the texts
    on disk. Raises as `open_model` does."""
    if server and (found := _connected(model, config, backend, private=private, tell=tell)) is not None:
        return found
    from localinfer.loading.opening import open_model

    return open_model(model, config, backend=backend, tell=tell)


def _connected(model: LocalModel, config: EngineConfig, backend: str, *, private: bool, tell: Tell) -> Opened | None:
    from localinfer.remote.finding import running, why_not

    reasons = list[str]()
    possible: list[tuple[Server, dict[str, Any]]] = []
    for server in running():
        its, reason = server.its(model), why_not(server, model, config, backend)
        if reason or its is None:
            reasons.append(f"server {server.pid} is not asked: {reason}")
        else:
            possible.append((server, its))
    for server, its in sorted(possible, key=lambda one: not one[1]["open"]):
        try:
            return _opened(server, its, model, private=private, tell=tell)
        except LocalInferError as error:
            reasons.append(f"server {server.pid} cannot be asked: {error.message}")
    for reason in reasons:
        tell.note(reason)
    return None


def _opened(server: "Server", its: dict[str, Any], model: LocalModel, *, private: bool, tell: Tell) -> Opened:
    from localinfer.chats import sandbox
    from localinfer.remote.engine import RemoteEngine
    from localinfer.remote.link import ask

    sandbox.prepare()
    started = time.perf_counter()
    if not its["open"]:
        tell.note(f"server {server.pid} opens {model.ref}")
    described = ask(server.path, "/pipe/open", {"ref": its["ref"]}, timeout=None)
    engine = RemoteEngine(server.path, described, model.path, remember=not private)
    tell.note(f"server {server.pid} answers, {described['info']['backend']}, {described['info']['isa']}")
    return Opened(engine, model, time.perf_counter() - started, elsewhere=True)
