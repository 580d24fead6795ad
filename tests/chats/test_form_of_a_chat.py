"""A chat whose answers keep a form: kept with it, the same bits as `run` has, whatever is done with the chat."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from localinfer.chats.chat import Chat
from localinfer.chats.session import ChatSession
from localinfer.chats.store import ChatStore
from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.form import Grammar
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Engine
from localinfer.errors import UsageError
from localinfer.events import Text
from tests.scripted import make_scripted
from tests.tiny import CHATML, make_checkpoint

DATE = Grammar("regex", r"(Mon|Tues)day, [0-9]{1,2}/[0-9]{1,2}/20[0-9][0-9]")
LIST = Grammar("json_schema", json.dumps({"type": "array", "items": {"enum": ["red", "blue", "green"]}, "minItems": 6}))
WORD = Grammar("regex", "[a-z]{5,9}!")
FREE = SamplingParams(temperature=1, top_k=0, top_p=1, seed=11, max_tokens=200)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("chat-form") / "tiny")


@pytest.fixture
def engine(tiny: Path) -> Iterator[Engine]:
    with open_engine(tiny, EngineConfig(draft="off", context=512)) as engine:
        yield engine


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ChatStore]:
    with ChatStore(tmp_path / "chats.sqlite3") as store:
        yield store


def opened(store: ChatStore, engine: Engine, form: Grammar | None = None, resume: bool | int = False) -> ChatSession:
    session = ChatSession(store, model="tiny", system="be kind", sampling=FREE, form=form, resume=resume)
    session.attach(engine)
    return session


def never() -> bool:
    return False


def alone(engine: Engine, prompt: str, form: Grammar, seed: int = FREE.seed) -> str:
    """What `run` says."""
    chat = Chat(engine, system="be kind", sampling=replace(FREE, seed=seed), grammar=form)
    return "".join(event.text for event in chat.reply(prompt) if isinstance(event, Text))


def test_every_answer_keeps_it_and_is_that_of_run(store: ChatStore, engine: Engine) -> None:
    chat = opened(store, engine, DATE)
    list(chat.reply("a date", cancelled=never))
    assert chat.last_answer == alone(engine, "a date", DATE)
    list(chat.regenerate(cancelled=never))
    assert chat.last_answer == alone(engine, "a date", DATE, FREE.seed + 1)
    list(chat.edit(0, "another", cancelled=never))
    assert chat.last_answer == alone(engine, "another", DATE)
    list(chat.reply("and one more", cancelled=never))
    assert all(re.fullmatch(DATE.text, turn.content) for turn in chat.turns[1::2])


def test_it_is_kept_with_the_chat_and_its_copies(store: ChatStore, engine: Engine) -> None:
    chat = opened(store, engine, DATE)
    list(chat.reply("a date", cancelled=never))
    copy = chat.fork()
    chat.close()
    again = opened(store, engine, resume=chat.chat_id or 0)
    assert copy.form == again.form == DATE
    list(again.reply("more", cancelled=never))
    assert re.fullmatch(DATE.text, again.last_answer or "")
    again.use_form(None)
    again.close()
    assert opened(store, engine, resume=again.chat_id or 0).form is None
    assert again.sibling(False, "tiny").form is None
    again.start_anew()
    assert again.form is None


def test_a_form_that_is_given_takes_the_place_of_the_one_kept(store: ChatStore, engine: Engine) -> None:
    chat = opened(store, engine, DATE)
    list(chat.reply("a date", cancelled=never))
    chat.close()
    other = opened(store, engine, LIST, resume=True)
    list(other.reply("more", cancelled=never))
    assert len(json.loads(other.last_answer or "")) >= 6
    other.close()
    assert opened(store, engine, resume=True).form == LIST


@pytest.mark.parametrize("cut", [7, 8, 9, 10, 12, 17])
def test_an_answer_that_was_cut_off_goes_on_in_its_form(store: ChatStore, engine: Engine, cut: int) -> None:
    chat = opened(store, engine, LIST)
    chat.use_sampling(replace(FREE, max_tokens=cut))
    list(chat.reply("colours", cancelled=never))
    begun = chat.last_answer or ""
    chat.use_sampling(FREE)
    list(chat.go_on(cancelled=never))
    whole = alone(engine, "colours", LIST)
    assert begun != chat.last_answer == whole
    assert whole.startswith(begun)


def test_an_answer_that_was_begun_without_it_is_not_gone_on_with(store: ChatStore, engine: Engine) -> None:
    chat = opened(store, engine)
    chat.use_sampling(replace(FREE, max_tokens=3))
    list(chat.reply("colours", cancelled=never))
    chat.use_form(LIST)
    before = chat.last_answer
    with pytest.raises(UsageError, match="does not keep the form"):
        list(chat.go_on(cancelled=never))
    assert chat.last_answer == before


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "x", "text": "a"}', '{"kind": "regex", "text": 5}', "[" * 9999])
def test_a_form_that_was_not_written_by_us_is_none(text: str) -> None:
    assert Grammar.from_json(text) is None
    assert Grammar.from_json(DATE.to_json()) == DATE


def test_it_begins_behind_the_thinking_and_goes_on_there(store: ChatStore, tmp_path: Path) -> None:
    """This model thinks by script; its answer is cut off once within the thinking, and once behind it."""
    thought = ["<think>", "hm, a ", "date", "</think>", "\n\n"]
    template = CHATML + "{# </think> #}"
    path = make_scripted(tmp_path / "m", {"\n": thought}, template, ["<think>", "</think>"])
    with open_engine(path, EngineConfig(draft="off", context=512)) as engine:
        chat, cuts = opened(store, engine, WORD), list[str]()
        for most in (2, 4, 60):
            chat.use_sampling(SamplingParams(temperature=0, max_tokens=most))
            list(chat.go_on(cancelled=never) if chat.turns else chat.reply("hi", cancelled=never))
            cuts.append(chat.last_answer or "")
        said = chat.last_answer or ""
    assert "</think>" not in cuts[0] != ""
    assert said != cuts[1]
    assert said.startswith("<think>hm, a date</think>")
    assert re.fullmatch(r"\n{0,2}" + WORD.text, said.partition("</think>")[2]), said
