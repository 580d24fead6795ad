"""Every field of config.json, changed to other values, family by family: does transformers say what we say?

    python -m tools.proofs.config_sweep [family…]

Prints of each family how many changes had which outcome, and those that are answered otherwise without a word.
"""

import json
import sys

from localinfer.graph.defaults import DEFAULTS
from tests.graph.sweep import sweep


def main(families: list[str]) -> int:
    """The number of changes that are wrong."""
    wrong = 0
    for family in families or DEFAULTS:
        found = sweep(family)  # type: ignore[arg-type]
        counts = {kind: sum(one == kind for _, one in found) for kind in dict.fromkeys(one for _, one in found)}
        print(family, counts, flush=True)
        for change, kind in found:
            if kind in ("WRONG", "BROKEN"):
                wrong += 1
                print(f"  {kind} {json.dumps(change)[:160]}", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
