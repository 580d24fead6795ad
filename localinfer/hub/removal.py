"""Delete models: only below our own roots, never through a link, and never a file that another model still needs."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from localinfer.errors import NotFound, UsageError
from localinfer.hub.cache import repo_dir
from localinfer.hub.locks import locked
from localinfer.hub.model import LocalModel
from localinfer.hub.names import folder_of, inside
from localinfer.paths import hub_cache_dir, models_dir


@dataclass(frozen=True, slots=True)
class Removal:
    """What goes: whole folders, single files, and the bytes that become free."""

    model: LocalModel
    paths: tuple[Path, ...]
    freed_bytes: int


def remove(model: LocalModel, *, dry_run: bool = False) -> Removal:
    """Delete one model that `resolve` or `list_models` gave; with `dry_run` only say what would go.

    Of a download, its snapshot goes and those blobs that no other snapshot uses; the repository's folder goes with its
    last snapshot. A file or directory of the user's own is a `UsageError`.
    """
    if model.source == "ours":
        return _remove_ours(model, dry_run)
    if model.source == "hub":
        return _remove_download(model, dry_run)
    raise UsageError(
        f"`{model.ref}` is a path of yours, not a model kept here", hint=f"delete it yourself: rm -r {model.path}"
    )


def _remove_ours(model: LocalModel, dry_run: bool) -> Removal:
    path = model.path
    _must_be_below(models_dir(), path)
    with locked(models_dir() / ".locks" / f"{folder_of(model.name)}.lock"):
        removal = Removal(model, (path,), model.size_bytes)
        if not dry_run:
            delete(path)
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
    return removal


def _remove_download(model: LocalModel, dry_run: bool) -> Removal:
    repo = repo_dir(model.name)
    snapshot = model.path
    _must_be_below(hub_cache_dir(), repo)
    _must_be_below(repo, snapshot)
    others = [path for path in snapshot.parent.iterdir() if path.is_dir() and path != snapshot]
    if not others:
        removal = Removal(model, (repo, hub_cache_dir() / ".locks" / repo.name), bytes_below(repo))
    else:
        needed = {blob for other in others for blob in _blobs(other)}
        unused = sorted(_blobs(snapshot) - needed)
        refs = [ref for ref in sorted((repo / "refs").rglob("*")) if ref.is_file() and _points(ref, snapshot.name)]
        removal = Removal(model, (snapshot, *refs, *unused), sum(blob.lstat().st_size for blob in unused))
    if not dry_run:
        for path in removal.paths:
            delete(path)
    return removal


def _blobs(snapshot: Path) -> set[Path]:
    """The blob files that the links of a snapshot lead to, as they are named (a blob may be a link itself)."""
    blobs = snapshot.parent.parent / "blobs"
    links = [path for path in snapshot.rglob("*") if path.is_symlink()]
    named = {blobs / link.readlink().name for link in links}
    return {blob for blob in named if blob.is_symlink() or blob.is_file()}


def _points(ref: Path, commit: str) -> bool:
    return not ref.is_symlink() and ref.stat().st_size <= 64 and ref.read_bytes().strip() == commit.encode()


def bytes_below(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_symlink() and path.is_file())


def _must_be_below(root: Path, path: Path) -> None:
    """Refuse a path that a link could lead elsewhere."""
    if path.is_symlink() or not inside(root, path) or path.resolve() == root.resolve():
        raise UsageError(f"{path} leads out of {root}", hint="delete it yourself")
    if not path.exists():
        raise NotFound(f"{path} is already gone", hint="type `localinfer list` to see what is here")


def delete(path: Path) -> None:
    """A folder with all in it (links are unlinked, not followed), or a file."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise NotFound(f"{path}: cannot be deleted: {error.strerror}", hint="check its permissions") from error
