"""Guessing with a model: one token after the other, all texts of a step side by side, as long as it is sure enough."""

from collections.abc import Sequence
from typing import Any, Protocol

from localinfer.speculation.drafter import Ask, Choose, Draft

FLOOR = 0.25
"""A text is not guessed further when all its guesses so far are less likely than this to be right."""


class Scores(Protocol):
    """What a model makes of the next token of one text. Holds until its draft runner is asked again."""

    def draw(self, choose: Choose, taken: list[int]) -> tuple[int, float] | None:
        """The token that the text's own sampler would take from these scores, and the model's probability of it; None
        where the scores are not finite."""
        ...


class DraftRunner(Protocol):
    """A model that guesses. Its own state of each text follows the known tokens."""

    def start(self, asks: Sequence[Ask]) -> list[Scores | None]:
        """Read what is new of each text; the scores after its last known token, None where it cannot guess."""
        ...

    def go_on(self, asks: Sequence[Ask], guesses: Sequence[list[int]]) -> list[Scores]:
        """The scores after one guess more of each of these texts, the last of its `guesses`."""
        ...

    def read(self, handle: int, tokens: Sequence[int], start: int, end: int, hidden: Any) -> None:
        """As `Reads.read`."""
        ...

    def forget(self, handle: int) -> None: ...

    def close(self) -> None: ...


class ChainDrafter:
    """A drafter that runs `draft_runner`."""

    free = False

    def __init__(self, name: str, draft_runner: DraftRunner) -> None:
        self.name = name
        self._draft_runner = draft_runner

    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        drafts, alive = [Draft() for _ in asks], [1.0] * len(asks)
        scores = self._draft_runner.start(asks)
        going = [i for i, found in enumerate(scores) if found is not None]
        rows = [found for found in scores if found is not None]
        while going:
            for i, row in zip(going, rows, strict=True):
                drawn = row.draw(asks[i].choose, drafts[i].tokens)
                if drawn is None:
                    alive[i] = 0.0
                    continue
                token, confidence = drawn
                drafts[i].tokens.append(token)
                drafts[i].confidence.append(confidence)
                alive[i] *= confidence
            going = [i for i in going if alive[i] >= FLOOR and len(drafts[i].tokens) < asks[i].most]
            if going:
                rows = self._draft_runner.go_on([asks[i] for i in going], [drafts[i].tokens for i in going])
        return drafts

    def read(self, handle: int, tokens: Sequence[int], start: int, end: int, hidden: Any) -> None:
        self._draft_runner.read(handle, tokens, start, end, hidden)

    def observe(self, handle: int, guessed: int, accepted: int) -> None:
        """Whoever asks keeps the record."""

    def forget(self, handle: int) -> None:
        self._draft_runner.forget(handle)

    def close(self) -> None:
        self._draft_runner.close()
