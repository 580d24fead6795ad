"""The two hashes the Hub names its files by."""

import hashlib
from collections.abc import Callable
from pathlib import Path

_CHUNK = 1 << 20


def sha256_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """Hex sha256 of a file, read in pieces; `on_bytes` hears the length of each."""
    return _digest(hashlib.sha256(), path, on_bytes)


def git_sha1_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """Hex name git gives the file's bytes: sha1 of `blob <length>\\0` and the bytes."""
    header = b"blob %d\0" % path.stat().st_size
    return _digest(hashlib.sha1(header, usedforsecurity=False), path, on_bytes)


def _digest(digest: "hashlib._Hash", path: Path, on_bytes: Callable[[int], None] | None) -> str:
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
            if on_bytes is not None:
                on_bytes(len(piece))
    return digest.hexdigest()
