"""Whole numbers with commas, as several flags take them."""

from localinfer.errors import UsageError


def counts(flag: str, words: list[str]) -> list[int]:
    """`["1,2,4"]` → `[1, 2, 4]`; `flag` is what they were given for."""
    parts = [part.strip() for word in words for part in word.split(",")]
    wrong = next((part for part in parts if not part.isascii() or not part.isdigit()), None)
    if wrong is not None:
        raise UsageError(
            f"--{flag} holds {wrong!r}, but must be whole numbers", hint=f"write them like `--{flag} 1,2,4,8`"
        )
    return [int(part) for part in parts]


def one_count(flag: str, words: list[str], default: int) -> int:
    """The one number that such a flag means where several mean nothing."""
    found = counts(flag, words) or [default]
    if len(found) > 1:
        raise UsageError(f"--{flag} has {len(found)} numbers, but here it takes one", hint=f"such as `--{flag} 8`")
    return found[0]
