"""`run` and `map` by a server's engine: the same text as by their own, whatever becomes of either."""

import io
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localinfer.chats.chat import Chat
from localinfer.chats.session import ChatSession
from localinfer.chats.store import ChatStore
from localinfer.cli.main import main
from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.form import Grammar
from localinfer.engine.request import Request
from localinfer.errors import NotFound, UsageError
from localinfer.events import Finished, Text
from localinfer.loading.connecting import connect_or_open
from localinfer.loading.opening import find
from localinfer.loading.tell import Tell
from localinfer.remote import sockets
from localinfer.remote.engine import RemoteTokenizer
from tests.serve.conftest import PATIENCE_S, ROOT, Server, serving, until

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The program in this process, with the home of the servers: what it writes, and its exit code."""
    monkeypatch.setenv("LOCALINFER_HOME", str(folder / "localinfer"))

    def call(*argv: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(list(argv))
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return call


def child(folder: Path, *argv: str) -> "subprocess.Popen[str]":
    """The program as a process of its own, in the same home."""
    environment = os.environ | {"LOCALINFER_HOME": str(folder / "localinfer"), "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-m", "localinfer", *argv],
        stdout=pipe,
        stderr=pipe,
        stdin=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


UNLIKE = {"timings", "speculation", "energy", "cost"}
"""What a second run of the same need not have in common."""

SAID = [
    ("hello there", "-n", "20", "--temp", "1", "--seed", "7", "--logprobs", "2"),
    ("hello there", "-n", "30", "--regex", "[a-z]{5,9}"),
    ("a b c", "--raw", "-n", "700", "--on-overflow", "shift", "--temp", "0", "--draft", "off"),
    ("hi", "-s", "You are terse.", "-n", "12", "--stop", "e", "--repeat-penalty", "1.3"),
]


@pytest.mark.parametrize("words", SAID, ids=lambda words: words[-1])
def test_a_run_says_the_same(run: Run, server: Server, tiny: Path, words: tuple[str, ...]) -> None:
    found = list[dict[str, Any]]()
    for more in ((), ("--no-server",)):
        code, out, err = run("run", str(tiny), *words, "--draft", "off", "--json", *more)
        assert code == 0, err
        assert ("answers" in err) == (not more)
        found.append({name: value for name, value in json.loads(out).items() if name not in UNLIKE})
    assert found[0] == found[1]
    until(server.is_idle)


def test_settings_that_change_the_text_are_not_the_servers(run: Run, server: Server, tiny: Path) -> None:
    for flags in (("--kv-bits", "16"), ("-c", "64"), ("-t", "1")):
        code, out, err = run("run", str(tiny), "hello", "-n", "3", *flags)
        assert (code, bool(out)) == (0, True)
        assert f"server {server.process.pid} is not asked: its " in err
    assert "is not asked" not in run("run", str(tiny), "hello", "-n", "3", "-c", "64", "-q")[2]


def test_map_writes_the_same_rows_and_goes_on_with_either(run: Run, server: Server, tiny: Path, tmp_path: Path) -> None:
    lines = [{"prompt": f"line {n}", "max_tokens": 4 + n, "temperature": 1.0} for n in range(9)]
    lines[3] = {"prompt": "", "max_tokens": 2}
    lines[5] = {"prompt": "too long " * 400}
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    flags = ("--draft", "off", "-np", "3")
    whole = run("map", str(tiny), "-", *flags, "--no-server", stdin=text)
    asked = run("map", str(tiny), "-", *flags, stdin=text)
    assert (whole[0], whole[1]) == (asked[0], asked[1])
    assert whole[0] == 2
    begun = tmp_path / "rows.jsonl"
    begun.write_text("".join(whole[1].splitlines(keepends=True)[:4]), encoding="utf-8")
    run("map", str(tiny), "-", *flags, "-o", str(begun), "--resume", stdin=text)
    assert begun.read_text(encoding="utf-8") == whole[1]
    until(server.is_idle)


def test_an_engine_elsewhere_is_one_like_others(run: Run, server: Server, tiny: Path) -> None:
    found = find(str(tiny), tell=Tell())
    said = list[list[object]]()
    for elsewhere in (True, False):
        config = EngineConfig(draft="off", parallel=4)
        opened = connect_or_open(found, config, backend="auto", server=elsewhere, tell=Tell())
        assert opened.elsewhere == elsewhere
        with opened.engine as engine, ThreadPoolExecutor() as pool:
            chats = [Chat(engine, sampling=SamplingParams(seed=n, max_tokens=30)) for n in range(3)]
            texts = list(pool.map(lambda chat: [e.text for e in chat.reply("hello") if isinstance(e, Text)], chats))
            first = chats[0]
            more = [event.token_ids for event in first.go_on() if isinstance(event, Text)]
            vector = Request((5, 6, 7), pool="mean")
            (pooled,) = [event.vector for event in engine.stream(vector) if isinstance(event, Finished)]
            with pytest.raises(UsageError):
                engine.add(Request(()))
            said.append([texts, more, first.messages, pooled, engine.tokenizer.token_bytes(70), engine.context_size])
            until(lambda engine=engine: engine.load().blocks > 0)  # type: ignore[misc]
    assert said[0] == said[1]
    until(server.is_idle)


def test_a_chat_that_rests_goes_on_and_keeps_its_form(run: Run, server: Server, tiny: Path, tmp_path: Path) -> None:
    """A server closes connections on which nothing is asked for some seconds."""
    form = Grammar("regex", "[a-d]{3}(, [a-d]{3}){9}")
    sampling = SamplingParams(temperature=1, seed=3, max_tokens=200)
    said = list[list[str]]()
    for by_server in (True, False):
        config, found = EngineConfig(draft="off"), find(str(tiny), tell=Tell())
        opened = connect_or_open(found, config, backend="auto", server=by_server, tell=Tell())
        with ChatStore(tmp_path / f"{by_server}.sqlite3") as store, opened.engine as engine:
            chat = ChatSession(store, model="m", sampling=replace(sampling, max_tokens=9), form=form)
            chat.attach(engine)
            list(chat.reply("hi", cancelled=lambda: False))
            if isinstance(engine.tokenizer, RemoteTokenizer):
                assert engine.tokenizer._link.sock is not None
                engine.tokenizer._link.sock.shutdown(socket.SHUT_RDWR)
            chat.use_sampling(sampling)
            list(chat.go_on(cancelled=lambda: False))
            list(chat.reply("more", cancelled=lambda: False))
            chat.use_form(Grammar("json_schema", '{"type": "array", "minItems": 99999}'))
            with pytest.raises(UsageError, match="the shortest text"):
                list(chat.reply("too much", cancelled=lambda: False))
            said.append([turn.content for turn in chat.turns])
    assert said[0] == said[1]
    assert all(re.fullmatch(form.text, text) for text in said[0][1::2])


def test_the_socket_is_for_its_user_alone_and_says_more_than_the_port(run: Run, server: Server, folder: Path) -> None:
    code, out, _ = run("ps", "--json")
    (row,) = [one for one in json.loads(out) if one["pid"] == server.process.pid]
    path = Path(row["socket"])
    assert (code, row["address"], row["models"][0]["open"]) == (0, server.url, True)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert server.post("/pipe/stop", {}).status_code == 404
    assert str(server.process.pid) in run("ps")[1]


def test_who_is_interrupted_keeps_what_was_said_and_the_server_ends_the_text(
    endless_server: Server, endless: Path, folder: Path
) -> None:
    flags = ("-c", "200000", "--kv-tokens", "400000", "--draft", "off")
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process = child(folder, "run", str(endless), "go on", *flags)
        assert process.stdout is not None
        until(lambda: endless_server.metric("num_requests_running") == 1)
        assert process.stdout.read(8)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == code, err
        assert out.endswith("\n") == (number == signal.SIGINT)
        until(endless_server.is_idle)


def test_stop_lets_a_text_be_written_to_its_end(endless: Path, run: Run, folder: Path) -> None:
    with serving(folder, str(endless), "--draft", "off", "-c", "60000", "--kv-tokens", "60000") as server:
        process = child(folder, "run", str(endless), "go", "-c", "60000", "-n", "1500", "--draft", "off", "--json")
        until(lambda: server.metric("num_requests_running") == 1)
        code, out, err = run("stop", str(server.process.pid), "--json")
        assert (code, json.loads(out)["texts"]) == (0, 1), err
        assert server.process.wait(PATIENCE_S) == 0
        out, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, json.loads(out)["completion_tokens"]) == (0, 1500), err
    assert run("stop", str(server.process.pid))[0] == 4


def test_a_server_that_dies_is_an_error_of_the_network(endless: Path, run: Run, folder: Path) -> None:
    with serving(folder, str(endless), "--draft", "off", "-c", "50000", "--kv-tokens", "50000") as server:
        process = child(folder, "run", str(endless), "go", "-c", "50000", "--draft", "off")
        until(lambda: server.metric("num_requests_running") == 1)
        assert process.stdout is not None
        assert process.stdout.read(8)
        server.process.kill()
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 6
    assert "the server ended before the answer did" in err
    assert server.process.pid not in [one["pid"] for one in json.loads(run("ps", "--json")[1])]
    assert run("stop", str(server.process.pid))[0] == 4


def test_stale_sockets_go_and_folders_of_others_are_not_trusted(
    isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(isolated))
    held, path = sockets.listen()
    assert list(sockets.servers()) == [path]
    held.close()
    assert path.exists()
    assert list(sockets.servers()) == []
    assert not path.parent.exists()
    path.parent.mkdir(mode=0o755)
    with pytest.raises(NotFound):
        sockets.listen()
    path.parent.rmdir()
    path.parent.symlink_to(isolated)
    with pytest.raises(NotFound):
        sockets.listen()
