"""Commands that manage models: pull, list, show, rm, import, quantize, cache."""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.graph.packed import quantized
from tests.hub.fake_hub import FakeHub, fake_hub
from tests.tiny import make_checkpoint

ROW = {"ref", "name", "variant", "kind", "source", "revision", "size_bytes", "path", "modified"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> Iterator[FakeHub]:
    """The tiny model as `org/tiny` on a Hub of our own."""
    from huggingface_hub import close_session

    with fake_hub() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.endpoint)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        close_session()
        found.add("org/tiny", {file.name: file.read_bytes() for file in tiny.iterdir()})
        yield found
        close_session()


def test_nothing_here(cli: Cli) -> None:
    ran = cli("list")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err.startswith("no model here yet; `localinfer pull REF` gets one")
    assert cli("list", "--json").out == "[]\n"
    assert cli("ls", "-q").err == ""


def test_pull_list_run_quantize_show_rm(cli: Cli, hub: FakeHub) -> None:
    pulled = json.loads(cli("pull", "org/tiny", "--json").out)
    assert pulled.keys() == ROW
    assert (pulled["ref"], pulled["variant"], pulled["source"]) == ("org/tiny", "BF16", "hub")
    assert len(pulled["revision"]) == 40

    made = json.loads(cli("quantize", "org/tiny", "--bits", "4", "--method", "rtn", "--json", "-q").out)
    assert made["ref"] == "org/tiny:INT4"
    assert made["source"] == "org/tiny"
    for key in ("bits_per_weight", "size_bytes", "seconds", "peak_bytes", "path"):
        assert made[key], key

    rows = json.loads(cli("list", "--json").out)
    assert [row["ref"] for row in rows] == ["org/tiny", "org/tiny:INT4"]
    assert all(row.keys() == ROW for row in rows)
    head, *lines = cli("ls").out.splitlines()
    assert head.split() == ["MODEL", "FORM", "SIZE", "FROM", "REVISION"]
    assert [line.split()[:2] for line in lines] == [["org/tiny", "BF16"], ["org/tiny:INT4", "INT4"]]

    for ref, bits in (("org/tiny", "BF16"), ("org/tiny:INT4", "INT4")):
        said = json.loads(cli("run", ref, "hello", "-n", "4", "--json", "-q").out)
        assert (said["model"], said["bits"]) == (ref, bits)

    assert cli("rm", "org/tiny", "org/tiny:INT4", "--yes").out.startswith("deleted org/tiny, ")
    assert cli("show", "org/tiny").code == 4


def test_pull_says_what_it_does(cli: Cli, hub: FakeHub) -> None:
    ran = cli("pull", "org/tiny")
    assert ran.code == 0
    assert ran.out.startswith("org/tiny  BF16  ")
    assert ran.err.startswith("org/tiny: ")
    assert cli("pull", "org/tiny", "-q").err == ""


def test_pull_of_what_is_not_there(cli: Cli, hub: FakeHub) -> None:
    ran = cli("pull", "org/nothing")
    assert (ran.code, ran.out) == (4, "")
    assert "org/nothing" in ran.err
    assert cli("pull", "org/tiny", "--revision", "none").code == 4


def test_offline(cli: Cli, mine: str) -> None:
    ran = cli("pull", "org/tiny", "--offline")
    assert (ran.code, ran.out) == (4, "")


def test_show(cli: Cli, mine: str) -> None:
    about = json.loads(cli("show", f"{mine}:BF16", "--json").out)
    assert about.keys() > ROW
    assert (about["architecture"], about["context"], about["layers"]) == ("llama", 512, 2)
    assert "<|im_start|>" in about["template"]
    text = cli("show", mine).out
    assert "architecture      llama\n" in text
    assert "template          yes (`--template` prints it)\n" in text
    assert cli("show", mine, "--template").out == about["template"].rstrip("\n") + "\n"


def test_show_and_fit_tell_what_stays_in_its_file(cli: Cli, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m", "gemma4_text")
    about = json.loads(cli("show", str(path), "--json").out)
    assert about["in_file_bytes"] == 320 * 6 * 64 * 2
    assert "which take no memory" in cli("show", str(path)).out
    said = json.loads(cli("fit", str(path), "-t", "1", "--json").out)
    assert said["in_file_bytes"] == about["in_file_bytes"]
    assert "of weights that stay in their file" in cli("fit", str(path), "-t", "1").out


def test_show_of_a_mixture(cli: Cli, tmp_path: Path) -> None:
    """Three of eight experts of two layers, attention and the head; the embedding is looked up."""
    path = make_checkpoint(tmp_path / "m", "olmoe")
    about = json.loads(cli("show", str(path), "--json").out)
    layer = 2 * 64 * 64 + 2 * 32 * 64 + 8 * 64
    assert about["active_parameters"] == 2 * (layer + 3 * 3 * 64 * 128) + 320 * 64
    assert about["parameters"] == 2 * (layer + 8 * 3 * 64 * 128 + 64 + 32 + 2 * 64) + 2 * 320 * 64 + 64
    assert f"active parameters {about['active_parameters']}\n" in cli("show", str(path)).out


def test_show_without_a_template(cli: Cli, mine: str, tiny: Path, tmp_path: Path) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config.pop("chat_template")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ran = cli("show", str(tmp_path), "--template")
    assert (ran.code, ran.out) == (4, "")
    assert "has no chat template" in ran.err


def test_rm_asks(cli: Cli, mine: str, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = isolated / "localinfer" / "models" / "me--tiny" / "BF16"
    looked = cli("rm", mine, "--dry-run")
    assert (looked.code, folder.is_dir()) == (0, True)
    assert looked.out.startswith("would delete me/tiny:BF16, ")

    nobody = cli("rm", mine)
    assert (nobody.code, nobody.out, folder.is_dir()) == (2, "", True)
    assert nobody.err == ("error: nobody is there to ask\n\nhint: add `--yes` to delete, or `--dry-run` to look\n")

    monkeypatch.setattr("localinfer.cli.output.is_terminal", lambda stream: True)
    for said, code, left in ((b"\n", 0, True), (b"no\n", 0, True), (b"", 0, True), (b"y\n", 0, False)):
        ran = cli("rm", mine, stdin=said)
        assert (ran.code, folder.is_dir()) == (code, left)
        assert ran.err.startswith("delete me/tiny:BF16 (")


def test_rm_takes_all_or_none(cli: Cli, mine: str, isolated: Path, tiny: Path) -> None:
    assert cli("rm", mine, "nobody/nothing", "--yes").code == 4
    assert cli("rm", mine, str(tiny), "--yes").code == 2
    assert (isolated / "localinfer" / "models" / "me--tiny" / "BF16").is_dir()
    assert tiny.is_dir()
    gone = json.loads(cli("rm", mine, mine, "--yes", "--json").out)
    assert [(row["ref"], row["deleted"]) for row in gone] == [("me/tiny:BF16", True)]
    assert gone[0]["freed_bytes"] > 200_000


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("me/tiny",), 2, "`--bits` is missing"),
        (("me/tiny", "--bits", "6"), 2, "--bits is '6', but must be one of 16, 8, 5, 4, 3"),
        (("me/tiny", "--bits", "4", "--group", "48"), 2, "--group is '48', but must be one of 32, 64, 128"),
        (("me/tiny", "--bits", "4", "--group", "128"), 2, "128"),
        (("me/tiny", "--bits", "4", "--name", "../x"), 2, "../x"),
        (("me/tiny", "--bits", "3", "--bpw", "4", "--target-size", "1GB"), 2, "`--bpw` and `--target-size` were both"),
        (("me/tiny", "--bits", "3", "--target-size", "small"), 2, "--target-size is 'small', which is no size"),
        (("me/tiny", "--bits", "3", "--refine", "kl", "--time-budget", "soon"), 2, "is 'soon', which is no time"),
        (("me/tiny", "--bits", "4", "--time-budget", "1s"), 2, "but `--time-budget` allows 1.0 s"),
        (("me/tiny", "--bits", "8", "--refine", "kl"), 2, "8 bits lose too little to be refined"),
        (("me/tiny", "--bits", "4", "--bpw", "3.5"), 2, "3.5 bits a weight cannot be had: 4."),
        (("me/tiny", "--bits", "3", "--target-size", "1kB"), 2, "1.0 kB cannot be had: the smallest is"),
    ],
)
def test_quantize_refuses(cli: Cli, mine: str, argv: tuple[str, ...], code: int, words: str) -> None:
    ran = cli("quantize", *argv)
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err
    assert "hint: " in ran.err


def test_quantize_again_and_what_is_small_already(cli: Cli, mine: str) -> None:
    assert cli("quantize", mine, "--bits", "3", "--method", "rtn", "--name", "me/small").code == 0
    again = cli("quantize", mine, "--bits", "3", "--name", "me/small")
    assert again.code == 2
    assert again.err.endswith(
        "error: `me/small:INT3` is here already\n\nhint: use it, or make place first: `localinfer rm me/small:INT3`\n"
    )
    assert cli("quantize", "me/small:INT3", "--bits", "3").code == 2
    assert cli("run", "me/small:INT3", "hi", "-n", "2").code == 0


def test_quantize_refines(cli: Cli, mine: str) -> None:
    words = ("--bits", "3", "--method", "imatrix", "--tokens", "2048", "--refine", "kl", "--time-budget", "10m")
    made = cli("quantize", mine, *words, "--name", "me/fine", "--json", "-q")
    assert made.code == 0
    assert "refined in " in json.loads(made.out)["notes"][-1]
    assert cli("run", "me/fine:INT3", "hi", "-n", "2").code == 0


def test_quantize_calibrates(cli: Cli, mine: str, tmp_path: Path) -> None:
    """Below 8 bits it calibrates, unless it is told not to; the text may be the caller's."""
    text = tmp_path / "text.txt"
    text.write_text("Calibrated on a text of my own, over and over again. " * 300)
    made = cli("quantize", mine, "--bits", "4", "--calib", str(text), "--tokens", "2048", "--json", "-q")
    assert made.code == 0
    recipe = json.loads((Path(json.loads(made.out)["path"]) / "localinfer.json").read_text())["recipe"]
    assert recipe["method"] == "gptq"
    assert recipe["calibration"]["tokens"] == 2048
    short = cli("quantize", mine, "--bits", "3", "--calib", str(tmp_path / "none.txt"))
    assert (short.code, short.out) == (4, "")
    assert "none.txt: cannot be read" in short.err
    assert "me/tiny:INT3" not in cli("list").out


def test_cache_verify_and_prune(cli: Cli, mine: str, isolated: Path) -> None:
    assert cli("quantize", mine, "--bits", "8").code == 0
    fine = cli("cache", "verify")
    assert fine.code == 0
    assert fine.out.endswith("hashed, all as it should be\n")
    assert json.loads(cli("cache", "verify", "--json", "-q").out)["bad"] == []
    assert json.loads(cli("cache", "prune", "--dry-run", "--json").out) == {
        "deleted": False,
        "freed_bytes": 0,
        "leftovers": [],
    }
    assert cli("cache", "prune").out == "freed 0 B\n"


def test_cache_verify_finds_a_flipped_bit(cli: Cli, hub: FakeHub, isolated: Path) -> None:
    assert cli("pull", "org/tiny").code == 0
    blob = max((isolated / "hf").rglob("blobs/*"), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    ran = cli("cache", "verify")
    assert (ran.code, ran.out) == (7, "")
    assert "1 bad file, the first: " in ran.err
    assert "`localinfer rm org/tiny`" in ran.err


def test_a_prompt_is_never_asked_through_a_pipe(cli: Cli, mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert cli("rm", mine).code == 2


def test_export(cli: Cli, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wrote = json.loads(cli("export", str(tiny), "--format", "gguf", "--json", "-q").out)
    assert (wrote["type"], Path(wrote["path"]).stat().st_size) == ("F16", wrote["size_bytes"])
    again = cli("export", str(tiny), "--format", "gguf", "-q")
    assert (again.code, "is there already" in again.err) == (2, True)
    there = cli("export", str(tiny), "--format", "gguf", "--type", "Q8_0", "-o", "small.gguf", "-q")
    assert (there.code, there.out.split()[:2]) == (0, ["small.gguf", "Q8_0"])
    assert cli("export", str(tiny), "-q").err.startswith("error: `--format` is missing")
    assert cli("export", str(tiny), "--format", "gptq", "--type", "F16").err.startswith(
        "error: `--type` is for gguf only"
    )
    assert "`--head` is for compressed-tensors" in cli("export", str(tiny), "--format", "gguf", "--head", "bf16").err
    assert "no other program reads a packed head" in cli("export", str(tiny), "--format", "gptq", "--head", "8").err
    small = str(quantized(tiny, tmp_path / "small", 4, 32))
    told = json.loads(cli("export", small, "--format", "gptq", "--head", "bf16", "-o", "g", "--json", "-q").out)
    assert (told["head"], told["type"]) == ("bf16", "4 bits by 32")
    there = cli("export", small, "--format", "compressed-tensors", "-o", "c", "-q")
    assert there.out.startswith("c  4 bits by 32, embedding and head bf16  ")
    plain = cli("export", str(tiny), "--format", "gptq", "-q")
    assert (plain.code, "are no integers" in plain.err) == (5, True)


@pytest.mark.parametrize("command", ["fit", "pull"])
def test_a_misspelled_name_is_told_where_the_hub_has_none(cli: Cli, mine: str, command: str, hub: FakeHub) -> None:
    ran = cli(command, "startr")
    assert (ran.code, "did you mean `starter`?" in ran.err) == (4, True)
    assert "did you mean `me/tiny" in cli(command, "me/tinny").err
    assert "did you mean" not in cli(command, "nobody/knows-this").err


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_a_model_that_was_cut_off_is_not_listed_as_whole(
    cli: Cli, mine: str, isolated: Path, name: str, kept: float
) -> None:
    file = isolated / "localinfer" / "models" / "me--tiny" / "BF16" / name
    if name == "tokenizer_config.json":
        file.write_text('{"model_max_length": 128}')
    data = file.read_bytes()
    assert "damaged" not in cli("list").out
    assert "problem" not in json.loads(cli("list", "--json").out)[0]
    file.write_bytes(data[: int(kept * len(data))])
    ran = cli("list")
    assert ran.out.splitlines()[1].split()[-1] == "damaged"
    assert f"{mine}:BF16 is damaged" in ran.err
    assert name in ran.err
    assert json.loads(cli("list", "--json").out)[0]["problem"]


def test_a_model_without_its_tokenizer_is_not_listed_as_whole(cli: Cli, mine: str, isolated: Path) -> None:
    (isolated / "localinfer" / "models" / "me--tiny" / "BF16" / "tokenizer.json").unlink()
    assert "tokenizer.json is missing" in cli("list").err
