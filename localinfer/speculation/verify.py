"""Check guesses by doing what would have been done without them: sample each row, go on while the guess was right."""

from collections.abc import Callable, Sequence


def sample_and_match(drafts: Sequence[int], sample: Callable[[int, list[int]], int | None]) -> list[int]:
    """The tokens that plain decoding would have given, one more than the number of right guesses.

    `sample(i, taken)` is the token chosen from row i's logits when the tokens `taken` follow the known text. Row i saw
    the first i guesses, so its logits mean something only while these equal `taken`: the first wrong guess ends it.
    So does a row that nothing can be drawn from, where `sample` gives None; `broke_off` tells.
    """
    taken: list[int] = []
    for i in range(len(drafts) + 1):
        token = sample(i, taken)
        if token is None:
            break
        taken.append(token)
        if i == len(drafts) or token != drafts[i]:
            break
    return taken


def broke_off(drafts: Sequence[int], taken: Sequence[int]) -> bool:
    """Whether `sample_and_match` ended at a row that nothing could be drawn from: every token was a right guess, yet
    none follows them."""
    return len(taken) <= len(drafts) and list(taken) == list(drafts[: len(taken)])
