"""`bench`, through the real engine on a tiny model; what the numbers mean is tested with the room itself."""

import json
import re
from pathlib import Path

import pytest

from localinfer.bench.history import reports
from localinfer.cli.counts import counts
from localinfer.cli.output import ReaderGone
from localinfer.errors import UsageError
from tests.bench.test_random import SMALL
from tests.cli.conftest import Cli

ROW = {
    "test",
    "batch",
    "bits",
    "kv_bits",
    "draft",
    "tok_s",
    "tok_s_sd",
    "gb_s",
    "bandwidth_share",
    "ttft_ms",
    "itl_p50_ms",
    "itl_p99_ms",
    "acceptance",
    "joules_per_token",
    "usd_per_mtok",
    "output_hash",
}


def test_json_keeps_its_contract(cli: Cli, tiny: Path) -> None:
    argv = (
        "bench",
        str(tiny),
        "--test",
        "pp8,tg4",
        "--test",
        "tg4@d16",
        "--reps",
        "2",
        "--rows",
        "1,2",
        "--json",
        "-q",
    )
    ran = cli(*argv)
    assert (ran.code, ran.err) == (0, "")
    report = json.loads(ran.out)
    assert report.keys() >= {"machine", "model", "rows", "peers", "ladder"}
    assert report["machine"].keys() >= {"cpu", "cores", "isa", "read_gb_s", "int8_tops"}
    assert report["model"]["bytes_per_token"] > 0
    tests, steps = report["rows"][:3], report["rows"][3:]
    assert [row["test"] for row in tests] == ["pp8", "tg4", "tg4@d16"]
    assert all(row.keys() >= ROW for row in tests)
    assert [row["n_rows"] for row in steps] == [1, 2]
    assert [row["output_hash"] for row in json.loads(cli(*argv).out)["rows"][:3]] == [
        row["output_hash"] for row in tests
    ]


def test_table(cli: Cli, tiny: Path) -> None:
    out = cli("bench", str(tiny), "--test", "tg4", "--reps", "1").out
    assert out.startswith("| model ")
    assert "| tg4 " in out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--test", "xx12"], "`xx12` is not a test"),
        (["--rows", "1,x"], "--rows holds 'x'"),
        (["--max-drop", "0.1"], "`--max-drop` without `--compare`"),
        (["--parallel", "65"], "parallel is 65"),
        (["--against-file", "m.gguf"], "`--against-file` without `--against`"),
        (["--against", "llamacpp"], "no GGUF file of `tiny` is known"),
        (["--against", "llamacpp,ollama"], "--against is 'ollama', but must be one of llamacpp, ik_llamacpp"),
        (["--workload", "mixed", "--against", "ik_llamacpp"], "`--workload` runs llama.cpp only"),
        (["--random", "qwen2-1.5b"], "both `--random` and the model"),
        (["--group", "64"], "are for `--random`"),
        (["--test", "tg600"], "602 tokens, but the model was made for 512"),
        (["--workload", "mixed", "--compare", "last"], "`--compare` means nothing to `--workload mixed`"),
        (["--workload", "mixed", "--rate", "4"], "it is for `--workload poisson`"),
        (["--workload", "poisson", "--reps", "2"], "`--reps` means nothing to `--workload poisson`"),
        (["--workload", "poisson", "--draft", "off,suffix"], "runs one way of guessing"),
        (["--tasks", "chat", "--test", "tg4"], "`--test` means nothing to `--tasks` and `--prompts`"),
        (["--ladder", "--draft", "off"], "`--draft` means nothing to `--ladder`"),
        (["--ladder", "--ctx-size", "64"], "`--ctx-size` means nothing to `--ladder`"),
        (["--history", "--random", "qwen2-1.5b"], "`--random` means nothing to `--history`"),
        (["--plot", "x.svg"], "leave it out: it is for `--ladder`"),
        (["--max-tokens", "4"], "`--max-tokens` means nothing to the usual tests"),
    ],
)
def test_refusals(cli: Cli, tiny: Path, flags: list[str], words: str) -> None:
    ran = cli("bench", str(tiny), *flags)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err


def test_a_setting_for_another_command_is_none_for_this(cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALINFER_BITS", "4")  # of `quantize`
    assert cli("bench", str(tiny), "--test", "tg4", "--reps", "1").code == 0


def test_answers_are_kept_before_they_are_shown(
    cli: Cli, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.jsonl").write_text('{"task": "mine", "prompt": "Hello"}\n')

    def gone(_text: str = "") -> None:
        raise ReaderGone

    monkeypatch.setattr("localinfer.cli.output.line", gone)
    assert cli("bench", str(tiny), "--prompts", str(tmp_path / "p.jsonl"), "-n", "4").code == 141
    assert cli("bench", str(tiny), "--test", "tg4", "--reps", "1").code == 141
    names = [row["test"] for one in reports()[0] for part in ("answers", "rows") for row in one.get(part, ())]
    assert names == ["mine", "tg4"]


def test_random_weights_are_told_before_they_are_made(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localinfer.bench.shapes._tables", lambda: SMALL)
    argv = ("bench", "--random", "small:INT3", "--test", "tg4", "--reps", "1")
    ran = cli(*argv)
    assert "random/small:INT3" in ran.out
    assert re.search(r"making random weights, [0-9.]+ kB, kept as `random/small:INT3`; .*localinfer rm", ran.err)
    assert cli(*argv).err == ""
    assert cli("bench", "random/small:INT3", "--test", "tg4", "--reps", "1").code == 0
    assert cli("rm", "random/small:INT3", "--yes").code == 0
    assert "is no known shape" in cli("bench", "--random", "smaller").err


def test_counts() -> None:
    assert counts("rows", ["1,2", " 4 "]) == [1, 2, 4]
    with pytest.raises(UsageError, match="--parallel holds ''"):
        counts("parallel", ["1,,2"])


def test_several_sequences_and_an_earlier_report(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    argv = ("bench", str(tiny), "--test", "pp8,tg4", "--parallel", "2,3", "--reps", "2", "--json", "-q")
    ran = cli(*argv)
    rows = json.loads(ran.out)["rows"]
    assert [(row["test"], row["batch"]) for row in rows] == [("pp8", 1), ("tg4", 1), ("tg4x2", 2), ("tg4x3", 3)]
    earlier = tmp_path / "kept.jsonl"
    earlier.write_text('{"rows": []}\n' + ran.out.replace("\n", "") + "\n")
    again = cli(*argv, "--compare", str(earlier))
    assert json.loads(again.out)["rows"][3]["output_hash"] == rows[3]["output_hash"]
    assert f"against {earlier}:" in again.err
    assert "tg4x3: " in again.err
    ran = cli(*argv, "--compare", str(earlier), "--max-drop", "0.1")
    assert (ran.code, "no ratio to the other engine" in ran.err) == (2, True)
    (tmp_path / "none.json").write_text("[]")
    assert (
        cli("bench", str(tiny), "--test", "tg8", "--reps", "1", "--compare", str(earlier)).out == ""
    )  # nothing in common
    ran = cli(*argv, "--compare", str(tmp_path / "none.json"))
    assert (ran.code, ran.out, "holds no report" in ran.err) == (7, "", True)


def test_a_workload_of_mixed_lengths_says_the_same_in_all_ways(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PER_STREAM": 3, "ANSWER": (4, 40), "CONTEXT": 300}.items():
        monkeypatch.setattr(f"localinfer.bench.workload.{name}", value)
    ran = cli("bench", str(tiny), "--workload", "mixed", "-np", "3", "--reps", "1", "--json", "-t", "1")
    assert ran.code == 0, ran.err
    rows = json.loads(ran.out)["workload"]
    assert [row["way"] for row in rows] == ["continuous", "static", "static, done rows dropped", "one by one"]
    assert len({row["output_hash"] for row in rows}) == 1
    assert rows[1]["times_static"] == 1
    assert all(row["tok_s"] > 0 and row["done_mean_s"] >= row["ttft_mean_s"] > 0 for row in rows)
    for wrong in (
        ("--workload", "odd"),
        ("--workload", "mixed", "-np", "1"),
        ("--workload", "mixed", "--tasks", "all"),
    ):
        ran = cli("bench", str(tiny), *wrong)
        assert (ran.code, "hint" in ran.err) == (2, True)


def test_startup_times_new_processes(cli: Cli, mine: str) -> None:
    found = json.loads(cli("bench", mine, "--startup", "--reps", "2", "--json").out)["startup"]
    assert [one["command"] for one in found] == [
        "localinfer --help",
        f"localinfer run {mine}:BF16 hi -n 1 --quiet --no-remember --no-server",
    ]
    assert all(len(one["seconds"]) == 2 and 0 < min(one["seconds"]) <= one["median"] for one in found)
    assert "`--parallel` means nothing to `--startup`" in cli("bench", mine, "--startup", "-np", "4").err


def test_startup_gives_plain_text_where_there_is_no_template(cli: Cli, mine: str, isolated: Path) -> None:
    file = isolated / "localinfer" / "models" / "me--tiny" / "BF16" / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config.pop("chat_template")
    file.write_text(json.dumps(config), encoding="utf-8")
    ran = cli("bench", mine, "--startup", "--reps", "1", "--json")
    assert ran.code == 0, ran.err
    assert " hi --raw -n 1 " in json.loads(ran.out)["startup"][1]["command"]
