"""`quantize` through the command itself: stopped, hurried, given what it cannot use. Nothing is lost, all is named."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from localinfer.loading import making
from localinfer.quantize import QuantizeReport, quantize_checkpoint
from localinfer.quantize.speeds import Speeds
from tests.cli.conftest import ENTRY, Cli, Ran
from tests.quantize.trees import read_tensor, replace_tensor, tree
from tests.tiny import Dtype, make_checkpoint

LAYERS = 6
GPTQ = ("--bits", "4", "--tokens", "2048", "--threads", "1", "--no-report")
MakeOwn = Callable[..., Path]


@pytest.fixture
def own(isolated: Path) -> MakeOwn:
    """Makes a model among ours, `me/tiny` unless another name is given, and returns its folder."""

    def make(name: str = "me/tiny", *, dtype: Dtype = "bfloat16") -> Path:
        folder = isolated / "localinfer" / "models" / name.replace("/", "--") / "BF16"
        folder.parent.mkdir(parents=True)
        return make_checkpoint(folder, "llama", num_hidden_layers=LAYERS, dtype=dtype)

    return make


def run(*argv: str, largest_file: int = 0) -> Ran:
    """The command as a process of its own; no file it writes may be larger than `largest_file`, if that is not 0."""

    def limit() -> None:
        if largest_file:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))

    ran = subprocess.run(
        [*ENTRY, *argv], capture_output=True, text=True, cwd=ROOT, timeout=300, preexec_fn=limit, check=False
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


ROOT = Path(__file__).parents[2]


def files(partial: Path) -> int:
    return len(list(partial.glob("model-*.safetensors")))


def kill_when(argv: tuple[str, ...], due: Callable[[], bool]) -> None:
    """Start the command and kill -9 it as soon as `due`."""
    child = subprocess.Popen([*ENTRY, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    until = time.monotonic() + 120
    while not due() and child.poll() is None and time.monotonic() < until:
        time.sleep(0.001)
    child.kill()
    assert child.wait() == -9, "it ended before it could be killed"


def without_times(folder: Path) -> dict[str, bytes]:
    """All files; of the record all but how long it took."""
    found = tree(folder)
    record = json.loads(found["localinfer.json"])
    record.pop("report", None)
    record["recipe"].get("refine", {}).pop("seconds", None)
    return found | {"localinfer.json": json.dumps(record).encode()}


def test_killed_and_gone_on(own: MakeOwn) -> None:
    """At several points; then one uninterrupted run gives the same bytes."""
    folder = own()
    dest, partial = folder.with_name("INT4"), folder.with_name("INT4.partial")
    for count in (1, 3, 6):
        kill_when(("quantize", "me/tiny", *GPTQ), lambda count=count: files(partial) >= count)  # type: ignore[misc]
        assert not dest.exists()
    assert run("quantize", "me/tiny", *GPTQ, "--resume").code == 0
    went_on = without_times(dest)
    assert run("rm", "me/tiny:INT4", "--yes").code == 0
    assert run("quantize", "me/tiny", *GPTQ).code == 0
    assert without_times(dest) == went_on


def test_refining_killed_and_gone_on(own: MakeOwn) -> None:
    folder = own()
    dest, partial = folder.with_name("INT3"), folder.with_name("INT3.partial")
    argv = ("quantize", "me/tiny", "--bits", "3", "--method", "imatrix", "--refine", "kl", *GPTQ[2:])
    kill_when(argv, lambda: files(partial / "rough.partial") >= 2)
    kill_when(argv, lambda: (partial / "rough").exists())
    kill_when(argv, lambda: (partial / "report.json").exists())
    assert run(*argv).code == 0
    went_on = without_times(dest)
    assert run("rm", "me/tiny:INT3", "--yes").code == 0
    assert run(*argv).code == 0
    assert without_times(dest) == went_on


def test_a_changed_source_is_refused(own: MakeOwn) -> None:
    folder = own()
    partial = folder.with_name("INT4.partial")
    kill_when(("quantize", "me/tiny", *GPTQ), lambda: files(partial) >= 3)
    kept = files(partial)
    values = read_tensor(folder, "model.norm.weight")
    replace_tensor(folder, "model.norm.weight", values + 1)
    ran = run("quantize", "me/tiny", *GPTQ)
    assert (ran.code, ran.out) == (9, "")
    assert "the source has changed since the stopped run" in ran.err
    assert "model.safetensors" in ran.err
    assert "hint: put the old files back to go on with it, or add `--fresh` to begin anew" in ran.err
    assert files(partial) == kept
    ran = run("quantize", "me/tiny", *GPTQ, "--fresh")
    assert ran.code == 0
    assert (
        read_tensor(folder.with_name("INT4"), "model.norm.weight") == read_tensor(folder, "model.norm.weight")
    ).all()


def test_other_settings_are_told(own: MakeOwn) -> None:
    partial = own().with_name("INT4.partial")
    kill_when(("quantize", "me/tiny", *GPTQ), lambda: files(partial) >= 2)
    other = ("quantize", "me/tiny", "--bits", "4", "--method", "imatrix", "--tokens", "4096", *GPTQ[4:])
    ran = run(*other, "--resume")
    assert ran.code == 2
    assert "method was gptq, is imatrix" in ran.err
    assert "tokens was 2048, is 4096" in ran.err
    assert files(partial) >= 2
    ran = run(*other)
    assert ran.code == 0
    assert "had other settings" in ran.err
    assert "begun anew" in ran.err


def test_resume_and_fresh(cli: Cli, mine: str) -> None:
    ran = cli("quantize", mine, *GPTQ, "--resume", "--fresh")
    assert (ran.code, ran.out) == (2, "")
    assert cli("quantize", mine, *GPTQ, "--resume").code == 0  # nothing to go on with is no error


def test_no_time_for_anything(own: MakeOwn) -> None:
    """What cannot be done in the time is refused before it begins, and leaves nothing."""
    folder = own()
    before = set(folder.parent.iterdir())
    ran = run("quantize", "me/tiny", *GPTQ, "--time-budget", "1s", "--tokens", "65536")
    assert (ran.code, ran.out) == (2, "")
    assert "`--time-budget` allows 1.0 s" in ran.err
    assert set(folder.parent.iterdir()) == before


def test_a_disk_that_fills_at_the_last_layer(own: MakeOwn) -> None:
    """A limit on the size of files stands for it: smaller than a layer, larger than all else that is still written."""
    folder = own()
    dest, partial = folder.with_name("INT4"), folder.with_name("INT4.partial")
    argv = ("quantize", "me/tiny", *GPTQ)
    kill_when(argv, lambda: files(partial) >= LAYERS)  # the embedding and all layers but one
    before = files(partial)
    largest = max(path.stat().st_size for path in partial.glob("model-00002*"))
    ran = run(*argv, largest_file=largest - 100)
    assert (ran.code, ran.out) == (3, "")
    assert "safetensors: cannot be written" in ran.err
    assert "hint: free some space and run the same command again" in ran.err
    assert files(partial) == before
    assert not list(partial.glob("*.tmp"))
    assert run(*argv).code == 0
    went_on = without_times(dest)
    assert run("rm", "me/tiny:INT4", "--yes").code == 0
    assert run(*argv).code == 0
    assert without_times(dest) == went_on


@pytest.mark.parametrize("method", ["rtn", "gptq", "awq+gptq"])
def test_weights_that_are_no_numbers(cli: Cli, own: MakeOwn, method: str) -> None:
    name = f"model.layers.{LAYERS - 1}.mlp.down_proj.weight"
    folder = own(dtype="float32")
    values = read_tensor(folder, name)
    values[1, 2] = np.nan
    replace_tensor(folder, name, values)
    ran = cli("quantize", "me/tiny", *GPTQ, "--method", method)
    assert (ran.code, ran.out) == (7, "")
    assert f"`{name}` holds NaN or infinity" in ran.err
    assert "hint: " in ran.err


@pytest.mark.parametrize("method", ["imatrix", "gptq", "awq", "awq+gptq"])
def test_inputs_that_say_nothing(cli: Cli, own: MakeOwn, method: str) -> None:
    """A norm of zeros: every column is dead, and their second moments cannot be factored. Of single dead columns,
    columns of zeros and rows of zeros there is nothing to say."""
    folder = own(dtype="float32")
    norm = "model.layers.1.input_layernorm.weight"
    replace_tensor(folder, norm, np.zeros_like(read_tensor(folder, norm)))
    norm = "model.layers.2.post_attention_layernorm.weight"
    values = read_tensor(folder, norm)
    values[5] = 0
    replace_tensor(folder, norm, values)
    matrix = "model.layers.3.mlp.up_proj.weight"
    values = read_tensor(folder, matrix)
    values[:, 7] = values[3] = 0
    replace_tensor(folder, matrix, values)
    ran = cli("quantize", "me/tiny", *GPTQ, "--method", method)
    assert ran.code == 0
    told = [line for line in ran.err.splitlines() if "cannot be factored" in line]
    names = ("q_proj", "o_proj") if "gptq" in method else ()
    assert len(told) == len(names)
    for name, line in zip(names, told, strict=True):
        assert f"`model.layers.1.self_attn.{name}.weight`" in line
    assert (read_tensor(folder.with_name("INT4"), "model.layers.3.mlp.up_proj.weight_scale")[3] == 0).all()
    assert cli("run", "me/tiny:INT4", "hi", "-n", "4", "-q").code == 0


def test_inputs_that_are_infinite(cli: Cli, own: MakeOwn) -> None:
    folder = own(dtype="float32")
    norm = "model.layers.2.input_layernorm.weight"
    replace_tensor(folder, norm, np.full_like(read_tensor(folder, norm), 3e38))
    ran = cli("quantize", "me/tiny", *GPTQ)
    assert ran.code == 0
    assert "`model.layers.2.self_attn.q_proj.weight`: its inputs hold NaN or infinity" in ran.err


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", 2, "the calibration text is too short: 0 tokens"),
        (b"\n \n\n", 2, "the calibration text is too short: 0 tokens"),
        (b"A few words are not enough.", 2, "the calibration text is too short: "),
        (b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 64, 2, "is not UTF-8 at byte "),
        (b"\0" * 40000, 2, "holds a zero byte at 0"),
        (None, 4, "cannot be read: No such file"),
    ],
)
def test_text_that_cannot_be_calibrated_on(
    cli: Cli, mine: str, tmp_path: Path, data: bytes | None, code: int, words: str
) -> None:
    path = tmp_path / "text.txt"
    if data is not None:
        path.write_bytes(data)
    ran = cli("quantize", mine, *GPTQ, "--calib", str(path))
    assert (ran.code, ran.out) == (code, "")
    assert f"{path}: {words}" in ran.err or words in ran.err
    assert "hint: " in ran.err
    assert cli("cache", "prune", "--dry-run").out.startswith("would free 0 B")


def test_the_models_own_words(own: MakeOwn) -> None:
    """Drawn with the seed; killed while it speaks and while it is quantized, it ends with the same bytes."""
    folder = own()
    dest, partial, words = (folder.with_name(f"INT4{end}") for end in ("", ".partial", "-words.partial"))
    argv = ("quantize", "me/tiny", *GPTQ, "--calib", "self")
    kill_when(argv, lambda: any(file.stat().st_size for file in words.glob("*.jsonl")))
    kill_when(argv, lambda: files(partial) >= 3)
    assert run(*argv).code == 0
    went_on = without_times(dest)
    assert not words.exists()
    assert run("rm", "me/tiny:INT4", "--yes").code == 0
    assert run(*argv).code == 0
    assert without_times(dest) == went_on
    assert run("rm", "me/tiny:INT4", "--yes").code == 0
    kill_when((*argv, "--seed", "5"), lambda: files(partial) >= 3)
    assert "another sha256" in run(*argv).err
    assert without_times(dest) == went_on
    own_text = json.loads(went_on["localinfer.json"])
    assert run("rm", "me/tiny:INT4", "--yes").code == 0
    assert run("quantize", "me/tiny", *GPTQ).code == 0
    of_the_package = json.loads((dest / "localinfer.json").read_text())
    assert own_text["recipe"]["calibration"]["sha256"] != of_the_package["recipe"]["calibration"]["sha256"]


def test_no_space_is_seen_before_the_work(cli: Cli, mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localinfer.quantize.checkpoint.shutil.disk_usage", lambda path: Few)
    ran = cli("quantize", mine, *GPTQ)
    assert (ran.code, ran.out) == (3, "")
    assert "more, but 1.0 kB is free on the disk" in ran.err


class Few:
    total, used, free = 10, 9, 1000


def test_an_unknown_family_is_refused_by_name(cli: Cli, own: MakeOwn) -> None:
    folder = own()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "deepseek_v3"}))
    ran = cli("quantize", "me/tiny", *GPTQ)
    assert (ran.code, ran.out) == (5, "")
    assert "deepseek_v3" in ran.err


def test_an_alias_goes_on_with_its_advised_form(cli: Cli, mine: str, isolated: Path) -> None:
    """Whoever stopped the first `run starter` while it made INT8 gets INT8 the next time, not another form unasked."""
    models = isolated / "localinfer" / "models"
    folder = models / "HuggingFaceTB--SmolLM2-135M-Instruct"
    (models / "me--tiny").rename(folder)
    assert cli("run", "starter", "a", "-n", "1", "--json").code == 0  # nothing was begun: the original
    kill_when(("quantize", "starter", "--bits", "8"), lambda: files(folder / "INT8.partial") >= 2)
    assert not (folder / "INT8").exists()
    ran = cli("run", "starter", "a", "-n", "1", "--json")
    assert (ran.code, json.loads(ran.out)["bits"]) == (0, "INT8")
    assert "going on with HuggingFaceTB/SmolLM2-135M-Instruct:INT8" in ran.err
    assert not (folder / "INT8.partial").exists()


def test_an_alias_says_why_its_advised_form_is_not_made(cli: Cli, mine: str, isolated: Path) -> None:
    models = isolated / "localinfer" / "models"
    folder = models / "HuggingFaceTB--SmolLM2-135M-Instruct"
    (models / "me--tiny").rename(folder)
    partial = folder / "INT8.partial"
    kill_when(("quantize", "starter", "--bits", "8", "--group", "64"), lambda: files(partial) >= 2)
    kept = files(partial)
    ran = cli("run", "starter", "a", "-n", "1", "--json")
    assert (ran.code, json.loads(ran.out)["bits"]) == (0, "BF16")
    assert "other settings" in ran.err
    assert "taking HuggingFaceTB/SmolLM2-135M-Instruct:BF16" in ran.err
    assert files(partial) == kept  # somebody's other work is left alone


def test_a_limit_that_was_not_kept_is_told(cli: Cli, mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs may take the machine after the time was planned."""
    now, slow, speeds = [0.0], [1.0], Speeds(1e9, 1e9, 1e12, 1e12)
    ours, whole = {"clock": lambda: now[0], "started": 0.0, "speeds": speeds}, making.Limit

    def then_late(*given: object, **more: object) -> QuantizeReport:
        report = quantize_checkpoint(*given, **more)  # type: ignore[arg-type]
        now[0] += slow[0]
        return report

    monkeypatch.setattr(making, "Limit", lambda *given, **more: whole(*given, **more | ours))
    monkeypatch.setattr("localinfer.quantize.quantize_checkpoint", then_late)
    for told in (False, True):
        slow[0] = 100.0 if told else 1.0
        now[0] = 0.0
        ran = cli("quantize", mine, "--bits", "8", "--time-budget", "90s", "--no-report", "--fresh", "--json")
        assert ran.code == 0
        assert ("of `--time-budget`" in ran.err) is told
        assert cli("rm", f"{mine}:INT8", "-y").code == 0


def test_effort_chooses_and_says_how_long_it_takes(cli: Cli, mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was chosen and expected stands in the answer; how far it is comes as lines of JSON."""
    monkeypatch.setattr(making, "LONG_BYTES", 0)
    ran = cli("quantize", mine, "--bits", "4", "--effort", "quick", "--tokens", "2048", "--no-report", "--json")
    assert ran.code == 0
    told = json.loads(ran.out)
    assert (told["effort"], told["method"], told["tokens"], told["refine"]) == ("quick", "awq", 2048, None)
    assert told["expected_s"].keys() == {"rounding", "layers"}
    lines = ran.err.splitlines()
    assert lines[0].startswith("INT4 by awq on 2048 tokens (--effort quick): about ")
    events = [json.loads(line) for line in lines if line.startswith("{")]
    assert {event["event"] for event in events} == {"progress"}
    assert all(event["seconds_left"] is not None for event in events)
    assert events[-1]["done"] == events[-1]["total"] == told["weights"]
    assert events[-1]["per_second"] > 0


def test_effort_and_method_are_one_choice(cli: Cli, mine: str) -> None:
    ran = cli("quantize", mine, "--bits", "4", "--effort", "quick", "--method", "gptq")
    assert ran.code == 2
    assert "--effort quick" in ran.err
    assert "--method awq --tokens 4096" in ran.err


def test_eight_bits_are_rounded_whatever_the_effort(cli: Cli, mine: str) -> None:
    ran = cli("quantize", mine, "--bits", "8", "--effort", "best", "--no-report", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["method"] == "rtn"


@pytest.mark.parametrize("limit", [(), ("--time-budget", "100s")])
@pytest.mark.parametrize(
    "asked",
    [
        ("--bits", "4", "--method", "gptq"),
        ("--bits", "4", "--method", "gptq", "--calib", "self"),
        ("--bits", "4", "--refine", "kl"),
        ("--bits", "4", "--effort", "best"),
        ("--bits", "3", "--bpw", "3.5"),
    ],
)
def test_what_needs_torch_is_refused_without_it(
    cli: Cli, mine: str, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...], limit: tuple[str, ...]
) -> None:
    """At once: nothing is planned, and no text is drawn."""
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
    ran = cli("quantize", mine, *asked, *limit)
    assert ran.code == 5
    assert "needs torch, which is not installed" in ran.err
    assert "localinfer[quantize]" in ran.err
    assert "internal error" not in ran.err
    assert "write" not in ran.err
