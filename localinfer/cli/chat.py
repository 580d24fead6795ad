"""`chat`: the app. The only command that opens it, and the only one that needs a terminal."""

import sys
from typing import Annotated

import typer

from localinfer.cli import options as o
from localinfer.cli.bundles import EngineFlags, SamplingFlags
from localinfer.errors import UsageError

ModelArg = Annotated[
    str | None, typer.Argument(metavar="[MODEL]", help="The model; without it the last chat's, else `starter`.")
]


def chat(
    name: ModelArg = None,
    *,
    model: o.Model,
    continue_: o.Continue,
    system: o.System,
    sampling: SamplingFlags,
    on_overflow: o.OnOverflow,
    engine: EngineFlags,
    no_remember: o.NoRemember,
    revision: o.Revision,
    offline: o.Offline,
) -> int:
    """Talk to a model in the terminal. Every chat is kept."""
    from localinfer.cli.output import is_terminal

    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        raise UsageError("`chat` needs a terminal", hint='in a pipe, use `localinfer run starter "…"`')
    from localinfer.chats.store import ChatStore
    from localinfer.cli.opening import check_fit, find, with_advice
    from localinfer.engine.opening import OnProgress, open_engine
    from localinfer.engine.protocol import Engine
    from localinfer.paths import chats_file
    from localinfer.tui.app import run_app

    with ChatStore(chats_file()) as store:
        latest = store.latest() if continue_ else None
        ref = name or model or (latest.model if latest else "starter")
        found = find(ref, revision=revision, offline=offline)
        config = engine.config(remember=not no_remember)
        if found.kind == "checkpoint":
            check_fit(found, config)

        def opened(progress: OnProgress) -> Engine:
            running = open_engine(found.path, config, backend=engine.backend, name=found.ref, on_progress=progress)
            running.default_sampling = sampling.over(with_advice(running, found).default_sampling)
            return running

        return run_app(opened, model=found.ref, store=store, resume=continue_, system=system, on_overflow=on_overflow)
