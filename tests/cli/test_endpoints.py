"""`map --endpoint`: against a server of ours the rows are those of `map` itself; against bad ones, what is promised."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from localinfer.chats.rows import Asked
from localinfer.errors import NetworkError, UsageError
from localinfer.remote.endpoints import Endpoints, Insistence, base_of
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
    waits = list[float]()
    patience = Insistence(attempts=4, longest_retry_after=9, sleep=waits.append)
    with answering(lambda *_: (429, {"retry-after": "100"}, b"")) as (url, asked):
        servers = Endpoints([url], key="", together=1, insistence=patience)
        with pytest.raises(NetworkError):
            list(servers.answer_all(iter([Asked(0, 1, "d")]), lambda _: {}))
        assert (len(asked), waits) == (4, [9, 9, 9])
    for odd in ("ftp://x", "http://", "http://u:p@x", "http://x/?a", "x"):
        with pytest.raises(UsageError):
            base_of(odd)
    assert base_of("https://x.org/api/v1/") == "https://x.org/api/v1"


def test_flags_of_models_and_a_key_that_is_not_there_are_refused(cli: Cli) -> None:
    for flags in (("--kv-bits", "16"), ("--endpoint-key-env", "NOT_THERE"), ("--regex", "a")):
        ran = cli("map", "x", "-", "--endpoint", "http://127.0.0.1:1", *flags, stdin=b'{"prompt": "a"}\n')
        assert (ran.code, ran.out) == (2, "")
