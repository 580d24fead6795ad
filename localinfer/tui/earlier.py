"""Earlier messages: prompts brought back into the box, to be sent again or written anew; variants paged."""

from localinfer.errors import UsageError
from localinfer.tui.commands import escaped
from localinfer.tui.history import History
from localinfer.tui.widgets.facts import PaneFacts


class Earlier:
    """For one pane. While `place` is a number, what is sent takes the place of that turn."""

    def __init__(self, pane: PaneFacts) -> None:
        self.place: int | None = None
        self._pane = pane
        self._history = History(pane.session.store.prompts)
        self._draft = ""
        self._changed: dict[int, str] = {}  # turns that are written anew, as they stand now

    def recall(self, by: int) -> None:
        """Up (1) or Down (-1) at the edge of the box."""
        if self.place is not None:
            self._edit_next(by)
            return
        text = self._history.move(self._pane.box.whole, by)
        if text is not None:
            self._pane.box.bring_back(text)

    def edit(self, number: int | None = None) -> None:
        """Write an earlier prompt anew: the one of this number, or the last; then the one before. Raises `UsageError`
        if there is none."""
        places = self._places()
        if number is not None:
            if not 1 <= number <= len(places):
                raise UsageError(f"there is no prompt {number}", hint=f"this chat has {len(places)}")
            self._open(places[number - 1])
        elif not places:
            raise UsageError("nothing was asked yet", hint="write a prompt; it can be edited later")
        elif self.place is None:
            self._open(places[-1])
        else:
            self._edit_next(1)

    def leave(self) -> bool:
        """Write no earlier prompt anew; what was being typed before comes back. False if none was."""
        self._changed.clear()
        if self.place is None:
            return False
        self._back_to_draft()
        return True

    def sent(self, line: str) -> None:
        """The box was emptied by sending this."""
        self._history.add(line)
        self._changed.clear()
        self._close()
        self._draft = ""

    def page(self, by: int, message_id: int | None = None) -> None:
        """Show another variant: of this message, of the one that is written anew, or of the last that has several."""
        pane = self._pane
        turns = pane.session.turns
        several = [i for i, turn in enumerate(turns) if turn.variants > 1 and message_id in (None, turn.id)]
        place = self.place if self.place in several else several[-1] if several else None
        self.leave()
        if place is None:
            pane.say("no message of this chat has variants: Ctrl+R and Ctrl+B make them")
        elif pane.session.page(place, by):
            pane.show_turns()
            pane.transcript.reveal(place)
            pane.message.clear()
            pane.set_status(stats=None, speeds=(), joules_per_token=None)
            pane.count_context()
        else:
            pane.say(f"this is the {'first' if by < 0 else 'last'} of {turns[place].variants} variants")

    def _places(self) -> list[int]:
        return [i for i, turn in enumerate(self._pane.session.turns) if turn.role == "user"]

    def _edit_next(self, by: int) -> None:
        """The prompt before (1) or after (-1) the one that is edited; after the last, what was being typed."""
        places = self._places()
        if self.place not in places:
            self.leave()
            return
        at = places.index(self.place) - by
        if at >= 0:
            self._changed[self.place] = self._pane.box.whole
        if at >= len(places):
            self._back_to_draft()
        elif at >= 0:
            self._open(places[at])

    def _open(self, place: int) -> None:
        if self.place is None:
            self._draft = self._pane.box.whole
        self._pane.box.bring_back(self._changed.get(place, escaped(self._pane.session.turns[place].content)))
        self.mark(place)

    def mark(self, place: int) -> None:
        """What stands in the box is to take the place of this turn."""
        pane, places = self._pane, self._places()
        self.place = place
        which = f"prompt {places.index(place) + 1} of {len(places)}"
        pane.box.border_title = f"writing {which} anew · Enter goes on from there · Esc leaves it"
        pane.transcript.choose(place)

    def _back_to_draft(self) -> None:
        self._close()
        self._pane.box.replace_all(self._draft)

    def _close(self) -> None:
        if self.place is not None:
            self.place = None
            self._pane.show_attached()
            self._pane.transcript.choose(None)
