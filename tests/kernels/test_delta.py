"""The gated delta rule: its meaning in double precision, the same bits on every ISA, in place, and replayed."""

import numpy as np
import pytest
from numpy.random import Generator

from localinfer import _native as native

from .arrays import EPS, Guarded, assert_close, same_bits, shifted

ISAS = native.supported_isas()
SIZES = [(16, 16), (32, 48), (128, 128), (96, 192), (16, 112), (512, 16)]


@pytest.mark.parametrize(("keys", "values"), SIZES)
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_delta_rule(keys: int, values: int, offset: int, rng: Generator) -> None:
    state = shifted(rng.normal(size=(keys, values)).astype(np.float32), offset)
    q, k = (shifted((rng.normal(size=keys) / keys**0.5).astype(np.float32), offset) for _ in range(2))
    v, decay, beta = shifted(rng.normal(size=values).astype(np.float32), offset), 0.8125, 1.625
    seen: list[list[bytes]] = []
    for isa in ISAS:
        to, replayed = (Guarded((keys, values), offset=offset) for _ in range(2))
        out, delta = (Guarded((values,), offset=offset) for _ in range(2))
        native.delta_rule(to.view, state, out.view, delta.view, q, k, v, decay, beta, isa=isa)
        native.delta_replay(replayed.view, state, k, delta.view, decay, isa=isa)
        for one in (to, replayed, out, delta):
            one.check()
        assert same_bits(np.array(to.view), np.array(replayed.view))
        place = state.copy()
        native.delta_rule(place, place, out.view, delta.view, q, k, v, decay, beta, isa=isa)
        assert same_bits(place, np.array(to.view))
        seen.append([np.array(one.view).tobytes() for one in (to, out, delta)])
    assert all(one == seen[0] for one in seen)
    wide = decay * state.astype(np.float64)
    change = beta * (v - k.astype(np.float64) @ wide)
    meant = wide + np.outer(k, change)
    # a sum of `keys` products for the change, and another one to read what it made of the state
    off = (keys + 4) * EPS * (np.abs(k) @ np.abs(wide) + np.abs(v)) * beta
    assert_close(np.array(delta.view), change, off)
    moved = 3 * EPS * np.abs(meant) + np.outer(np.abs(k), off + 2 * EPS * np.abs(change))
    assert_close(np.array(to.view), meant, moved)
    assert_close(np.array(out.view), q @ meant, np.abs(q) @ (moved + (keys + 1) * EPS * np.abs(meant)))


@pytest.mark.parametrize(("keys", "values"), SIZES)
def test_delta_scan(keys: int, values: int, rng: Generator) -> None:
    """What Mamba-2 does: the change is given."""
    state = rng.normal(size=(keys, values)).astype(np.float32)
    q, k = ((rng.normal(size=keys) / keys**0.5).astype(np.float32) for _ in range(2))
    delta, decay = rng.normal(size=values).astype(np.float32), 0.8125
    seen: list[list[bytes]] = []
    for isa in ISAS:
        to, replayed = (Guarded((keys, values)) for _ in range(2))
        out = Guarded((values,))
        native.delta_scan(to.view, state, out.view, delta, q, k, decay, isa=isa)
        native.delta_replay(replayed.view, state, k, delta, decay, isa=isa)
        for one in (to, replayed, out):
            one.check()
        assert same_bits(np.array(to.view), np.array(replayed.view))
        seen.append([np.array(one.view).tobytes() for one in (to, out)])
    assert all(one == seen[0] for one in seen)
    meant = decay * state.astype(np.float64) + np.outer(k, delta.astype(np.float64))
    off = 3 * EPS * (np.abs(decay * state) + np.abs(np.outer(k, delta)))
    assert_close(np.array(to.view), meant, off)
    assert_close(np.array(out.view), q @ meant, np.abs(q) @ (off + (keys + 1) * EPS * np.abs(meant)))


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so_on_every_isa(broken: float, rng: Generator) -> None:
    state = rng.normal(size=(32, 64)).astype(np.float32)
    state[3, 5] = broken
    x = np.ones(32, np.float32)
    made = []
    for isa in ISAS:
        to, out, delta = np.zeros_like(state), np.zeros(64, np.float32), np.zeros(64, np.float32)
        native.delta_rule(to, state, out, delta, x, x, np.ones(64, np.float32), 0.5, 1.0, isa=isa)
        made.append((to, out, delta))
        assert not np.isfinite(out[5])
        assert np.isfinite(np.delete(out, 5)).all()
    assert all(same_bits(one, other) for mine in made for one, other in zip(mine, made[0], strict=True))


def test_shapes_that_do_not_fit_are_refused() -> None:
    x, state = np.zeros(32, np.float32), np.zeros((32, 32), np.float32)
    with pytest.raises(ValueError, match="states must be"):
        native.delta_rule(state, state[:16], x, x.copy(), x, x, x, 0.5, 1.0)
    with pytest.raises(ValueError, match="multiples of 16"):
        native.delta_replay(state, state, x[:24], x, 0.5)
