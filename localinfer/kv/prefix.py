"""Which full blocks hold which beginning of a text, so that it need not be computed again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from localinfer.kv.blocks import BLOCK_TOKENS, NONE

ROOT = 0
"""The link of the empty beginning."""

Key = tuple[int, tuple[int, ...]]


@dataclass(slots=True)
class _Node:
    key: Key
    blocks: list[int]
    """Of each group the block that holds this; NONE where it is gone, or was never here."""
    children: int = 0
    proven: bool = False


class PrefixIndex:
    """Full blocks, found by what comes before them and the 32 tokens in them.

    Every known place has a *link*, a number that is never used twice; a place is found under the link of the one before
    it and its own tokens. So a hit means that all tokens up to the place's end are equal, not that some hash of them
    is. Each of `groups` groups of blocks may have one of the place, or none; a place is known as long as a group has a
    block of it, or of something after it.
    """

    def __init__(self, groups: int = 1) -> None:
        self._groups = groups
        self._links: dict[Key, int] = {}
        self._nodes: dict[int, _Node] = {}
        self._link_of: list[dict[int, int]] = [{} for _ in range(groups)]  # of each group's blocks
        self._next_link = ROOT + 1

    def __len__(self) -> int:
        return len(self._nodes)

    def find(self, tokens: Sequence[int], most: int) -> list[int]:
        """The link of each leading block of `tokens` that is known, at most `most` of them."""
        links: list[int] = []
        before = ROOT
        for start in range(0, most * BLOCK_TOKENS, BLOCK_TOKENS):
            link = self._links.get((before, tuple(tokens[start : start + BLOCK_TOKENS])))
            if link is None:
                break
            links.append(link)
            before = link
        return links

    def block(self, link: int, group: int = 0) -> int:
        """The block of `group` that holds what `link` stands for, or NONE."""
        node = self._nodes.get(link)
        return NONE if node is None else node.blocks[group]

    def link(self, before: int, tokens: Sequence[int]) -> int:
        """The link of these 32 tokens after those of the link `before`."""
        key = (before, tuple(tokens))
        link = self._links.get(key)
        if link is None:
            link = self._next_link
            self._next_link += 1
            self._links[key] = link
            self._nodes[link] = _Node(key, [NONE] * self._groups)
            if before in self._nodes:
                self._nodes[before].children += 1
        return link

    def put(self, link: int, block: int, group: int = 0) -> bool:
        """`block` of `group` holds what `link` stands for. False if another one is found for that."""
        node = self._nodes.get(link)
        if node is None or node.blocks[group] != NONE:
            return False
        node.blocks[group] = block
        self._link_of[group][block] = link
        return True

    def forget(self, block: int, group: int = 0) -> list[int]:
        """The content of `block` of `group` is gone; gives the links that stand for nothing any more."""
        link = self._link_of[group].pop(block, ROOT)
        if link == ROOT:
            return []
        self._nodes[link].blocks[group] = NONE
        gone = list[int]()
        while (node := self._nodes.get(link)) and not node.children and all(one == NONE for one in node.blocks):
            gone.append(link)
            del self._nodes[link], self._links[node.key]
            link = node.key[0]
            if link in self._nodes:
                self._nodes[link].children -= 1
        return gone

    def prove(self, links: Iterable[int]) -> None:
        """What these stand for is known to be finite."""
        for link in links:
            if link in self._nodes:
                self._nodes[link].proven = True

    def proven(self, link: int) -> bool:
        """Is it?"""
        return link in self._nodes and self._nodes[link].proven
