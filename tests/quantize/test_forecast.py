"""What is left of a run is told by what its files took, however little their weights say about it."""

from localinfer.quantize.forecast import AGAIN, Forecast, Kind
from localinfer.quantize.pace import Expected

SIZES = [1000, 100, 100, 100, 100]
KINDS: tuple[Kind, ...] = ("rounded", "fitted", "fitted", "fitted", "fitted")


class Run:
    """A forecast by a clock of its own."""

    def __init__(self, kinds: list[Kind], expected: Expected | None) -> None:
        self.now = 0.0
        self.forecast = Forecast(SIZES, kinds, expected, lambda: self.now)

    def file(self, number: int, seconds: float) -> None:
        self.forecast.begin(number)
        self.forecast.advance(SIZES[number])
        self.now += seconds
        self.forecast.end()

    def left(self) -> float:
        seconds = self.forecast.speed.seconds_left
        assert seconds is not None
        return seconds


EXPECTED = Expected(layer_s=10, weight_s=0.001)


def run(*kinds: Kind, expected: Expected | None = EXPECTED) -> Run:
    return Run(list(kinds or KINDS), expected)


def test_layers_count_by_what_they_took() -> None:
    """A quick embedding promises nothing; once a layer was measured, the others are taken to be like it."""
    at = run()
    assert at.left() == 1 + 4 * 10
    at.file(0, 0.5)
    assert at.left() == 4 * 10
    at.file(1, 20)
    assert at.left() == 3 * 20
    at.forecast.begin(2)
    at.now += 5
    assert at.left() == 15 + 2 * 20, "as a layer goes on, its seconds pass"
    at.forecast.advance(50)
    at.now += 20
    assert at.left() > 2 * 20, "a layer that takes longer is not over before it ends"
    for number in (2, 3, 4):
        at.file(number, 20)
    assert at.left() == 0


def test_speed_is_that_of_what_goes_on() -> None:
    at = run()
    at.file(0, 0.5)
    at.forecast.begin(1)
    at.forecast.advance(100)
    at.now += 20
    assert at.forecast.speed.per_second == 5


def test_without_an_estimate_nothing_is_promised_before_a_layer() -> None:
    at = run(expected=None)
    assert at.forecast.speed.seconds_left is None
    at.file(0, 0.5)
    assert at.forecast.speed.seconds_left is None
    at.file(1, 20)
    assert at.left() == 3 * 20


def test_finished_layers_are_gone_over_again_and_layers_without_time_are_rounded() -> None:
    at = run("rounded", "again", "again", "fitted", "fitted")
    assert at.left() == 1 + 2 * 10 * AGAIN + 2 * 10
    at = run()
    at.file(0, 1)
    at.forecast.begin(1, "rounded")
    assert at.left() == 4 * 100 * 0.001, "none of the others will get the method either"
