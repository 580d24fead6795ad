"""`serve`: models for other programs, in the protocols that they speak."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localinfer.cli import options as o
from localinfer.cli.bundles import DoorFlags, EngineFlags
from localinfer.cli.telling import Terminal
from localinfer.errors import NotFound, NotSupported, UsageError
from localinfer.extras import install_command

if TYPE_CHECKING:
    from localinfer.loading.tell import Tell
    from localinfer.serve.models import Served

Refs = Annotated[
    list[str] | None,
    typer.Argument(metavar="[MODEL]...", help="What may be asked for, the first opened at once; none: all of `list`."),
]

TOGETHER = 8
"""Texts that are written together unless said otherwise."""


def serve(
    refs: Refs = None,
    *,
    door: DoorFlags,
    keep: o.Keep,
    queue: o.Queue,
    parallel: o.Parallel,
    engine: EngineFlags,
    no_remember: o.NoRemember,
    kv_disk: o.KvDisk,
    offline: o.Offline,
    quiet: o.Quiet,
) -> None:
    """Serve models to other programs until Ctrl-C, over HTTP as OpenAI, Anthropic and Ollama do.

    The address goes to standard output when the first request can be taken, then one line a request to standard error.
    Models are opened when they are asked for, and closed when idle. A key is wanted where `--api-key-file` or the
    variable LOCALINFER_API_KEY gives one. See docs/guides/serve.md.
    """
    import asyncio

    from localinfer.cli.counts import one_count
    from localinfer.config import in_range

    together = one_count("parallel", parallel, TOGETHER)
    in_range("parallel", together, 1, 64)
    keep_s = float("inf") if keep == "always" else _seconds(keep)
    config = engine.config(remember=not no_remember, kv_disk=kv_disk, parallel=together)
    tell = Terminal(quiet)
    try:
        import localinfer.serve.running as running
    except ImportError as error:
        raise NotSupported(
            f"a server needs packages that are not installed: {error}", hint=f"run `{install_command('serve')}`"
        ) from None
    from localinfer.serve.models import Models
    from localinfer.serve.pipes import Pipes, about
    from localinfer.serve.service import Service

    entrance = running.Door(door.host, door.port, tuple(door.allow_host), tuple(door.allow_origin), _key(door))
    served = [_served(ref, offline=offline, tell=tell) for ref in refs or []]
    found = running.listen(entrance.host, entrance.port)
    _warn_open(entrance.host, entrance.key, tell)
    models = Models(served or None, config, backend=engine.backend, keep_s=keep_s, tell=tell)
    service = Service(models, parallel=together, queue=queue, tell=tell)
    pipes = Pipes(service, about(running.url_of(found), config, engine.backend))

    async def main() -> int:
        from localinfer.cli.output import line

        try:
            if served:
                await models.open(served[0])
            return await running.run(service, entrance, found, lambda: line(running.url_of(found)), pipes)
        finally:
            await models.close()

    if asyncio.run(main()) == 2:
        raise KeyboardInterrupt


def _served(ref: str, *, offline: bool, tell: "Tell") -> "Served":
    """A model that is named on the command line: it is found, or fetched where the catalogue can do that, now."""
    from localinfer.loading.opening import find
    from localinfer.serve.models import Served

    model = find(ref, offline=offline, tell=tell)
    return Served(model, tuple(dict.fromkeys((ref, model.ref))))


def _seconds(keep: str) -> float:
    from localinfer.errors import seconds_of

    return 0.0 if keep == "0" else seconds_of(keep, "keep")


def _key(door: DoorFlags) -> str:
    """The key that is wanted, from a file or else the variable; empty for none."""
    import os

    if door.api_key_file is None:
        return os.environ.get("LOCALINFER_API_KEY", "").strip()
    try:
        text = Path(door.api_key_file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise NotFound(f"{door.api_key_file}: {reason.lower()}", hint="check the path") from None
    if not text or "\n" in text:
        raise UsageError(f"{door.api_key_file} is not one line", hint="let the file hold the key and nothing else")
    return text


def _warn_open(host: str, key: str, tell: "Tell") -> None:
    from ipaddress import ip_address

    try:
        local = ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local and not key:
        tell.warn(f"warning: whoever reaches {host} may ask here: there is no key; `--api-key-file FILE` wants one")
