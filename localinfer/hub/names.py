"""Which names from outside may become a path: one place, used by everything that joins one."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from localinfer.errors import Corrupt, UsageError

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
_REPO_SEGMENT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,94}[A-Za-z0-9._])?")
_MOST_BYTES = 120
"""UTF-8 bytes of one word of a name: two of them and what we put before and after make a folder's name of 255."""
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def is_model_name(name: str) -> bool:
    """Whether `name` is `word` or `org/word`, and so maps to one folder and back (no word ends in `-`).

    Letters and digits of any script, in their composed form, so that one name is one folder everywhere.
    """
    parts = name.split("/")
    return len(parts) <= 2 and all(map(_is_word, parts))


def is_repo_name(name: str) -> bool:
    """Whether the Hub could have a repository of this name: it knows ASCII only."""
    return is_model_name(name) and all(_REPO_SEGMENT.fullmatch(part) for part in name.split("/"))


def is_name_letter(character: str) -> bool:
    """Whether a name may hold `character`: letters that are seen, their marks, digits, `.`, `_` and `-`."""
    return character in "._-" or (_is_letter(character, "LM") and not _UNSEEN.match(character))


def _is_letter(character: str, kinds: str = "L") -> bool:
    category = unicodedata.category(character)
    return category[0] in kinds or category == "Nd"


def name_from(text: str) -> str:
    """`text` as one word of a model's name: composed, a `-` for what no name holds; "" if nothing is left."""
    composed = unicodedata.normalize("NFC", text)
    word = "".join(character if is_name_letter(character) else "-" for character in composed)
    word = re.sub(r"-{2,}", "-", re.sub(r"\.{2,}", ".", word))
    word = word.encode()[: _MOST_BYTES - 30].decode(errors="ignore")  # room for what is added to it
    while word and not _is_letter(word[0]):
        word = word[1:]
    return unicodedata.normalize("NFC", word).rstrip("-._")


def _is_word(word: str) -> bool:
    return (
        0 < len(word.encode("utf-8", "surrogatepass")) <= _MOST_BYTES
        and all(map(is_name_letter, word))
        and _is_letter(word[0])
        and not word.endswith("-")
        and not any(pair in word for pair in ("--", ".."))
        and unicodedata.is_normalized("NFC", word)
    )


_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Letters and marks that no font shows."""


def check_model_name(name: str) -> str:
    """`name` itself; `UsageError` when it could not be a folder of ours."""
    if not is_model_name(name):
        raise UsageError(
            f"{name!r} is not a model name",
            hint="use `name` or `org/name`: letters, digits, `.`, `_` and single `-`",
        )
    return name


def check_repo_name(name: str) -> str:
    """`name` itself; `UsageError` when the Hub could not have a repository of that name."""
    if not is_repo_name(name):
        raise UsageError(f"{name!r} is not the name of a repository", hint="the Hub's names are like `org/name`")
    return name


def is_revision(revision: str) -> bool:
    """Whether `revision` can be a commit, branch or tag and also a path below `refs/`."""
    return bool(_REVISION.fullmatch(revision)) and not any(p in ("", ".", "..") for p in revision.split("/"))


def folder_of(name: str) -> str:
    """`org/name` → `org--name`."""
    return name.replace("/", "--")


def name_of(folder: str) -> str:
    """`org--name` → `org/name`; the other way round of `folder_of`."""
    return folder.replace("--", "/", 1)


def unsafe_reason(name: str) -> str | None:
    """Why a file of a repository may not be written under its name, or None when it may.

    The rules of every system at once, so that a cache can move between them.
    """
    if not name or name.startswith(("/", "~")):
        return "an absolute path"
    if "\\" in name or ":" in name:
        return "a backslash or a drive"
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in name):
        return "a control character"
    for part in name.split("/"):
        if part in ("", ".", ".."):
            return "a path that leaves its folder"
        if len(part.encode("utf-8", "surrogatepass")) > 255:
            return "a part longer than 255 bytes"
        if part != part.rstrip(" ."):
            return "a part that ends in a dot or a space"
        if _DEVICE.fullmatch(part):
            return "the name of a device"
    return None


def check_file_names(names: Iterable[str]) -> None:
    """Raise `Corrupt` at the first unsafe name, or at two names that some file system takes for one."""
    seen: dict[str, str] = {}
    for name in names:
        reason = unsafe_reason(name)
        if reason is None:
            key = unicodedata.normalize("NFC", name).casefold()
            if key not in seen:
                seen[key] = name
                continue
            reason = f"the same name as {seen[key]!r} on some file systems"
        raise Corrupt(
            f"the repository holds a file named {shown(name)}: {reason}",
            hint="nothing was written; do not use this repository",
        )


def shown(name: str) -> str:
    """`name` quoted, escaped and shortened for a message."""
    return repr(name if len(name) <= 80 else name[:77] + "...")


def inside(root: Path, path: Path) -> bool:
    """Whether `path`, with every link followed, still lies below `root`."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        return False
