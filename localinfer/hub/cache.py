"""The models on this machine, read from the folders alone: the shared download cache and our own models.

Layout of the download cache: `models--org--name/` with `snapshots/<commit>/<file>` linked to `blobs/<hash>`, and
`refs/<branch>` that hold a commit. Layout of ours: `<models>/org--name/<variant>/`.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from localinfer.hub.checkpoint import missing_file, recorded_revision, size_on_disk, variant_of
from localinfer.hub.model import VARIANTS, LocalModel, Variant
from localinfer.hub.names import COMMIT, check_model_name, folder_of, inside, is_model_name, is_revision, name_of
from localinfer.paths import hub_cache_dir, models_dir

_PREFIX = "models--"


def variant_dir(name: str, variant: Variant) -> Path:
    """Where the form `variant` of `name` lives, or would live. Raises `UsageError` for a name that is no name."""
    return models_dir() / folder_of(check_model_name(name)) / variant


def repo_dir(name: str) -> Path:
    """The repository's folder in the download cache, there or not."""
    return hub_cache_dir() / (_PREFIX + folder_of(check_model_name(name)))


def list_models() -> list[LocalModel]:
    """Every complete model here, ours after downloads, by name. Broken or partial folders are passed over."""
    found = [*_downloads(), *_ours()]
    return sorted(found, key=lambda model: (model.name.lower(), model.source, VARIANTS.index(model.variant)))


def forms_of(name: str) -> list[LocalModel]:
    """All complete forms of one name."""
    return [*snapshots(name), *(model for variant in VARIANTS if (model := made_model(name, variant)))]


def made_model(name: str, variant: Variant) -> LocalModel | None:
    """Our form of `name`, if it is there and whole."""
    path = variant_dir(name, variant)
    if not inside(models_dir(), path) or not path.is_dir() or missing_file(path):
        return None
    return LocalModel(
        ref=f"{name}:{variant}",
        name=name,
        variant=variant,
        path=path,
        kind="checkpoint",
        revision=recorded_revision(path),
        size_bytes=size_on_disk(path),
        source="ours",
        modified=path.stat().st_mtime,
    )


def snapshots(name: str) -> list[LocalModel]:
    """The complete downloads of `name`: the one `main` points to first, then the newest."""
    repo = repo_dir(name)
    main = read_ref(repo, "main")
    found = []
    for path in _folders(repo / "snapshots"):
        if COMMIT.fullmatch(path.name) and _complete_snapshot(repo, path):
            found.append(_snapshot(name, path, is_main=path.name == main))
    found.sort(key=lambda model: (model.revision != main, -model.modified))
    if found and found[0].revision != main:
        # No branch points to any of them (pulled by commit): the newest one answers to the plain name.
        found[0] = _snapshot(name, found[0].path, is_main=True)
    return found


def read_ref(repo: Path, revision: str) -> str | None:
    """The commit that a branch or tag meant when it was last downloaded, or None."""
    if not is_revision(revision):
        return None
    path = repo / "refs" / revision
    try:
        if not inside(repo, path) or path.stat().st_size > 64:
            return None
        commit = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return commit if COMMIT.fullmatch(commit) else None


def _snapshot(name: str, path: Path, *, is_main: bool) -> LocalModel:
    return LocalModel(
        ref=name if is_main else f"{name}@{path.name}",
        name=name,
        variant=variant_of(path),
        path=path,
        kind="checkpoint",
        revision=path.name,
        size_bytes=size_on_disk(path),
        source="hub",
        modified=path.stat().st_mtime,
    )


def _complete_snapshot(repo: Path, path: Path) -> bool:
    """Nothing missing, and no link that leads out of the cache."""
    try:
        return missing_file(path) is None and all(inside(repo.parent, file) for file in path.rglob("*"))
    except OSError:
        return False


def _downloads() -> Iterator[LocalModel]:
    for folder in _folders(hub_cache_dir()):
        if folder.name.startswith(_PREFIX):
            name = name_of(folder.name.removeprefix(_PREFIX))
            if is_model_name(name):
                yield from snapshots(name)


def _ours() -> Iterator[LocalModel]:
    for folder in _folders(models_dir()):
        name = name_of(folder.name)
        if is_model_name(name):
            for variant in VARIANTS:
                if model := made_model(name, variant):
                    yield model


def _folders(parent: Path) -> list[Path]:
    """Real folders in `parent`, links not among them."""
    with contextlib.suppress(OSError):
        return sorted(path for path in parent.iterdir() if path.is_dir() and not path.is_symlink())
    return []
