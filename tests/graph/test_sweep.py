"""Fields of config.json with other values, compared with transformers: some of each family, and what was once wrong."""

from pathlib import Path
from typing import Any

import pytest

from localinfer.graph.defaults import DEFAULTS
from tests.graph.sweep import FULL, SCALED, SLIDING, base_config, changes, outcome, theirs
from tests.tiny import Family

SOME = 16
"""Of so many changes one is tried here; all of them by `tools.proofs.config_sweep`."""

YARN = {"rope_type": "yarn", "rope_theta": 500.0, **SCALED}
HARMLESS = ("same", "idle", "refused", "theirs refuses")
NOT_MADE = ("muse_glimmer_text", "nemotron_h")
"""transformers runs the first inside the whole model alone; of the other the sweep makes no model that is read back
alike."""


@pytest.mark.parametrize("family", [family for family in DEFAULTS if family not in NOT_MADE])
def test_no_field_is_passed_over(tmp_path: Path, family: Family) -> None:
    base = theirs(tmp_path, base_config(family), 0)
    found = {str(change): outcome(family, change, base) for change in list(changes(family))[::SOME]}
    assert {change: kind for change, kind in found.items() if kind not in HARMLESS} == {}


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("falcon_h1", {"hidden_act": "gelu"}),
        ("ernie4_5_moe", {"num_experts_per_tok": 1}),
        ("granitemoehybrid", {"hidden_act": "gelu_pytorch_tanh"}),
        ("gemma3_text", {"rope_scaling": {**YARN, "truncate": False}}),
        ("gemma3_text", {"rope_parameters": {FULL: {**YARN, "truncate": False}}}),
        ("olmo3", {"rope_parameters": {SLIDING: {**YARN, "truncate": False}}}),
    ],
)
def test_what_was_passed_over_is_refused(family: Family, change: dict[str, Any]) -> None:
    assert outcome(family, change, None) == "refused"


def test_the_sweep_sees_a_field_that_counts_and_one_that_does_not(tmp_path: Path) -> None:
    base = theirs(tmp_path, base_config("llama"), 0)
    assert outcome("llama", {"rms_norm_eps": 0.05}, base) == "same"
    assert outcome("llama", {"attention_dropout": 0.5}, base) == "idle"
    assert outcome("llama", {"hidden_act": "relu"}, base) == "refused"
    assert outcome("llama", {"num_attention_heads": 5}, base) == "theirs refuses"


def test_the_sweep_sees_a_field_that_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localinfer.graph.families.llama.read_activation", lambda config, name: "silu")
    assert outcome("llama", {"hidden_act": "relu"}, None) == "WRONG"
