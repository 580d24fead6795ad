"""How often is drawn: the share of the time that drawing may take."""

from localinfer.tui.pacing import FASTEST_S, SHARE, SLOWEST_S, Pacing


def play(cost_s: float, count: int = 60) -> tuple[float, float]:
    """Draw `count` times at `cost_s` each; gives the interval at the end and the share of the time it took."""
    now, cpu = 0.0, 0.0
    pacing = Pacing(lambda: now, lambda: cpu)
    assert pacing.wait_s == 0
    for _ in range(count):
        pacing.drawn(1)
        now += cost_s
        cpu += cost_s
        now += pacing.wait_s
    return pacing.every_s, cost_s / pacing.every_s


def test_cheap_drawing_is_often() -> None:
    assert play(0.002)[0] == FASTEST_S


def test_dear_drawing_takes_its_share() -> None:
    every, share = play(0.05)
    assert FASTEST_S < every < SLOWEST_S
    assert share < 1.4 * SHARE


def test_very_dear_drawing_still_goes_on() -> None:
    assert play(1.0)[0] == SLOWEST_S
