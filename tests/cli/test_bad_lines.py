"""`map --endpoint` with lines that an endpoint never answers well: each is a row of its own, and nobody else waits."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from localinfer.chats.rows import Asked
from localinfer.errors import NetworkError, NotFound
from localinfer.remote import flow
from localinfer.remote.endpoints import Asking, Endpoints
from localinfer.remote.flow import Flow, Later
from localinfer.remote.servers import Insistence
from tests.cli.conftest import Cli
from tests.cli.test_endpoints import Reply, answering, completion, echo

PATIENCE = Insistence(attempts=4, first_wait=0.1)


def asking(word: Callable[[int], str]) -> Asking:
    def ask(asked: Asked) -> tuple[str, dict[str, Any]]:
        return "/v1/chat/completions", {"messages": [{"role": "user", "content": word(asked.index)}]}

    return ask


def asked(count: int) -> Iterator[Asked]:
    return (Asked(n, n + 1, "d") for n in range(count))


@contextmanager
def breaking(data: bytes) -> Iterator[str]:
    """A server that answers a body with `bad` in it by `data` and the end of the connection, any other well."""
    body = json.dumps(completion("A")).encode()
    good = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)

    def serve(one: socket.socket) -> None:
        with one:
            read = b""
            while b"}]}" not in read and (piece := one.recv(65536)):
                read += piece
            one.sendall(data if b"bad" in read else good)

    def accept(server: socket.socket) -> None:
        while True:
            try:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)


def failing(status: int, headers: dict[str, str]) -> Callable[[dict[str, Any], int], Reply]:
    """Answers lines that begin with `bad` by `status`, others well."""

    def reply(body: dict[str, Any], number: int) -> Reply:
        if body["messages"][-1]["content"].startswith("bad"):
            return status, headers, {"error": {"message": "broken"}}
        return echo(body, number)

    return reply


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize(("status", "headers"), [(500, {}), (503, {"retry-after": "0.01"}), (429, {})])
def test_a_line_that_always_fails_is_a_row_and_the_others_go_on(
    status: int, headers: dict[str, str], in_order: bool
) -> None:
    """Of more bad lines than are under way, too; behind the first of them as many go on as are taken in."""
    bad = {3, 4, 5, 150, 151, 199}
    with answering(failing(status, headers)) as (url, requests):
        servers = Endpoints([url], key="", together=2, insistence=PATIENCE)
        found = list(
            servers.answer_all(asked(200), asking(lambda n: f"bad {n}" if n in bad else f"w{n}"), in_order=in_order)
        )
    assert [one.asked.index for one in found if one.error] == sorted(bad) or not in_order
    assert {one.asked.index for one in found if one.error} == bad
    assert len(found) == 200
    assert all(
        f"no answer in 4 tries; the last: {url}/v1 says {status}: broken" in str(one.error)
        for one in found
        if one.error
    )
    words = [one["messages"][-1]["content"] for one in requests]
    assert len(words) == 200 - len(bad) + 4 * len(bad)
    if not headers:  # while the first ones wait for their second try, others are asked
        second = next(at for at, word in enumerate(words) if word == "bad 3" and word in words[:at])
        assert second > 20


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
    ],
)
def test_so_is_one_whose_answer_is_always_cut_off(data: bytes) -> None:
    with breaking(data) as url:
        servers = Endpoints([url], key="", together=2, insistence=PATIENCE)
        found = list(servers.answer_all(asked(60), asking(lambda n: "bad" if n == 5 else "w")))
    assert [one.asked.index for one in found if one.error] == [5]
    assert "no answer in 4 tries" in str(found[5].error)


def test_a_line_without_an_answer_is_told_and_resumed(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localinfer.remote.servers.Insistence", lambda **_: PATIENCE)
    out, text = tmp_path / "rows.jsonl", b'{"prompt": "a"}\n{"prompt": "bad"}\n' + b'{"prompt": "b"}\n' * 40
    with answering(failing(500, {})) as (url, requests):
        call = ("map", "m", "-", "--endpoint", url, "-np", "1", "-o", str(out))
        ran = cli(*call, stdin=text)
        rows = [json.loads(row) for row in out.read_bytes().splitlines()]
        assert ran.code == 6, ran.err
        assert "1 of 42 lines could not be answered; the first: line 2: no answer in 4 tries" in ran.err
        assert [row["index"] for row in rows] == list(range(42))
        assert [row["index"] for row in rows if row.get("error")] == [1]
        before = len(requests)
        assert cli(*call, "--resume", stdin=text).code == 6
        assert len(requests) == before + 4


def test_a_server_where_every_line_fails_rests_and_ends_the_run() -> None:
    with answering(lambda *_: (500, {}, b"no")) as (url, requests):
        servers = Endpoints([url], key="", together=2, insistence=Insistence(attempts=4, first_wait=0.2))
        begun = time.monotonic()
        with pytest.raises(NetworkError, match="3 lines, one after the other, had no answer"):
            list(servers.answer_all(asked(5000), asking(str)))
    assert len(requests) <= 16  # it was let rest
    assert time.monotonic() - begun > 0.2 * (1 + 2 + 4) * 0.7


def test_one_that_refuses_a_line_now_and_then_goes_on() -> None:
    """A status that every line would get, where it is the first one's."""
    with answering(failing(403, {})) as (url, _):
        found = list(
            Endpoints([url], key="", together=2).answer_all(asked(9), asking(lambda n: "bad" if n == 5 else "w"))
        )
        assert [one.asked.index for one in found if one.error] == [5]
        assert "the endpoint says 403: broken" in str(found[5].error)
        with pytest.raises(NotFound, match="says 403"):
            list(Endpoints([url], key="", together=2).answer_all(asked(99), asking(lambda n: "bad" * (n > 5) or "w")))


def test_what_is_done_and_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "MOST_HELD", 10)
    goes_on, worked = threading.Event(), list[int]()

    def work(item: int) -> int:
        if item == 0 and not goes_on.is_set():
            raise Later(0.05)
        worked.append(item)
        return item

    def go_on() -> None:
        held.append(len(worked))
        goes_on.set()

    held = list[int]()
    results = Flow(iter(range(500)), work, together=2, ahead=4, in_order=True, weigh=lambda _: 1).results()
    threading.Timer(0.5, go_on).start()
    assert list(results) == list(range(500))
    assert 4 <= held[0] <= 12
