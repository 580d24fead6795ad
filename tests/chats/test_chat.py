"""Conversations with the real engine and a tiny model."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from localinfer.chats.chat import Chat
from localinfer.chats.template import Message
from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Engine, Request
from localinfer.errors import ContextOverflow, NotSupported, UsageError
from localinfer.events import Event, Finished, Shifted, Started, Text
from tests.tiny import BOS, CHATML, make_checkpoint

CONTEXT = 256
SHORT = SamplingParams(temperature=0.8, max_tokens=12, seed=7)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    path = make_checkpoint(tmp_path_factory.mktemp("tiny") / "model")
    with open_engine(path, EngineConfig(context=CONTEXT, threads=1), backend="cpu") as engine:
        yield engine


@pytest.fixture
def requests(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What the engine was asked."""
    seen: list[Request] = []
    stream = engine.stream

    def spy(request: Request) -> Iterator[Event]:
        seen.append(request)
        return stream(request)

    monkeypatch.setattr(engine, "stream", spy)
    return seen


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


def assert_idle(engine: Engine) -> None:
    """Nothing runs any more, at the latest after the step under way."""
    engine.driver.drain()
    assert engine.step() == []


def test_a_reply_joins_the_conversation(engine: Engine) -> None:
    chat = Chat(engine, system="be kind", sampling=SHORT)
    events = list(chat.reply("hello"))
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    said = text_of(events)
    assert said
    assert chat.messages == (Message("system", "be kind"), Message("user", "hello"), Message("assistant", said))
    assert not chat.warnings


def test_the_same_seed_says_the_same(engine: Engine) -> None:
    texts = {text_of(list(Chat(engine, sampling=SHORT).reply("hello"))) for _ in range(3)}
    assert len(texts) == 1


def test_the_second_turn_reuses_what_was_read(engine: Engine) -> None:
    chat = Chat(engine, system="a rather long system prompt, " * 4, sampling=SHORT)
    list(chat.reply("hello"))
    finished = list(chat.reply("go on"))[-1]
    assert isinstance(finished, Finished)
    assert finished.stats.cached_tokens >= 64


def test_regenerate_takes_another_seed_and_replaces(engine: Engine, requests: list[Request]) -> None:
    chat = Chat(engine, sampling=SHORT)
    list(chat.reply("hello"))
    answers = [chat.messages[-1].content]
    for _ in range(2):
        list(chat.regenerate())
        answers.append(chat.messages[-1].content)
    assert [m.role for m in chat.messages] == ["user", "assistant"]
    assert [request.sampling.seed for request in requests] == [7, 8, 9]
    assert len({request.prompt for request in requests}) == 1
    assert len(set(answers)) == 3
    list(chat.reply("more"))
    assert requests[-1].sampling.seed == 7


def test_nothing_to_regenerate(engine: Engine) -> None:
    with pytest.raises(UsageError, match="no answer"):
        list(Chat(engine).regenerate())


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("attempt", [0, 2])
def test_an_answer_that_was_cut_off_goes_on_as_if_it_was_not(engine: Engine, known: bool, attempt: int) -> None:
    whole = Chat(engine, sampling=replace(SHORT, max_tokens=24, ignore_eos=True))
    list(whole.reply("hello"))
    list(whole.regenerate(attempt=attempt))
    chat = Chat(engine, sampling=replace(SHORT, max_tokens=10, ignore_eos=True))
    list(chat.reply("hello"))
    cut = list(chat.regenerate(attempt=attempt))[-1]
    assert isinstance(cut, Finished)
    begun = chat.messages[-1].content
    chat.sampling = replace(chat.sampling, max_tokens=14)
    events = list(chat.go_on(tokens=cut.token_ids if known else (), attempt=attempt))
    assert [message.role for message in chat.messages] == ["user", "assistant"]
    assert chat.messages[-1].content == begun + text_of(events)
    if known:
        assert chat.messages == whole.messages


def test_tokens_of_another_text_are_not_gone_on_with(engine: Engine, requests: list[Request]) -> None:
    for tokens in ((5, 6, 7), (10**9,), (-1,)):
        chat = Chat(engine, messages=[Message("user", "hello"), Message("assistant", "Once")], sampling=SHORT)
        list(chat.go_on(tokens=tokens))
        assert engine.tokenizer.decode(requests[-1].prompt).endswith("Once")


def test_special_strings_in_an_answer_are_text_when_it_goes_on(engine: Engine, requests: list[Request]) -> None:
    end = engine.tokenizer.special_strings[0]
    chat = Chat(engine, messages=[Message("user", "hello"), Message("assistant", f"a{end}b")], sampling=SHORT)
    list(chat.go_on())
    ids = list(requests[-1].prompt)
    special = engine.tokenizer.encode_rendered(end)
    assert len(special) == 1
    assert ids.count(special[0]) == Chat(engine).tokens_of("hello").count(special[0])


def test_nothing_to_go_on_with(engine: Engine) -> None:
    with pytest.raises(UsageError, match="no answer"):
        list(Chat(engine).go_on())


def test_a_cancelled_reply_keeps_what_was_written(engine: Engine) -> None:
    chat = Chat(engine, sampling=SamplingParams(max_tokens=100, ignore_eos=True))
    events: list[Event] = []
    for event in chat.reply("hello", cancelled=lambda: len(text_of(events)) >= 3):
        events.append(event)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.reason == "cancelled"
    assert chat.messages[-1] == Message("assistant", text_of(events))
    assert len(finished.token_ids) < 100
    assert_idle(engine)


def test_a_reply_cancelled_before_its_first_word_leaves_no_trace(engine: Engine) -> None:
    chat = Chat(engine, sampling=SHORT)
    events = list(chat.reply("hello", cancelled=lambda: True))
    assert isinstance(events[-1], Finished)
    assert not text_of(events)
    assert chat.messages == ()


def test_leaving_early_keeps_what_was_written_and_frees_the_engine(engine: Engine) -> None:
    chat = Chat(engine, sampling=SamplingParams(max_tokens=100, ignore_eos=True))
    written = ""
    with closing(chat.reply("hello")) as events:
        for event in events:
            if isinstance(event, Text):
                written += event.text
                if len(written) > 5:
                    break
    assert chat.messages[-1] == Message("assistant", written)
    assert_idle(engine)


def test_an_interrupt_in_the_middle_keeps_what_was_written(engine: Engine) -> None:
    chat = Chat(engine, sampling=SamplingParams(max_tokens=100, ignore_eos=True))
    events = chat.reply("hello")
    written = "".join(event.text for _, event in zip(range(8), events, strict=False) if isinstance(event, Text))
    with pytest.raises(KeyboardInterrupt):
        events.throw(KeyboardInterrupt)
    assert written
    assert chat.messages[-1].content == written
    assert_idle(engine)


def test_a_conversation_that_does_not_fit_is_refused_and_unchanged(engine: Engine) -> None:
    chat = Chat(engine, sampling=SHORT)
    list(chat.reply("hello"))
    before = chat.messages
    with pytest.raises(ContextOverflow, match=f"tokens.*{CONTEXT}"):
        list(chat.reply("too long " * CONTEXT))
    assert chat.messages == before


def test_a_hundred_megabytes_are_refused_at_once(engine: Engine) -> None:
    chat = Chat(engine)
    prompt = "x" * 100_000_000
    start = time.perf_counter()
    with pytest.raises(ContextOverflow, match=f"100000000 characters.* {CONTEXT} tokens"):
        list(chat.reply(prompt))
    assert time.perf_counter() - start < 2


def test_shift_forgets_the_oldest_turns_but_never_the_system_prompt(engine: Engine, requests: list[Request]) -> None:
    chat = Chat(engine, system="be kind", sampling=SHORT, on_overflow="shift")
    shifts: list[Shifted] = []
    for i in range(8):
        events = list(chat.reply(f"turn {i}: " + "words " * 8))
        shifts += [event for event in events if isinstance(event, Shifted)]
        assert isinstance(events[-1], Finished)
    assert len(chat.messages) == 17  # the record is whole; only the model forgets
    assert shifts
    assert all(shift.dropped > 0 for shift in shifts)
    for request in requests:
        text = engine.tokenizer.decode(request.prompt)
        assert "be kind" in text
        assert len(request.prompt) <= CONTEXT - SHORT.max_tokens  # type: ignore[operator]
        kept = engine.tokenizer.decode(request.prompt[: request.keep])
        assert kept.endswith("be kind\nuser\n") or "be kind" in kept
    assert "turn 0" not in engine.tokenizer.decode(requests[-1].prompt)
    assert "turn 7" in engine.tokenizer.decode(requests[-1].prompt)


def test_after_a_shift_the_prompt_only_grows_for_a_while(engine: Engine, requests: list[Request]) -> None:
    """Forgetting a little on every turn would throw the cached prefix away on every turn."""
    chat = Chat(engine, system="be kind", sampling=SHORT, on_overflow="shift")
    shifted = []
    for i in range(12):
        events = list(chat.reply(f"turn {i}"))
        shifted.append(any(isinstance(event, Shifted) for event in events))
    assert 1 <= sum(shifted) <= 4


def test_raw_sends_the_text_alone(engine: Engine, requests: list[Request]) -> None:
    chat = Chat(engine, sampling=SHORT, raw=True)
    list(chat.reply("hello <|im_end|>"))
    list(chat.reply("second"))
    bos = [BOS] if engine.tokenizer.adds_bos else []
    assert requests[0].prompt == (*bos, *engine.tokenizer.encode_text("hello <|im_end|>"))
    assert requests[1].prompt == (*bos, *engine.tokenizer.encode_text("second"))
    assert chat.prompt_text("x") == "x"
    with pytest.raises(UsageError, match="system prompt"):
        Chat(engine, raw=True, system="x")


def test_prompt_text_is_what_the_model_reads(engine: Engine, requests: list[Request]) -> None:
    chat = Chat(engine, system="be kind", sampling=SHORT)
    expected = chat.prompt_text("hello")
    assert expected.endswith("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n")
    list(chat.reply("hello"))
    assert list(requests[0].prompt) == engine.tokenizer.encode_rendered(expected, "\ufdd0")


def test_no_template_no_guess(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "chat_template", None)
    with pytest.raises(NotSupported, match="no chat template"):
        list(Chat(engine).reply("hi"))


def test_a_doubled_bos_is_told(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "chat_template", "{{ bos_token }}{{ bos_token }}{{ messages[0].content }}")
    chat = Chat(engine, sampling=SHORT)
    list(chat.reply("hi"))
    assert "twice" in chat.warnings[0]


def test_messages_can_be_brought_along(engine: Engine, requests: list[Request]) -> None:
    said = (Message("system", "be kind"), Message("user", "a"), Message("assistant", "b"))
    chat = Chat(engine, messages=said, sampling=SHORT)
    assert chat.messages == said
    list(chat.reply("c"))
    text = engine.tokenizer.decode(requests[0].prompt)
    assert all(word in text for word in ("be kind", "a", "b", "c"))
    assert list(chat.messages[:4]) == [*said, Message("user", "c")]


def test_tools_have_a_template_of_their_own(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m")
    (path / "additional_chat_templates").mkdir()
    (path / "chat_template.jinja").write_text(CHATML)
    (path / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools[0].name }}: {{ messages[0].content }}")
    with open_engine(path, EngineConfig(context=CONTEXT, threads=1, draft="off")) as engine:
        chat = Chat(engine)
        turns = [Message("user", "Hi")]
        assert chat._render(turns, [{"name": "f"}]).plain == "f: Hi"
        assert chat._render(turns).plain.startswith("<|im_start|>user")
