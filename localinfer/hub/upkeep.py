"""`cache verify` and `cache prune`: re-hash everything, and find what nobody needs."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from localinfer.errors import LocalInferError
from localinfer.formats.json_files import read_object
from localinfer.hub.cache import list_models
from localinfer.hub.checkpoint import RECORD, files_of, missing_file
from localinfer.hub.hashing import git_sha1_file, sha256_file
from localinfer.hub.model import LocalModel
from localinfer.hub.names import COMMIT, SHA256
from localinfer.hub.removal import bytes_below, delete
from localinfer.hub.unfinished import is_held, newest
from localinfer.paths import drafters_dir, experts_dir, hub_cache_dir, kv_dir, merged_dir, models_dir, tokenizers_dir

Progress = Callable[[int, int], None]
IDLE = 24 * 3600.0
"""A partial file younger than this many seconds may still be in use, or be continued."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A file whose bytes are not what they must be."""

    model: LocalModel
    path: Path
    what: str


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file or folder that no model needs."""

    path: Path
    what: str
    size_bytes: int


def verify(on_progress: Progress | None = None) -> list[Damage]:
    """Hash every file of every model and return the wrong ones. `on_progress` hears (bytes done, bytes in all)."""
    models = list_models()
    total = sum(model.size_bytes for model in models)
    done = 0

    def advance(length: int) -> None:
        nonlocal done
        done += length
        if on_progress is not None:
            on_progress(done, total)

    return [damage for model in models for damage in _check(model, advance)]


def _check(model: LocalModel, advance: Callable[[int], None]) -> Iterator[Damage]:
    recorded = _recorded_hashes(model.path) if model.source == "ours" else {}
    for path in files_of(model.path):
        name = str(path.relative_to(model.path))
        expected = path.readlink().name if path.is_symlink() else recorded.get(name, "")
        try:
            if SHA256.fullmatch(expected):
                found = sha256_file(path, advance)
            elif COMMIT.fullmatch(expected):
                found = git_sha1_file(path, advance)
            else:
                advance(path.stat().st_size)  # nothing states what it should be
                continue
        except OSError as error:
            yield Damage(model, path, f"cannot be read: {error.strerror}")
            continue
        if found != expected:
            yield Damage(model, path, f"wrong hash: expected {expected}, got {found}")


def _recorded_hashes(directory: Path) -> dict[str, str]:
    """`{file: sha256}` of `files` in `localinfer.json`, if it holds any."""
    try:
        files = read_object(directory / RECORD).get("files")
    except LocalInferError:
        return {}
    if not isinstance(files, dict):
        return {}
    return {name: digest for name, digest in files.items() if isinstance(digest, str)}


def prune(*, dry_run: bool = False, now: float | None = None) -> list[Leftover]:
    """Delete partial files idle for a day, folders that never became a model, merged models, packed experts and all
    KV blocks; with `dry_run` only list them. What a process is at work on stays."""
    clock = time.time() if now is None else now
    found = [*_in_downloads(clock), *_in_ours(clock), *_in_drafters(clock)]
    found += [*_in_kv(), *_merged(), *_tokenizers(), *_experts()]
    if not dry_run:
        for leftover in found:
            delete(leftover.path)
    return found


def _in_kv() -> Iterator[Leftover]:
    """Keys and values can always be computed again; a chat that runs meanwhile does that."""
    if kv_dir().is_file():
        yield Leftover(kv_dir(), "a file where the folder of keys and values belongs", kv_dir().lstat().st_size)
        return
    for folder in sorted(kv_dir().glob("*")):
        if folder.is_dir() and not folder.is_symlink():
            yield Leftover(folder, "keys and values of earlier texts", bytes_below(folder))


def _merged() -> Iterator[Leftover]:
    """Models with adapters in them can always be made again."""
    for folder in sorted(merged_dir().glob("*")):
        if folder.is_dir() and not folder.is_symlink():
            yield Leftover(folder, "a model merged with adapters", bytes_below(folder))


def _tokenizers() -> Iterator[Leftover]:
    """What is kept of tokenizers can always be made again."""
    for path in sorted(tokenizers_dir().glob("*")):
        if path.is_file() and not path.is_symlink():
            yield Leftover(path, "a tokenizer, as it was read", path.lstat().st_size)


def _experts() -> Iterator[Leftover]:
    """Packed experts can always be made again; who runs them keeps them open."""
    for path in sorted(experts_dir().glob("*.experts")):
        if path.is_file() and not path.is_symlink():
            yield Leftover(path, "packed experts of a model that did not fit into memory", path.lstat().st_size)
    for path in sorted(experts_dir().glob(".*.tmp")):
        if path.is_file() and time.time() - path.lstat().st_mtime > IDLE:
            yield Leftover(path, "packed experts that were never finished", path.lstat().st_size)


def _in_downloads(clock: float) -> Iterator[Leftover]:
    for repo in sorted(hub_cache_dir().glob("models--*")):
        if repo.is_symlink() or not repo.is_dir():
            continue
        for partial in sorted(repo.glob("blobs/*.incomplete")):
            if _idle(partial, clock):
                yield Leftover(partial, "a download that was never finished", partial.lstat().st_size)
        used = {link.readlink().name for link in repo.glob("snapshots/**/*") if link.is_symlink()}
        for blob in sorted(repo.glob("blobs/*")):
            if blob.suffix != ".incomplete" and blob.name not in used and _idle(blob, clock):
                yield Leftover(blob, "a file of no revision", blob.lstat().st_size)


def _in_drafters(clock: float) -> Iterator[Leftover]:
    """Text that a stopped `draft train` has drawn, and drafters that were half written."""
    for path in sorted(drafters_dir().glob("*.partial")):
        if path.is_dir() and not path.is_symlink() and _idle(path, clock):
            yield Leftover(path, "text for a drafter that was never finished", bytes_below(path))


def _in_ours(clock: float) -> Iterator[Leftover]:
    for path in sorted(models_dir().glob("*/*")):
        if path.is_symlink() or not path.is_dir() or not _idle(path, clock):
            continue
        if path.name.endswith(".partial"):
            yield Leftover(path, "a model that was never finished", bytes_below(path))
        elif missing := missing_file(path):
            yield Leftover(path, f"a model without its {missing}", bytes_below(path))


def _idle(path: Path, clock: float) -> bool:
    return clock - newest(path) > IDLE and not is_held(path)
