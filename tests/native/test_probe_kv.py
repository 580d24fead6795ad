"""The probe that says which layers bear a 4-bit cache: both caches from one q, k and v, layer by layer."""

from dataclasses import replace

import numpy as np
import pytest

from localinfer import native
from tests.native import meaning
from tests.native.matrices import Doubles
from tests.native.meaning import Model, Shape, random_model
from tests.native.running import Runner, build, some_tokens

N = 100
TOKENS = some_tokens(N, 77)


def with_large_key_bias(model: Model, layer: int) -> Model:
    """As a few columns of the keys of some models are: rotated, they are as large as everything else together."""
    s = model.shape
    bias = model.layers[layer].extra["bias"].copy()
    keys = bias[s.heads * s.head_dim :][: s.kv_heads * s.head_dim].reshape(s.kv_heads, s.head_dim)
    keys[:, [15, 31]] += 100  # the slowest angle: RoPE hardly turns it
    layers = list(model.layers)
    layers[layer] = replace(layers[layer], extra=layers[layer].extra | {"bias": bias})
    return replace(model, layers=tuple(layers))


def attended(model: Model, kv_bits: int) -> Doubles:
    """What the first layer's attention gives, in float64."""
    s, layer = model.shape, model.layers[0]
    h = meaning.rms_norm(model.embed.values[TOKENS] * s.embed_scale, layer.norm, s.eps)
    q, k, v = ((meaning.linear(m, h)).reshape(N, -1, s.head_dim) for m in layer.qkv)
    q, k = meaning.rope(q, model.inv_freq), meaning.rope(k, model.inv_freq)
    return meaning.attention(q, k, v, kv_bits, layer.window)


@pytest.mark.parametrize("window", [0, 20])
def test_it_is_the_error_of_the_attention(window: int) -> None:
    model = random_model(Shape(kind="bf16", table_kind="bf16", windows=(window, 0)))
    wide, narrow = attended(model, 8), attended(model, 4)
    meant = np.sqrt(np.square(narrow - wide).sum() / np.square(wide).sum())
    found = build(model).probe_kv(TOKENS)
    assert len(found) == 2
    assert abs(found[0] - meant) < 0.02 * meant
    assert 0.01 < meant < 0.5


@pytest.mark.parametrize("shape", [Shape(), Shape(kind="int8", qk_norm=True, kv_heads=1, windows=(20, 0))], ids=str)
def test_it_depends_on_the_model_alone(shape: Shape) -> None:
    """Whatever computes it, the choice is the same: the same bits, so the same text."""
    model = random_model(shape)
    expected = build(model, isa="scalar").probe_kv(TOKENS)
    assert all(error > 0 for error in expected)
    for isa in native.supported_isas():
        assert build(model, isa=isa, threads=2).probe_kv(TOKENS) == expected
    for max_rows in (1, 7, 64):
        assert build(model, max_rows=max_rows, threads=3).probe_kv(TOKENS) == expected


def test_it_leaves_the_program_as_it_was() -> None:
    model = random_model(Shape())
    plain = Runner(build(model, kv_bits=[4, 8])).feed(TOKENS, N)
    runner = Runner(build(model, kv_bits=[4, 8]))
    first = runner.feed(TOKENS[:40], 40)
    once = runner.program.probe_kv(TOKENS)
    rest = runner.feed(TOKENS[40:], 60)
    assert np.array_equal(np.concatenate([first, rest]), plain)
    assert runner.program.probe_kv(TOKENS) == once


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_keys_with_a_large_bias_stand_out(layer: int) -> None:
    model = random_model(Shape(bias=True, layers=3))
    before = build(model).probe_kv(TOKENS)
    after = build(with_large_key_bias(model, layer)).probe_kv(TOKENS)
    assert after[layer] > 3 * max(before)
    assert np.argmax(after) == layer
    assert after[:layer] == before[:layer]
