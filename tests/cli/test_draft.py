"""`draft train|list|rm` and `--draft`, through the real entry point."""

import json
import sys
from pathlib import Path

import pytest

from localinfer.quantize.speeds import Speeds
from tests.cli.conftest import Cli


def test_nothing_there_yet(cli: Cli, mine: str) -> None:
    assert cli("draft", "list").err == "no drafters yet; `localinfer draft train MODEL` makes one\n"
    assert json.loads(cli("draft", "list", "--json").out) == []
    gone = cli("draft", "rm", mine)
    assert (gone.code, gone.out) == (4, "")
    assert gone.err.startswith(f"error: no drafter was made for `{mine}`\n\nhint: ")
    assert cli("draft", "rm").code == 2
    assert cli("draft", "rm", "--texts").out == "deleted 0 B of earlier texts\n"


def test_training_ends_in_time_and_says_what_it_came_to(
    cli: Cli, mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = Speeds(1e9, 1e9, 1e12, 1e12)  # whatever else runs here meanwhile
    monkeypatch.setattr("localinfer.distill.time_plan.measure_speeds", lambda *_given, **_more: speeds)
    file = tmp_path / "more.txt"
    file.write_text("one two three four five six seven eight nine ten. " * 400)
    ran = cli("draft", "train", mine, "--minutes", "0.1", "--text", str(file), "--json", "-q")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert told["kind"] == "head"
    assert told["tokens"] > 0
    assert len(told["acceptance"]) == 6
    assert told["kept"] == (told["predicted"] > 1)
    assert [one["key"] for one in json.loads(cli("draft", "list", "--json").out)] == [told["key"]] * told["kept"]
    if told["kept"]:
        assert cli("draft", "list").out.splitlines()[0].split()[:2] == ["MODEL", "KIND"]
        assert cli("draft", "rm", mine).out.startswith(f"deleted the head for {mine}")


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (("draft", "train", "{mine}", "--text", "nowhere.txt"), 4, "no such file: nowhere.txt"),
        (("draft", "train", "me/none"), 4, "me/none"),
        (("run", "{mine}", "hi", "--draft", "sufix"), 2, "did you mean `suffix`?"),
        (("run", "{mine}", "hi", "--draft", "head"), 4, "no head was trained"),
        (("run", "{mine}", "hi", "--draft-tokens", "32"), 2, "draft-tokens"),
        (("run", "{mine}", "hi", "--show-drafts"), 2, "needs a terminal"),
        (("bench", "{mine}", "--tasks", "poetry"), 2, "`poetry` is no task"),
        (("bench", "{mine}", "--tasks", "chat", "--prompts", "x.jsonl"), 2, "leave one of them out"),
        (("bench", "{mine}", "--prompts", "nowhere.jsonl"), 4, "nowhere.jsonl"),
    ],
)
def test_what_is_refused(cli: Cli, mine: str, argv: tuple[str, ...], code: int, says: str) -> None:
    ran = cli(*(word.format(mine=mine) for word in argv))
    assert ran.code == code
    assert ran.out == ""
    assert says in ran.err


def test_run_tells_what_drafts_did(cli: Cli, mine: str) -> None:
    argv = ("run", mine, "abcabcabcabcabcabcabcabc", "--raw", "-n", "40", "--temp", "0", "--json", "-q")
    plain = json.loads(cli(*argv, "--draft", "off").out)
    assert set(plain["speculation"].values()) == {None}
    for way in ("auto", "suffix", "lookup", "early", mine):
        told = json.loads(cli(*argv, "--draft", way).out)
        assert told["token_ids"] == plain["token_ids"]
        assert told["speculation"].keys() == plain["speculation"].keys()
        assert told["speculation"]["drafter"] == ("model" if way == mine else way)
        assert told["speculation"]["speedup"] > 0


def test_bench_answers_prompts_each_way(cli: Cli, mine: str, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    lines = [{"task": "a", "prompt": "say abc abc abc"}, {"task": "b", "prompt": "count"}, {"prompt": "x"}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    argv = ("bench", mine, "--prompts", str(file), "--draft", "suffix,auto", "-n", "30", "-q")
    rows = json.loads(cli(*argv, "--json").out)["rows"]
    assert [(row["test"], row["draft"]) for row in rows] == [
        (task, way) for task in ("a", "b", "prompts") for way in ("off", "suffix", "auto")
    ]
    assert all(len({row["output_hash"] for row in rows if row["test"] == task}) == 1 for task in ("a", "b"))
    assert all((row["times_plain"] is None) == (row["draft"] == "off") for row in rows)
    assert cli(*argv).out.startswith("| task | draft | tokens | t/s | x plain |")


def test_bench_rows_each_way(cli: Cli, mine: str) -> None:
    argv = ("bench", mine, "--test", "tg8", "--reps", "1", "--draft", "off,suffix,auto", "--json", "-q")
    rows = json.loads(cli(*argv).out)["rows"]
    assert [row["draft"] for row in rows] == ["off", "suffix", "auto"]
    assert len({row["output_hash"] for row in rows}) == 1


def test_training_is_refused_without_torch(cli: Cli, mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
    ran = cli("draft", "train", mine, "--minutes", "5")
    assert ran.code == 5
    assert "training a drafter needs torch" in ran.err
    assert "localinfer[quantize]" in ran.err
