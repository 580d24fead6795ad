"""Ray on two local workers gives the rows that `map` gives:

    pip install 'ray[data]'
    python -m tools.proofs.ray_rows starter

Prompts with ids are answered by `localinfer map`, and by `localinfer.ray.Mapper` in two actors of a local Ray, in
batches of three. Exit code 1 where a row differs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from localinfer.config import EngineConfig
from localinfer.ray import Mapper

ray: Any = import_module("ray")
ROWS = [{"id": f"row {n}", "prompt": f"Write a line about the number {n}."} for n in range(12)]


def by_map(model: str, file: Path) -> dict[str, Any]:
    """What `map` writes, by id."""
    words = ["map", model, str(file), "-n", "24", "--seed", "3", "--temp", "0.8", "--draft", "off", "-np", "4"]
    command = [sys.executable, "-m", "localinfer", *words, "--no-server"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = map(json.loads, ran.stdout.splitlines())
    return {row["id"]: (row["text"], row["finish_reason"]) for row in rows}


def by_ray(model: str, file: Path) -> tuple[dict[str, Any], int]:
    """What Ray's dataset holds, by id, and how many processes wrote it."""

    class Telling(Mapper):
        def __call__(self, batch: Any) -> Any:
            found = super().__call__(batch)
            return found | {"pid": [os.getpid()] * len(found["id"])}

    sampling = {"max_tokens": 24, "seed": 3, "temperature": 0.8}
    config = EngineConfig(draft="off", parallel=4, threads=1)
    data = (
        ray.data.read_json(str(file))
        .repartition(4)
        .map_batches(
            Telling,
            fn_constructor_args=(model,),
            fn_constructor_kwargs={"sampling": sampling, "config": config},
            batch_size=3,
            concurrency=2,
        )
    )
    rows = data.take_all()
    return {row["id"]: (row["text"], row["finish_reason"]) for row in rows}, len({row["pid"] for row in rows})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="starter")
    model = parser.parse_args().model
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
        wanted = by_map(model, file)
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
        found, workers = by_ray(model, file)
        ray.shutdown()
    same = sum(found.get(one) == row for one, row in wanted.items())
    print(f"ray {ray.__version__}: {same} of {len(wanted)} rows are those of map, written by {workers} workers")
    return int(same < len(ROWS) or len(found) != len(ROWS))


if __name__ == "__main__":
    raise SystemExit(main())
