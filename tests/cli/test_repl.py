"""`run MODEL` on a terminal without a prompt: a loop of prompts and answers, through a real terminal."""

import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest

from tests.cli.test_signals import FOREVER, endless  # noqa: F401 - a fixture

ASKS = re.escape(">>> ")


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, *argv: str) -> None:
        root = Path(__file__).parents[2]
        self.child = pexpect.spawn(
            sys.executable,
            ["-m", "localinfer", "run", *argv],
            cwd=str(root),
            encoding="utf-8",
            timeout=60,
            dimensions=(40, 100),
        )
        self.child.setecho(False)

    def expect(self, pattern: str) -> str:
        """Wait for `pattern`; what came before it, without the terminal's own sequences."""
        self.child.expect(pattern)
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", str(self.child.before))

    def say(self, text: str) -> None:
        self.child.sendline(text)

    def ask(self, text: str) -> str:
        """Say something at the prompt, and read until the next one."""
        self.say(text)
        return self.expect(ASKS)

    def end(self) -> int:
        self.child.expect(pexpect.EOF)
        self.child.close()
        return int(self.child.exitstatus if self.child.exitstatus is not None else -1)


@pytest.fixture
def talk(tiny: Path) -> Iterator[Terminal]:
    terminal = Terminal(str(tiny), "-n", "8", "--temp", "0")
    terminal.expect(ASKS)
    yield terminal
    terminal.child.close(force=True)


def test_prompts_are_answered_until_the_end_of_the_input(talk: Terminal) -> None:
    assert "stopped after 8 tokens" in talk.ask("hello")
    assert "stopped after 8 tokens" in talk.ask("and then?")
    talk.child.sendeof()
    assert talk.end() == 0


@pytest.mark.parametrize("word", ["/bye", "/exit", "/quit"])
def test_a_word_leaves(talk: Terminal, word: str) -> None:
    talk.say(word)
    assert talk.end() == 0


def test_the_conversation_goes_on_until_it_is_cleared(tiny: Path) -> None:
    """As the count of prompt tokens shows."""
    terminal = Terminal(str(tiny), "-n", "4", "--temp", "0", "--stats")
    terminal.expect(ASKS)

    def tokens(said: str) -> int:
        found = re.search(r"prompt (\d+) tokens", said)
        assert found is not None, said
        return int(found[1])

    first = tokens(terminal.ask("hello"))
    assert tokens(terminal.ask("hello")) > first + 5
    assert "forgotten" in terminal.ask("/clear")
    assert tokens(terminal.ask("hello")) == first
    terminal.ask("/set system Be brief.")
    terminal.ask("/clear")
    assert tokens(terminal.ask("hello")) > first + 5
    terminal.child.close(force=True)


def test_ctrl_c_ends_an_answer_and_not_the_program(endless: Path) -> None:  # noqa: F811
    terminal = Terminal(str(endless), *FOREVER)
    terminal.expect(ASKS)
    terminal.say("the sky")
    terminal.expect(r"[a-z ]{10}")
    terminal.child.kill(signal.SIGINT)
    terminal.expect(ASKS)
    time.sleep(1)  # until it reads: what comes right after the prompt is seen with the next key only
    terminal.child.sendintr()
    assert "Ctrl-D or /bye ends" in terminal.expect(ASKS)
    terminal.say("/bye")
    assert terminal.end() == 0


def test_several_lines_between_quotes_are_one_prompt(talk: Terminal) -> None:
    talk.say('"""one')
    talk.expect(re.escape("... "))
    talk.say("two")
    talk.expect(re.escape("... "))
    assert "stopped after 8 tokens" in talk.ask('three"""')


def test_what_can_be_set(talk: Terminal) -> None:
    shown = talk.ask("/set")
    assert re.search(r"temp +0\.0", shown)
    assert re.search(r"max-tokens +8", shown)
    assert "--max-tokens" not in talk.ask("/set max-tokens 3")
    assert "stopped after 3 tokens" in talk.ask("hello")
    assert "temp is 1000.0, but must lie between 0 and 100" in talk.ask("/set temp 1000")
    assert "must be TOKEN=BIAS" in talk.ask("/set logit-bias 5")
    assert "error" not in talk.ask("/set logit-bias 5=-100 6=3")
    assert "(5, -100.0), (6, 3.0)" in talk.ask("/set")
    assert "did you mean `top-k`?" in talk.ask("/set topk 4")
    assert "did you mean `/clear`?" in talk.ask("/cleer")
    assert "needs a value" in talk.ask("/set temp")
    assert "/clear" in talk.ask("/?")
    assert "stopped after 3 tokens" in talk.ask("//not a command")
    assert talk.ask("") == ""


def test_a_conversation_that_is_too_long_does_not_end_the_program(tiny: Path) -> None:
    terminal = Terminal(str(tiny), "-c", "64")
    terminal.expect(ASKS)
    assert "error: the prompt has " in terminal.ask("word " * 100)
    terminal.say("/bye")
    assert terminal.end() == 0


def test_a_prompt_on_a_terminal_is_answered_once(tiny: Path) -> None:
    terminal = Terminal(str(tiny), "hello", "-n", "3")
    assert terminal.end() == 0
    assert ">>>" not in str(terminal.child.before)
