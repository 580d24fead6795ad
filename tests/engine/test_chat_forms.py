"""Panes of a chat whose answers keep a form: each says what it would say alone, whoever guesses and whoever else
writes, and an answer that was cut off is whole in the end."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localinfer.chats.session import ChatSession
from localinfer.chats.store import ChatStore
from localinfer.engine.engine import StepEngine
from localinfer.engine.form import Grammar
from tests.engine.running import Eager, open_tiny
from tests.engine.test_equality_sweep import drafters
from tests.engine.test_grammar import DATE, FREE, PERSON

NAMED = PERSON | {"properties": PERSON["properties"] | {"name": {"type": "string", "pattern": "^[a-z]{1,6}$"}}}
SCHEMA = Grammar("json_schema", json.dumps(NAMED))
FORMS = [SCHEMA, DATE, SCHEMA, None]
PROMPTS = ("hi", "and another", "hi")


def never() -> bool:
    return False


def talk(engine: StepEngine, store: ChatStore, number: int, cut: int = 0) -> list[str]:
    """All that one pane is told: three answers, the last of them written anew, and one cut off behind `cut` tokens."""
    sampling = replace(FREE, seed=number, max_tokens=40)
    pane = ChatSession(store, model="m", system="be kind", sampling=sampling, form=FORMS[number])
    pane.attach(engine)
    for at, prompt in enumerate(PROMPTS):
        is_cut = cut > 0 and at == 1 and FORMS[number] is not None
        pane.use_sampling(replace(sampling, max_tokens=cut) if is_cut else sampling)
        list(pane.reply(prompt, cancelled=never))
        pane.use_sampling(replace(sampling, max_tokens=40 - cut) if is_cut else sampling)
        if is_cut and pane.cut_off:
            list(pane.go_on(cancelled=never))
    pane.use_sampling(sampling)
    list(pane.regenerate(cancelled=never))
    pane.close()
    return [turn.content for turn in store.get(pane.chat_id or 0)[1]]


@pytest.fixture(scope="module")
def alone(circling: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    with ExitStack() as stack:
        engine = stack.enter_context(open_tiny(circling, reuse=False))
        store = stack.enter_context(ChatStore(tmp_path_factory.mktemp("alone") / "chats.sqlite3"))
        return [talk(engine, store, number) for number in range(len(FORMS))]


@pytest.mark.parametrize("cut", [0, 12, 25])
@pytest.mark.parametrize(
    ("who", "more"),
    [
        ("suffix", {}),
        ("lookup", {"prefill_chunk": 7}),
        ("model", {}),
        ("early", {"kv_tokens": 512}),
        ("end of turn", {}),
        ("", {"kv_tokens": 512, "prefill_chunk": 16}),
        ("", {"draft": "auto"}),
    ],
    ids=str,
)
def test_panes_say_what_they_say_alone(
    circling: Path, tmp_path: Path, alone: list[list[str]], who: str, more: dict[str, Any], cut: int
) -> None:
    truths: Sequence[Sequence[int]] = ()
    with (
        open_tiny(circling, parallel=4, draft_tokens=8, **more) as engine,
        ChatStore(tmp_path / "chats.sqlite3") as store,
        ThreadPoolExecutor(len(FORMS)) as threads,
    ):
        if who:
            engine.speculator = Eager(drafters(engine, who, circling, 4, truths))
        found = list(threads.map(lambda number: talk(engine, store, number, cut), range(len(FORMS))))
    assert found == alone
