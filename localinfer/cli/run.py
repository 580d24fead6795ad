"""`run`: one answer, then stop. The command for pipes."""

import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localinfer.cli import options as o
from localinfer.cli.bundles import (
    CostFlags,
    EngineFlags,
    FormFlags,
    SamplingFlags,
    SeveralFlags,
    ThinkingFlags,
    TraceFlags,
)
from localinfer.cli.command import TYPED
from localinfer.cli.telling import Terminal
from localinfer.config import DEFAULT_CONTEXT
from localinfer.errors import UsageError

if TYPE_CHECKING:
    from localinfer.cost.apis import Offer
    from localinfer.loading.opening import Opened

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="MODEL [PROMPT]", help="The model, then the prompt; `-` takes it from standard input."),
]


def run(
    ctx: typer.Context,
    words: Words = None,
    *,
    model: o.Model,
    prompt: o.Prompt,
    file: o.File,
    system: o.System,
    raw: o.Raw,
    special: o.Special,
    form: FormFlags,
    thinking: ThinkingFlags,
    sampling: SamplingFlags,
    several: SeveralFlags,
    on_overflow: o.OnOverflow,
    lossy: o.Lossy,
    engine: EngineFlags,
    adapter: o.Adapter,
    revision: o.Revision,
    offline: o.Offline,
    json: o.Json,
    logprobs: o.Logprobs,
    stats: o.Stats,
    cost: CostFlags,
    show_drafts: o.ShowDrafts,
    trace: TraceFlags,
    quiet: o.Quiet,
) -> None:
    """Answer one prompt, then stop; without one, on a terminal, ask for prompts until Ctrl-D.

    Files come first, then what is piped in, then PROMPT. The answer goes to standard output as it is written,
    everything else to standard error. What a model thinks first is left out, unless it is to be shown.
    """
    from localinfer.chats.chat import Chat
    from localinfer.cli import repl
    from localinfer.cli.prompt import read_prompt
    from localinfer.cli.samples import answering
    from localinfer.loading.adapting import adapted
    from localinfer.loading.connecting import connect_or_open
    from localinfer.loading.opening import find

    require_raw(raw=raw, special=special, think=thinking.wanted())
    manner = {"raw": raw, "special": special, "on_overflow": on_overflow, **_scored(logprobs, form, json=json)}
    _before_loading(raw=raw, show_drafts=show_drafts)
    ref, argument = split_words(words or [], model, prompt, ctx.meta[TYPED])
    talks = repl.is_wanted(argument is not None, file, json)
    text = "" if talks else read_prompt(argument, file, lossy=lossy, context=engine.ctx_size or DEFAULT_CONTEXT)
    counts, tell = several.counts(alone=talks or show_drafts), Terminal(quiet)
    found = adapted(find(ref, revision=revision, offline=offline, tell=tell), adapter, tell=tell)
    shown: dict[str, Any] = {"json": json, "stats": stats, "quiet": quiet, "show_thinking": thinking.show_thinking}
    shown |= {"cost": cost, "offer": offer_for(found.name, cost.api_model) if json or stats else None}
    opened = connect_or_open(found, trace.config(engine, counts[1]), backend=engine.backend, **trace.way, tell=tell)
    with opened.engine as running:
        manner["variables"] = thinking.variables(running.chat_template)
        chat = Chat(running, system=system, sampling=sampling.drawn(running.default_sampling), **manner)
        shown["tell_seed"] = sampling.draws(running.default_sampling) and not (talks or quiet)
        answer = answering(opened, counts, drafts=show_drafts, **shown)
        repl.Loop(chat, answer).run() if talks else answer(chat, text)
    _tell_of_disk(opened, quiet=quiet)


def _before_loading(*, raw: bool, show_drafts: bool) -> None:
    """Refuse a pipe where colours are wanted, and start the process for templates while all else is read."""
    from localinfer.chats import sandbox
    from localinfer.cli.tints import tints_of

    if show_drafts:
        tints_of(sys.stdout)
    if not raw:
        sandbox.prepare()


def _tell_of_disk(opened: "Opened", *, quiet: bool) -> None:
    """Say that nothing is kept on disk, if that is so: all is written by now, or never. A server's is its affair."""
    from localinfer.cli.output import note

    if not opened.elsewhere and (problem := opened.engine.load().disk_problem) and not quiet:
        note(f"keys and values are not kept on disk: {problem}; `--kv-disk 0` does not try")


def _scored(logprobs: int | None, form: FormFlags, *, json: bool) -> dict[str, Any]:
    """The form of the answer, and whether its tokens are scored. Raises `UsageError`."""
    if logprobs is not None and not json:
        raise UsageError("`--logprobs` goes with `--json`", hint="add `--json`")
    return {"grammar": form.form(), "logprobs": logprobs}


def require_raw(*, raw: bool, special: bool, think: bool | None = None) -> None:
    """Raise `UsageError` where `--special`, or a switch of the chat template, would change nothing."""
    if raw and think is not None:
        raise UsageError(
            "`--think` and `--no-think` go through the chat template, which `--raw` leaves out",
            hint="leave `--raw` out",
        )
    if special and not raw:
        raise UsageError(
            "`--special` goes with `--raw`: a chat template writes control tokens itself", hint="add `--raw`"
        )


def offer_for(name: str, api_model: str | None) -> "Offer | None":
    """Who the answer's price is compared with; a name that is wrong is told before anything is answered."""
    from localinfer.cost.apis import would_charge

    return would_charge(name, api_model)


def split_words(
    words: list[str], model: str | None, prompt: str | None, typed: Collection[str]
) -> tuple[str, str | None]:
    """The model's reference and the prompt, from the words and the flags `-m` and `-p` that may stand for them.

    Only a flag that was typed takes a word's place; a default from the environment or the settings file does not.
    """
    rest = list(words)
    ref = model if "model" in typed and model else rest.pop(0) if rest else model or "starter"
    argument = prompt if "prompt" in typed or not rest else rest.pop(0)
    if argument is None and any(character.isspace() for character in ref) and not Path(ref).exists():
        raise UsageError("the model is missing", hint="it comes before the prompt: `localinfer run starter PROMPT`")
    if rest:
        raise UsageError(f"`{rest[0]}` is one word too many", hint='quote the prompt: `localinfer run starter "…"`')
    return ref, argument
