"""What a request asks for, whatever protocol it came in, and the texts that the engine is to write for it."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from localinfer.chats.apart import Apart, written_by
from localinfer.chats.calls import Calls
from localinfer.chats.chat import Chat
from localinfer.chats.checks import checker
from localinfer.chats.forcing import forced
from localinfer.chats.forms import thinks
from localinfer.chats.names import require_names_read
from localinfer.chats.saying import Saying
from localinfer.chats.template import Message
from localinfer.chats.thinking import CLOSING, Thinking
from localinfer.chats.thinking_switch import thinking_variables
from localinfer.config import SamplingParams
from localinfer.errors import ContextOverflow, NotSupported
from localinfer.protocols.errors import Refused
from localinfer.protocols.fields import blamed
from localinfer.protocols.forms import Form
from localinfer.protocols.tools import NO_TOOLS, Choice

if TYPE_CHECKING:
    from localinfer.engine.grammar import Constraint, Grammar
    from localinfer.engine.protocol import Engine
    from localinfer.engine.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request."""

    model: str
    sampling: Mapping[str, Any]
    """What it says of `SamplingParams`; the model's makers advise the rest."""
    n: int = 1
    """Answers to each prompt; the seed of each is one more than that of the one before."""
    stream: bool = False
    keep_s: float | None = None
    """How long the model is to stay open after it, in seconds; None where it does not say."""
    context: int | None = None
    """Tokens of context that it needs at least, if it says so."""
    system: str | None = None
    turns: tuple[Message, ...] = ()
    """The conversation without its system prompt; a last one of the assistant's is to be gone on with."""
    prompts: tuple[str | tuple[int, ...], ...] = ()
    """Texts or tokens to be gone on with as they are, where there is no conversation."""
    special: bool = False
    """Whether what spells a control token in `prompts` is that token."""
    choice: Choice = NO_TOOLS
    """The tools, and whether one must be called."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    """What else the chat template may read."""
    think: bool | None = None
    """Whether the model is to think before it answers; None leaves that to its chat template."""
    budget: int | None = None
    """Tokens that its reasoning may have; None for any number."""
    budget_field: str = "thinking"
    think_field: str = "thinking"
    effort_field: str = "reasoning_effort"
    """The fields that say so, and how hard it is to think."""
    progress: bool = False
    """Whether a stream tells how much of a prompt has been read."""
    form: Form | None = None
    """The form that the answers keep."""
    logprobs: int | None = None
    """Likeliest tokens that are told with each one; None where scores are not asked for."""
    echo: bool = False
    """Whether the prompts are only scored: their first token is the prompt, the others are the answer."""


@dataclass(frozen=True, slots=True)
class Task:
    """One text to be written, and what takes it apart."""

    request: "Request"
    apart: Apart
    calls: bool
    """Whether it may have calls of tools, which take a moment to check."""


def tasks_of(ask: Ask, engine: "Engine", usual: SamplingParams | None = None) -> list[Task]:
    """The texts to be written. Where it says nothing of sampling `usual` holds: without it what the model's makers
    advise, and a seed that is drawn. Renders the template, in a process of its own, so it takes milliseconds. Raises
    as `render` does, and `ContextOverflow`, `Refused` for what this model cannot do."""
    usual = usual or replace(engine.default_sampling, seed=secrets.randbits(32))
    sampling = replace(usual, **{**ask.sampling, "stop": (*usual.stop, *ask.sampling["stop"])})
    if (ask.context or 0) > engine.context_size:
        size = engine.context_size
        raise Refused("num_ctx", f"the context is {size} tokens", hint="serve with a larger `--ctx-size`")
    if not ask.turns:
        plain = [_plain(ask, prompt, engine) for prompt in ask.prompts]
        return [task for prompt in plain for task in _tasks(ask, prompt, sampling, engine)]
    return _tasks(ask, _conversation(ask, engine), sampling, engine)


@dataclass(frozen=True, slots=True)
class _Prompt:
    tokens: tuple[int, ...]
    saying: Callable[[], Saying]
    marks: tuple[int, ...] = ()
    constraint: "Constraint | None" = None
    hidden: Mapping[int, str] | None = None
    """Marks of calls that are special tokens; None where there are no tools."""


def _tasks(ask: Ask, prompt: _Prompt, sampling: SamplingParams, engine: "Engine") -> list[Task]:
    from localinfer.engine.request import Request, scoring

    found = list[Task]()
    for index in range(ask.n):
        chosen = replace(sampling, seed=(sampling.seed + index) % (1 << 64))
        request = Request(
            prompt.tokens, chosen, marks=prompt.marks, constraint=prompt.constraint, logprobs=ask.logprobs
        )
        if ask.echo:
            request = scoring(prompt.tokens, 1, ask.logprobs or 0)
        apart = Apart(engine, prompt.saying(), chosen.stop, prompt.hidden or {})
        found.append(Task(request, apart, prompt.hidden is not None))
    return found


def _plain(ask: Ask, prompt: str | tuple[int, ...], engine: "Engine") -> _Prompt:
    grammar, field = _form(ask)
    chat = Chat(engine, raw=True, special=ask.special, grammar=grammar)
    tokens = tuple(chat.tokens_of(prompt)) if isinstance(prompt, str) else prompt
    with blamed(field):
        constraint = chat.constraint([Message("user", "")], tokens)
    return _Prompt(tokens, Saying, constraint=constraint)


def _form(ask: Ask) -> tuple["Grammar | None", str]:
    """The form of the answers, and the field to blame for it."""
    return (ask.form.grammar, ask.form.field) if ask.form else (None, "response_format")


def _conversation(ask: Ask, engine: "Engine") -> _Prompt:
    tools = ask.choice.tools
    template = (engine.tools_template if tools else None) or engine.chat_template or ""
    grammar, field = _form(ask)
    if grammar is not None and tools:
        raise Refused(field, "a form of the answer does not go with tools", hint="leave one of them out")
    with blamed("tools"):
        written = written_by(engine) if tools else None
        check = checker(tools)
    if written and ask.choice.forced:
        with blamed("tool_choice"):
            grammar, field = forced(written, ask.choice.forced), "tool_choice"
    variables = template_variables(template, ask.variables, ask.think, ask.think_field, ask.effort_field)
    chat = Chat(engine, system=ask.system, variables=variables, grammar=grammar)
    _refuse_much(ask.turns, engine)
    tokens = chat.tokens_of_turns(ask.turns, tools)
    with blamed("messages"):
        require_names_read(chat, ask.turns, tools, tokens)
    begun = thinks(engine, tokens)
    if ask.budget is not None and begun is None:
        told = f"`{ask.budget_field}` is a budget of thinking, and this model does not think"
        raise Refused(ask.budget_field, told, hint="leave it out")

    def saying() -> Saying:
        thinking = None if begun is None else Thinking(begun=begun)
        return Saying(thinking, Calls(written.way, check) if written else None)

    with blamed(field):
        constraint = chat.constraint(ask.turns, tokens, ask.budget)
    marks = chat.marks(ask.turns, tokens)
    return _Prompt(tuple(tokens), saying, marks, constraint, written.hidden if written else None)


OF_COMMANDS = "--think"
"""What says whether to think where the command does and no field."""


def template_variables(
    template: str, variables: Mapping[str, Any], think: bool | None, think_field: str, effort_field: str
) -> dict[str, Any]:
    """What the template is told: `variables`, and to think or not. Raises `Refused` for those that it does not read,
    but for thinking switched off where there is none; and where it has no switch, in the words of the request."""
    found = dict(variables)
    if found.get("enable_thinking") is False and CLOSING not in template:
        del found["enable_thinking"]
    for name in found:
        if name not in template:
            field = effort_field if name == "reasoning_effort" else name
            blame = "" if field == name else f"`{field}`: "
            raise Refused(field, f"{blame}this model's chat template does not read `{name}`", hint="leave it out")
    try:
        return {**found, **thinking_variables(template, think)}
    except NotSupported as error:
        if think_field == OF_COMMANDS:
            raise
        told = f"`{think_field}`: {error.message}"
        raise Refused(think_field, told, hint=f"leave `{think_field}` out, or choose another model") from None


def _refuse_much(turns: Sequence[Message], engine: "Engine") -> None:
    """No vocabulary has tokens as long as this: a text that cannot fit is refused before it is tokenized."""
    from localinfer.chats.chat import CHARS_PER_TOKEN

    length = sum(len(turn.content) for turn in turns)
    if length > CHARS_PER_TOKEN * engine.context_size:
        raise ContextOverflow(
            f"the messages have {length} characters, too many for {engine.context_size} tokens of context",
            hint="send less, or serve with a larger `--ctx-size`",
        )
