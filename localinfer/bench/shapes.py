"""The shapes of known models, so that speed can be measured without their weights: it does not depend on the values."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from localinfer.errors import UsageError


@cache
def _tables() -> dict[str, dict[str, Any]]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def known_shapes() -> tuple[str, ...]:
    """Their names, smallest first."""
    return tuple(name for name in _tables() if name != "common")


def shape_config(name: str) -> dict[str, Any]:
    """config.json of the shape `name`, plain weights. Raises `UsageError` for one we do not have."""
    if name not in known_shapes():
        raise UsageError(f"`{name[:40]}` is no known shape", hint=f"known are {', '.join(known_shapes())}")
    config = _tables()["common"] | _tables()[name]
    last = config["vocab_size"] - 1
    return config | {"eos_token_id": last, "bos_token_id": last - 1}
