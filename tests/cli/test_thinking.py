"""A model that thinks: what it thinks is no part of the answer, and its template's switch turns it off."""

import json
from pathlib import Path
from typing import Any

import pytest

from localinfer.chats.chat import Chat
from localinfer.cli.repl import Loop
from localinfer.engine.opening import open_engine
from localinfer.events import Text
from tests.cli.conftest import Cli
from tests.scripted import make_scripted

THOUGHT = ["<think>", "\nThe user ", "greets me.", "\n</thi", "nk>\n\n", "Good ", "day."]
PLAIN = ["Hel", "lo."]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant"
    "{{ ' ' if enable_thinking is defined and not enable_thinking else '\n' }}{% endif %}{# </think> #}"
)
GREEDY = ("--temp", "0", "-q")


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("thinker") / "m"
    return str(make_scripted(path, {"\n": THOUGHT, " ": PLAIN}, TEMPLATE))


def said(cli: Cli, *argv: str) -> dict[str, Any]:
    ran = cli("run", *argv, *GREEDY, "--json")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


def test_the_answer_is_what_comes_behind_it(cli: Cli, thinker: str) -> None:
    assert cli("run", thinker, "hi", *GREEDY).out == "Good day.\n"
    assert cli("run", thinker, "hi", *GREEDY, "--think").out == "Good day.\n"
    assert cli("run", thinker, "hi", *GREEDY, "--no-think").out == "Hello.\n"
    assert cli("run", thinker, "hi", *GREEDY, "--show-thinking").out == "".join(THOUGHT) + "\n"


def test_json_has_it_apart_and_counted(cli: Cli, thinker: str) -> None:
    found = said(cli, thinker, "hi")
    assert (found["text"], found["reasoning"]) == ("Good day.", "The user greets me.")
    assert (found["thinking_tokens"], found["completion_tokens"]) == (5, len(THOUGHT))
    assert found["timings"]["thinking_s"] >= 0
    plain = said(cli, thinker, "hi", "--no-think")
    assert (plain["text"], plain["reasoning"], plain["thinking_tokens"]) == ("Hello.", "", 0)
    assert said(cli, thinker, "hi", "--show-thinking")["reasoning"] is None


def test_an_answer_that_is_cut_inside_is_empty_and_says_so(cli: Cli, thinker: str) -> None:
    ran = cli("run", thinker, "hi", "--temp", "0", "-n", "3")
    assert ran.code == 0
    assert ran.out.strip() == ""
    assert "`--show-thinking`" in ran.err


def test_what_does_not_go_together(cli: Cli, thinker: str, tiny: Path) -> None:
    assert "do not go together" in cli("run", thinker, "hi", "--think", "--no-think").err
    assert "`--raw` leaves out" in cli("run", thinker, "hi", "--raw", "--no-think").err
    refused = cli("run", str(tiny), "hi", "--think")
    assert refused.code != 0
    assert "does not think" in refused.err
    assert cli("run", str(tiny), "hi", "-n", "2", *GREEDY, "--no-think").code == 0


def test_map(cli: Cli, thinker: str) -> None:
    lines = b'{"prompt": "hi"}\n'

    def row(*argv: str) -> dict[str, Any]:
        ran = cli("map", thinker, *GREEDY, *argv, stdin=lines)
        assert ran.code == 0, ran.err
        found: dict[str, Any] = json.loads(ran.out)
        return found

    assert (row()["text"], row()["reasoning"]) == ("Good day.", "The user greets me.")
    assert row("--no-think")["text"] == "Hello."
    assert row("--show-thinking")["text"] == "".join(THOUGHT)


def test_the_loop_has_the_switch(thinker: str, capsys: pytest.CaptureFixture[str]) -> None:
    answers: list[str] = []
    lines = iter(["hi", "/think off", "hi", "/think auto", "hi", "/think maybe", "/bye"])
    with open_engine(Path(thinker)) as engine:
        chat = Chat(engine)

        def answer(chat: Chat, text: str) -> None:
            answers.append("".join(event.text for event in chat.reply(text) if isinstance(event, Text)))

        loop = Loop(chat, answer, lambda _: next(lines))
        loop.run()
    assert answers == ["".join(THOUGHT), "".join(PLAIN), "".join(THOUGHT)]
    assert "`/think` takes on, off or auto" in capsys.readouterr().err
