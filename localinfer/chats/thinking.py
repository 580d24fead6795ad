"""Tells a model's reasoning from its answer, while it is written."""

OPENING, CLOSING = "<think>", "</think>"


class Thinking:
    """Splits text that comes piece by piece; how it is cut does not matter.

    Reasoning stands at the beginning, between marks. `begun`: the prompt ended inside it. Line breaks right inside and
    right behind the marks belong to neither part.
    """

    def __init__(self, *, begun: bool = False) -> None:
        self._state = "inside" if begun else "before"
        self._held = ""
        self._fresh = True  # nothing of this part has been given yet, so line breaks are dropped

    @property
    def inside(self) -> bool:
        """Is what comes now reasoning, as far as is known?"""
        return self._state == "inside"

    def push(self, text: str) -> tuple[str, str]:
        """The next piece: reasoning and answer that are now sure."""
        self._held += text
        reasoning = content = ""
        if self._state == "before":
            stripped = self._held.lstrip()
            if stripped.startswith(OPENING):
                self._state, self._held = "inside", stripped[len(OPENING) :]
            elif not OPENING.startswith(stripped):
                self._state, self._fresh = "after", False
        if self._state == "inside":
            reasoning = self._reason()
        if self._state == "after":
            content, self._held = self._held.lstrip("\n") if self._fresh else self._held, ""
            self._fresh = self._fresh and not content
        return reasoning, content

    def finish(self) -> tuple[str, str]:
        """What was held back, now that nothing can follow it."""
        held, self._held = self._held, ""
        return (held, "") if self._state == "inside" else ("", held)

    def _reason(self) -> str:
        if self._fresh:
            self._held = self._held.lstrip("\n")
        reasoning, closing, rest = self._held.partition(CLOSING)
        if closing:
            self._state, self._held, self._fresh = "after", rest, True
            return reasoning.rstrip("\n")
        kept = len(reasoning) - held_back(reasoning, CLOSING)
        kept = len(reasoning[:kept].rstrip("\n"))
        self._fresh = self._fresh and kept == 0
        self._held = reasoning[kept:]
        return reasoning[:kept]


def held_back(text: str, mark: str) -> int:
    """How many characters at the end of `text` may begin `mark`."""
    longest = min(len(text), len(mark) - 1)
    return next((n for n in range(longest, 0, -1) if mark.startswith(text[-n:])), 0)
