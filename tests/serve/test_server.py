"""A server under load, under attack, and at its end; each in a process of its own."""

import asyncio
import http.client
import json
import random
import re
import signal
import socket
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.serve.conftest import PATIENCE_S, Server, serving, until

pytestmark = pytest.mark.xdist_group("serve")

CHAT = "/v1/chat/completions"


def endless_body(endless: Path, **more: Any) -> dict[str, Any]:
    return {"model": str(endless), "messages": [{"role": "user", "content": "go on"}], **more}


def send_raw(server: Server, body: dict[str, Any]) -> socket.socket:
    """Ask, over a connection that is the caller's to read or to leave."""
    data = json.dumps(body).encode()
    host, port = server.url.removeprefix("http://").split(":")
    found = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
    found.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
    return found


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place(endless_server: Server, endless: Path, stream: bool) -> None:
    with send_raw(endless_server, endless_body(endless, stream=stream)):
        until(lambda: endless_server.metric("num_requests_running") == 1)
        assert not endless_server.is_idle()
    until(endless_server.is_idle)
    until(lambda: "the client left" in endless_server.log[-1])


def test_a_full_queue_says_when_to_come_again(endless_server: Server, endless: Path) -> None:
    others = [send_raw(endless_server, endless_body(endless, stream=True)) for _ in range(4)]
    until(lambda: endless_server.metric("num_requests_waiting") == 2)
    refused = endless_server.post(CHAT, endless_body(endless))
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    too_many = endless_server.post(CHAT, endless_body(endless, n=5))
    assert too_many.status_code == 400  # which no waiting would mend
    assert "5 texts at once are asked for, and 4 may run or wait here" in too_many.json()["error"]["message"]
    for one in others:
        one.close()
    until(endless_server.is_idle)
    assert endless_server.post(CHAT, endless_body(endless, max_tokens=1)).status_code == 200


def test_sixteen_clients_that_come_and_go_leave_nothing(server: Server, tiny: Path) -> None:
    """Each leaves at a point that chance chooses; what those say who stay is what it is for one alone."""
    asked: Any = {"model": str(tiny), "temperature": 1.5, "max_tokens": 60, "extra_body": {"ignore_eos": True}}

    async def client(number: int, expected: list[str]) -> None:
        chance = random.Random(number)
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="x", max_retries=0, timeout=PATIENCE_S
        ) as api:
            for turn in range(3):
                kind = chance.randrange(4)
                messages: Any = [{"role": "user", "content": f"{kind} " * (1 + 9 * kind)}]
                stream = await api.chat.completions.create(**asked, messages=messages, seed=kind, stream=True)
                text, leaves = "", chance.randrange(1, 60) if turn % 2 else 1000
                async with stream:
                    pieces = 0
                    async for piece in stream:
                        text += piece.choices[0].delta.content or ""
                        pieces += 1
                        if pieces == leaves:
                            break
                assert expected[kind].startswith(text)
                assert leaves < 1000 or text == expected[kind]

    async def storm() -> None:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", timeout=PATIENCE_S) as api:
            expected = []
            for kind in range(4):
                messages: Any = [{"role": "user", "content": f"{kind} " * (1 + 9 * kind)}]
                alone = await api.chat.completions.create(**asked, messages=messages, seed=kind)
                expected.append(alone.choices[0].message.content or "")
        await asyncio.gather(*(client(number, expected) for number in range(16)))

    asyncio.run(storm())
    until(server.is_idle)


HOSTS = {
    "127.0.0.1": 200,
    "localhost:1234": 200,
    "[::1]:80": 200,
    "10.1.2.3:8080": 200,
    "my.localhost": 200,
    "evil.example": 403,
    "localhost.evil.example": 403,
    "127.0.0.1.nip.io": 403,
    "": 403,
}


@pytest.mark.parametrize(("host", "status"), HOSTS.items())
def test_only_hosts_of_this_machine_are_answered(server: Server, host: str, status: int) -> None:
    assert server.get("/v1/models", host=host).status_code == status


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000"])
def test_pages_of_others_may_not_ask(server: Server, tiny: Path, origin: str) -> None:
    body = {"model": str(tiny), "messages": [{"role": "user", "content": "x"}]}
    refused = server.post(CHAT, body, origin=origin)
    assert refused.status_code == 403
    assert "access-control-allow-origin" not in refused.headers


def test_key_and_names_that_are_let_in(folder: Path, tiny: Path) -> None:
    (folder / "key").write_text("s3cret\n", encoding="utf-8")
    flags = ("--api-key-file", str(folder / "key"), "--allow-host", "box.lan", "--allow-origin", "http://page.lan")
    with serving(folder, str(tiny), *flags) as server:
        assert server.get("/health").status_code == 200
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic s3cret"}, {"x-api-key": ""}):
            assert server.get("/v1/models", **headers).status_code == 401
            assert server.get("/metrics", **headers).status_code == 401
        for headers in ({"authorization": "Bearer s3cret"}, {"x-api-key": "s3cret"}):
            assert server.get("/v1/models", **headers).status_code == 200
        allowed = {"host": "box.lan:80", "origin": "http://page.lan", "x-api-key": "s3cret"}
        answer = server.get("/v1/models", **allowed)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "http://page.lan"
        assert server.end(signal.SIGTERM) == 0


BODIES = {
    b"": 400,
    b"{": 400,
    b"[]": 400,
    b"\xff{}": 400,
    b'{"model": "x", "model": "y"}': 400,
    b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}": 400,
    b'{"n": ' + b"9" * 5000 + b"}": 400,
    b'{"temperature": 1e999}': 400,
    b'{"temperature": NaN}': 400,
    b" " * ((16 << 20) + 1): 413,
}


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/tokenize"])
@pytest.mark.parametrize(("body", "status"), BODIES.items(), ids=lambda value: str(value)[:20])
def test_bodies_are_looked_at(server: Server, path: str, body: bytes, status: int) -> None:
    answer = server.post_bytes(path, body)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_a_body_that_is_announced_too_large_is_refused_at_once(server: Server) -> None:
    with socket.create_connection(address_of(server), timeout=20) as link:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {1 << 40}\r\n\r\n"
        link.sendall(head.encode())
        answer = link.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"1099511627776 bytes, more than 16777216" in answer


def test_a_client_that_sends_too_much_reads_why(server: Server) -> None:
    link = http.client.HTTPConnection(*address_of(server), timeout=60)
    link.request("POST", "/v1/chat/completions", body=b"x" * (40 << 20))
    answer = link.getresponse()
    assert (answer.status, b"more than 16777216" in answer.read()) == (413, True)
    link.close()


def address_of(server: Server) -> tuple[str, int]:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return host, int(port)


@pytest.mark.parametrize(
    ("path", "body", "head", "found"),
    [
        ("/v1/chat/completions", {}, "Connection: close", b"chat.completion"),
        ("/v1/chat/completions", {"stream": True}, "Connection: close", b"data: [DONE]"),
        ("/v1/models", None, "Accept: */*", b'"object":"list"'),
        ("/tokenize", {"prompt": "a b"}, "Accept: */*", b'"count"'),
        ("/v1/chat/completions", {"max_tokens": 4000}, "Accept: */*", b"send `Connection: close`"),
    ],
)
def test_a_client_that_closes_its_half_is_answered(
    server: Server, tiny: Path, path: str, body: dict[str, Any] | None, head: str, found: bytes
) -> None:
    """As `nc` does. One that did not say that it would is taken for one that left, where a text is to be written."""
    asked: dict[str, Any] = {"model": str(tiny), **(body or {})}
    if path.startswith("/v1/chat"):
        asked = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5} | asked
    data = b"" if body is None else json.dumps(asked).encode()
    verb = "GET" if body is None else "POST"
    with socket.create_connection(address_of(server), timeout=60) as link:
        length = f"Content-Length: {len(data)}\r\n" if data else ""
        link.sendall(f"{verb} {path} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n{length}\r\n".encode() + data)
        link.shutdown(socket.SHUT_WR)
        answer = link.makefile("rb").read()
    assert found in answer
    until(server.is_idle)


def test_a_client_that_said_its_last_and_leaves_is_noticed_in_a_stream(endless_server: Server, endless: Path) -> None:
    body = {"model": str(endless), "messages": [{"role": "user", "content": "x"}], "stream": True}
    data = json.dumps(body).encode()
    with socket.create_connection(address_of(endless_server), timeout=60) as link:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n"
        link.sendall(f"{head}Connection: close\r\n\r\n".encode() + data)
        link.recv(1)
    until(endless_server.is_idle)


def test_other_paths_and_methods(server: Server) -> None:
    assert server.get("/v1/nothing").json()["error"]["type"] == "not_found_error"
    assert server.get(CHAT).status_code == 405
    assert server.post("/health", {}).status_code == 405


def test_counts_are_those_of_what_was_answered(folder: Path, tiny: Path) -> None:
    with serving(folder, str(tiny), "--draft", "off") as server:
        body = {"model": str(tiny), "messages": [{"role": "user", "content": "x " * 40}], "max_tokens": 3}
        usage = [server.post(CHAT, body).json()["usage"] for _ in range(2)]
        assert server.metric("prompt_tokens_total") == sum(one["prompt_tokens"] for one in usage)
        assert server.metric("generation_tokens_total") == sum(one["completion_tokens"] for one in usage)
        cached = sum(one["prompt_tokens_details"]["cached_tokens"] for one in usage)
        assert server.metric("prefix_cache_hits_total") == cached > 0
        assert server.metric("request_success_total") == 2
        assert server.metric("time_to_first_token_seconds_count") == 2
        told = re.compile(r"prompt \d+ \(\d+ cached\), first token [\d.]+ s, out 3 at [\d.]+/s, seed \d+, length")
        until(lambda: sum(1 for line in server.log if told.search(line)) == 2)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_streams_and_the_server(folder: Path, endless: Path, number: int, code: int) -> None:
    with serving(folder, str(endless), "-c", "100000", "--draft", "off") as server:
        with send_raw(server, endless_body(endless, stream=True)) as stream:
            until(lambda: server.metric("num_requests_running") == 1)
            assert server.end(number) == code
            rest = b""
            while more := stream.recv(1 << 16):
                rest += more
        assert b'"error"' in rest[-400:]
        assert rest.rstrip().endswith(b"0")  # the last chunk: the answer was ended, not torn
        assert "Traceback" not in "".join(server.log)


def test_a_port_that_is_taken_is_told(folder: Path, tiny: Path, server: Server) -> None:
    import subprocess

    from tests.cli.conftest import ENTRY

    port = server.url.rpartition(":")[2]
    ran = subprocess.run([*ENTRY, "serve", str(tiny), "--port", port], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 6  # it may be free later
    assert f"cannot listen on 127.0.0.1:{port}" in ran.stderr
    assert ran.stdout == ""
    elsewhere = [*ENTRY, "serve", str(tiny), "--host", "192.0.2.1", "--port", "0"]
    ran = subprocess.run(elsewhere, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, "cannot listen on 192.0.2.1:0" in ran.stderr) == (2, True), ran.stderr
