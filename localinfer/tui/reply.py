"""One reply as plain data: its events change it, in order, and the screen shows it as it is."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from localinfer.errors import LocalInferError
from localinfer.events import Event, Finished, Phase, Progress, Shifted, Started, Stats, Text


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be answered: a prompt; one in place of the prompt at `place` of the turns; or, without a prompt, the
    last one once more, or the rest of an answer that was cut off."""

    prompt: str | None = None
    place: int | None = None
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class Over:
    """The last event of a reply: the chat takes the next prompt."""

    error: LocalInferError | None = None


class Inbox:
    """Events from the thread that answers to the pane that shows them, in order. `wake` is called once for as many as
    wait: a token costs the app next to nothing, so that it does not hold up the engine."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._events: deque[Event | Over] = deque()
        self._told = False

    def put(self, event: Event | Over) -> None:
        """From the thread that answers."""
        self._events.append(event)
        if not self._told:
            self._told = True
            self._wake()

    def __bool__(self) -> bool:
        return bool(self._events)

    @property
    def ends(self) -> bool:
        """Is the end of the reply in it?"""
        return bool(self._events) and isinstance(self._events[-1], Over)

    def take(self) -> list[Event | Over]:
        """All that is there; from the app's own thread."""
        self._told = False  # before the events are taken, so that none is left without a call
        taken = []
        while self._events:
            taken.append(self._events.popleft())
        return taken


@dataclass
class Reply:
    """What one prompt has led to so far. Only `apply` and `begin` change it."""

    asked: Asked
    handle: int | None = None
    """What the engine calls it."""
    phase: Phase = "queued"
    percent: int | None = None
    """Of the prompt, how much was read."""
    context_size: int | None = None
    stats: Stats | None = None
    said: list[tuple[str, str | None]] = field(default_factory=list)
    """Pieces of the answer, each with who guessed it."""
    notes: list[str] = field(default_factory=list)
    """What the user should know of it."""
    moved: int = 0
    """Tokens computed for it, read and written."""
    finished: Finished | None = None
    over: Over | None = None

    def begin(self) -> None:
        """Its prefill is under way, though nothing is said of it yet."""
        if self.phase == "queued":
            self.phase, self.percent = "prefill", 0

    def apply(self, event: Event | Over) -> None:
        """One event, the next in order."""
        match event:
            case Started() as started:
                self.handle, self.context_size = started.handle, started.context_size
            case Progress(done=done, total=total, computed=computed):
                self.moved += computed
                self.phase, self.percent = "prefill", 100 * done // max(total, 1)
            case Text(text=text, drafter=drafter, token_ids=ids):
                self.moved += len(ids)
                if text:
                    self.said.append((text, drafter))
            case Shifted(dropped=dropped):
                self.notes.append(f"the oldest {dropped} tokens were forgotten, to make room in the context")
            case Stats() as stats:
                self.stats, self.phase = stats, stats.phase
                self.percent = self.percent if stats.phase == "prefill" else None
            case Finished() as finished:
                self.stats, self.finished = finished.stats, finished
            case Over() as over:
                self.over, self.percent = over, None
