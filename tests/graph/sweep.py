"""Every field of a family's config.json, changed to another value: transformers' logits must be ours, or we refuse.

`python -m tools.proofs.config_sweep [family…]` goes through all fields that transformers' class or code knows, by hand:
about a quarter of a minute a family. `test_sweep.py` takes some of each, and what was once wrong.
"""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import LocalInferError
from localinfer.graph.defaults import DEFAULTS
from localinfer.graph.weights import Checkpoint
from tests.tiny import BOS, Family, tiny_config, write_json

Json = dict[str, Any]
Outcome = Literal["same", "idle", "refused", "theirs refuses", "WRONG", "BROKEN"]
"""Both give the same logits, which the field changes, or does not; we refuse it; transformers does, or has no such
model; both answer, and otherwise; we end with what is no error of ours."""

TOKENS = [BOS, *b"A field that nobody reads must not change what is said."]
TOLERANCE = 2e-3
"""Of the spread of the logits."""
SEEDS = (0, 1, 2)
"""A choice of experts may be a near tie: what is wrong is so with each."""

TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3", "proportional")
SLIDING, FULL = "sliding_attention", "full_attention"
KINDS = (SLIDING, FULL, "linear_attention", "conv", "mamba", "attention", "mlp", "moe", "chunked_attention")
SCALED = {"factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
WORDS = ("gelu", "gelu_pytorch_tanh", "silu", "relu", "relu2", "softmax", "sigmoid", "vision", "all", "greedy", "eager")


BASES: dict[str, Json] = {"olmo_hybrid": {"linear_value_head_dim": 16}}
"""transformers writes the three convolutions of these layers as parts of one size."""


def base_config(family: Family) -> Json:
    """config.json of the tiny model that is changed."""
    return tiny_config(family, **BASES.get(family, {}))


def knows(family: str) -> list[str]:
    """The fields of its class, and what its code and the base class ask of a config."""
    import inspect

    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    kind: Any = CONFIG_MAPPING[family]
    found = {one.name for one in fields(kind)} | set(kind.attribute_map)
    code = inspect.getsource(inspect.getmodule(MODEL_FOR_CAUSAL_LM_MAPPING[kind]) or inspect)
    found |= set(re.findall(r"config\.([a-z]\w*)\b(?!\()", code))
    found |= set(re.findall(r"getattr\((?:self\.)?config, \"(\w+)\"", code))
    idle = {"rope_parameters", "dtype", "torch_dtype", "model_type", "transformers_version", "architectures"}
    return sorted(name for name in found - idle if not name.startswith("_"))


def others(name: str, value: Any, layers: int) -> Iterator[Any]:
    """Values that may stand in its place, some of which no model has."""
    if name.endswith(("eps", "epsilon")):
        yield 0.05
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (2 * value, value // 2, value + 1, max(value - 1, 0), 0)
    elif isinstance(value, float):
        yield from (value * 0.5 + 0.01, 3.0 * value + 0.1)
    elif isinstance(value, str):
        yield from (word for word in WORDS if word != value)
    elif isinstance(value, list) and value and isinstance(value[0], str):
        yield value[::-1]
        for kind in KINDS:
            yield [kind] * len(value)
            yield [kind, *value[1:]]
    elif isinstance(value, list) and value and isinstance(value[0], int | float):
        yield [1.5 * one for one in value]
        yield value[::-1]
        yield [0] * len(value)
    else:
        yield from (True, 1, 2, 8, 0.37, 3.0, [FULL] * layers, [SLIDING] * layers, [0] * layers, [1] * layers, *WORDS)


def ropes(config: Json) -> Iterator[Json]:
    """Settings of RoPE in both spellings, and by kind of layer."""
    turned = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    turned = int(turned * (config.get("partial_rotary_factor") or 1))
    factors = {"short_factor": [1.5] * (turned // 2), "long_factor": [3.0] * (turned // 2)}
    settings: list[Json] = [
        {},
        {"partial_rotary_factor": 0.5},
        {"mrope_section": [2, 1, 1]},
        {"mrope_interleaved": True, "mrope_section": [2, 1, 1]},
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "dynamic", "factor": 4.0},
        {"rope_type": "dynamic", "alpha": 4.0, "factor": 1.0},
        {"rope_type": "llama3", **SCALED, **LLAMA3},
        {"rope_type": "longrope", **factors, **SCALED},
        {"rope_type": "longrope", **factors, "original_max_position_embeddings": 512},
        {"rope_type": "longrope", **factors, **SCALED, "attention_factor": 1.3},
        {"rope_type": "proportional", "partial_rotary_factor": 0.25},
    ]
    for more in (
        {},
        {"attention_factor": 1.7},
        {"beta_fast": 8.0, "beta_slow": 2.0},
        {"mscale": 0.7, "mscale_all_dim": 0.4},
        {"mscale": 0.7},
        {"truncate": False},
        {"partial_rotary_factor": 0.5},
        {"llama_4_scaling_beta": 0.3},
    ):
        settings.append({"rope_type": "yarn", **SCALED, **more})
    for one in settings:
        whole = {"rope_theta": 500.0, **one}
        yield {"rope_parameters": whole, "rope_scaling": None, "rope_theta": None}
        if "rope_type" in one:
            yield {"rope_scaling": {("type" if len(one) % 2 else "rope_type"): one["rope_type"], **one}}
        yield {"rope_parameters": {FULL: whole, SLIDING: {"rope_theta": 50.0, "rope_type": "default"}}}
    yield {"rope_theta": 77.0}
    yield {"partial_rotary_factor": 0.5}
    yield {"rope_local_base_freq": 33.0}
    yield {"max_position_embeddings": 1024}


def changes(family: Family) -> Iterator[Json]:
    """What is changed of the tiny config.json, field by field."""
    config = base_config(family)
    whole = default_of(family)
    for name in knows(family):
        value = config.get(name, DEFAULTS[family].get(name, whole.get(name)))
        value = whole.get(name) if value is None else value
        for other in others(name, value, config["num_hidden_layers"]):
            yield {name: other}
    if "rope_theta" in DEFAULTS[family] or family == "ministral3" or "gemma" in family:
        yield from ropes(config)


def default_of(family: Family) -> Json:
    """config.json as transformers would write it again: what it makes of what is left out."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind: Any = CONFIG_MAPPING[family]
    found: Json = kind.from_dict(base_config(family)).to_dict()
    return found


def outcome(family: Family, change: Json, base: NDArray[np.float32] | None) -> Outcome:
    """What becomes of a tiny model with that change; `base`: the logits without it."""
    found: Outcome = "WRONG"
    for seed in SEEDS:
        found = _outcome(family, change, base if seed == 0 else None, seed)
        if found != "WRONG":
            break
    return found


def _outcome(family: Family, change: Json, base: NDArray[np.float32] | None, seed: int) -> Outcome:
    from localinfer.reference.executor import logits

    config = {**base_config(family), **change}
    config = {name: value for name, value in config.items() if value is not None or name not in change}
    with TemporaryDirectory() as folder:
        path = Path(folder)
        said = theirs(path, config, seed)
        if said is None:
            return "theirs refuses"
        try:
            seen = logits(Checkpoint(path), TOKENS).numpy()
        except LocalInferError:
            return "refused"
        except Exception:
            return "BROKEN"
    if seen.shape != said.shape or not _off(seen, said) <= TOLERANCE:
        return "WRONG"
    return "same" if base is None or base.shape != said.shape or _off(said, base) > TOLERANCE else "idle"


def _off(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).max() / b.std())


def theirs(path: Path, config: Json, seed: int) -> NDArray[np.float32] | None:
    """Logits of transformers for a random model of `config`, which then lies at `path`; None: it has no such model."""
    import torch
    import transformers

    torch.set_num_threads(1)
    auto: Any = transformers
    auto.utils.logging.set_verbosity_error()
    auto.utils.logging.disable_progress_bar()
    write_json(path / "config.json", config)
    try:
        torch.manual_seed(seed)
        model = auto.AutoModelForCausalLM.from_config(auto.AutoConfig.from_pretrained(path), dtype=torch.float32)
        fill(model, seed)
        with torch.no_grad():
            said: NDArray[np.float32] = model.eval()(torch.tensor([TOKENS])).logits[0].numpy()
        if not np.isfinite(said).all() or sum(one.numel() for one in model.parameters()) > 20_000_000:
            return None
        model.to(torch.bfloat16).save_pretrained(path)
    except Exception:
        return None
    write_json(path / "config.json", config)
    return said


def fill(model: Any, seed: int) -> None:
    """Matrices that keep sizes, norms and biases that are felt; all such that bfloat16 holds them."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=draw)
            if "embed" in name and value.dim() == 2:
                value.copy_(noise)
            elif value.dim() >= 2:
                value.copy_(noise / value.shape[-1] ** 0.5)
            elif "A_log" in name or "dt_bias" in name:
                value.copy_(value + 0.1 * noise)
            else:
                value.copy_((value if "norm" in name else 0) + 0.2 * noise)
            value.copy_(value.to(torch.bfloat16).float())
        for value in model.buffers():
            if value.dtype == torch.float32 and value.dim() == 1 and "bias" in str(type(value)):
                value.copy_(value.to(torch.bfloat16).float())


def sweep(family: Family) -> list[tuple[Json, Outcome]]:
    """All changes, and what became of them."""
    with TemporaryDirectory() as folder:
        base = theirs(Path(folder), base_config(family), SEEDS[0])
    assert base is not None, family
    return [(change, outcome(family, change, base)) for change in changes(family)]
