"""JSON from files that others wrote: bounded in size and depth, one meaning for every reader, or `Corrupt`."""

import json
import re
import stat
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from localinfer.errors import Corrupt, LocalInferError, NotFound, size

CONFIG_LIMIT = 16 << 20
"""Most bytes read of a small file (`config.json`, `tokenizer_config.json`)."""

TOKENIZER_LIMIT = 128 << 20
"""Most bytes read of `tokenizer.json`; the largest in use are about 35 MB."""

MAX_DEPTH = 64
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(path: Path, limit: int = CONFIG_LIMIT) -> Any:
    """The value in `path`. Raises `NotFound` when it is not there and `Corrupt` when it is not plain, bounded JSON."""
    return parse_json(read_bytes(path, limit), str(path))


def read_object(path: Path, limit: int = CONFIG_LIMIT) -> dict[str, Any]:
    """As `read_json`, and the value must be an object."""
    value = read_json(path, limit)
    if not isinstance(value, dict):
        raise Corrupt(f"{path}: holds a JSON {type(value).__name__}, not an object", hint=_HINT)
    return value


_HINT = "download or copy the file again"


def read_bytes(path: Path, limit: int) -> bytes:
    """All bytes of a regular file of at most `limit` bytes; the size is checked before anything is allocated."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Corrupt(f"{path}: is not a regular file", hint="give the path of a file")
        if status.st_size > limit:
            raise Corrupt(f"{path}: is {size(status.st_size)}, but at most {size(limit)} is read", hint=_HINT)
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise file_error(path, error) from error
    if len(data) > limit:
        raise Corrupt(f"{path}: grew past {size(limit)} while it was read", hint=_HINT)
    return data


def file_error(path: Path, error: OSError) -> LocalInferError:
    """The error a person sees when `path` cannot be opened or read."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return NotFound(f"{path}: no such file", hint="check the path, or download the model again")
    if isinstance(error, PermissionError):
        return NotFound(f"{path}: not allowed to read it", hint="check the permissions of the file")
    return Corrupt(f"{path}: cannot be read: {error.strerror or error}", hint="check the disk and the path")


def parse_json(data: bytes, where: str) -> Any:
    """The value of `data`, strict: UTF-8 without BOM, finite numbers, no key twice, at most `MAX_DEPTH` levels.

    `where` names the file (and field) in messages. Raises `Corrupt`.
    """
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=unique, parse_constant=_refuse_constant, parse_float=_finite
        )
    except UnicodeDecodeError as error:
        raise Corrupt(f"{where}: is not UTF-8 (byte {error.start})", hint=_HINT) from error
    except RefusedError as error:
        raise Corrupt(f"{where}: {error}", hint=_HINT) from error
    except RecursionError as error:
        raise Corrupt(f"{where}: is nested more than {MAX_DEPTH} levels deep", hint=_HINT) from error
    except json.JSONDecodeError as error:
        raise Corrupt(f"{where}: is not JSON: {error}", hint=_HINT) from error
    except ValueError as error:  # an integer of thousands of digits
        raise Corrupt(f"{where}: holds a number that is too long", hint=_HINT) from error
    if _deeper_than(value, MAX_DEPTH):
        raise Corrupt(f"{where}: is nested more than {MAX_DEPTH} levels deep", hint=_HINT)
    if _SURROGATE.search(data):
        _refuse_lone_surrogates(value, where)
    return value


def shown(text: object) -> str:
    """Text from a file, for a message: short, and without characters that a terminal would obey."""
    short = str(text)[:80]
    return short if short.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in short)


class RefusedError(Exception):
    """Raised inside the parser's hooks; a `ValueError` would be taken for bad syntax."""


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different, for a JSON parser. Raises `RefusedError`."""
    found = dict(pairs)
    if len(found) != len(pairs):
        # Two readers may take different ones of two equal keys: what was checked is then not what is used.
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise RefusedError(f"the key {twice[:80]!r} is there twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise RefusedError(f"holds {name}, which is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise RefusedError(f"holds the number {digits[:40]}, which is too large")
    return value


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(limit):
        # In C, since a vocabulary has hundreds of thousands of leaves.
        children = [*chain.from_iterable(item.values() if type(item) is dict else item for item in level)]
        kinds = set(map(type, children))
        if dict not in kinds and list not in kinds:
            return False
        level = [child for child in children if type(child) in (dict, list)]
    return True


def _refuse_lone_surrogates(value: Any, where: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise Corrupt(f"{where}: holds half of a surrogate pair", hint=_HINT) from error
