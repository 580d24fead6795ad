"""Guess by copying: where the end of the text has been seen before in it, propose what followed then."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from localinfer.speculation.drafter import Ask, Draft

GRAM = 4
"""Tokens by which a repeat is found."""

LONGEST = 32
"""A repeat is not measured further back than this."""

EASY, HARD = 6, 24
"""A repeat must be this long to be copied: at first, and at most after copies that went wrong."""


@dataclass(slots=True)
class _Text:
    seen: int = 0
    """Grams that end before this position are in `after`."""
    after: dict[tuple[int, ...], int] = field(default_factory=dict)
    """The last `GRAM` tokens → the position that followed them, the latest one."""
    need: int = EASY


class LookupDrafter:
    """Copies long repeats of the text so far: good for edits, summaries and lists, silent in free prose.

    A wrong copy doubles the length that the next repeat must have, a right one halves it again, so that a text that
    only seems to repeat itself is soon left alone.
    """

    name = "lookup"
    free = True

    def __init__(self) -> None:
        self._texts: dict[int, _Text] = {}

    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        return [self._guess(ask) for ask in asks]

    def _guess(self, ask: Ask) -> Draft:
        text = self._texts.setdefault(ask.handle, _Text())
        start = self._last_repeat(text, ask.tokens)
        if start is None:
            return Draft()
        length = _repeat_length(ask.tokens, start)
        if length < text.need:
            return Draft()
        tokens = list(ask.tokens[start : start + min(ask.most, length)])
        return Draft(tokens, [1 - 1 / (1 + length)] * len(tokens))

    def observe(self, handle: int, guessed: int, accepted: int) -> None:
        text = self._texts.get(handle)
        if text is None or guessed == 0:
            return
        if 2 * accepted < guessed:
            text.need = min(HARD, 2 * text.need)
        elif accepted == guessed:
            text.need = max(EASY, text.need // 2)

    def forget(self, handle: int) -> None:
        self._texts.pop(handle, None)

    def close(self) -> None:
        self._texts.clear()

    @staticmethod
    def _last_repeat(text: _Text, tokens: Sequence[int]) -> int | None:
        """Where the last `GRAM` tokens were followed by something before; learns the grams up to the last token."""
        for end in range(max(text.seen, GRAM), len(tokens)):
            text.after[tuple(tokens[end - GRAM : end])] = end
        text.seen = max(text.seen, len(tokens))
        return text.after.get(tuple(tokens[-GRAM:])) if len(tokens) >= GRAM else None


def _repeat_length(tokens: Sequence[int], start: int) -> int:
    """How many tokens before `start` equal those before the end of the text; at most `LONGEST`."""
    length = 0
    end = len(tokens)
    while length < LONGEST and length < start and tokens[start - 1 - length] == tokens[end - 1 - length]:
        length += 1
    return length
