"""A table is never cut, whatever the width of the screen."""

import random

import pytest
from rich.cells import cell_len
from textual.app import App, ComposeResult

from localinfer.tui.widgets.figures import GAP, Figures, blocks
from tests.tui.conftest import screen_text, still


@pytest.mark.parametrize("seed", range(50))
def test_every_column_stands_once_and_none_is_cut(seed: int) -> None:
    rng = random.Random(seed)
    widths = [rng.randint(1, 30) for _ in range(rng.randint(3, 20))]
    room, lead = rng.randint(20, 200), rng.randint(1, 2)
    found = blocks(widths, room, lead)
    assert [i for block in found for i in block[lead:]] == list(range(lead, len(widths)))
    for block in found:
        assert block[:lead] == list(range(lead))
        used = sum(widths[i] for i in block) + GAP * (len(block) - 1)
        assert used <= room or len(block) == lead + 1


class Shown(App[None]):
    def compose(self) -> ComposeResult:
        yield Figures(["pane", "model", *(f"figure {i}" for i in range(12))], lead=2)


async def test_it_is_drawn_anew_for_another_width() -> None:
    app = Shown()
    async with app.run_test(size=(200, 70)) as pilot:
        app.query_one(Figures).show([["1", "名前:INT4", *map(str, range(12))], ["2", "b", *map(str, range(12))]])
        for width in (200, 80, 30):
            await pilot.resize_terminal(width, 70)
            await still(pilot)
            seen = screen_text(app)
            assert all(f"figure {i}" in seen for i in range(12)), width
            assert all(cell_len(line) <= width for line in seen.splitlines())
