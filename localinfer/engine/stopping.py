"""Find stop strings in text that comes piece by piece, and never show a part of one."""

from collections.abc import Sequence


class StopScanner:
    """Gives text on, but holds back what may be the beginning of a stop string.

    How the text is cut into pieces does not matter: the stop string that is complete first wins, of two that end
    together the longer one.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(sorted(stops, key=len, reverse=True))
        self._held = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """The text that is now sure to be wanted, and the stop string found, if any; nothing comes after it."""
        if not self._stops:
            return text, None
        text = self._held + text
        found = [(text.index(stop) + len(stop), stop) for stop in self._stops if stop in text]
        if found:
            end, stop = min(found, key=lambda hit: hit[0])  # the longest of those that end first: sorted so
            self._held = ""
            return text[: end - len(stop)], stop
        hold = self._longest_beginning(text)
        self._held = text[len(text) - hold :]
        return text[: len(text) - hold], None

    def finish(self) -> str:
        """The text held back, now that nothing can follow it."""
        held, self._held = self._held, ""
        return held

    def _longest_beginning(self, text: str) -> int:
        """How many characters at the end of `text` begin some stop string."""
        longest = min(len(text), len(self._stops[0]) - 1)
        for length in range(longest, 0, -1):
            tail = text[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
