"""What the Hub says a commit of a repository holds, and which of it a model needs."""

from dataclasses import dataclass
from typing import Any

from localinfer.errors import Corrupt, NotSupported
from localinfer.formats.chat_templates import FOLDER as TEMPLATE_FOLDER
from localinfer.formats.layout import CONFIG, INDEX, PICKLES, SINGLE
from localinfer.hub.checkpoint import weight_files
from localinfer.hub.names import COMMIT, SHA256, check_file_names, shown

ALLOWED = (".safetensors", ".json", ".jinja", ".txt")
"""Endings that may be written to disk at all, besides `tokenizer.model`. Nothing that a program could execute."""

_AGAIN = "check the endpoint, and try again later"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a commit."""

    name: str
    size: int
    digest: str
    """sha256 (64 digits) of a large file, git's sha1 (40 digits) of a small one; also its name in the cache."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A commit and its files that may be downloaded, names checked, by name."""

    commit: str
    files: dict[str, RemoteFile]
    has_pickles: bool
    has_gguf: bool


def read_listing(answer: Any, repo: str) -> Listing:
    """Check the Hub's answer about `repo`. Raises `Corrupt` when it is not one, or when a file's name is unsafe."""
    commit = answer.get("sha") if isinstance(answer, dict) else None
    siblings = answer.get("siblings") if isinstance(answer, dict) else None
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit) or not isinstance(siblings, list):
        raise Corrupt(f"the Hub's answer about `{repo}` names no commit or no files", hint=_AGAIN)
    items: dict[str, dict[str, Any]] = {}
    for item in siblings:
        name = item.get("rfilename") if isinstance(item, dict) else None
        if not isinstance(name, str) or name in items:
            raise Corrupt(f"the Hub's list of the files of `{repo}` is malformed", hint=_AGAIN)
        items[name] = item
    check_file_names(name for name in items if _allowed(name))
    # Only the top folder, and further chat templates: below it lie other formats of the same weights.
    files = {name: _file(name, item, repo) for name, item in items.items() if _allowed(name) and _wanted(name)}
    return Listing(
        commit=commit,
        files=files,
        has_pickles=any(name.lower().endswith(PICKLES) for name in items),
        has_gguf=any(name.lower().endswith(".gguf") for name in items),
    )


def small_files(listing: Listing, repo: str) -> list[RemoteFile]:
    """Everything but the weights. Raises `NotSupported` when there are no weights that can be read."""
    if not {INDEX, SINGLE} & listing.files.keys():
        if listing.has_gguf:
            hint = "download one of its .gguf files and run `localinfer import FILE.gguf`"
        else:
            hint = "look for a repository of the same model with `model.safetensors`"
        kind = (
            "pickled weights only, which can run code and are never opened" if listing.has_pickles else "none of these"
        )
        raise NotSupported(f"`{repo}` has no `{SINGLE}` and no `{INDEX}`: it holds {kind}", hint=hint)
    if CONFIG not in listing.files:
        raise NotSupported(f"`{repo}` has no `{CONFIG}`", hint="look for a repository in the transformers layout")
    return [file for name, file in listing.files.items() if not name.endswith(".safetensors")]


def is_sharded(listing: Listing) -> bool:
    """Whether the weights are those that an index names; a single file goes before it."""
    return INDEX in listing.files and SINGLE not in listing.files


def weights(listing: Listing, index: dict[str, Any] | None) -> list[RemoteFile]:
    """The weight files: those the index names, or the single one. Raises `Corrupt` when the index names others."""
    if index is None:
        return [listing.files[SINGLE]]
    names = weight_files(index)
    for name in names or [""]:
        if name not in listing.files or not name.endswith(".safetensors"):
            raise Corrupt(
                f"`{INDEX}` names {shown(name)}, which the repository does not hold",
                hint="nothing large was downloaded; choose another revision or repository",
            )
    return [listing.files[name] for name in names]


def _allowed(name: str) -> bool:
    return name.endswith(ALLOWED) or name.rpartition("/")[2] == "tokenizer.model"


def _wanted(name: str) -> bool:
    folder, _, _ = name.rpartition("/")
    return not folder or (folder == TEMPLATE_FOLDER and name.endswith(".jinja"))


def _file(name: str, item: dict[str, Any], repo: str) -> RemoteFile:
    lfs = item.get("lfs")
    if isinstance(lfs, dict):
        length, digest, pattern = lfs.get("size"), lfs.get("sha256"), SHA256
    else:
        length, digest, pattern = item.get("size"), item.get("blobId"), COMMIT
    if not isinstance(digest, str) or not pattern.fullmatch(digest):
        raise Corrupt(f"the Hub gives no usable hash for {shown(name)} of `{repo}`", hint=_AGAIN)
    if not isinstance(length, int) or isinstance(length, bool) or not 0 <= length < 1 << 50:
        raise Corrupt(f"the Hub gives no usable size for {shown(name)} of `{repo}`", hint=_AGAIN)
    return RemoteFile(name=name, size=length, digest=digest)
