"""What each slash command does. The table `COMMANDS` is also the palette's and the help card's."""

from asyncio import to_thread
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_type_hints

from localinfer.chats.exporting import export
from localinfer.chats.files import read_file
from localinfer.chats.given_forms import FORMS, form_of, title_of
from localinfer.config import SamplingParams, bias_of
from localinfer.engine.form import Grammar
from localinfer.errors import NotFound, UsageError
from localinfer.text import one_line
from localinfer.tui.commands import Command
from localinfer.tui.editor import edited
from localinfer.tui.labels import model_label
from localinfer.tui.screens.chat import ChatScreen
from localinfer.tui.screens.chats import ChatsScreen
from localinfer.tui.screens.compare import CompareScreen
from localinfer.tui.screens.help import HelpScreen
from localinfer.tui.widgets.answer import TINTS
from localinfer.tui.widgets.pane import ChatPane

Run = Callable[[ChatScreen, ChatPane, str], Awaitable[None]]
Words = Callable[[ChatScreen, str], Sequence[str]]

COMMANDS: dict[str, Command] = {}

_SHORT = {"temp": "temperature", "max-tokens": "max_tokens"}
_WAYS = {"previous": -1, "next": 1}
_UNKNOWN_CONTEXT = 8192
"""Tokens that a file may have while the model is not there to say how many fit."""


def _command(
    name: str,
    help_: str,
    argument: str = "",
    *,
    words: Words | None = None,
    key: str = "",
    short: Callable[[str, int], str] | None = None,
) -> Callable[[Run], Run]:
    def entered(run: Run) -> Run:
        COMMANDS[name] = Command(name, argument, help_, run, words, key, short)
        return run

    return entered


def _models(screen: ChatScreen, begin: str) -> Sequence[str]:
    return [name for name in screen.models() if name.startswith(begin)]


def _themes(screen: ChatScreen, begin: str) -> Sequence[str]:
    return [name for name in sorted(screen.app.available_themes) if name.startswith(begin)]


def _settings(_screen: ChatScreen, begin: str) -> Sequence[str]:
    return [name + " " for name in _setting_names() if name.startswith(begin)]


def _ways(_screen: ChatScreen, begin: str) -> Sequence[str]:
    return [way for way in _WAYS if way.startswith(begin)]


def _paths(_screen: ChatScreen, begin: str) -> Sequence[str]:
    """Files and folders that begin like this; nothing where that cannot be seen."""
    typed = Path(begin).expanduser()
    folder, start = (typed, "") if begin.endswith("/") or not begin else (typed.parent, typed.name)
    head = begin[: len(begin) - len(start)] if start else begin
    try:
        names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if path.name.startswith(start))
    except OSError:
        return []
    return [head + name for name in names if start.startswith(".") or not name.startswith(".")][:50]


@_command("help", "the keys and commands", key="F1")
async def _help(screen: ChatScreen, _pane: ChatPane, _argument: str) -> None:
    await screen.app.push_screen(HelpScreen(COMMANDS.values()))


def _model_in(name: str, cells: int) -> str:
    return model_label(name, "", cells)


@_command("model", "another model answers from here on", "REF", words=_models, short=_model_in)
async def _model(screen: ChatScreen, pane: ChatPane, ref: str) -> None:
    if not pane.occupied():
        screen.swap_model(pane, screen.name_of(ref))


@_command("system", "set the system prompt; `/system` alone shows it, `/system none` removes it", "[TEXT]")
async def _system(_screen: ChatScreen, pane: ChatPane, text: str) -> None:
    if not text:
        pane.say(f"system prompt: {pane.session.system or 'none'}")
    elif not pane.occupied():
        pane.session.use_system(None if text == "none" else text)
        pane.say("the next answer reads the new system prompt")


@_command("set", "how tokens are chosen: `/set temperature 0.2`; alone it shows all", "[NAME VALUE]", words=_settings)
async def _set(_screen: ChatScreen, pane: ChatPane, argument: str) -> None:
    if pane.session.chat is None:
        raise UsageError("the model is not loaded yet", hint="wait until it is")
    now = pane.session.chat.sampling
    if not argument:
        shown = ", ".join(f"{name} {_shown(getattr(now, name))}" for name in _setting_names())
        pane.say(shown)
    elif not pane.occupied():
        name, _, value = argument.partition(" ")
        name = _SHORT.get(name, name.replace("-", "_"))
        pane.session.use_sampling(replace(now, **{name: _value(name, value.strip())}))
        pane.say(f"from the next answer on: {name} {value.strip() or 'none'}")


def _forms(_screen: ChatScreen, begin: str) -> Sequence[str]:
    return [
        word
        for word in (*(f"{name} " for name in FORMS if name != "json-object"), "json-object", "none")
        if word.startswith(begin)
    ]


@_command(
    "form",
    "what answers look like: `/form schema FILE|JSON`, `/form regex …`, `/form none`; alone it shows it",
    "[NAME VALUE]",
    words=_forms,
)
async def _form(_screen: ChatScreen, pane: ChatPane, argument: str) -> None:
    if not argument:
        form = pane.session.form
        pane.say(f"answers keep the {title_of(form)} {one_line(form.text, 300)}" if form else "answers have no form")
    elif not pane.occupied():
        name, _, value = argument.partition(" ")
        form = None if argument == "none" else form_of(name, value.strip())
        if form is not None:
            await to_thread(_refuse_bad, form)  # may take seconds
        pane.session.use_form(form)
        pane.show_form()
        pane.say(f"from the next answer on: {title_of(form) or 'no form'}")


def _refuse_bad(form: Grammar) -> None:
    from localinfer.engine.grammar import check

    check(form)


_THINK = {"on": True, "off": False, "auto": None}


def _thinks(_screen: ChatScreen, begin: str) -> Sequence[str]:
    return [word for word in _THINK if word.startswith(begin)]


@_command("think", "let the model think first, or not, or as its template has it", "on|off|auto", words=_thinks)
async def _think(_screen: ChatScreen, pane: ChatPane, word: str) -> None:
    if word not in _THINK:
        raise UsageError("`/think` takes on, off or auto", hint="write it like `/think off`")
    if not pane.occupied():
        pane.session.use_thinking(_THINK[word])
        pane.say(f"from the next answer on: thinking {word}")


@_command("save", "name this chat; every chat is kept by itself", "TITLE")
async def _save(_screen: ChatScreen, pane: ChatPane, title: str) -> None:
    pane.session.set_title(one_line(title, 60))
    pane.say(f"this chat is now called: {one_line(title, 60)}")


@_command("export", "write the chat to a file: Markdown, or JSON if its name ends so", "FILE", words=_paths)
async def _export(_screen: ChatScreen, pane: ChatPane, name: str) -> None:
    session = pane.session
    export(Path(name).expanduser(), session.turns, model=session.model, system=session.system, saved=session.saved)
    pane.say(f"wrote {len(session.turns)} turns to {name}")


@_command("fork", "go on with a copy of this chat in a new pane", key="Ctrl+T")
async def _fork(screen: ChatScreen, pane: ChatPane, _argument: str) -> None:
    if pane.occupied():
        return
    if pane.session.held_by is None:
        await screen.fork(pane)
    else:  # what cannot be written in needs no pane beside the copy
        typed, attached = pane.box.whole, pane.attached
        await pane.use(pane.session.fork())
        screen.want_model(pane)
        pane.put_unsent(typed)
        pane.attached = attached
        pane.show_attached()
        pane.say("this is a copy of the chat, and yours from here on")


@_command("regen", "answer the last prompt again, with another seed", key="Ctrl+R")
async def _regen(_screen: ChatScreen, pane: ChatPane, _argument: str) -> None:
    pane.answer_again()


@_command("continue", "go on with an answer that was cut off", key="Ctrl+L")
async def _continue(_screen: ChatScreen, pane: ChatPane, _argument: str) -> None:
    pane.answer_again(goes_on=True)


@_command("edit", "write an earlier prompt anew and go on from there: the last one, or `/edit 2`", "[N]", key="Ctrl+B")
async def _edit(_screen: ChatScreen, pane: ChatPane, number: str) -> None:
    if number and not number.isdigit():
        raise UsageError(
            f"`{one_line(number, 20)}` is not a number", hint="/edit 2 edits the second prompt of the chat"
        )
    if not pane.occupied() and pane.may_write():
        pane.earlier.edit(int(number) if number else None)


@_command(
    "variant",
    "page through answers written anew and edited prompts",
    "previous|next",
    words=_ways,
    key="Ctrl+Up, Ctrl+Down",
)
async def _variant(_screen: ChatScreen, pane: ChatPane, which: str) -> None:
    if which not in _WAYS:
        raise UsageError(f"`{one_line(which, 20)}` is not a way to page", hint="previous or next")
    pane.page(_WAYS[which])


@_command("stop", "stop the answer; what was written stays", key="Esc")
async def _stop(_screen: ChatScreen, pane: ChatPane, _argument: str) -> None:
    pane.stop()


@_command("clear", "begin an empty chat here; this one is kept", key="Ctrl+N")
async def _clear(_screen: ChatScreen, pane: ChatPane, _argument: str) -> None:
    if not pane.occupied():
        await pane.start_anew()


@_command("attach", "send a text file with the next prompt; alone it lets go of those attached", "[FILE]", words=_paths)
async def _attach(_screen: ChatScreen, pane: ChatPane, name: str) -> None:
    if name:
        context = pane.session.chat.engine.context_size if pane.session.chat else _UNKNOWN_CONTEXT
        pane.attached.append((Path(name).name, read_file(name, context)))
    else:
        pane.attached = []
    pane.show_attached()


@_command("editor", "write the prompt in $EDITOR", key="Ctrl+G")
async def _editor(screen: ChatScreen, pane: ChatPane, _argument: str) -> None:
    with screen.app.suspend():
        text = edited(pane.box.whole)
    screen.refresh()
    if text is not None:
        pane.box.replace_all(text)


def _parts(_screen: ChatScreen, begin: str) -> Sequence[str]:
    return [word for word in ("code",) if word.startswith(begin)]


@_command(
    "copy",
    "copy the last answer; `/copy code` its last block of code",
    "[code]",
    words=_parts,
    key="Ctrl+Y, Ctrl+S",
)
async def _copy(screen: ChatScreen, pane: ChatPane, part: str) -> None:
    if part not in ("", "code"):
        raise UsageError(f"`{one_line(part, 20)}` is no part of an answer", hint="code, or nothing for all of it")
    text = pane.answered if not part else (pane.codes or [""])[-1]
    if text:
        screen.app.copy_to_clipboard(text)
    missing = "no block of code in the last answer" if part else "no answer to copy"
    pane.say(f"copied {len(text)} characters" if text else f"there is {missing}")


@_command("split", "one more pane beside this one, or below it: `/split down`", "[right|down]", key="F5, F6")
async def _split(screen: ChatScreen, pane: ChatPane, where: str) -> None:
    if where not in ("", "right", "down"):
        raise UsageError(f"`{one_line(where, 20)}` is not a side", hint="right or down")
    await screen.split(pane, across=where != "down")


@_command("close", "close this pane; its chat is kept", key="F10")
async def _close(screen: ChatScreen, pane: ChatPane, _argument: str) -> None:
    await screen.close(pane)


@_command("zoom", "this pane alone, or all again", key="F4")
async def _zoom(screen: ChatScreen, pane: ChatPane, _argument: str) -> None:
    screen.zoom(pane)


@_command("resize", "move the borders of this pane with arrows", key="Ctrl+O")
async def _resize(screen: ChatScreen, _pane: ChatPane, _argument: str) -> None:
    screen.resize_by_keys()


@_command("balance", "panes of equal width and height")
async def _balance(screen: ChatScreen, _pane: ChatPane, _argument: str) -> None:
    screen.balance()


@_command("broadcast", "send each prompt to all panes, or to one again", key="F8")
async def _broadcast(screen: ChatScreen, _pane: ChatPane, _argument: str) -> None:
    screen.toggle_broadcast()


@_command("compare", "the last answers of all panes, side by side in figures", key="F7")
async def _compare(screen: ChatScreen, pane: ChatPane, _argument: str) -> None:
    await screen.app.push_screen(CompareScreen(screen.panes, pane))


@_command("chats", "find and open an earlier chat", "[WORDS]", key="F9")
async def _chats(screen: ChatScreen, pane: ChatPane, words: str) -> None:
    await screen.app.push_screen(ChatsScreen(pane.session.store, words), partial(screen.open_chat, pane))


@_command("details", "plots and figures of what the engine does", key="F3")
async def _details(screen: ChatScreen, _pane: ChatPane, _argument: str) -> None:
    await screen.show_details()


@_command("tints", "show who guessed each token of the next answers, or Markdown again", key="F2")
async def _tints(_screen: ChatScreen, pane: ChatPane, _argument: str) -> None:
    pane.running.tints = not pane.running.tints
    names = ", ".join(TINTS)
    pane.say(f"the next answers show who guessed each token: {names}" if pane.running.tints else "Markdown again")


@_command("theme", "other colours", "NAME", words=_themes)
async def _theme(screen: ChatScreen, _pane: ChatPane, name: str) -> None:
    if name not in screen.app.available_themes:
        raise NotFound(f"there is no theme `{one_line(name, 40)}`", hint=", ".join(sorted(screen.app.available_themes)))
    screen.app.theme = name


@_command("quit", "quit; every chat is kept", key="Ctrl+Q")
async def _quit(screen: ChatScreen, _pane: ChatPane, _argument: str) -> None:
    screen.quit_app()


def _setting_names() -> list[str]:
    return [field.name for field in fields(SamplingParams) if field.name != "ignore_eos"]


def _shown(value: object) -> str:
    """A setting as a person writes it; what is not set is `none`."""
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return " ".join(f"{token}={bias:g}" for token, bias in value)
    return " ".join(map(repr, value)) or "none" if isinstance(value, tuple) else str(value).replace("None", "none")


def _value(name: str, text: str) -> Any:
    """`text` as the type of this setting. Raises `UsageError`."""
    kinds = get_type_hints(SamplingParams)
    if name not in _setting_names():
        raise UsageError(f"there is no setting `{one_line(name, 30)}`", hint=", ".join(_setting_names()))
    if name == "stop":
        return (text,) if text else ()
    if name == "logit_bias":
        return () if text.lower() == "none" else tuple(map(bias_of, text.split()))
    kind = next((one for one in get_args(kinds[name]) if one is not type(None)), kinds[name])
    if text.lower() == "none" and kinds[name] is not kind:
        return None
    try:
        return kind(text)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise UsageError(f"{name} is `{one_line(text, 30)}`, but must be {expected}", hint="/set shows all") from None
