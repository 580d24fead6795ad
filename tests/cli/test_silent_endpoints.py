"""`map --endpoint` where an answer does not come: other rows are written meanwhile, and waiting has an end."""

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from localinfer.chats.rows import Asked
from localinfer.errors import NetworkError
from localinfer.remote import flow
from localinfer.remote.endpoints import Endpoints
from localinfer.remote.flow import Flow
from localinfer.remote.servers import Insistence
from tests.cli.conftest import Cli
from tests.cli.test_endpoints import Reply, answering, echo
from tests.cli.test_signals import ended, started

CHAT = ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]})


@contextmanager
def hanging() -> Iterator[tuple[str, threading.Event, list[dict[str, Any]]]]:
    """A server that does not answer a prompt that begins with `hang` before the event; its address, the event, and
    what it was asked."""
    goes_on = threading.Event()

    def reply(body: dict[str, Any], number: int) -> Reply:
        if body["messages"][-1]["content"].startswith("hang"):
            goes_on.wait(60)
        return echo(body, number)

    with answering(reply) as (url, asked):
        try:
            yield url, goes_on, asked
        finally:
            goes_on.set()


def lines(*prompts: str) -> bytes:
    return b"".join(json.dumps({"prompt": one}).encode() + b"\n" for one in prompts)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in path.read_bytes().splitlines()] if path.exists() else []


def test_a_line_without_an_answer_is_a_row_and_holds_no_other_back(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "HOLD_S", 0.05)
    out, prompts = tmp_path / "rows.jsonl", ["a", "hang", *(f"w{n}" for n in range(20))]
    before = list[list[int]]()
    with hanging() as (url, goes_on, asked):
        watch = threading.Timer(1.5, lambda: before.append([row["index"] for row in rows_of(out)]))
        watch.start()
        call = ("map", "m", "-", "--endpoint", url, "-np", "2", "-o", str(out))
        ran = cli(*call, "--endpoint-timeout", "1s", stdin=lines(*prompts))
        watch.join()
        assert ran.code == 6, ran.err
        assert "no answer in 1 s; again in" in ran.err
        assert "1 of 22 lines could not be answered; the first: line 2: no answer in 1 s, 2 times" in ran.err
        assert len(before[0]) == 21
        assert 1 not in before[0]
        assert [row["index"] for row in rows_of(out)] == list(range(22))
        goes_on.set()
        begun = len(asked)
        assert cli(*call, "--resume", stdin=lines(*prompts)).code == 0
        assert len(asked) - begun == 1
    assert [row["text"] for row in rows_of(out)] == [one.upper() for one in prompts]


def test_rows_on_standard_output_keep_their_order(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "HOLD_S", 0.05)
    with hanging() as (url, goes_on, _):
        threading.Timer(1.0, goes_on.set).start()
        ran = cli("map", "m", "-", "--endpoint", url, stdin=lines("hang", "a", "b"))
    assert [json.loads(row)["text"] for row in ran.out.splitlines()] == ["HANG", "A", "B"]


def test_servers_that_answer_nothing_end_the_run() -> None:
    patience = Insistence(silence=0.2, first_wait=0.01)
    with hanging() as (url, _, asked):
        servers = Endpoints([url], key="", together=2, insistence=patience)
        answers = servers.answer_all((Asked(n, n, "d") for n in range(50)), lambda one: (CHAT[0], HANG))
        with pytest.raises(NetworkError, match=r"3 lines, one after the other, had no answer; .* no answer in 0\.2 s"):
            list(answers)
        assert len(asked) <= 8


HANG = {"messages": [{"role": "user", "content": "hang"}]}


def test_an_answer_in_drops_has_the_same_time() -> None:
    """Each drop comes soon enough."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = list[socket.socket]()

        def drip() -> None:
            while True:
                try:
                    one, _ = server.accept()
                except OSError:
                    return
                held.append(one)
                one.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
                threading.Thread(target=drop, args=(one,), daemon=True).start()

        def drop(one: socket.socket) -> None:
            try:
                while True:
                    one.sendall(b" ")
                    time.sleep(0.1)
            except OSError:
                return

        threading.Thread(target=drip, daemon=True).start()
        patience = Insistence(silence=0.5, first_wait=0.01)
        servers = Endpoints([f"http://127.0.0.1:{server.getsockname()[1]}"], key="", together=1, insistence=patience)
        begun = time.monotonic()
        (found,) = servers.answer_all(iter([Asked(0, 1, "d")]), lambda _: CHAT)
        assert "no answer in 0.5 s, 2 times" in str(found.error)
        assert time.monotonic() - begun < 20
        for one in held:
            one.close()


def test_interrupted_it_keeps_what_was_answered_and_waits_for_nobody(tmp_path: Path) -> None:
    out, source = tmp_path / "rows.jsonl", tmp_path / "in.jsonl"
    source.write_bytes(lines("hang", "b", "c", "d"))
    with hanging() as (url, _, asked):
        with started("map", "m", str(source), "--endpoint", url, "-o", str(out)) as process:
            until = time.monotonic() + 20
            while len(asked) < 4 and time.monotonic() < until:
                time.sleep(0.05)
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            code, _, err = ended(process)
        assert code == 130, err
        assert f"3 rows are in {out}; the same command with `--resume` goes on" in err
    assert [row["index"] for row in rows_of(out)] == [1, 2, 3]


def test_answers_do_not_wait_for_the_next_line() -> None:
    waits, begun = threading.Event(), time.monotonic()

    def items() -> Iterator[int]:
        yield 1
        assert waits.wait(20)
        yield 2

    results = Flow(items(), lambda item: -item, together=2, ahead=4, in_order=True).results()
    assert next(results) == -1
    assert time.monotonic() - begun < 10
    waits.set()
    assert list(results) == [-2]


def test_what_ends_all_comes_behind_what_is_done() -> None:
    first = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            first.wait(20)
        if item == 5:
            time.sleep(0.2)
            raise NetworkError("gone")
        return item

    flowing = Flow(iter(range(9)), work, together=3, ahead=9, in_order=False).results()
    found = [next(flowing) for _ in range(4)]
    with pytest.raises(NetworkError):
        found += list(flowing)
    first.set()
    assert found[:4] == [1, 2, 3, 4]
    assert 0 not in found
