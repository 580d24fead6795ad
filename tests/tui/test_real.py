"""The app with the real engine on a tiny model: in this process, and as `localinfer chat` in a real terminal."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from localinfer.chats.store import ChatStore
from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Engine
from localinfer.errors import size
from localinfer.hub.checkpoint import size_on_disk
from localinfer.tui.workers import LoadProgress
from tests.tiny import make_checkpoint
from tests.tui.conftest import quiet_app, say, screen_text, settle


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


async def test_the_native_engine_answers(model: Path, store_path: Path) -> None:
    engines: list[Engine] = []

    def opened(progress: LoadProgress) -> Engine:
        engines.append(open_engine(model, EngineConfig(context=256, threads=1), on_progress=progress))
        return engines[-1]

    sampling = SamplingParams(max_tokens=20, ignore_eos=True)
    app = quiet_app(opened, store_path, sampling=sampling, system="be kind")
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        await say(pilot, "hello")
        await say(pilot, "again <|im_end|>")
        await pilot.press("ctrl+r")
        await settle(pilot)
        turns = app.pane.session.turns
        assert [turn.role for turn in turns] == ["user", "assistant"] * 2
        assert all(turn.content for turn in turns)
        assert "tok/s" in screen_text(app)
        assert "context 0/256" not in screen_text(app)
    engines[0].close()
    with ChatStore(store_path) as store:
        assert store.get(1)[1] == turns


class Terminal:
    """A tmux session of 80 x 24 that runs one command."""

    def __init__(self, socket: Path, command: str, env: dict[str, str]) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]
        self._run("new-session", "-d", "-x", "80", "-y", "24", command, env=env)

    def _run(self, *words: str, env: dict[str, str] | None = None) -> str:
        done = subprocess.run([*self._tmux, *words], env=env, capture_output=True, text=True, check=False, timeout=30)
        return done.stdout

    def press(self, *keys: str) -> None:
        self._run("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        self._run("resize-window", "-x", str(width), "-y", str(height))

    def wait_for(self, text: str, seconds: float = 60) -> str:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            seen = self._run("capture-pane", "-p")
            if text in seen:
                return seen
            time.sleep(0.1)
        raise AssertionError(f"{text!r} did not appear in:\n{seen}")

    def close(self) -> None:
        self._run("kill-server")


SCRIPT = """
before=$(stty -g)
sh -c 'echo $$ > {pid}; exec "$@"' sh {python} -c 'from localinfer.cli.main import main; main()' chat {arguments}
echo exit $?
[ "$before" = "$(stty -g)" ] && echo tty same
sleep 60
"""


class Open(Protocol):
    """Opens the chat in a terminal that calls itself `term`; without one, as the session's terminal does."""

    def __call__(self, arguments: str, *, term: str = "") -> Terminal: ...


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Open]:
    """`terminal(arguments)`: `localinfer chat` in tmux; afterwards the shell says `exit <code>` and the tty's state."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    opened: list[Terminal] = []
    sizes = ("COLUMNS", "LINES")  # set by a test runner, they would hide the terminal's own size from the app
    inherited = {name: value for name, value in os.environ.items() if name not in sizes}
    env = inherited | {"TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path), "LC_ALL": "C.UTF-8"}

    def start(arguments: str, *, term: str = "") -> Terminal:
        script = tmp_path / f"run{len(opened)}.sh"
        named = f"export TERM={term}\n" if term else ""
        script.write_text(named + SCRIPT.format(python=sys.executable, arguments=arguments, pid=tmp_path / "pid"))
        opened.append(Terminal(tmp_path / f"tmux{len(opened)}", f"sh {script}", env))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_localinfer_chat_in_a_terminal(terminal: Open, model: Path) -> None:
    screen = terminal(f"{model} -n 12 -c 256")
    screen.wait_for("ready")
    first = screen.wait_for("context of 256 tokens")
    assert "nothing leaves it" in first
    assert f"{size(size_on_disk(model))}, context of 256 tokens" in first  # as `list` says
    screen.press("hello there", "Enter")
    seen = screen.wait_for("limit of new tokens")
    assert "hello there" in seen
    screen.resize(20, 5)
    screen.resize(120, 40)
    screen.wait_for("hello there")
    screen.press("C-q")
    assert "exit 0" in screen.wait_for("tty same")

    again = terminal(f"{model} --continue -n 12 -c 256")
    assert "hello there" in again.wait_for("ready")
    again.press("C-c")
    again.wait_for("again to quit")
    again.press("C-c")
    ended = again.wait_for("tty same")
    assert "exit 130" in ended
    assert "hello there" not in ended  # the shell's own screen is back


def test_panes_and_unsent_text_come_back(terminal: Open, model: Path) -> None:
    screen = terminal(f"{model} {model} -n 12 -c 256")
    screen.wait_for("2 panes")
    screen.wait_for("ready")
    screen.press("hello there", "Enter")
    screen.wait_for("limit of new tokens")
    screen.press("half a prompt", "M-Right")
    screen.press("another half")
    screen.wait_for("another half")
    screen.press("C-q")
    screen.wait_for("tty same")
    again = terminal("--continue -n 12 -c 256")
    seen = again.wait_for("another half")
    assert "half a prompt" in seen
    assert "hello there" in seen


def test_a_dumb_terminal_is_refused(terminal: Open, model: Path) -> None:
    screen = terminal(f"{model}", term="dumb")
    seen = screen.wait_for("exit 2")
    assert "type `dumb`" in seen
    assert "TERM=xterm-256color" in seen
    assert "tty same" in screen.wait_for("tty same")


def test_a_signal_ends_the_app_and_leaves_the_terminal_whole(terminal: Open, model: Path, tmp_path: Path) -> None:
    screen = terminal(f"{model} -n 200 -c 512")
    screen.wait_for("ready")
    screen.press("hello there", "Enter")
    screen.wait_for("hello there")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    assert "exit 143" in screen.wait_for("tty same")
    with ChatStore(Path(os.environ["LOCALINFER_HOME"]) / "chats.sqlite3") as store:
        assert store.list()[0].title == "hello there"


def endless(model: Path, copy: Path) -> Path:
    """A copy of a model that knows no end of an answer."""
    shutil.copytree(model, copy)
    for name, key in (("config.json", "eos_token_id"), ("tokenizer_config.json", "eos_token")):
        settings = json.loads((copy / name).read_text())
        (copy / name).write_text(json.dumps({one: value for one, value in settings.items() if one != key}))
    (copy / "generation_config.json").unlink()
    return copy


def chats_in(home: Path) -> list[tuple[str, str]]:
    """Texts of answers and how they ended, as another process sees them."""
    file = home / "chats.sqlite3"
    if not file.exists():
        return []
    with ChatStore(file) as store:
        turns = [turn for chat in store.list() for turn in store.get(chat.id)[1]]
    return [(turn.content, turn.ending) for turn in turns if turn.role == "assistant"]


def test_a_kill_a_second_process_and_a_lost_model(terminal: Open, model: Path, tmp_path: Path) -> None:
    home = Path(os.environ["LOCALINFER_HOME"])
    mine = endless(model, tmp_path / "mine")
    screen = terminal(f"{mine} -n 7000 -c 512 --on-overflow shift")
    screen.wait_for("ready")
    screen.press("hello there", "Enter")
    end = time.monotonic() + 60
    while not (said := chats_in(home)) and time.monotonic() < end:
        time.sleep(0.1)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert [ending for _, ending in said] == ["writing"]
    screen.wait_for("exit 137")
    text, ending = chats_in(home)[0]
    assert (ending, text.startswith(said[0][0])) == ("writing", True)

    again = terminal(f"{mine} --continue -n 8 -c 512 --on-overflow shift")
    assert "the program ended while it was written" in again.wait_for("Ctrl+L (/continue)")
    again.wait_for("ready")
    again.press("/continue", "Enter")
    again.wait_for("the limit of new tokens")
    longer, ending = chats_in(home)[0]
    assert (ending, longer.startswith(text), len(longer) > len(text)) == ("length", True, True)

    other = terminal(f"{mine} --continue -n 8 -c 512 --on-overflow shift")
    assert "another process" in other.wait_for("Ctrl+T")
    other.wait_for("ready")
    other.press("mine", "Enter")
    other.wait_for("Ctrl+T goes on in a copy of it")
    other.press("C-q")
    other.wait_for("exit 0")
    again.press("C-q")
    again.wait_for("exit 0")
    assert [one for one, _ in chats_in(home)] == [longer]

    with ChatStore(home / "chats.sqlite3") as store:
        store.set_model(store.list()[0].id, str(mine))
    shutil.rmtree(mine)
    lost = terminal("--continue -n 8 -c 512 --on-overflow shift")
    lost.wait_for("failed")
    lost.wait_for("the limit of new tokens")
    lost.press("C-q")
    lost.wait_for("exit 4")
