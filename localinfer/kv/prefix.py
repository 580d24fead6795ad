"""Which full blocks hold which beginning of a text, so that it need not be computed again."""

from collections.abc import Sequence

from localinfer.kv.blocks import BLOCK_TOKENS

ROOT = 0
"""The link of the empty beginning."""

Key = tuple[int, tuple[int, ...]]


class PrefixIndex:
    """Full blocks, found by what comes before them and the 32 tokens in them.

    Every known block has a *link*, a number that is never used twice; a block is found under the link of the block
    before it and its own tokens. So a hit means that all tokens up to the block's end are equal, not that some hash of
    them is. A block whose predecessor was forgotten can no longer be found; it is simply not worth much any more.
    """

    def __init__(self) -> None:
        self._found: dict[Key, tuple[int, int]] = {}  # → (link, block)
        self._key_of: dict[int, Key] = {}
        self._next_link = ROOT + 1

    def __len__(self) -> int:
        return len(self._found)

    def find(self, tokens: Sequence[int], most: int) -> list[tuple[int, int]]:
        """(link, block) of each leading block of `tokens` that is known, at most `most` of them."""
        hits: list[tuple[int, int]] = []
        before = ROOT
        for start in range(0, most * BLOCK_TOKENS, BLOCK_TOKENS):
            hit = self._found.get((before, tuple(tokens[start : start + BLOCK_TOKENS])))
            if hit is None:
                break
            hits.append(hit)
            before = hit[0]
        return hits

    def put(self, before: int, tokens: Sequence[int], block: int) -> tuple[int, bool]:
        """`block` holds these 32 tokens after the block whose link is `before`.

        Gives the link, and whether `block` is the one that will be found; another block may already hold the same.
        """
        key = (before, tuple(tokens))
        hit = self._found.get(key)
        if hit is not None:
            return hit[0], False
        link = self._next_link
        self._next_link += 1
        self._found[key] = link, block
        self._key_of[block] = key
        return link, True

    def forget(self, block: int) -> int | None:
        """The content of `block` is gone; gives the link it had, if it had one."""
        key = self._key_of.pop(block, None)
        return None if key is None else self._found.pop(key)[0]
