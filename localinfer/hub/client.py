"""Download a model: one commit, every file hashed, nothing visible before all of it is here."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from localinfer.errors import DoesNotFit, LocalInferError, NetworkError, NotFound, UsageError, size
from localinfer.formats.durable import sync, write_bytes, write_failed
from localinfer.formats.json_files import read_object
from localinfer.formats.layout import CONFIG, INDEX, INDEX_LIMIT
from localinfer.hub import catalogue
from localinfer.hub.cache import read_ref, repo_dir, snapshots
from localinfer.hub.connection import Connection, told_offline
from localinfer.hub.listing import Listing, RemoteFile, is_sharded, read_listing, small_files, weights
from localinfer.hub.locks import locked
from localinfer.hub.model import LocalModel
from localinfer.hub.patience import HASTY, PATIENT, Patience
from localinfer.hub.reference import parse
from localinfer.hub.resolve import resolve
from localinfer.hub.transfer import fetch, partial_of

MARGIN = 64 << 20
"""Bytes of the disk that a download leaves free."""

Progress = Callable[[int, int], None]
Notice = Callable[[str], None]


def pull(
    ref: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    offline: bool = False,
    on_progress: Progress | None = None,
    on_notice: Notice | None = None,
    patience: Patience = PATIENT,
    first_patience: Patience | None = None,
) -> LocalModel:
    """Download `org/name` (or an alias) into the shared cache and return it; a complete one costs one question, and
    nothing is written then.

    The revision (default: `main`; of an alias, the catalogue's commit) is resolved to a commit first, and only files of
    that commit are fetched: configuration, tokenizer, template, safetensors of the top folder. `on_progress` hears
    (bytes here, bytes in all); `on_notice` hears when another process is waited for, and when the Hub does not answer
    and what is here is taken. `first_patience` is for the first
    question alone. `token` defaults to the one the Hub's own tools use, and goes to the Hub's host only.

    Raises `NotFound` (no such repository, gated, refused), `NotSupported` (no safetensors), `Corrupt` (wrong bytes,
    unsafe names), `DoesNotFit` (disk), `NetworkError` (all else; run again to continue).
    """
    reference = parse(ref, revision=revision)
    if reference.path is not None:
        raise UsageError(f"`{ref}` is a path", hint="pull takes a name like `org/name`; a path can be run as it is")
    if reference.variant is not None:
        raise UsageError(
            f"`{ref}` names a form made here", hint=f"pull the original, then `localinfer quantize {reference.name}`"
        )
    entry = catalogue.find(reference.name)
    name = entry.repo if entry else reference.name
    pinned = entry.revision if entry and "/" not in reference.name else "main"
    wanted = reference.revision or pinned
    if offline or told_offline():
        return _cached_already(name, reference.revision)
    connection = Connection(name, wanted, token)
    installed = _installed(name, wanted)
    try:
        listing = read_listing(connection.listing(_first(first_patience or patience, installed)), name)
    except NetworkError as error:
        if installed is None or first_patience is not None:
            raise
        (on_notice or (lambda line: None))(
            f"{error.message}: `{installed.ref}` is here and whole, as it was when last asked"
        )
        return installed
    small = small_files(listing, name)
    if _is_complete(listing, small, repo_dir(name), wanted):
        return _published(name, listing.commit)

    batch = _Batch(connection, listing.commit, repo_dir(name), patience, on_progress, on_notice)
    if is_sharded(listing):
        batch.fetch(small)
        index = read_object(batch.blob(listing.files[INDEX]), INDEX_LIMIT)
        batch.fetch(weights(listing, index))
    else:
        batch.fetch([*small, *weights(listing, None)])
    batch.publish(wanted)
    return _published(name, listing.commit)


def _first(patience: Patience, installed: LocalModel | None) -> Patience:
    """How long to wait for the Hub's answer about a model that may be `installed`."""
    return patience if installed is None else replace(HASTY, sleep=patience.sleep)


def _installed(name: str, wanted: str) -> LocalModel | None:
    """What was downloaded of `wanted`, a branch or a commit, if all its files are here."""
    commit = read_ref(repo_dir(name), wanted) or wanted
    return next((model for model in snapshots(name) if model.revision == commit), None)


def _is_complete(listing: Listing, small: list[RemoteFile], repo: Path, revision: str) -> bool:
    """Whether every file of the commit is linked to its blob, and `revision` to the commit. Writes nothing; a cache
    that cannot be written may lack the second, which only says what the branch was when it was last asked for."""
    snapshot = repo / "snapshots" / listing.commit
    if not all(_is_linked(snapshot, file) for file in small):
        return False
    index = read_object(snapshot / INDEX, INDEX_LIMIT) if is_sharded(listing) else None
    if not all(_is_linked(snapshot, file) for file in weights(listing, index)):
        return False
    known = revision == listing.commit or read_ref(repo, revision) == listing.commit
    return known or not os.access(repo / "refs" if (repo / "refs").is_dir() else repo, os.W_OK)


def _target(file: RemoteFile) -> Path:
    """What a snapshot's link to the blob of `file` says."""
    return Path(*[".."] * (2 + file.name.count("/")), "blobs", file.digest)


def _is_linked(snapshot: Path, file: RemoteFile) -> bool:
    """Whether `snapshot` leads to the whole blob of `file`. A copy, where links cannot be made, is looked at anew."""
    link = snapshot / file.name
    try:
        return link.readlink() == _target(file) and link.stat().st_size == file.size
    except OSError:
        return False


class _Batch:
    """The files of one commit on their way into the cache."""

    def __init__(
        self,
        connection: Connection,
        commit: str,
        repo: Path,
        patience: Patience,
        on_progress: Progress | None,
        on_notice: Notice | None,
    ) -> None:
        self._connection = connection
        self._commit = commit
        self._repo = repo
        self._patience = patience
        self._on_progress = on_progress or (lambda done, total: None)
        self._on_notice = on_notice or (lambda line: None)
        self._files: list[RemoteFile] = []
        self._done = 0
        self._total = 0

    def blob(self, file: RemoteFile) -> Path:
        return self._repo / "blobs" / file.digest

    def fetch(self, files: list[RemoteFile]) -> None:
        """Bring all of `files` here, small ones first, after a look at the free space."""
        self._files += files
        self._total += sum(file.size for file in files)
        self._check_space(files)
        for file in sorted(files, key=lambda file: (file.size, file.name)):
            self._fetch_one(file)
            self._done += file.size

    def _fetch_one(self, file: RemoteFile) -> None:
        blob = self.blob(file)
        blob.parent.mkdir(parents=True, exist_ok=True)
        lock = self._repo.parent / ".locks" / self._repo.name / f"{file.digest}.lock"
        waiting = f"another process downloads {file.name}; waiting for it"
        with locked(lock, on_wait=lambda: self._on_notice(waiting)):
            fetch(
                self._connection,
                self._commit,
                file,
                blob,
                self._patience,
                lambda position: self._on_progress(self._done + position, self._total),
            )

    def _check_space(self, files: list[RemoteFile]) -> None:
        need = sum(file.size - self._cached_bytes(file) for file in files)
        try:
            self._repo.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._repo).free
        except OSError as error:
            raise NotFound(
                f"{self._repo}: cannot be written: {error.strerror}", hint="check the folder, or set HF_HOME to another"
            ) from error
        if need and need + MARGIN > free:
            raise DoesNotFit(
                f"`{self._connection.repo}` needs {size(need)} more on disk, but {size(free)} is free",
                hint="free some space (`localinfer list`, `localinfer rm`), or set HF_HOME to another disk",
            )

    def _cached_bytes(self, file: RemoteFile) -> int:
        for path in (self.blob(file), partial_of(self.blob(file))):
            if path.is_file() and path.stat().st_size <= file.size:
                return path.stat().st_size
        return 0

    def publish(self, revision: str) -> None:
        """Link every file into the snapshot, `config.json` last, then let the branch point to it."""
        snapshot = self._repo / "snapshots" / self._commit
        try:
            snapshot.mkdir(parents=True, exist_ok=True)
            for file in sorted(self._files, key=lambda file: file.name == CONFIG):
                (snapshot / file.name).parent.mkdir(exist_ok=True)
                _link(snapshot / file.name, _target(file))
            sync(snapshot)
            if revision != self._commit:
                ref = self._repo / "refs" / revision
                ref.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(ref, self._commit.encode())
        except OSError as error:
            raise write_failed(snapshot, 4096, error) from error


def _link(pointer: Path, target: Path) -> None:
    """Let `pointer` lead to `target` (relative to its folder), replacing what was there in one step."""
    if pointer.is_symlink() and pointer.readlink() == target:
        return
    fresh = pointer.with_name(f".{pointer.name}.{os.getpid()}.tmp")
    fresh.unlink(missing_ok=True)
    try:
        fresh.symlink_to(target)
    except OSError:  # a file system without links
        shutil.copyfile(pointer.parent / target, fresh)
    fresh.replace(pointer)


def _cached_already(name: str, revision: str | None) -> LocalModel:
    try:
        return resolve(name, revision=revision, offline=True)
    except NotFound:
        raise NotFound(
            f"`{name}` is not on this machine, and offline mode is on",
            hint="leave out `--offline` and unset HF_HUB_OFFLINE to download it",
        ) from None


def _published(name: str, commit: str) -> LocalModel:
    for model in snapshots(name):
        if model.revision == commit:
            return model
    raise LocalInferError(
        f"`{name}` was downloaded, but the cache does not show it", hint="run `localinfer pull` again"
    )
