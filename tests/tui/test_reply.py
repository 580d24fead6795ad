"""What a reply has come to, as its events say it."""

from localinfer.events import Progress, Started, Text
from localinfer.tui.reply import Asked, Reply


def test_what_was_found_in_the_cache_was_not_computed() -> None:
    """Energy is shared out by what was computed for each pane."""
    reply = Reply(Asked("hi"))
    for event in (Started(1, 100, 512), Progress(1, 96, 100, 32), Progress(1, 100, 100, 4), Text(1, "a", (5,))):
        reply.apply(event)
    assert reply.moved == 37
