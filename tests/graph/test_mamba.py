"""Mamba-2: limits of its steps, and what config.json may not say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localinfer.errors import Corrupt, NotSupported
from localinfer.graph.ops import Mamba2
from localinfer.graph.registry import read_graph
from localinfer.graph.weights import Checkpoint
from localinfer.reference.executor import logits
from tests.graph.oracle import PROMPT, assert_close, transformers_model
from tests.graph.running import load, run
from tests.graph.variants import make_variant
from tests.tiny import Family, tiny_config


def test_steps_are_limited(tmp_path: Path) -> None:
    """Against one pass of transformers: token by token it forgets the limits."""
    import torch

    text = PROMPT * 3
    said = []
    for name, limit in (("free", {}), ("within", {"time_step_limit": [0.1, 0.4]})):
        path = make_variant("granitemoehybrid-dense", tmp_path / name, **limit)
        with torch.no_grad():
            said.append(transformers_model(path)(torch.tensor([text]), use_cache=False).logits[0].numpy())
        assert_close(logits(Checkpoint(path), text).numpy(), said[-1], 1e-4)
        assert_close(run(load(path), text), said[-1], 0.03)
    assert np.abs(said[0] - said[1]).max() > 0.1 * said[0].std()


def test_infinity_as_newer_files_write_it() -> None:
    config = tiny_config("granitemoehybrid", time_step_limit=[0.0, {"__float__": "Infinity"}])
    (op, *_) = (op for op in read_graph(config).body if isinstance(op, Mamba2))
    assert op.dt_limit == (0.0, float("inf"))


@pytest.mark.parametrize(
    ("family", "change", "kind"),
    [
        ("granitemoehybrid", {"mamba_n_heads": 3}, Corrupt),
        ("granitemoehybrid", {"mamba_n_groups": 3}, Corrupt),
        ("granitemoehybrid", {"mamba_d_state": 24}, NotSupported),
        ("granitemoehybrid", {"mamba_proj_bias": True}, NotSupported),
        ("granitemoehybrid", {"time_step_limit": [0.5, 0.1]}, Corrupt),
        ("granitemoehybrid", {"time_step_limit": [0.0, {"__float__": "NaN"}]}, Corrupt),
        ("granitemoehybrid", {"position_embedding_type": "learned"}, NotSupported),
        ("granitemoehybrid", {"layer_types": ["mamba", "other", "mamba"]}, NotSupported),
        ("falcon_h1", {"ssm_multipliers": [1.0, 1.0]}, Corrupt),
        ("falcon_h1", {"mlp_multipliers": [0.0, 1.0]}, Corrupt),
        ("falcon_h1", {"mlp_bias": True}, NotSupported),
    ],
)
def test_what_it_cannot_be(family: Family, change: dict[str, Any], kind: type[Exception]) -> None:
    (name,) = change
    with pytest.raises(kind, match=name):
        read_graph(tiny_config(family, **change))
