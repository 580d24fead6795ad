"""All items of some tasks, asked of one engine together, greedily; each answer judged while others are written."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from localinfer.chats.chat import Chat
from localinfer.chats.mapping import Answered, Manner, answer_all, begin_chat
from localinfer.chats.rows import Asked
from localinfer.chats.template import Message
from localinfer.chats.thinking_switch import thinking_variables
from localinfer.config import SamplingParams, one_of
from localinfer.errors import ContextOverflow, NotSupported, UsageError
from localinfer.events import OnProgress
from localinfer.tasks.arithmetic import arithmetic_items
from localinfer.tasks.code import code_items
from localinfer.tasks.code_box import require_box
from localinfer.tasks.items import ITEMS, Item
from localinfer.tasks.needle import TOKENS, needle_items
from localinfer.tasks.records import json_items

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine

TASKS = ("arithmetic", "code", "needle", "json")

PARALLEL = 8
"""Items that are answered together."""

JUDGES = 2
"""Answers that are judged at the same time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item."""

    name: str
    right: bool
    cut: bool
    """Whether the answer was ended by its length: a model that says more than it was given room for is wrong."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What one model did."""

    outcomes: dict[str, tuple[Outcome, ...]]
    """By task."""
    tokens: int
    """That it wrote."""
    needle_tokens: int
    """That a text with needles fills, question and answer included."""
    seconds: float


def parse_tasks(words: Sequence[str]) -> tuple[str, ...]:
    """`--tasks` as typed: names with commas, or `all`. In our order, each once. Raises `UsageError`."""
    names = [name.strip() for word in words for name in word.split(",") if name.strip()]
    for name in names:
        one_of("tasks", name, (*TASKS, "all"))
    if not names:
        raise UsageError("`--tasks` names no task", hint=f"choose of {', '.join(TASKS)}, or all")
    return tuple(task for task in TASKS if task in names or "all" in names)


def require_tasks(tasks: Sequence[str]) -> None:
    """Raise `NotSupported`, before anything is loaded, for a task that cannot be judged on this machine."""
    if "code" in tasks:
        require_box()


def take(
    engine: "Engine",
    tasks: Sequence[str],
    count: int = ITEMS,
    *,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Taken:
    """Ask `engine` the first `count` items of each of `tasks`. Its chat template is used where it has one, without
    thinking where that can be switched off; else each item is led into its answer.

    Raises what keeps an item from being asked, such as `ContextOverflow`, with its name.
    """
    begun = time.perf_counter()
    raw = engine.chat_template is None
    manner = Manner(raw=raw, think=_think(engine))
    room = min(TOKENS, engine.context_size)
    items = [(task, item) for task in tasks for item in _items(task, count, engine, manner, room)]
    lines = (_asked(number, item, raw=raw) for number, (_, item) in enumerate(items))
    judged, tokens = list[tuple[str, Item, bool, Future[bool]]](), 0
    with ThreadPoolExecutor(JUDGES) as judges:
        try:
            answers = answer_all(engine, lines, parallel=PARALLEL, begin=partial(begin_chat, manner=manner))
            for number, ((task, item), answered) in enumerate(zip(items, answers, strict=True)):
                on_progress(task, number, len(items))
                reply, cut = _reply(item, answered, raw=raw)
                tokens += len(answered.token_ids)
                judged.append((task, item, cut, judges.submit(item.right, reply)))
            on_progress("judging", len(items), len(items))
            found = [(task, Outcome(item.name, right.result(), cut)) for task, item, cut, right in judged]
        except BaseException:
            judges.shutdown(wait=False, cancel_futures=True)
            raise
    outcomes = {task: tuple(outcome for of, outcome in found if of == task) for task in tasks}
    return Taken(outcomes, tokens, room, time.perf_counter() - begun)


def _items(task: str, count: int, engine: "Engine", manner: Manner, room: int) -> list[Item]:
    makers: dict[str, Callable[[int], list[Item]]] = {
        "arithmetic": arithmetic_items,
        "code": code_items,
        "needle": lambda n: needle_items(n, partial(_tokens_of, engine, manner), room),
        "json": json_items,
    }
    return makers[task](count)


def _think(engine: "Engine") -> bool | None:
    """Off, where the chat template can be told; else as the model has it."""
    try:
        thinking_variables(engine.chat_template, False)
    except NotSupported:
        return None
    return False


def _asked(number: int, item: Item, *, raw: bool) -> Asked:
    prompt, stop = (f"{item.prompt}\n\n{item.lead}", item.stop) if raw else (item.prompt, ())
    sampling = SamplingParams(temperature=0.0, max_tokens=item.max_tokens, stop=stop)
    return Asked(number, number + 1, item.name, item.name, turns=(Message("user", prompt),), sampling=sampling)


def _tokens_of(engine: "Engine", manner: Manner, prompt: str) -> int:
    variables = {} if manner.raw else thinking_variables(engine.chat_template, manner.think)
    return len(Chat(engine, raw=manner.raw, variables=variables).tokens_of(prompt))


def _reply(item: Item, answered: Answered, *, raw: bool) -> tuple[str, bool]:
    """What is judged, and whether it was cut off. Raises what kept the item from being answered."""
    if answered.error is not None:
        error, too_long = answered.error, isinstance(answered.error, ContextOverflow)
        hint = "leave this task out, or take a model with more context" if too_long else error.hint
        raise type(error)(f"{item.name}: {error.message}", hint=hint) from error
    text = "".join(answered.text)
    return item.lead + text if raw else text, answered.reason in ("length", "overflow")
