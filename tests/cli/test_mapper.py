"""The callable for clusters: picklable, and its rows are those of `map`, however they are split."""

import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localinfer.chats.rows import seed_of
from localinfer.errors import UsageError
from localinfer.ray import Mapper
from tests.cli.conftest import Cli


def answers_in_another_process(data: bytes, batch: dict[str, Any]) -> dict[str, Any]:
    mapper: Mapper = pickle.loads(data)
    try:
        found = mapper(batch)
        pickle.dumps(mapper)  # with its engine open, too
        return found
    finally:
        mapper.close()


def test_rows_are_those_of_map_however_they_are_split(cli: Cli, tiny: Path) -> None:
    prompts = [f"a prompt {n}" for n in range(7)] + [""]
    ids = list(range(8))
    lines = "".join(json.dumps({"id": n, "prompt": text}) + "\n" for n, text in zip(ids, prompts, strict=True))
    flags = ("-n", "6", "--temp", "1.1", "--seed", "5", "-s", "Be terse.")
    ran = cli("map", str(tiny), "-", *flags, stdin=lines.encode())
    rows = [json.loads(line) for line in ran.out.splitlines()]
    sampling = {"max_tokens": 6, "temperature": 1.1, "seed": 5}
    data = pickle.dumps(Mapper(str(tiny), system="Be terse.", sampling=sampling, parallel=3))
    batches = [{"id": np.array(ids[at : at + 5]), "prompt": np.array(prompts[at : at + 5])} for at in (0, 5)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.starmap(answers_in_another_process, [(data, batch) for batch in batches])
    assert [text for batch in found for text in batch["text"]] == [row["text"] for row in rows]
    seeds = [seed for batch in found for seed in batch["seed"]]
    assert seeds[:7] == [row["seed"] for row in rows[:7]]
    assert seeds[7] == seed_of(5, "7")  # of the row that has no answer
    assert [bool(error) for batch in found for error in batch["error"]] == [False] * 7 + [True]
    assert [one for batch in found for one in batch["id"]] == ids


def test_what_is_wrong_is_told_before_a_worker_is_asked(tiny: Path) -> None:
    with pytest.raises(UsageError):
        Mapper(str(tiny), sampling={"temperature": -1})
    with pytest.raises(UsageError, match="no column"):
        Mapper(str(tiny))({"text": ["x"]})
