"""`ps` and `stop`: the servers of this user that run."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localinfer.cli import options as o
from localinfer.errors import NotFound, UsageError, size

if TYPE_CHECKING:
    from localinfer.remote.finding import Server

Pid = Annotated[
    str | None, typer.Argument(metavar="[PID]", help="The server, by its number in `ps`; none: the one that runs.")
]

LOOKS_AGAIN_S = 0.05
"""Seconds between two looks whether a server has ended."""


def ps(*, json: o.Json) -> None:
    """List the servers of yours that run: their models, what memory these take, and what they do."""
    from localinfer.cli.output import line, show_json, table
    from localinfer.remote.finding import running

    found = running()
    if json:
        show_json([_row(server) for server in found])
    elif found:
        rows = [cells for server in found for cells in _cells(server)]
        table(("PID", "ADDRESS", "MODEL", "STATE", "MEMORY", "RUNNING", "WAITING", "REQUESTS", "SINCE"), rows)
    else:
        line("no server runs; `localinfer serve` starts one")


def stop(pid: Pid = None, *, json: o.Json, quiet: o.Quiet) -> None:
    """End a server of yours when all that it was asked has been answered.

    It takes nothing new from then on. Ctrl-C stops waiting for it, and it ends all the same. Exit code 4 when no such
    server runs.
    """
    from localinfer.cli.output import note, show_json
    from localinfer.remote.finding import running
    from localinfer.remote.link import ask

    server = _chosen(running(), pid)
    texts = ask(server.path, "/pipe/stop", {})["texts"]
    if texts and not quiet:
        note(f"server {server.pid} ends after {texts} text{'s' * (texts != 1)} that it still writes")
    started = time.monotonic()
    while _is_there(server.path, server.pid):
        time.sleep(LOOKS_AGAIN_S)
    if json:
        show_json({"pid": server.pid, "texts": texts, "waited_s": time.monotonic() - started})
    elif not quiet:
        note(f"server {server.pid} has ended")


def _is_there(path: Path, pid: int) -> bool:
    """Whether the server is not gone: its socket's file goes last, unless it is killed."""
    import os

    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return path.exists()


def _chosen(found: "list[Server]", pid: str | None) -> "Server":
    """The server to be ended. Raises `NotFound`, and `UsageError` where it is not clear which."""
    listed = ", ".join(str(server.pid) for server in found)
    if pid is None and len(found) > 1:
        raise UsageError(f"{len(found)} servers run: {listed}", hint="say which: `localinfer stop PID`")
    chosen = next((server for server in found if pid in (None, str(server.pid))), None)
    if chosen is None:
        what = f"no server {pid[:20]} of yours runs" if pid else "no server of yours runs"
        raise NotFound(what, hint=f"those that run: {listed}" if found else "`localinfer serve` starts one")
    return chosen


def _row(server: "Server") -> dict[str, Any]:
    """One server as scripts see it; `started` is UTC. Keys may be added, none goes away."""
    says = server.says
    names = ("ref", "names", "revision", "open", "bytes", "running", "waiting", "context_size")
    return {
        **{name: says[name] for name in ("pid", "version", "address", "backend", "ends", "requests")},
        "socket": str(server.path),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(says["started"])),
        "models": [{name: model[name] for name in names} for model in says["models"]],
    }


def _cells(server: "Server") -> list[tuple[str, ...]]:
    """A line for each model that is open; one for a server that has none open."""
    says = server.says
    head, state = (str(server.pid), says["address"]), "ends" if says["ends"] else "open"
    tail = (str(says["requests"]), time.strftime("%Y-%m-%d %H:%M", time.localtime(says["started"])))
    opened = [model for model in says["models"] if model["open"]]
    if not opened:
        return [(*head, "none", state, "", "", "", *tail)]
    return [
        (*head, one["names"][0], state, size(one["bytes"]), str(one["running"]), str(one["waiting"]), *tail)
        for one in opened
    ]
