"""Requests to one Hub: the token goes to its own host only, redirects are followed by our rules, errors get words."""

import ipaddress
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote, urljoin, urlsplit

import httpx2
from huggingface_hub import constants, get_session, get_token
from huggingface_hub.errors import OfflineModeIsEnabled

from localinfer import __version__
from localinfer.errors import LocalInferError, NetworkError, NotFound, UsageError
from localinfer.formats.json_files import parse_json
from localinfer.hub.names import check_repo_name
from localinfer.hub.patience import Patience

LISTING_LIMIT = 32 << 20
MAX_REDIRECTS = 5
_RETRY = {408, 425, 429, 500, 502, 503, 504}
_AGAIN = "run the same command again later; what was downloaded is kept"
T = TypeVar("T")


class TransientError(Exception):
    """Worth another try. `retry_after` is what the server asked to wait, in seconds."""

    def __init__(self, what: str, retry_after: float | None = None) -> None:
        super().__init__(what)
        self.retry_after = retry_after


class Connection:
    """One endpoint, one repository, one token."""

    def __init__(self, repo: str, revision: str, token: str | None) -> None:
        self.repo = check_repo_name(repo)
        self.revision = revision
        self.endpoint = _checked((os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/"))
        self._token = token or (None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token())
        if self._token is not None and not (self._token.isascii() and self._token.isprintable()):
            raise UsageError("the token holds characters that no token has", hint="check HF_TOKEN or `--token`")

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint).netloc.rpartition("@")[2]

    def listing(self, patience: Patience) -> Any:
        """What the Hub says about the revision: its commit and its files with sizes and hashes."""
        url = f"{self.endpoint}/api/models/{self.repo}/revision/{quote(self.revision, safe='')}?blobs=true"

        def ask() -> Any:
            with self.stream(url, patience) as response:
                body = bytearray()
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > LISTING_LIMIT:
                        raise NetworkError(f"{self.host} sends an endless answer about `{self.repo}`", hint=_AGAIN)
            return parse_json(bytes(body), f"the answer of {self.host}")

        return self.persist(lambda: within(patience.deadline, ask), patience)

    def file_url(self, commit: str, name: str) -> str:
        return f"{self.endpoint}/{self.repo}/resolve/{commit}/{quote(name)}"

    def persist(self, call: Callable[[], T], patience: Patience) -> T:
        """`call`, again after each `TransientError`; `NetworkError` when patience ends."""
        failures = 0
        while True:
            try:
                return call()
            except TransientError as error:
                failures += 1
                self.give_up_or_wait(error, failures, patience)

    def give_up_or_wait(self, error: TransientError, failures: int, patience: Patience) -> None:
        """Sleep before try number `failures + 1`, or raise `NetworkError`."""
        asked = error.retry_after
        if asked is not None and asked > patience.longest_retry_after:
            raise NetworkError(f"{self.host}: {error}; it asks to wait {asked:.0f} s", hint=_AGAIN) from error
        if failures >= patience.attempts:
            tries = f" ({failures} tries)" if failures > 1 else ""
            raise NetworkError(f"{self.host}: {error}{tries}", hint=_AGAIN) from error
        patience.wait(failures, asked)

    @contextmanager
    def stream(
        self, url: str, patience: Patience, offset: int = 0, until: int | None = None
    ) -> Iterator[httpx2.Response]:
        """The unread answer to GET `url` from byte `offset`, up to byte `until` (not included).

        Raises `TransientError`, `NetworkError` or `NotFound`."""
        timeout = httpx2.Timeout(patience.stall, connect=patience.connect)
        try:
            for _ in range(MAX_REDIRECTS + 1):
                headers = {"user-agent": f"localinfer/{__version__}", "accept-encoding": "identity"}
                if offset or until is not None:
                    headers["range"] = f"bytes={offset}-{'' if until is None else until - 1}"
                if self._token and _origin(url) == _origin(self.endpoint):
                    headers["authorization"] = f"Bearer {self._token}"
                request = get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=False)
                with request as response:
                    if response.is_redirect:
                        url = self._redirected(url, response.headers.get("location", ""))
                        continue
                    if response.status_code != 416:  # the caller's: its partial file is longer than the file
                        self._check(response)
                    yield response
                    return
        except OfflineModeIsEnabled:
            raise NotFound(
                f"`{self.repo}` is not on this machine, and offline mode is on",
                hint="unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE to ask the Hub",
            ) from None
        except httpx2.HTTPError as error:
            raise TransientError(_words(error)) from error
        except httpx2.InvalidURL as error:
            raise NetworkError(f"{self.host} leads to an address that is none", hint=_AGAIN) from error
        raise NetworkError(f"{self.host} redirects more than {MAX_REDIRECTS} times", hint=_AGAIN)

    def _redirected(self, url: str, location: str) -> str:
        """The next address. Never from https to http, never from outside into this machine or its network."""
        home = urlsplit(self.endpoint)
        try:
            target = urljoin(url, location)
            parts = urlsplit(target)
            _origin(target)
        except ValueError as error:
            raise NetworkError(f"{self.host} redirects to an address that is none", hint=_AGAIN) from error
        allowed = ("https",) if home.scheme == "https" else ("https", "http")
        if parts.scheme not in allowed or not parts.hostname:
            raise NetworkError(f"{self.host} redirects to a {parts.scheme or 'broken'} address", hint=_AGAIN)
        if _is_inside(parts.hostname) and not _is_inside(home.hostname or ""):
            raise NetworkError(f"{self.host} redirects into this machine's own network", hint=_AGAIN)
        return target

    def _check(self, response: httpx2.Response) -> None:
        status = response.status_code
        if status in _RETRY:
            raise TransientError(_answered(status), _retry_after(response.headers.get("retry-after")))
        if status >= 300:
            raise self._refusal(status, response.headers.get("x-error-code", ""))

    def _refusal(self, status: int, code: str) -> LocalInferError:
        repo = f"`{self.repo}`"
        if code == "GatedRepo":
            return NotFound(
                f"{repo} is gated: its owner lets only some accounts have it",
                hint=f"accept its terms at {self.endpoint}/{self.repo}, then set HF_TOKEN to a token of that account",
            )
        if code == "RevisionNotFound":
            return NotFound(f"{repo} has no revision `{self.revision}`", hint="leave the revision out to get `main`")
        if code == "EntryNotFound":
            return NotFound(f"a file of {repo} is listed but not there", hint="choose another revision or repository")
        if status == 401 and code != "RepoNotFound" and self._token:
            return NotFound(f"{self.host} refuses the token", hint="check HF_TOKEN or `--token`, or leave it out")
        if status in (401, 404):
            return NotFound(
                f"{self.host} has no repository {repo}, or it is private",
                hint="check the name; for a private one set HF_TOKEN to a token that may read it",
            )
        if status in (403, 451):
            return NotFound(f"{self.host} does not allow {repo} ({status})", hint="check what your token may read")
        return NetworkError(f"{self.host} answered {status} for {repo}", hint=_AGAIN)


def told_offline() -> bool:
    """Whether the environment forbids the network, by the variables that the Hub's own library reads."""
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in ("1", "ON", "YES", "TRUE")


def within(seconds: float | None, call: Callable[[], T]) -> T:
    """`call()`, given up after `seconds`: a name lookup has no timeout of its own. Raises `TransientError` then."""
    if seconds is None:
        return call()
    done: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            done.append(call())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True, name="hub-question")
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise TransientError(f"no answer within {seconds:g} s")
    return done[0]


def _checked(endpoint: str) -> str:
    try:
        scheme, host, _ = _origin(endpoint)
    except ValueError:
        scheme, host = "", ""
    if scheme not in ("http", "https") or not host:
        raise UsageError(f"{endpoint!r} is not a web address", hint="correct or unset HF_ENDPOINT")
    return endpoint


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)


def _is_inside(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not address.is_global


def _answered(status: int) -> str:
    return "too many requests (429)" if status == 429 else f"answered {status}"


def _retry_after(value: str | None) -> float | None:
    """Seconds of a `Retry-After` header; its date form is rare and left to the plain backoff."""
    if value is None or not value.isascii() or not value.strip().isdigit():
        return None
    return float(value.strip()[:9])


def _words(error: httpx2.HTTPError) -> str:
    if isinstance(error, httpx2.ConnectTimeout):
        return "does not answer"
    if isinstance(error, httpx2.TimeoutException):
        return "stopped sending"
    if isinstance(error, httpx2.ProxyError):
        return "the proxy refuses the connection"
    if isinstance(error, httpx2.ConnectError):
        return f"cannot be reached ({error})" if str(error) else "cannot be reached"
    return "the connection was cut"
