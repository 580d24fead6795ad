"""A look at a model on the Hub without its weights: its configuration, and the headers of its files, by range requests.

What comes of it is a checkpoint directory like any other, whose weight files have their true sizes and nothing but
holes behind their headers: whoever judges a model by its headers judges this one with the same code.
"""

from dataclasses import dataclass
from pathlib import Path

from localinfer.errors import Corrupt, UsageError
from localinfer.formats.durable import write_failed
from localinfer.formats.json_files import read_object
from localinfer.formats.layout import CONFIG, INDEX, INDEX_LIMIT
from localinfer.hub import catalogue
from localinfer.hub.connection import Connection, TransientError, within
from localinfer.hub.listing import Listing, RemoteFile, is_sharded, read_listing, small_files, weights
from localinfer.hub.names import shown
from localinfer.hub.patience import PATIENT, Patience
from localinfer.hub.reference import parse
from localinfer.hub.transfer import body_start, fetch

FIRST_READ = 1 << 16
"""Bytes asked for first: most headers are shorter."""

MOST_HEADERS = 256 << 20
"""Bytes of all headers together; the largest models known have a tenth of that."""


@dataclass(frozen=True, slots=True)
class Peeked:
    """What a repository holds, and what downloading it would take."""

    repo: str
    commit: str
    download_bytes: int
    """Of all files that `pull` fetches."""


def peek(
    ref: str,
    folder: Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    patience: Patience = PATIENT,
) -> Peeked:
    """Fill the empty `folder` with the headers of `org/name` (or an alias); no weights cross the line.

    Raises `NotFound`, `NotSupported`, `Corrupt` and `NetworkError` as `pull` does.
    """
    reference = parse(ref, revision=revision)
    if reference.path is not None:
        raise UsageError(f"`{ref}` is a path", hint="the Hub knows names like `org/name`")
    entry = catalogue.find(reference.name)
    name = entry.repo if entry else reference.name
    pinned = entry.revision if entry and "/" not in reference.name else "main"
    connection = Connection(name, reference.revision or pinned, token)
    listing = read_listing(connection.listing(patience), name)
    small = small_files(listing, name)
    _all_of(connection, listing, CONFIG, folder, patience)
    index = None
    if is_sharded(listing):
        _all_of(connection, listing, INDEX, folder, patience)
        index = read_object(folder / INDEX, INDEX_LIMIT)
    files = weights(listing, index)
    room = MOST_HEADERS
    for file in files:
        room -= _header(connection, listing.commit, file, folder / file.name, patience, room)
    return Peeked(name, listing.commit, sum(file.size for file in (*small, *files)))


def _all_of(connection: Connection, listing: Listing, name: str, folder: Path, patience: Patience) -> None:
    """A small file, hashed."""
    file = listing.files[name]
    if file.size > INDEX_LIMIT:
        raise Corrupt(f"{name} of `{connection.repo}` has {file.size} bytes", hint="choose another repository")
    blob = folder / f".{file.digest}"
    fetch(connection, listing.commit, file, blob, patience, lambda position: None)
    blob.rename(folder / name)


def _header(connection: Connection, commit: str, file: RemoteFile, path: Path, patience: Patience, room: int) -> int:
    """Write the header of a weight file, and holes up to its full size; gives the header's bytes."""
    first = _beginning(connection, commit, file, min(FIRST_READ, file.size), patience)
    length = 8 + int.from_bytes(first[:8], "little")
    if file.size < 10 or not 10 <= length <= min(file.size, room):
        raise Corrupt(
            f"{shown(file.name)} of `{connection.repo}`: its header says {length - 8} bytes, the file has {file.size}",
            hint="nothing was downloaded; choose another revision or repository",
        )
    if length > len(first):
        first = _beginning(connection, commit, file, length, patience)
    try:
        with path.open("xb") as out:
            out.write(first[:length])
            out.truncate(file.size)
    except OSError as error:
        raise write_failed(path, length, error) from error
    return length


def _beginning(connection: Connection, commit: str, file: RemoteFile, length: int, patience: Patience) -> bytes:
    """The first `length` bytes of a file."""

    def ask() -> bytes:
        found = bytearray()
        url = connection.file_url(commit, file.name)
        with connection.stream(url, patience, until=length) as response:
            _, wrong = body_start(response, commit, 0, file.size)
            if wrong:
                raise Corrupt(f"{shown(file.name)} of `{connection.repo}`: {wrong}", hint="try again later")
            for piece in response.iter_raw():
                found += piece[: length - len(found)]
                if len(found) == length:  # a server that ignores ranges would send all of it
                    return bytes(found)
        raise TransientError("the connection was cut")

    return connection.persist(lambda: within(patience.deadline, ask), patience)
