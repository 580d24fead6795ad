"""Answers that keep a form: the same bits under every drafter and in any company, valid, or refused beforehand."""

import gc
import json
import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from localinfer.chats.chat import Chat
from localinfer.chats.template import Message
from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine import grammar as grammar_module
from localinfer.engine import grammar_probe
from localinfer.engine.grammar import Constraint, FormLost, Grammar, Marks, read
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Engine
from localinfer.engine.request import Request
from localinfer.errors import UsageError
from localinfer.events import Finished, Text
from tests.engine.running import Eager, open_tiny
from tests.engine.test_equality_sweep import drafters
from tests.scripted import make_scripted
from tests.tiny import CHATML, make_checkpoint

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["red", "blue"]}, "maxItems": 2},
        "more": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/pair"}]},
    },
    "required": ["name", "age", "tags", "more"],
    "additionalProperties": False,
    "$defs": {"pair": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2}},
}
SCHEMA = Grammar("json_schema", json.dumps(PERSON))
DATE = Grammar("regex", r"(Mon|Tues)day, [0-9]{1,2}/[0-9]{1,2}/20[0-9][0-9]")
FREE = SamplingParams(temperature=1, top_k=0, top_p=1, repeat_penalty=1.1, max_tokens=250)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("grammar") / "tiny")


@contextmanager
def opened(path: Path, **settings: Any) -> Iterator[Engine]:
    with open_engine(path, EngineConfig(draft="off", context=512, **settings)) as engine:
        yield engine


def answer(engine: Engine, form: Grammar | None, seed: int, prompt: str = "hi") -> Finished:
    (last,) = answers(engine, [(form, seed, prompt)])
    return last


def answers(engine: Engine, asked: list[tuple[Grammar | None, int, str]]) -> list[Finished]:
    """All of them together."""
    requests = []
    for form, seed, prompt in asked:
        tokens = tuple(Chat(engine).tokens_of(prompt))
        constraint = None if form is None else Constraint(form, engine.tokenizer)
        requests.append(Request(tokens, replace(FREE, seed=seed), constraint=constraint))
    found = dict[int, Finished]()
    for step in engine.driver.steps(requests):
        for index, events in enumerate(step):
            for event in events:
                if isinstance(event, Finished):
                    found[index] = event
    return [found[index] for index in range(len(asked))]


def alone(path: Path, form: Grammar) -> list[tuple[int, ...]]:
    with opened(path) as engine:
        return [answer(engine, form, seed).token_ids for seed in range(6)]


WHO = ["suffix", "lookup", "model", "early", "oracle", "anti-oracle", "end of turn", "not in the vocabulary"]


@pytest.fixture(scope="module")
def wanted(circling: Path) -> dict[Grammar, list[tuple[int, ...]]]:
    """The answers of six seeds, each alone and without guesses."""
    with open_tiny(circling, reuse=False) as engine:
        found = {form: [answer(engine, form, seed).token_ids for seed in range(6)] for form in (SCHEMA, DATE)}
    assert all(len(set(ids)) == 6 for ids in found.values())
    return found


@pytest.mark.parametrize("form", [SCHEMA, DATE], ids=["schema", "regex"])
@pytest.mark.parametrize("who", WHO)
def test_drafts_and_company_change_no_bit(circling: Path, wanted: Any, who: str, form: Grammar) -> None:
    with open_tiny(circling, parallel=4, draft_tokens=8, prefill_chunk=16) as engine:
        prompt = Chat(engine).tokens_of("hi")
        engine.speculator = Eager(drafters(engine, who, circling, 4, [[*prompt, *ids] for ids in wanted[form]]))
        asked: list[tuple[Grammar | None, int, str]] = [(form, seed, "hi") for seed in range(6)]
        found = answers(engine, [*asked, (None, 1, "some other words"), (DATE, 2, "a date")])[:6]
    assert [one.token_ids for one in found] == wanted[form]
    if who in ("oracle", "model"):
        assert sum(one.stats.accepted for one in found) > 0
    assert sum(one.stats.drafted for one in found) > 0 or who in ("suffix", "lookup")


@pytest.mark.parametrize("more", [{"prefill_chunk": 7}, {"kv_tokens": 512}, {"draft": "auto"}], ids=str)
def test_chunks_preemption_and_the_controller_change_no_bit(circling: Path, wanted: Any, more: dict[str, Any]) -> None:
    with open_tiny(circling, parallel=4, **more) as engine:
        found = answers(engine, [(SCHEMA, seed, "hi") for seed in range(6)])
    assert [one.token_ids for one in found] == wanted[SCHEMA]


def test_answers_keep_their_schema(tiny: Path) -> None:
    check = jsonschema_rs.validator_for(PERSON)
    with opened(tiny, parallel=8) as engine:
        asked: list[tuple[Grammar | None, int, str]] = [(SCHEMA, seed, f"person {seed}") for seed in range(60)]
        whole = [one for one in answers(engine, asked) if one.reason == "stop"]
        texts = [engine.tokenizer.decode(one.token_ids) for one in whole]
        dates = [answer(engine, DATE, seed) for seed in range(5)]
        told = [engine.tokenizer.decode(one.token_ids) for one in dates]
    assert len(whole) > 40
    for text in texts:
        check.validate(json.loads(text))
    assert all(re.fullmatch(DATE.text, text) for text in told), told
    assert all(one.reason == "stop" for one in dates)


REFUSED = [
    ("json_schema", '{"type": "string", "minLength": 5, "maxLength": 3}', "minLength"),
    ("json_schema", "false", "false"),
    ("json_schema", '{"allOf": [{"type": "string"}, {"type": "number"}]}', "incompatible"),
    ("json_schema", '{"type": "wat"}', "wat"),
    ("json_schema", '{"$ref": "http://127.0.0.1:9/schema.json"}', "127.0.0.1"),
    ("json_schema", '{"not": {}}', "not"),
    ("json_schema", "{", "no JSON"),
    ("json_schema", "[]", "neither"),
    ("json_schema", "[" * 5000, "no JSON|too many brackets"),
    ("json_schema", '{"type": "string", "pattern": "((a{99}){99}){99}"}', "970299"),
    ("regex", "(a", "unclosed"),
    ("regex", "(?=a)b", "look"),
    ("regex", "[^\\s\\S]", "cannot be kept|nothing keeps"),
    ("regex", "((a|b){1000}){1000}", "over 100000"),
    ("regex", "a" * ((1 << 18) + 1), "262145 characters"),
]


@pytest.mark.parametrize(("kind", "text", "told"), REFUSED, ids=lambda value: str(value)[:30])
def test_what_cannot_be_kept_is_refused_before_anything_is_computed(
    tiny: Path, kind: Any, text: str, told: str
) -> None:
    with opened(tiny) as engine:
        with pytest.raises(UsageError, match=told):
            list(Chat(engine, grammar=Grammar(kind, text)).reply("hi"))
        assert engine.load().running == engine.load().waiting == 0


STRANGE: list[tuple[Any, str, str]] = [
    ("json_schema", '{"$ref": "#/$defs/x"}', "`$ref` leads to `#/$defs/x`, which is not in it"),
    ("json_schema", '{"$ref": "other.json"}', "`$ref` leads to `other.json`, and nothing outside it is read"),
    ("json_schema", '{"not": {}, "type": "null"}', "`not`: not supported"),
    ("json_schema", '{"oneOf": [{"type": "integer"}, {"type": "number"}]}', "`oneOf` may take the same"),
    ("json_schema", '{"type": "integer", "multipleOf": 0}', "`multipleOf` must be above 0"),
    ("json_schema", '{"const": 1e400}', "beyond all floats"),
    ("json_schema", '{"const": 9007199254740993}', "holds 9007199254740993: numbers beyond 2^53"),
    ("json_schema", '{"properties": {"id": {"enum": [[-1234567890123456789]]}}}', "holds -1234567890123456789"),
    ("json_schema", '{"const": 1e300}', "holds 1e+300"),
    ("json_schema", '{"type": "integer", "minimum": 9223372036854775808}', "`minimum: 9223372036854775808` leaves"),
    ("json_schema", '{"type": "integer", "maximum": -1e20}', "`maximum: -1e+20` leaves"),
    ("json_schema", '{"type": "null", "type": "string"}', "the key 'type' is there twice"),
    ("rules", 'start: %json {"type": "null", "type": "string"}', "the key 'type' is there twice"),
    ("json_schema", '{"enum": []}', "nothing keeps this schema: anyOf is empty"),
    ("json_schema", '{"type": "string", "pattern": "(?=a)b"}', "look-ahead"),
    ("regex", "[^\\s\\S]", "nothing keeps this expression"),
    ("regex", r"\bword", "`\\b`, and `^`"),
    ("regex", r"(a)\1", "what a group has matched"),
    ("regex", "a{3,1}", "the start must be <= the end"),
    ("regex", "(?P<x", "unclosed capture group name"),
    ("rules", "start: nobody", "line 1, column 8: there is no rule `nobody`"),
    ("rules", "start: <nothing>", "no token `<nothing>`"),
    ("rules", 'start: "a', "do not close"),
    ("rules", 'start: "a"\nstart: "b"', "line 2, column 8: duplicate rule"),
    ("rules", '%import nothing.X\nstart: "a"', "no `nothing.X` to import"),
    ("rules", 'start: %json {"type": "wat"}', "its schema: Invalid type: wat"),
    ("rules", "start: @x", "unknown grammar @x"),
]


@pytest.mark.parametrize(("kind", "text", "wanted"), STRANGE, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_told_in_words_of_ours(kind: Any, text: str, wanted: str) -> None:
    with pytest.raises(UsageError) as raised:
        grammar_module.check(Grammar(kind, text))
    said = f"{raised.value.message} · {raised.value.hint}"
    assert wanted in said
    assert not re.search("non-verbose|NoExt|⟦|retriever|coerce|error:|[0-9] \\| |\\^ *·|\\(in regex\\)", said), said


def test_counts_without_an_upper_bound_are_taken(tiny: Path) -> None:
    with opened(tiny) as engine:
        matcher = Constraint(Grammar("regex", "a{2,}b"), engine.tokenizer).matcher(later=False)
        texts = [engine.tokenizer.encode_text(text) for text in ("aab", "aaaaab", "ab")]
        assert [matcher.validate_tokens(ids) == len(ids) for ids in texts] == [True, True, False]


def test_a_form_that_takes_for_ever_to_read_is_given_up(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_probe, "CPU_SECONDS", 1)
    with opened(tiny) as engine, pytest.raises(UsageError, match="takes more than"):
        Constraint(Grammar("json_schema", '{"type": "integer", "multipleOf": 100000007}'), engine.tokenizer)


def test_a_form_that_explodes_on_the_way_ends_the_answer_with_an_error(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammar_module, "_LIMITS", {"step_max_items": 12, "verbose_errors": False})
    with opened(tiny) as engine:
        form = Grammar("json_schema", json.dumps({"type": "array", "items": PERSON, "minItems": 5}))
        with pytest.raises((FormLost, UsageError)):
            list(Chat(engine, grammar=form, sampling=FREE).reply("hi"))
        assert engine.load().running == engine.load().used == 0
        assert answer(engine, DATE, 1).reason in ("stop", "error")


def test_a_form_is_read_once_and_the_oldest_is_forgotten(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_module, "MOST_KEPT", 2)
    with opened(tiny) as engine:
        first = read(DATE, engine.tokenizer)
        assert read(Grammar("regex", DATE.text), engine.tokenizer) is first
        assert read(DATE, engine.tokenizer, Marks(None, 5, begun=False)) is not first
        for n in range(2):
            read(Grammar("regex", f"a{n}"), engine.tokenizer)
        assert read(DATE, engine.tokenizer) is not first


def test_a_form_keeps_no_model_alive(tiny: Path) -> None:
    with opened(tiny) as engine:
        assert list(Chat(engine, grammar=DATE, sampling=FREE).reply("hi"))
        tokenizer = weakref.ref(engine.tokenizer)
    del engine
    gc.collect()
    assert tokenizer() is None


def test_an_answer_that_was_begun_gets_no_form(tiny: Path) -> None:
    with opened(tiny) as engine:
        chat = Chat(engine, messages=[Message("user", "hi"), Message("assistant", "so")], grammar=DATE)
        with pytest.raises(UsageError, match="begun"):
            list(chat.go_on())


FORCED = Grammar("json_schema", json.dumps({"enum": ["aaaaaaaaaa-one", "aaaaaaaaaa-two", "bbbbbbbbbb"]}))


def test_what_a_form_leaves_no_choice_of_needs_no_step(tiny: Path) -> None:
    """The tokens are those of a step each; they are counted apart from guesses."""
    with opened(tiny) as engine:
        chat, constraint = Chat(engine), Constraint(FORCED, engine.tokenizer)
        for seed in range(3):
            request = Request(tuple(chat.tokens_of("hi")), replace(FREE, seed=seed), constraint=constraint)
            *_, last = engine.stream(request)
            assert isinstance(last, Finished)
            assert last.stats.jumped > 5
            assert (last.stats.drafted, last.stats.accepted) == (0, 0)
            assert last.stats.steps + last.stats.jumped == len(last.token_ids) + (last.reason == "stop")
            matching = constraint.begin()
            for at in range(len(last.token_ids)):
                run = matching.forced(last.token_ids[:at])
                assert run[:1] == list(last.token_ids[at : at + 1]) or not run
                allowed = constraint.begin().allowed(last.token_ids[:at])
                assert allowed is not None
                assert allowed[last.token_ids[at] >> 3] >> (last.token_ids[at] & 7) & 1


THOUGHT = ["<think>", "hm, a ", "date", "</think>", "\n\n"]
NUMBER = Grammar("regex", "[0-9]{4}")


@pytest.mark.parametrize("begun", [False, True])
def test_the_form_begins_behind_the_thinking(tmp_path: Path, begun: bool) -> None:
    """This model thinks by script, and knows nothing of numbers."""
    ends = THOUGHT[0] + "\n" if begun else ""
    template = CHATML.replace("assistant\\n' }}", f"assistant\\n{ends.replace(chr(10), chr(92) + 'n')}' }}}}")
    script = {"\n": THOUGHT[1:] if begun else THOUGHT}
    path = make_scripted(tmp_path / "m", script, template + "{# </think> #}", ["<think>", "</think>"])
    with opened(path) as engine:
        sampling = SamplingParams(temperature=0, max_tokens=60)
        events = list(Chat(engine, grammar=NUMBER, sampling=sampling).reply("hi"))
        ids = next(event.token_ids for event in events if isinstance(event, Finished))
        text = engine.tokenizer.decode(ids, specials=True)
        assert text.startswith("".join(script["\n"][:-1])), text
        assert re.fullmatch(r"\n{0,2}[0-9]{4}", text.partition("</think>")[2]), text
        plain = list(Chat(engine, grammar=NUMBER, sampling=sampling, raw=True).reply("hi"))
        assert re.fullmatch("[0-9]{4}", "".join(one.text for one in plain if isinstance(one, Text)))


@pytest.mark.parametrize("closed", [False, True])
def test_an_answer_with_a_form_does_not_end_in_its_thinking(tmp_path: Path, closed: bool) -> None:
    """This model begins to think and ends the answer there, also where the template has closed the thinking."""
    ends = "<think>\\n\\n</think>\\n\\n" if closed else ""
    template = CHATML.replace("assistant\\n' }}", f"assistant\\n{ends}' }}}}")
    script = {"\n": THOUGHT[:2], "x": ["</think>"]}
    path = make_scripted(tmp_path / "m", script, template + "{# </think> #}", ["<think>", "</think>"])
    with opened(path) as engine:
        events = list(Chat(engine, grammar=NUMBER, sampling=SamplingParams(temperature=0, max_tokens=40)).reply("hi"))
        end = next(event for event in events if isinstance(event, Finished))
        text = engine.tokenizer.decode(end.token_ids, specials=True)
    thought, _, said = ("", "", text) if closed else text.partition("</think>")
    assert thought.startswith("<think>") != closed
    assert re.fullmatch(r"\n{0,2}[0-9]{4}", said) or (end.reason == "length" and not said), text


HEADS = {
    "final": ["<|channel|>", "final", "<|message|>"],
    "reasoning": ["<|channel|>", "analysis", "<|message|>", "hm"],
}


@pytest.mark.parametrize("said", HEADS)
def test_the_form_holds_in_the_final_channel(tmp_path: Path, said: str) -> None:
    marks = ["<|start|>", "<|end|>", "<|call|>"]
    script = {"\n": HEADS[said], "x": [*marks, *(["final"] if said == "reasoning" else [])]}
    path = make_scripted(tmp_path / "m", script, CHATML, [*marks, "<|channel|>", "final", "<|message|>"])
    with opened(path) as engine:
        chat = Chat(engine, grammar=NUMBER, sampling=SamplingParams(temperature=0, max_tokens=40))
        end = next(event for event in chat.reply("hi") if isinstance(event, Finished))
        text = engine.tokenizer.decode(end.token_ids, specials=True)
        assert text.startswith("".join(HEADS[said]))
        if said == "final":
            assert re.fullmatch(r"<\|channel\|>final<\|message\|>\n{0,2}[0-9]{4}", text), text
        else:
            assert end.reason == "length"  # it never comes to its answer, and cannot end without
        known = engine.tokenizer.encode_rendered("<|channel|>analysis<|message|>hm<|end|><|start|>x<|channel|>final")
        tail = engine.tokenizer.encode_rendered("<|message|>12")
        around = Marks(None, tail[0], begun=True, final=tuple(engine.tokenizer.encode_rendered("<|channel|>final")))
        assert around.end(known) is None
        assert around.end([*known, *tail]) == len(known) + 1
