"""`cost` as a person and a script use it."""

import json

from tests.cli.conftest import Cli


def test_a_table_and_json(cli: Cli, mine: str) -> None:
    ran = cli("cost", mine, "-t", "1", "--api-model", "openai/gpt-5-mini")
    assert ran.code == 0
    assert "| this machine |" in ran.out
    assert "openai/gpt-5-mini" in ran.out
    said = json.loads(cli("cost", mine, "-t", "1", "--json", "--tokens-per-day", "1000").out)
    assert said["usd_at_volume"]["Raspberry Pi 5, 8 GB"] > 1
    assert {"cheapest", "buying_beats_api_from", "ways"} <= said.keys()


def test_wrong_words(cli: Cli, mine: str) -> None:
    assert cli("cost", mine, "-np", "1,2").code == 2
    assert cli("cost", mine, "--api-model", "nobody/nothing").code == 2
    assert cli("cost", mine, "--plot", "x.gif").code == 2
    assert "changes nothing that `cost` tells" in cli("cost", mine, "--draft", "suffix").err
    assert cli("cost", mine, "--usd-per-kwh", "-1").code == 2
    assert cli("cost", "org/nobody").code == 4
