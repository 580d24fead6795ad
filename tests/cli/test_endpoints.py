"""`map --endpoint`: against a server of ours the rows are those of `map` itself; against bad ones, what is promised."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from localinfer.chats.rows import Asked
from localinfer.errors import NetworkError, UsageError
from localinfer.remote.endpoints import Endpoints, base_of
from localinfer.remote.servers import Insistence
from tests.cli.conftest import Cli
from tests.serve.conftest import serving

Reply = tuple[int, dict[str, str], Any]


@contextmanager
def answering(reply: Callable[[dict[str, Any], int], Reply]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that answers what `reply` gives for the body and the number of the request; its address, and what it
    was asked."""
    asked, turn = list[dict[str, Any]](), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with turn:
                asked.append(body | {"key": self.headers.get("authorization"), "path": self.path})
                number = len(asked) - 1
            status, headers, answer = reply(body, number)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in (headers | {"content-length": str(len(data))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def completion(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}


def echo(body: dict[str, Any], _number: int) -> Reply:
    return 200, {}, completion(body["messages"][-1]["content"].upper())


def test_a_server_of_ours_gives_the_rows_that_map_gives(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [{"prompt": f"line {n}", "id": n, "max_tokens": 3 + n} for n in range(5)]
    lines += [{"messages": [{"role": "user", "content": "x"}], "temperature": 1.3, "top_k": 9, "logprobs": 1}]
    lines += [{"prompt": "", "id": "empty"}, {"prompt": "hi", "max_token": 3}]
    body = {"messages": [{"role": "user", "content": "y"}], "max_tokens": 4, "seed": 3}
    lines += [{"custom_id": "b", "method": "POST", "url": "/v1/chat/completions", "body": body}]
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    flags = ("--min-p", "0.01", "-n", "9")
    here = cli("map", str(tiny), "-", *flags, "--draft", "off", stdin=text)
    with serving(tmp_path, str(tiny), "--draft", "off") as server:
        there = cli("map", str(tiny), "-", *flags, "--endpoint", server.url, stdin=text)
    assert (here.code, there.code) == (2, 2), there.err
    ours, theirs = ([json.loads(line) for line in ran.out.splitlines()] for ran in (here, there))
    for one, other in zip(ours, theirs, strict=True):
        for row in (one, other):
            row.pop("request", None)
            row.pop("id")
            if row.get("usage"):
                row["usage"].pop("cached_tokens")
        if "custom_id" in one:
            pair = [row["response"]["body"]["choices"][0]["message"]["content"] for row in (one, other)]
            assert pair[0] == pair[1]
        else:
            assert one == other


def test_busy_and_broken_endpoints_are_asked_again_and_order_and_key_are_kept(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def reply(body: dict[str, Any], number: int) -> Reply:
        if number in (0, 2):
            return 429, {"retry-after": "0"}, {"error": {"message": "busy"}}
        if number == 1:
            return 503, {"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, b"gone"
        if body["messages"][-1]["content"] == "bad":
            return 400, {}, {"error": {"message": "this line is bad\x1b[31m"}}
        return echo(body, number)

    monkeypatch.setenv("A_KEY", "secret")
    words = ["one", "bad", *(f"w{n}" for n in range(20))]
    text = "".join(json.dumps({"prompt": word}) + "\n" for word in words).encode()
    out = tmp_path / "rows.jsonl"
    with answering(reply) as (url, asked), answering(echo) as (other, also):
        flags = (
            "--endpoint",
            url,
            "--endpoint",
            f"{other}/v1/",
            "--endpoint-model",
            "m",
            "--endpoint-key-env",
            "A_KEY",
        )
        ran = cli("map", "x", "-", *flags, "-o", str(out), "-np", "3", stdin=text)
        assert ran.code == 0 or (ran.code, "\x1b" in ran.err) == (2, False), ran.err
        assert len(asked) + len(also) == len(words) + 3
        assert {(one["model"], one["key"], one["path"]) for one in [*asked, *also]} == {
            ("m", "Bearer secret", "/v1/chat/completions")
        }
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        assert [row["index"] for row in rows] == list(range(len(words)))
        assert [row["text"] for row in rows if not row.get("error")] == [
            word.upper() for word, row in zip(words, rows, strict=True) if not row.get("error")
        ]
        before = len(asked) + len(also)
        out.write_text("".join(out.read_text(encoding="utf-8").splitlines(keepends=True)[:5]), encoding="utf-8")
        cli("map", "x", "-", *flags, "-o", str(out), "--resume", stdin=text)
        assert len(asked) + len(also) == before + len(words) - 5
    assert len(out.read_text(encoding="utf-8").splitlines()) == len(words)


@pytest.mark.parametrize(
    ("status", "answer", "code"),
    [(401, {"error": {"message": "no"}}, 4), (200, b"[]", 6), (200, {"choices": []}, 6), (307, {}, 2)],
)
def test_what_no_other_try_would_mend(cli: Cli, status: int, answer: Any, code: int) -> None:
    with answering(lambda *_: (status, {"location": "http://127.0.0.1:1/"}, answer)) as (url, asked):
        ran = cli("map", "x", "-", "--endpoint", url, stdin=b'{"prompt": "a"}\n')
        assert (ran.code, len(asked)) == (code, 1), ran.err


def test_tries_have_an_end_and_waits_a_bound() -> None:
    told, patience = list[str](), Insistence(attempts=4, longest_retry_after=0.01)
    with answering(lambda *_: (429, {"retry-after": "99999999999"}, b"")) as (url, asked):
        servers = Endpoints([url], key="", together=1, insistence=patience, tell=told.append)
        (found,) = servers.answer_all(iter([Asked(0, 1, "d")]), lambda _: ("/v1/chat/completions", {}))
    assert len(asked) == 4
    assert f"no answer in 4 tries; the last: {url}/v1 says 429" in str(found.error)
    assert "again in 0.0 s, not the 99999999999 s that it asks for (try 1 of 4)" in told[0]
    assert [Insistence().pause(1, wanted) for wanted in (7.0, 1e11, -1.0)] == [7, 600, 0]
    assert all(45 <= Insistence().pause(20, None) <= 75 for _ in range(9))
    for odd in ("ftp://x", "http://", "http://u:p@x", "http://x/?a", "x"):
        with pytest.raises(UsageError):
            base_of(odd)
    assert base_of("https://x.org/api/v1/") == "https://x.org/api/v1"


def test_servers_that_were_never_there_are_not_waited_for(cli: Cli) -> None:
    begun = time.monotonic()
    gone = ("--endpoint", "http://127.0.0.1:1", "--endpoint", "http://127.0.0.1:2/v1")
    ran = cli("map", "x", "-", *gone, stdin=b'{"prompt": "a"}\n' * 20)
    assert (ran.code, ran.out) == (6, "")
    assert "error: no connection to http://127.0.0.1:" in ran.err
    assert "nor to 1 more" in ran.err
    assert "hint: start the server, or check the address" in ran.err
    assert time.monotonic() - begun < 30


def test_one_server_that_is_not_there_stands_in_nobodys_way(cli: Cli) -> None:
    lines = b"".join(json.dumps({"prompt": f"w{n}"}).encode() + b"\n" for n in range(20))
    with answering(echo) as (url, asked):
        ran = cli("map", "x", "-", "--endpoint", "http://127.0.0.1:1", "--endpoint", url, stdin=lines)
    assert (ran.code, len(asked)) == (0, 20), ran.err
    assert "http://127.0.0.1:1/v1: " in ran.err
    assert "another is asked (try 1 of 8)" in ran.err


def test_each_try_that_failed_is_told() -> None:
    told, patience = list[str](), Insistence(attempts=3)
    with answering(lambda *_: (503, {"retry-after": "0.2"}, {"error": {"message": "full"}})) as (url, asked):
        servers = Endpoints([url], key="", together=1, insistence=patience, tell=told.append)
        list(servers.answer_all(iter([Asked(0, 1, "d")]), lambda _: ("/v1/chat/completions", {})))
    assert len(asked) == 3
    assert told == [f"{url}/v1 says 503: full; again in 0.2 s (try 1 of 3)"]  # one a second


def test_a_server_that_goes_is_waited_for_and_then_ends_the_run() -> None:
    """Refused connections are no reason to end at once for one that has answered."""
    told, patience = list[str](), Insistence(attempts=3, first_wait=0.01)
    with answering(echo) as (url, _):
        servers = Endpoints([url], key="", together=1, insistence=patience, tell=told.append)
        body = {"messages": [{"role": "user", "content": "a"}]}
        answers = servers.answer_all((Asked(n, n, "d") for n in range(20)), lambda _: ("/v1/chat/completions", body))
        assert next(answers).body["choices"][0]["message"]["content"] == "A"
    with pytest.raises(NetworkError, match="2 lines, one after the other, had no answer; the last: http"):
        list(answers)
    assert told


def test_requests_of_a_batch_go_to_their_addresses_as_they_are(cli: Cli) -> None:
    def reply(body: dict[str, Any], _number: int) -> Reply:
        if "input" in body:
            return 200, {}, {"data": [{"embedding": [1.0]}], "usage": {"prompt_tokens": 1}}
        return 200, {}, {"choices": [{"text": "b"}]} if "prompt" in body else completion("a")

    chat: dict[str, Any] = {
        "messages": [{"role": "developer", "content": "s"}],
        "n": 1,
        "theirs": [1],
        "max_completion_tokens": 3,
    }
    bodies: dict[str, dict[str, Any]] = {
        "chat/completions": chat,
        "completions": {"prompt": "x"},
        "embeddings": {"input": "x"},
    }
    lines = [{"custom_id": url, "method": "POST", "url": f"/v1/{url}", "body": body} for url, body in bodies.items()]
    with answering(reply) as (url, asked):
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        ran = cli("map", "m", "-", "--endpoint", url, "-np", "1", "-n", "9", "--seed", "4", stdin=text)
    assert ran.code == 0, ran.err
    assert [one.pop("path") for one in asked] == [f"/v1/{url}" for url in bodies]
    seeds = [one.pop("seed", None) for one in asked]
    assert [seed is None for seed in seeds] == [False, False, True]
    wanted: list[dict[str, Any]] = [
        {**chat, "model": "m"},
        {"prompt": "x", "model": "m", "max_tokens": 9},
        {"input": "x", "model": "m"},
    ]
    assert [{**one, "key": None} for one in asked] == [{**one, "key": None} for one in wanted]
    assert [json.loads(row)["response"]["status_code"] for row in ran.out.splitlines()] == [200] * 3


def test_flags_of_models_and_a_key_that_is_not_there_are_refused(cli: Cli) -> None:
    for flags in (("--kv-bits", "16"), ("--endpoint-key-env", "NOT_THERE"), ("--regex", "a")):
        ran = cli("map", "x", "-", "--endpoint", "http://127.0.0.1:1", *flags, stdin=b'{"prompt": "a"}\n')
        assert (ran.code, ran.out) == (2, "")
    for odd in (("--endpoint-model", "m"), ("--endpoint-key-env", "HOME"), ("--endpoint-timeout", "5s")):
        ran = cli("map", "x", "-", *odd, stdin=b'{"prompt": "a"}\n')
        assert (ran.code, f"`{odd[0]}` goes with `--endpoint`" in ran.err) == (2, True)
