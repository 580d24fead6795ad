"""What `serve` says no to before it listens; what it does then is in `tests/serve`."""

from pathlib import Path

import pytest

from tests.cli.conftest import Cli


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        (["-np", "2,4"], 2, "2 numbers"),
        (["-np", "65"], 2, "65"),
        (["--keep", "long"], 2, "long"),
        (["--port", "70000"], 2, "70000"),
        (["--host", "no host"], 4, "cannot listen"),
        (["--api-key-file", "nowhere"], 4, "nowhere"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_at_once(cli: Cli, tiny: Path, flags: list[str], code: int, told: str) -> None:
    ran = cli("serve", str(tiny), *flags)
    assert (ran.code, ran.out) == (code, "")
    assert told in ran.err


def test_a_model_that_is_not_here(cli: Cli) -> None:
    ran = cli("serve", "nobody/model", "--offline")
    assert (ran.code, ran.out) == (4, "")
    assert "nobody/model" in ran.err


@pytest.mark.parametrize("text", ["", "one\ntwo\n"])
def test_a_key_is_one_line(cli: Cli, tiny: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text, encoding="utf-8")
    ran = cli("serve", str(tiny), "--api-key-file", str(tmp_path / "key"))
    assert (ran.code, ran.out) == (2, "")
