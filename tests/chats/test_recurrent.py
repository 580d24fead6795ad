"""Chats with models that have recurrent layers read no more anew than other chats do, but for a part of a block."""

from functools import partial
from pathlib import Path

import pytest

from localinfer.chats.chat import Chat
from localinfer.chats.mapping import Manner, answer_all, begin_chat
from localinfer.chats.rows import Asked
from localinfer.chats.template import Message
from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Engine
from localinfer.events import Finished, Started
from tests.tiny import make_checkpoint

SYSTEM = "Answer in few words, and say what you are not sure of. Be kind to whoever asks."
PROMPT = "Which of the many long words of this language is the one that you would keep?"
SAMPLING = SamplingParams(temperature=0, max_tokens=50, ignore_eos=True)


def opened(path: Path, **config: object) -> Engine:
    return open_engine(path, EngineConfig(threads=1, context=512, draft="off", **config))  # type: ignore[arg-type]


def reused(chat: Chat, prompt: str) -> tuple[int, int]:
    """Tokens of the prompt, and how many of them were not read anew."""
    events = list(chat.reply(prompt))
    started, finished = events[0], events[-1]
    assert isinstance(started, Started)
    assert isinstance(finished, Finished)
    return started.prompt_tokens, finished.stats.cached_tokens


@pytest.fixture(scope="module", params=["llama", "lfm2", "qwen3_5_text"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("chat") / "m", request.param, seed=11)


def test_a_second_turn_an_edit_and_a_fork(path: Path) -> None:
    with opened(path) as engine:
        chat = Chat(engine, system=SYSTEM, sampling=SAMPLING)
        first, _ = reused(chat, PROMPT)
        _, cached = reused(chat, "And why?")
        assert cached >= (first - 1) // 32 * 32
        edited = Chat(engine, system=SYSTEM, sampling=SAMPLING)
        _, kept = reused(edited, "Another question, which begins otherwise.")
        assert kept >= len(engine.tokenizer.encode_text(SYSTEM)) // 32 * 32
        fork = Chat(engine, system=SYSTEM, messages=chat.messages[:3], sampling=SAMPLING)
        _, again = reused(fork, "But which one?")
        assert again >= (first - 1) // 32 * 32


def test_another_answer_to_the_same_prompt(path: Path) -> None:
    with opened(path) as engine:
        chat = Chat(engine, system=SYSTEM, sampling=SAMPLING)
        prompt, _ = reused(chat, PROMPT)
        finished = list(chat.regenerate())[-1]
        assert isinstance(finished, Finished)
        assert finished.stats.cached_tokens >= (prompt - 32) // 32 * 32


def test_lines_of_a_map_share_their_system_prompt(path: Path) -> None:
    with opened(path) as engine:
        lines = [Asked(i, i, "", turns=(Message("user", f"{i} is a number"),), sampling=SAMPLING) for i in range(4)]
        done = list(
            answer_all(engine, iter(lines), parallel=1, begin=partial(begin_chat, manner=Manner(system=SYSTEM)))
        )
        shared = len(engine.tokenizer.encode_text(SYSTEM)) // 32 * 32
    assert all(one.stats is not None and one.stats.cached_tokens >= shared for one in done[1:])
