"""RoPE frequencies from config.json: both spellings, and what the scalings do to them."""

import math
from typing import Any

import pytest

from localinfer.graph.defaults import DEFAULTS
from localinfer.graph.fields import Fields
from localinfer.graph.registry import read_graph
from localinfer.graph.rope import read_rope
from tests.tiny import FAMILIES, LLAMA3_ROPE, Family, new_spelling, tiny_config


def frequencies(head_dim: int = 16, **config: Any) -> tuple[float, ...]:
    return read_rope(Fields(config), head_dim).inv_freq


def test_plain_frequencies_fall_from_one_to_almost_one_over_theta() -> None:
    seen = frequencies(8, rope_theta=10000.0)
    assert seen == pytest.approx([1.0, 0.1, 0.01, 0.001])


def test_theta_is_ten_thousand_where_nothing_is_said() -> None:
    said = read_rope(Fields({}, defaults=DEFAULTS["llama"]), 16).inv_freq
    assert said == frequencies(rope_theta=10000.0)


def test_linear_divides_everything() -> None:
    scaled = frequencies(rope_theta=5e5, rope_scaling={"type": "linear", "factor": 4})
    assert scaled == pytest.approx([f / 4 for f in frequencies(rope_theta=5e5)])


def test_llama3_keeps_the_fast_divides_the_slow_and_blends_between() -> None:
    plain = frequencies(64, rope_theta=5e5)
    scaled = frequencies(64, rope_theta=5e5, rope_scaling=LLAMA3_ROPE)
    kinds = set()
    for before, after in zip(plain, scaled, strict=True):
        wavelength = 2 * math.pi / before
        if wavelength < 64 / 4:
            assert after == before
            kinds.add("fast")
        elif wavelength > 64 / 1:
            assert after == before / 8
            kinds.add("slow")
        else:
            assert before / 8 < after < before
            kinds.add("between")
    assert kinds == {"fast", "slow", "between"}


@pytest.mark.parametrize(
    "scaling", [None, {"rope_type": "default"}, {"rope_type": "linear", "factor": 2.0}, LLAMA3_ROPE]
)
@pytest.mark.parametrize("family", [family for family in FAMILIES if not family.startswith("gemma4")])
def test_both_spellings_say_the_same(family: Family, scaling: dict[str, Any] | None) -> None:
    if family == "ministral3":  # has no meaning without these
        scaling = {**(scaling or {"rope_type": "default"}), "llama_4_scaling_beta": 0.1}
        scaling.setdefault("original_max_position_embeddings", 64)
    if family == "gpt_oss" and scaling is None:  # which is YaRN there, and only there
        scaling = {"rope_type": "default"}
    if family == "phi3" and scaling and scaling["rope_type"] != "default":  # the one scaling that it has
        scaling = {"rope_type": "longrope", "short_factor": [1.0] * 12, "long_factor": [2.0] * 12}
    config = tiny_config(family, rope_scaling=scaling, rope_theta=123456.0)
    assert read_graph(new_spelling(config)) == read_graph(config)


def test_gemma_turns_sliding_layers_by_their_own_base() -> None:
    spec = read_graph(tiny_config("gemma3_text", rope_scaling={"rope_type": "linear", "factor": 8.0})).spec
    assert spec.windows == (8, 8, 0)
    assert spec.ropes[0].inv_freq == frequencies(32, rope_theta=1e4)
    assert spec.ropes[2].inv_freq == pytest.approx([f / 8 for f in frequencies(32, rope_theta=1e6)])
