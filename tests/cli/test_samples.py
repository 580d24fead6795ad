"""Several answers to one prompt: each the one that its seed gives alone; and seeds that nobody gave."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli

PROMPT = ("a prompt that is longer than a block of the cache, so that others find its beginning there", "-n", "12")


def rows_of(cli: Cli, *argv: str) -> list[dict[str, Any]]:
    ran = cli("run", *argv, "--json", "--temp", "1.5")
    assert ran.code == 0, ran.err
    return [json.loads(line) for line in ran.out.splitlines()]


def test_samples_are_the_answers_of_their_seeds_and_the_best_is_one_of_them(cli: Cli, tiny: Path) -> None:
    rows = rows_of(cli, str(tiny), *PROMPT, "--samples", "4", "--seed", "40", "--logprobs", "0")
    alone = [
        rows_of(cli, str(tiny), *PROMPT, "--seed", str(40 + number), "--logprobs", "0")[0]["token_ids"]
        for number in range(4)
    ]
    assert [row["token_ids"] for row in rows] == alone
    assert [(row["sample"], row["engine"]["seed"]) for row in rows] == [(n, 40 + n) for n in range(4)]
    means = [sum(one["logprob"] for one in row["logprobs"]) / len(row["logprobs"]) for row in rows]
    assert [row["mean_logprob"] for row in rows] == pytest.approx(means)
    best = rows_of(cli, str(tiny), *PROMPT, "--samples", "2", "--best-of", "4", "--seed", "40")
    order = sorted(range(4), key=lambda number: -means[number])[:2]
    assert [(row["sample"], row["token_ids"], row["logprobs"]) for row in best] == [(n, alone[n], None) for n in order]


def test_samples_share_the_reading_of_their_prompt(cli: Cli, tiny: Path) -> None:
    ran = cli("run", str(tiny), *PROMPT, "--samples", "3", "--seed", "1")
    assert ran.code == 0
    assert ran.out.count("\n\n") >= 2
    assert "stopped after 12 tokens" in ran.err
    from localinfer import Chat, EngineConfig, Finished, SamplingParams, load
    from localinfer.chats.samples import together

    with load(str(tiny), EngineConfig(parallel=3)) as engine:
        requests = Chat(engine, sampling=SamplingParams(max_tokens=5)).requests(PROMPT[0], 3)
        ends = [event for _, event in together(engine, requests) if isinstance(event, Finished)]
    cached = [end.stats.cached_tokens for end in ends]
    assert sorted(cached)[0] == 0
    assert sorted(cached)[1] >= 64


@pytest.mark.parametrize("flags", [("--samples", "3", "--best-of", "2"), ("--samples", "65"), ("--best-of", "0")])
def test_counts_that_do_not_go(cli: Cli, tiny: Path, flags: tuple[str, ...]) -> None:
    ran = cli("run", str(tiny), "hi", *flags)
    assert (ran.code, ran.out) == (2, "")


def test_a_seed_is_drawn_where_one_matters_and_brings_the_text_back(cli: Cli, tiny: Path) -> None:
    first, second = (rows_of(cli, str(tiny), *PROMPT)[0] for _ in range(2))
    assert first["engine"]["seed"] != second["engine"]["seed"]
    assert first["token_ids"] != second["token_ids"]
    again = rows_of(cli, str(tiny), *PROMPT, "--seed", str(first["sampling"]["seed"]))[0]
    assert again["token_ids"] == first["token_ids"]
    greedy = json.loads(cli("run", str(tiny), *PROMPT, "--temp", "0", "--json").out)
    assert greedy["engine"]["seed"] == 0
    assert f"seed {0}" in cli("run", str(tiny), *PROMPT, "--temp", "0", "--stats").err
