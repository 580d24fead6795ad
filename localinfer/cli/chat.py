"""`chat`: the app. The only command that opens it, and the only one that needs a terminal."""

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from localinfer.cli import options as o
from localinfer.cli.bundles import CostFlags, EngineFlags, FormFlags, SamplingFlags, TraceFlags
from localinfer.cli.telling import Terminal
from localinfer.errors import LocalInferError, UsageError

if TYPE_CHECKING:
    from localinfer.chats.screen_state import ScreenState
    from localinfer.chats.store import SavedChat
    from localinfer.engine.form import Grammar
    from localinfer.engine.protocol import Engine
    from localinfer.events import OnProgress
    from localinfer.hub.model import LocalModel

ModelArg = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL]...",
        help="The models, a pane for each; one may be named twice. Without any the last chat's, else `starter`.",
    ),
]


def chat(
    names: ModelArg = None,
    *,
    model: o.Model,
    continue_: o.Continue,
    system: o.System,
    form: FormFlags,
    sampling: SamplingFlags,
    on_overflow: o.OnOverflow,
    engine: EngineFlags,
    trace: TraceFlags,
    cost: CostFlags,
    revision: o.Revision,
    offline: o.Offline,
    theme: o.Theme,
) -> int:
    """Talk to models in the terminal, in as many panes as fit. Every chat is kept."""
    _require_terminal()
    from localinfer.chats.store import ChatStore
    from localinfer.cost.apis import would_charge
    from localinfer.hub.cache import list_models
    from localinfer.loading import opening as loading
    from localinfer.loading.connecting import connect_or_open
    from localinfer.loading.tell import Tell
    from localinfer.paths import chats_file, screen_file
    from localinfer.tui.app import run_app
    from localinfer.tui.tiling import MOST_PANES

    config, kept = trace.config(engine, parallel=MOST_PANES), _checked(form, cost)
    with ChatStore(chats_file()) as store:
        latest = store.latest() if continue_ and not names and not model else None
        layout = _left(latest)
        panes = [pane.model for pane in layout.panes] if layout else []
        asked = names or panes or [model or (latest.model if latest else "starter")]
        found = _found(asked, revision, offline=offline, all_of_them=latest is None)
        known = {one.ref: one for one in found.values()}

        def open_model(ref: str, progress: "OnProgress") -> "Engine":
            tell = Tell(progress)
            installed = known.get(ref) or loading.find(ref, offline=offline, tell=tell)
            running = connect_or_open(installed, config, backend=engine.backend, **trace.way, tell=tell).engine
            running.default_sampling = sampling.over(running.default_sampling)
            return running

        return run_app(
            open_model,
            models=[found[ref].ref if ref in found else ref for ref in asked],
            store=store,
            resume=continue_,
            system=system,
            on_overflow=on_overflow,
            form=kept,
            installed=lambda: [one.ref for one in list_models()],
            name_of=partial(_name_of, offline=offline),
            theme=theme,
            state_file=screen_file(),
            layout=layout,
            tariff=cost.tariff(),
            offer_for=lambda ref: would_charge(ref, cost.api_model),
        )


def _checked(form: FormFlags, cost: CostFlags) -> "Grammar | None":
    """The form of answers. What is wrong with it, or with a provider's model, is told before the app opens."""
    from localinfer.cost.apis import would_charge

    if cost.api_model:
        would_charge("", cost.api_model)
    return form.checked()


def _name_of(ref: str, *, offline: bool) -> str:
    from localinfer.hub.resolve import resolve

    try:
        return resolve(ref, offline=offline).ref
    except LocalInferError:  # told when it is opened
        return ref


def _left(latest: "SavedChat | None") -> "ScreenState | None":
    """The panes as they were left, if the chat to go on with is in one of them or they were left after it."""
    from localinfer.chats.screen_state import left
    from localinfer.paths import screen_file

    return left(screen_file(), latest.id, latest.updated) if latest else None


def _found(refs: list[str], revision: str | None, *, offline: bool, all_of_them: bool) -> "dict[str, LocalModel]":
    """The models by their names; raises what `find` does. Unless all are needed, those that are not here are left out:
    a chat can be read without its model, and what is wrong is told when it is opened."""
    from localinfer.loading.opening import find

    found: dict[str, LocalModel] = {}
    for ref in dict.fromkeys(refs):
        try:
            found[ref] = find(ref, revision=revision, offline=offline, tell=Terminal(quiet=False))
        except LocalInferError:
            if all_of_them:
                raise
    return found


def _require_terminal() -> None:
    """Raise `UsageError` where the app could not be seen or typed into."""
    from localinfer.cli.output import is_terminal

    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        raise UsageError("`chat` needs a terminal", hint='in a pipe, use `localinfer run starter "…"`')
    if not is_terminal(sys.stderr):
        raise UsageError(
            "`chat` draws on standard error, which is no terminal", hint="leave out what redirects it: `2>`"
        )
    if os.environ.get("TERM") == "dumb":
        raise UsageError(
            "`chat` draws a screen, which a terminal of type `dumb` cannot show",
            hint='set TERM to what it is, such as `TERM=xterm-256color`, or use `localinfer run starter "…"`',
        )
