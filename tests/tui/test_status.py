"""What the lines below panes say, and what they leave out."""

from dataclasses import replace

import pytest
from rich.cells import cell_len

from localinfer.engine.load import Load
from localinfer.events import Drafting, Guesses, Stats
from localinfer.tui.widgets.status import Status, line_of, milliseconds
from localinfer.tui.widgets.total import Total, summed

STATS = Stats(
    handle=1,
    phase="decode",
    prompt_tokens=10,
    cached_tokens=0,
    completion_tokens=20,
    context_used=30,
    context_size=512,
    ttft_s=0.21,
    decode_tok_s=41.5,
    itl_s=0.0241,
    itl_p99_s=0.1,
)
GUESSED = Drafting("auto", (Guesses("suffix", 10, 5),), plain_s=2.0, spent_s=1.0)


def words(status: Status, width: int = 200) -> str:
    return line_of(status.phase_text, status.details, "$primary", width).plain


def test_idle_says_ready_and_no_zeros() -> None:
    assert words(Status(phase="ready", context_size=512, api_usd=0.0, joules_per_token=0.0)) == "● ready"
    idle = Total(load=Load(blocks=16), joules=0.2, watts=0.3, api_usd=0.0)
    assert line_of(idle.head, idle.details, "$primary", 200).plain == "● 1 pane"
    kept = Total(load=Load(blocks=16, kept=3, prefill_rows=4), panes=2)
    assert line_of(kept.head, kept.details, "$primary", 200).plain == "● 2 panes   KV 3 kept"


def test_blocks_of_layers_with_a_window_are_told_apart() -> None:
    both = Total(load=Load(blocks=256, used=40, shared=8, window_blocks=76, window_used=18), panes=2)
    shown = line_of(both.head, both.details, "$primary", 200).plain
    assert shown == "● 2 panes   KV 40/256 blocks, 18/76 in windows, 8 shared"


def test_experts_that_stay_in_a_file_are_counted() -> None:
    load = Load(experts_bytes=4_000_000_000, experts_held=1_000_000_000, experts_read=2_500_000_000)
    both = Total(load=summed([load, Load(), load]), panes=2)
    assert line_of(both.head, both.details, "$primary", 200).plain == "● 2 panes   experts 25% held, 5.0 GB read"


def test_a_part_that_does_not_fit_is_skipped_and_the_next_one_shown() -> None:
    for width in range(10, 40):
        shown = line_of("ready", ["a" * 30, "short", "b" * 20, "c"], "$primary", width).plain
        assert cell_len(shown) <= width
        assert ("short" in shown) == (width >= 15)
    assert line_of("ready", ["a" * 30, "short", "b" * 20, "c"], "$primary", 24).plain == "● ready   short   c"


def test_context_comes_before_drafts() -> None:
    shown = words(Status(phase="ready", stats=replace(STATS, drafting=GUESSED)))
    assert shown.index("tok/s") < shown.index("context 30/512 (6%)") < shown.index("50% right") < shown.index("ITL")


@pytest.mark.parametrize(
    ("right", "plain_s", "spent_s", "shown"),
    [
        (5, 2.0, 1.0, "x2.00 vs plain, 1.0 s saved, 50% right"),
        (5, 0.06, 0.04, "x1.50 vs plain, 50% right"),
        (0, 0.36, 0.40, ""),  # a loss of less than a tenth of a second
        (1, 1.0, 1.0, ""),
        (0, 0.9, 2.0, "x0.45 vs plain, 1.1 s lost"),
        (1, 0.9, 2.0, "x0.45 vs plain, 1.1 s lost, 10% right"),
    ],
)
def test_drafts_show_no_zeros_and_call_a_loss_a_loss(right: int, plain_s: float, spent_s: float, shown: str) -> None:
    drafting = Drafting("auto", (Guesses("suffix", 10, right),), plain_s=plain_s, spent_s=spent_s)
    assert Status(stats=replace(STATS, drafting=drafting)).drafts == shown


def test_why_there_are_no_drafts_is_told_in_the_details_only() -> None:
    status = Status(phase="ready", stats=replace(STATS, drafting=Drafting("auto", off="guesses would not pay")))
    assert "draft" not in words(status)
    assert "pay" not in words(status)
    assert status.no_drafts == "guesses would not pay"
    assert Status(stats=replace(STATS, drafting=GUESSED)).no_drafts == ""


def test_the_context_of_a_chat_is_shown_before_anything_is_asked() -> None:
    assert words(Status(phase="ready", context_size=512, context_used=128)) == "● ready   context 128/512 (25%)"
    assert "context 30/512" in words(Status(phase="ready", context_size=512, context_used=128, stats=STATS))


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.12, "120 ms"), (0.0124, "12 ms"), (0.0034, "3.4 ms"), (0.00012, "0.12 ms")]
)
def test_latency_is_milliseconds_a_token(seconds: float, shown: str) -> None:
    assert milliseconds(seconds) == shown
    assert f"ITL {milliseconds(0.0241)}, p99 100 ms" in words(Status(phase="ready", stats=STATS))
