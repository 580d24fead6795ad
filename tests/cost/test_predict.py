"""The roofline and its correction, against examples worked out by hand."""

from pathlib import Path

import pytest

from localinfer.cost.predict import CACHE_SPEED, EFFICIENCY, LAYER_S, OTHER_WIDTH, Known, Load, load_of, predict
from localinfer.cost.roofline import traffic
from localinfer.formats.compressed import BITS
from localinfer.graph.weights import Checkpoint
from tests.tiny import make_checkpoint

SMALL = Load({16: 0, 4: 10**9}, 10)
LARGE = Load({16: 0, 4: 2 * 10**9}, 10)
WIDE = Load({16: 10**9}, 10)


def test_every_width_has_an_efficiency() -> None:
    assert set(EFFICIENCY) == {16, *BITS}


def test_the_roofline() -> None:
    seconds = 10**9 / (2e10 * EFFICIENCY[4]) + 10 * LAYER_S
    assert SMALL.seconds(2e10) == pytest.approx(seconds)
    alone = predict(SMALL, [], 2e10)
    assert alone.tok_s == pytest.approx(1 / seconds)
    assert (alone.correction, alone.corrected_by) == (1.0, ())
    assert alone.bytes_per_token == 10**9


def test_what_the_cache_holds_comes_faster() -> None:
    quarter = (10**9 * (3 / 4 + 1 / 4 / CACHE_SPEED)) / (2e10 * EFFICIENCY[4]) + 10 * LAYER_S
    assert SMALL.seconds(2e10, 10**9 // 4) == pytest.approx(quarter)
    whole = 10**9 / CACHE_SPEED / (2e10 * EFFICIENCY[4]) + 10 * LAYER_S
    assert SMALL.seconds(2e10, 10**10) == pytest.approx(whole)
    like = Known("large", LARGE, LARGE.seconds(2e10, 10**8))
    assert predict(SMALL, [like], 2e10, 10**8).tok_s == pytest.approx(1 / SMALL.seconds(2e10, 10**8))


def test_a_model_like_it_corrects_it() -> None:
    slow = Known("large", LARGE, 2 * LARGE.seconds(2e10))
    assert predict(SMALL, [slow], 2e10).tok_s == pytest.approx(1 / (2 * SMALL.seconds(2e10)))
    assert predict(LARGE, [slow], 2e10).tok_s == pytest.approx(1 / slow.seconds)


def test_likeness_weighs() -> None:
    twice, same = Known("twice", LARGE, 4 * LARGE.seconds(2e10)), Known("wide", WIDE, WIDE.seconds(2e10))
    found = predict(SMALL, [same, twice], 2e10)
    # Half for twice the size, OTHER_WIDTH for the same size in another width; the logarithms are averaged.
    assert found.correction == pytest.approx(4 ** (0.5 / (0.5 + OTHER_WIDTH)))
    assert found.corrected_by == ("twice", "wide")


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text"])
def test_the_load_is_the_traffic(tmp_path: Path, family: str) -> None:
    path = make_checkpoint(tmp_path / "m", family)  # type: ignore[arg-type]
    load = load_of(Checkpoint(path))
    assert load.nbytes == traffic(path, 8).weights
    assert load.body_bits == 16
    narrow = load_of(Checkpoint(path), lambda name: (4, 32))
    assert narrow.body_bits == 4
    assert narrow.nbytes < load.nbytes / 2
