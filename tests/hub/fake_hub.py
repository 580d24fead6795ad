"""A Hub on this machine: speaks the real one's protocol over HTTP on two ports (Hub and CDN), and fails on request."""

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "a" * 40


@dataclass(frozen=True)
class Answer:
    """How one request is answered instead of well. Fields left alone mean: as usual."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    """Close the connection after this many body bytes."""
    flip: int | None = None
    """Turn one bit of this body byte."""
    extra: bytes = b""
    """More body than the file has."""
    ignore_range: bool = False
    no_length: bool = False
    """Chunked: the client cannot know the length."""
    pause_after: int | None = None
    """Send this many body bytes, then nothing more until the server closes."""
    hang: bool = False
    """Accept the request and say nothing until the server closes."""
    wrong_range: bool = False
    body: bytes | None = None


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    server: str
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Repo:
    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    gated: bool = False
    listed: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Changes to what the listing says of a file: `{name: {"size": 3}}`; also adds files that are not there."""


class FakeHub:
    """Repositories, a script of faults, and a diary of requests."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.seen: list[Seen] = []
        self.tokens = {"hf_good"}
        self.closing = threading.Event()
        self.paused = threading.Event()
        """A body stopped in its middle, as `pause_after` asked for."""
        self._script: list[tuple[str, list[Answer]]] = []
        self._lock = threading.Lock()
        self._hub = _serve(self, "hub")
        self._cdn = _serve(self, "cdn")
        self.endpoint = f"http://127.0.0.1:{self._hub.server_port}"
        self.cdn = f"http://127.0.0.1:{self._cdn.server_port}"

    def add(self, name: str, files: dict[str, bytes], *, commit: str = COMMIT, branch: str = "main") -> Repo:
        """A repository, or one more commit of it, with `branch` moved to it."""
        repo = self.repos.setdefault(name, Repo({}, {}))
        repo.commits[commit] = files
        repo.refs[branch] = commit
        return repo

    def script(self, part: str, *answers: Answer) -> None:
        """Answer the next requests whose path holds `part` this way, in turn; then as usual."""
        self._script.append((part, list(answers)))

    def next_answer(self, path: str) -> Answer:
        with self._lock:
            for part, answers in self._script:
                if part in path and answers:
                    return answers.pop(0)
        return Answer()

    def bodies(self, name: str) -> list[Seen]:
        """The GET requests for the bytes of a file, redirects not counted."""
        digest = next(
            (d for repo in self.repos.values() for files in repo.commits.values() if (d := _digest_in(files, name))), ""
        )
        return [
            s
            for s in self.seen
            if s.method == "GET"
            and (s.path.endswith(f"/{name}") or digest in s.path)
            and not (s.server == "hub" and name.endswith(".safetensors"))
        ]

    def close(self) -> None:
        self.closing.set()
        for server in (self._hub, self._cdn):
            server.shutdown()
            server.server_close()


def _digest_in(files: dict[str, bytes], name: str) -> str:
    return sha256(files[name]) if name in files else ""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    try:
        yield hub
    finally:
        hub.close()


def _serve(hub: FakeHub, role: str) -> ThreadingHTTPServer:
    class Handler(_Handler):
        owner = hub
        server_role = role

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that went away is part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    owner: FakeHub
    server_role: str
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._handle()

    def do_GET(self) -> None:
        self._handle()

    def _handle(self) -> None:
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.owner.seen.append(Seen(self.server_role, self.command, self.path, headers))
        answer = self.owner.next_answer(self.path)
        if answer.hang:
            self.owner.closing.wait(30)
            self.close_connection = True
            return
        if answer.status is not None:
            self._send(answer.status, answer.headers, answer.body or b"", answer)
            return
        route = self._hub if self.server_role == "hub" else self._cdn
        route(unquote(urlsplit(self.path).path), answer)

    def _hub(self, path: str, answer: Answer) -> None:
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._listing("/".join(parts[2:4]), "/".join(parts[5:]), answer)
        elif len(parts) > 4 and parts[2] == "resolve":
            self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]), answer)
        else:
            self._error(404, "RepoNotFound")

    def _listing(self, name: str, revision: str, answer: Answer) -> None:
        repo = self.owner.repos.get(name)
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        if token and token not in self.owner.tokens:
            self._error(401, "")
        elif repo is None:
            self._error(401, "RepoNotFound")
        elif (commit := repo.refs.get(revision, revision)) not in repo.commits:
            self._error(404, "RevisionNotFound")
        else:
            blobs = "blobs" in parse_qs(urlsplit(self.path).query)
            siblings = {n: _sibling(n, data, blobs) for n, data in repo.commits[commit].items()}
            for file, changes in repo.listed.items():
                siblings[file] = {**siblings.get(file, {"rfilename": file}), **changes}
            self._json({"id": name, "sha": commit, "siblings": list(siblings.values())}, answer)

    def _resolve(self, name: str, revision: str, file: str, answer: Answer) -> None:
        repo = self.owner.repos.get(name)
        if repo is None:
            self._error(404, "RepoNotFound")
            return
        commit = repo.refs.get(revision, revision)
        data = repo.commits.get(commit, {}).get(file)
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        if repo.gated and token not in self.owner.tokens:
            self._error(403 if token else 401, "GatedRepo")
        elif data is None:
            self._error(404, "EntryNotFound")
        elif is_large(file):
            headers = {
                "X-Repo-Commit": commit,
                "X-Linked-Size": str(len(data)),
                "X-Linked-Etag": f'"{sha256(data)}"',
                "Location": answer.headers.get("Location", f"{self.owner.cdn}/{sha256(data)}?signature=x"),
            }
            self._send(302, headers, b"", Answer())
        else:
            self._bytes(data, {"X-Repo-Commit": commit, "ETag": f'"{git_sha1(data)}"'}, answer)

    def _cdn(self, path: str, answer: Answer) -> None:
        for repo in self.owner.repos.values():
            for files in repo.commits.values():
                for data in files.values():
                    if sha256(data) == path.strip("/"):
                        self._bytes(data, {"ETag": f'"{sha256(data)}"'}, answer)
                        return
        self._error(404, "")

    def _bytes(self, data: bytes, headers: dict[str, str], answer: Answer) -> None:
        if answer.flip is not None:
            data = data[: answer.flip] + bytes([data[answer.flip] ^ 1]) + data[answer.flip + 1 :]
        status, start = 200, 0
        wanted = self.headers.get("range", "")
        if wanted.startswith("bytes=") and not answer.ignore_range:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start = int(first)
            if start >= len(data):
                self._send(416, {"Content-Range": f"bytes */{len(data)}"}, b"", answer)
                return
            status = 206
            said = start - 1 if answer.wrong_range else start
            end = min(int(last) + 1, len(data)) if last else len(data)
            headers = {**headers, "Content-Range": f"bytes {said}-{end - 1}/{len(data)}"}
            data = data[:end]
        self._send(status, {**headers, **answer.headers}, data[start:] + answer.extra, answer)

    def _json(self, value: object, answer: Answer) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(value).encode(), answer)

    def _error(self, status: int, code: str) -> None:
        self._send(status, {"X-Error-Code": code} if code else {}, b'{"error": "\x1b[31mno"}', Answer())

    def _send(self, status: int, headers: dict[str, str], body: bytes, answer: Answer) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        chunked = answer.no_length
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if answer.pause_after is not None:
            self.wfile.write(body[: answer.pause_after])
            self.wfile.flush()
            self.owner.paused.set()
            self.owner.closing.wait(60)
            self.close_connection = True
            return
        sent = body if answer.cut_after is None else body[: answer.cut_after]
        self.wfile.write(b"%x\r\n%b\r\n" % (len(sent), sent) if chunked and sent else sent)
        if answer.cut_after is not None:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif chunked:
            self.wfile.write(b"0\r\n\r\n")


def _sibling(name: str, data: bytes, blobs: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": name}
    if blobs:
        sibling |= {"size": len(data), "blobId": git_sha1(data)}
        if is_large(name):
            sibling["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 130}
    return sibling
