"""Models that were begun and never finished: a download that was cut off, a quantization that was stopped.

They are no models yet, so nothing opens them; but they take space, so `list` shows them and `rm` deletes them.
"""

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from localinfer.errors import NotFound, UsageError
from localinfer.hub import catalogue
from localinfer.hub.cache import forms_of, made_model, repo_dir, snapshots
from localinfer.hub.checkpoint import missing_file
from localinfer.hub.model import VARIANTS, Source, Variant
from localinfer.hub.names import inside, is_model_name, name_of
from localinfer.hub.reference import parse
from localinfer.hub.removal import bytes_below, delete
from localinfer.paths import hub_cache_dir, models_dir

ENDINGS = (".partial", "-words.partial")
"""Of folders beside a model's own: what is done of it, and the text that was drawn to make it."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A model that was begun. `paths` are all that is there of it."""

    ref: str
    """What to type to mean it: how it would be called if it were finished."""

    name: str
    variant: Variant
    source: Source
    paths: tuple[Path, ...]
    size_bytes: int
    modified: float
    """When something was last written, seconds since 1970."""

    @property
    def busy(self) -> bool:
        """Whether a process is at work on it now."""
        return any(is_held(path) for path in self.paths)


def unfinished_models() -> list[Unfinished]:
    """All of them, ours after downloads, by name."""
    found = [*_downloads(), *_ours()]
    return sorted(found, key=lambda one: (one.name.lower(), one.source, VARIANTS.index(one.variant)))


def find_unfinished(ref: str) -> Unfinished | None:
    """The one that `ref` means, if nothing whole has that name: without a width the original, else the only one.

    Raises `NotFound` if it could be any of several."""
    reference = parse(ref)
    if reference.path is not None:
        return None
    entry = catalogue.find(reference.name)
    name = entry.repo if entry else reference.name
    named = [one for one in unfinished_models() if one.name == name]
    if reference.variant is not None:
        return next((one for one in named if one.variant == reference.variant), None)
    original = next((one for one in named if one.source == "hub" or one.variant == "BF16"), None)
    if original is not None or not named or forms_of(name):
        return original
    if len(named) > 1:
        raise NotFound(
            f"`{ref}` was begun in {len(named)} forms and never finished",
            hint="name one: " + ", ".join(f"`{one.ref}`" for one in named),
        )
    return named[0]


def remove_unfinished(one: Unfinished, *, dry_run: bool = False) -> int:
    """Delete what is there of it; gives the bytes that become free. With `dry_run` only look.

    Raises `UsageError` while a process is at work on it, and for a path that leads out of our folders.
    """
    roots = (hub_cache_dir(), models_dir())
    for path in one.paths:
        if path.is_symlink() or not any(inside(root, path) for root in roots):
            raise UsageError(f"{path} leads out of {models_dir()}", hint="delete it yourself")
    if one.busy:
        raise UsageError(f"`{one.ref}` is being made now", hint="stop that process first, or wait until it has ended")
    if not dry_run:
        for path in one.paths:
            delete(path)
        _forget_empty(one)
    return one.size_bytes


def is_held(path: Path) -> bool:
    """Whether a process holds the lock on `path`, as those at work on a folder or a download do."""
    lock = path
    if path.name.endswith(".incomplete"):
        repo = path.parent.parent
        lock = repo.parent / ".locks" / repo.name / f"{path.name.removesuffix('.incomplete')}.lock"
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def newest(path: Path) -> float:
    """When something in a folder, or the file, was last written."""
    found_paths = [path, *(path.iterdir() if path.is_dir() and not path.is_symlink() else ())]
    return max((one.lstat().st_mtime for one in found_paths), default=0.0)


def _ours() -> Iterator[Unfinished]:
    for folder in sorted(models_dir().glob("*")):
        name = name_of(folder.name)
        if folder.is_symlink() or not folder.is_dir() or not is_model_name(name):
            continue
        for variant in VARIANTS:
            paths = [path for ending in ENDINGS if (path := folder / f"{variant}{ending}").is_dir()]
            complete = folder / variant
            if complete.is_dir() and missing_file(complete) and not complete.is_symlink():
                paths.append(complete)
            paths = [path for path in paths if not path.is_symlink()]
            if paths and made_model(name, variant) is None:
                yield _told(f"{name}:{variant}", name, variant, "ours", paths)


def _downloads() -> Iterator[Unfinished]:
    """Repositories without one whole revision, of which some file was cut off."""
    for repo in sorted(hub_cache_dir().glob("models--*")):
        name = name_of(repo.name.removeprefix("models--"))
        if repo.is_symlink() or not is_model_name(name) or snapshots(name):
            continue
        cut_off = [path for path in repo.glob("blobs/*.incomplete") if not path.is_symlink()]
        if cut_off:
            used = {link.readlink().name for link in repo.glob("snapshots/**/*") if link.is_symlink()}
            loose = [blob for blob in repo.glob("blobs/*") if blob.suffix != ".incomplete" and blob.name not in used]
            yield _told(name, name, "BF16", "hub", [*cut_off, *loose])


def _told(ref: str, name: str, variant: Variant, source: Source, paths: list[Path]) -> Unfinished:
    total = sum(bytes_below(path) if path.is_dir() else path.lstat().st_size for path in paths)
    return Unfinished(ref, name, variant, source, tuple(sorted(paths)), total, max(map(newest, paths)))


def _forget_empty(one: Unfinished) -> None:
    """Delete the folder that held it if nothing is left in it."""
    if one.source == "ours":
        folder = one.paths[0].parent
        if not any(folder.iterdir()):
            folder.rmdir()
        return
    repo = repo_dir(one.name)
    if not any(path.is_file() or path.is_symlink() for path in (*repo.glob("blobs/*"), *repo.glob("snapshots/**/*"))):
        delete(repo)
        delete(hub_cache_dir() / ".locks" / repo.name)
