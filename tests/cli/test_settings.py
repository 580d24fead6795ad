"""Where a setting's value comes from: default < file < environment < flag; and the commands that change the file."""

import json
import stat
from pathlib import Path

import pytest

from localinfer.cli.options import SETTINGS
from localinfer.config import Value, line_of, load_config
from localinfer.errors import UsageError
from tests.cli.conftest import Cli

FILE = """\
# mine
threads = 3
temp = 0.5
stop = ["a", "b"]
quiet = true
"""


@pytest.fixture
def file(isolated: Path) -> Path:
    path = isolated / "localinfer" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(FILE)
    return path


def test_a_file_that_is_named_and_missing_is_an_error(
    cli: Cli, isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the command that makes it."""
    monkeypatch.setenv("LOCALINFER_CONFIG", str(isolated / "other.toml"))
    ran = cli("list")
    assert ran.code == 2
    assert "LOCALINFER_CONFIG names" in ran.err
    assert cli("config", "set", "temp", "0.5").code == 0
    assert cli("list").code == 0


def test_each_source_wins_over_the_one_before(file: Path) -> None:
    env = {"LOCALINFER_TEMP": "0.25", "LOCALINFER_TOP_K": "7", "LOCALINFER_SEED": ""}
    values = load_config(SETTINGS, {"top-k": "9"}, file=file, env=env)
    assert values["kv-bits"] == Value("8", "default")
    assert values["seed"] == Value(None, "default")  # an empty variable is none
    assert values["threads"] == Value(3, f"{file}:2")
    assert values["stop"] == Value(("a", "b"), f"{file}:4")
    assert values["quiet"] == Value(True, f"{file}:5")
    assert values["temp"] == Value(0.25, "LOCALINFER_TEMP")
    assert values["top-k"] == Value(9, "--top-k")


def test_no_file_is_an_empty_one(tmp_path: Path) -> None:
    assert load_config(SETTINGS, {}, file=tmp_path / "none.toml", env={})["threads"] == Value(None, "default")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("theads = 3\n", "there is no setting `theads`", "did you mean `threads`?"),
        ("\n\nmax_tokens = 3\n", ":3: there is no setting `max_tokens`", "did you mean `max-tokens`?"),
        ("temperature = 1\n", "there is no setting `temperature`", "did you mean `temp`?"),
        ("zzzz = 3\n", "there is no setting `zzzz`", "`localinfer config keys` lists all keys"),
        ("[engine]\nthreads = 3\n", ":1: there is no setting `engine`", None),
        ("threads = \n", "is not TOML", None),
        ("threads = '3 or so'\n", ":1 is '3 or so', but must be a whole number", None),
        ("threads = 0\n", ":1 is 0, but must lie between 1 and 256", None),
        ("threads = true\n", ":1 is True, but must be a whole number", None),
        ("threads = 2.5\n", ":1 is 2.5, but must be a whole number", None),
        ("temp = nan\n", ":1 is nan, but must be a number", None),
        ("json = 'maybe'\n", ":1 is 'maybe', but must be true or false", None),
        ("kv-bits = 5\n", ":1 is '5', but must be one of 16, 8", None),
        ("model = [1]\n", ":1 is [1], but must be text", None),
    ],
)
def test_a_file_that_is_wrong_says_where(file: Path, cli: Cli, text: str, message: str, hint: str | None) -> None:
    file.write_text(text)
    ran = cli("list")
    assert (ran.code, ran.out) == (2, "")
    assert f"{file}" in ran.err
    assert message in ran.err
    assert f"\n\nhint: {hint or ''}" in ran.err


def test_a_variable_that_is_wrong_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALINFER_THREADS", "many")
    ran = cli("list")
    assert ran.code == 2
    assert ran.err.startswith("error: LOCALINFER_THREADS is 'many', but must be a whole number\n\nhint: threads: ")


def test_a_variable_that_means_nothing_is_named_with_the_nearest_that_does(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALINFER_THRAEDS", "4")
    monkeypatch.setenv("LOCALINFER_TEMPRATURE", "1")
    monkeypatch.setenv("LOCALINFER_ZZZ", "1")
    monkeypatch.setenv("LOCALINFER_ISA", "")  # one that stands for no flag
    for argv in (("list",), ("config", "show")):
        said = [line for line in cli(*argv).err.splitlines() if line.startswith("warning: ")]
        assert said == [
            "warning: LOCALINFER_TEMPRATURE is set, but no setting has this name; did you mean LOCALINFER_TEMP?",
            "warning: LOCALINFER_THRAEDS is set, but no setting has this name; did you mean LOCALINFER_THREADS?",
            "warning: LOCALINFER_ZZZ is set, but no setting has this name",
        ]
    assert cli("list", "-q").err == ""


def test_config_names_every_key(cli: Cli) -> None:
    lines = cli("config", "keys").out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(SETTINGS)
    assert all(len(line.split(maxsplit=2)) == 3 for line in lines)
    told = json.loads(cli("config", "keys", "--json").out)
    assert {one["key"] for one in told} == SETTINGS.keys()
    assert next(one for one in told if one["key"] == "kv-bits") == {
        "key": "kv-bits",
        "env": "LOCALINFER_KV_BITS",
        "kind": "text",
        "help": SETTINGS["kv-bits"].help,
        "choices": ["16", "8", "4"],
        "low": None,
        "high": None,
        "default": "8",
    }


def test_numbers_stand_for_choices_in_the_file(file: Path) -> None:
    file.write_text("kv-bits = 16\n")
    assert load_config(SETTINGS, {}, file=file, env={})["kv-bits"].value == "16"


def test_every_setting_can_be_set_in_each_way(tmp_path: Path) -> None:
    for name, setting in SETTINGS.items():
        raw = (
            setting.choices[0]
            if setting.choices
            else {"flag": "1", "int": str(max(1, setting.low or 0)), "float": "1"}.get(setting.kind, "x")
        )
        for flags, env in (({name: raw}, {}), ({}, {setting.env: raw})):
            value = load_config(SETTINGS, flags, file=None, env=env)[name]
            assert value.origin == (f"--{name}" if flags else setting.env)
            assert value.value is not None


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [("a=1\nb = 2\n", "b", 2), ('"b" = 1', "b", 1), ("[b]\n", "b", 1), ("ab = 1\n", "b", 0), ("  b.c = 1", "b", 1)],
)
def test_line_of(text: str, key: str, line: int) -> None:
    assert line_of(text, key) == line


def test_a_flag_may_be_one_by_default(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALINFER_JSON", "yes")
    assert cli("list").out == "[]\n"


def test_set_show_unset(file: Path, cli: Cli) -> None:
    assert cli("config", "set", "threads", "4").code == 0
    assert cli("config", "set", "model", "starter").code == 0
    assert cli("config", "set", "stop", "one", "two").code == 0
    assert file.read_text() == (
        'model = "starter"\n# mine\nthreads = 4\ntemp = 0.5\nstop = ["one", "two"]\nquiet = true\n'
    )
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    ran = cli("config", "show")
    assert sorted(ran.out.splitlines()) == [
        f'model = "starter"   # {file}:1',
        f"quiet = true   # {file}:6",
        f'stop = ["one", "two"]   # {file}:5',
        f"temp = 0.5   # {file}:4",
        f"threads = 4   # {file}:3",
    ]
    shown = json.loads(cli("config", "show", "--json").out)
    assert shown["threads"] == {"value": 4, "origin": f"{file}:3"}
    assert shown["top-k"] == {"value": None, "origin": "default"}

    assert cli("config", "unset", "temp").code == 0
    assert "temp" not in file.read_text()
    again = cli("config", "unset", "temp")
    assert (again.code, again.err.split("\n")[0]) == (2, f"error: `temp` is not set in {file}")


def test_set_checks_before_it_writes(file: Path, cli: Cli) -> None:
    for argv, message in (
        (("threads", "none"), "threads is 'none', but must be a whole number"),
        (("thread", "3"), "there is no setting `thread`"),
        (("threads", "3", "4"), "`threads` takes one value, 2 were given"),
    ):
        ran = cli("config", "set", *argv)
        assert ran.code == 2
        assert message in ran.err
    assert file.read_text() == FILE


def test_a_key_of_several_lines_is_left_alone(file: Path, cli: Cli) -> None:
    file.write_text('stop = [\n  "a",\n]\n')
    ran = cli("config", "set", "stop", "b")
    assert ran.code == 2
    assert "edit that file by hand" in ran.err
    assert file.read_text() == 'stop = [\n  "a",\n]\n'


def test_config_mends_a_file_that_stops_everything_else(file: Path, cli: Cli) -> None:
    file.write_text("theads = 3\n")
    assert cli("list").code == 2
    assert cli("config", "unset", "theads").code == 0
    assert cli("list").code == 0


def test_config_survives_a_broken_environment(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALINFER_JSON", "perhaps")
    assert cli("config", "set", "threads", "4").code == 0


def test_strings_are_kept_as_they_are(file: Path, cli: Cli) -> None:
    words = 'say "hi"\tto\nC:\\path and ☃'
    assert cli("config", "set", "system", words).code == 0
    assert load_config(SETTINGS, {}, file=file, env={})["system"].value == words


def test_a_token_is_never_shown(file: Path, cli: Cli) -> None:
    assert cli("config", "set", "token", "hf_secret").code == 0
    for argv in (("config", "show"), ("config", "show", "--json"), ("doctor", "--json")):
        ran = cli(*argv)
        assert "hf_secret" not in ran.out + ran.err
        assert "(set)" in ran.out


def test_a_flag_out_of_its_bounds() -> None:
    with pytest.raises(UsageError, match="--seed is -1, but must lie between 0 and 18446744073709551615"):
        load_config(SETTINGS, {"seed": "-1"}, file=None, env={})
