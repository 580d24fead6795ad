"""Each bad input ends with one clear error, the right exit code, and nothing on standard output."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.cli.conftest import ENTRY, Cli, Ran
from tests.tiny import make_checkpoint

Shell = Callable[..., subprocess.CompletedProcess[bytes]]


def refused(ran: Ran, code: int, *words: str) -> None:
    """`ran` failed as it should: code, both lines, every word, no traceback."""
    assert (ran.code, ran.out) == (code, ""), ran
    lines = ran.err.rstrip("\n").split("\n")
    assert lines[-3].startswith("error: "), ran.err
    assert lines[-2] == ""
    assert lines[-1].startswith("hint: "), ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.err


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A tiny model, to be damaged."""
    return make_checkpoint(tmp_path / "broken")


# --- the model


@pytest.mark.parametrize("command", ["run", "show", "quantize", "bench", "rm"])
def test_no_such_model(cli: Cli, command: str) -> None:
    more = {"quantize": ["--bits", "4"], "run": ["hi"]}.get(command, [])
    refused(cli(command, "nobody/nothing", *more), 4, "nobody/nothing")


def test_a_prompt_in_the_models_place_is_explained(cli: Cli) -> None:
    refused(cli("run", "Why is the sky blue?"), 2, "the model is missing", "`localinfer run starter PROMPT`")


def test_a_reference_that_is_none(cli: Cli) -> None:
    for name in ("", "a/b/c", "../../etc/passwd:INT4", "name:INT5", "x" * 5000):
        assert cli("run", name, "hi").code in (2, 4), name


def test_a_folder_of_pickles(cli: Cli, broken: Path) -> None:
    (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
    for argv in (("run", str(broken), "hi"), ("quantize", str(broken), "--bits", "4")):
        refused(cli(*argv), 5, "pickled weights only", ".safetensors files")


def test_a_truncated_file(cli: Cli, broken: Path) -> None:
    weights = broken / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1)
    for argv in (("run", str(broken), "hi"), ("quantize", str(broken), "--bits", "4"), ("bench", str(broken))):
        refused(cli(*argv), 7, "model.safetensors")


def test_a_header_that_lies(cli: Cli, broken: Path) -> None:
    weights = broken / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[:8] = (1 << 62).to_bytes(8, "little")
    weights.write_bytes(data)
    refused(cli("run", str(broken), "hi"), 7, "model.safetensors")


def test_a_git_lfs_pointer_instead_of_weights(cli: Cli, broken: Path) -> None:
    (broken / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused(cli("run", str(broken), "hi"), 7)


def test_an_unknown_architecture_names_those_known(cli: Cli, broken: Path) -> None:
    change_config(broken, model_type="mamba")
    refused(cli("run", str(broken), "hi"), 5, "mamba", "llama", "qwen3")


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_hidden_layers", 10**9), ("hidden_size", -1), ("vocab_size", 0), ("rms_norm_eps", 0), ("head_dim", "x")],
)
def test_an_absurd_config(cli: Cli, broken: Path, field: str, value: object) -> None:
    change_config(broken, **{field: value})
    refused(cli("run", str(broken), "hi"), 7, field)


def test_nan_weights_are_named(cli: Cli, broken: Path) -> None:
    make_checkpoint(broken, dtype="float32")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][3] = np.nan
    save_file(weights, broken / "model.safetensors")
    for argv in (("run", str(broken), "hi"), ("quantize", str(broken), "--bits", "8")):
        refused(cli(*argv), 7, "model.norm.weight")


def test_a_tokenizer_of_another_model(cli: Cli, broken: Path, tmp_path: Path) -> None:
    small = make_checkpoint(tmp_path / "small", vocab_size=300)
    (broken / "tokenizer.json").replace(small / "tokenizer.json")
    refused(cli("run", str(small), "hi"), 7, "tokenizer")


def test_a_hostile_template(cli: Cli, broken: Path) -> None:
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}"
    config = json.loads((broken / "tokenizer_config.json").read_text())
    (broken / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": loops}))
    started = time.monotonic()
    refused(cli("run", str(broken), "hi"), 7, "template")
    assert time.monotonic() - started < 30


def test_one_that_does_not_fit_is_refused_before_it_is_loaded(
    cli: Cli, tiny: Path, mine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localinfer.cost.fit.available_bytes", lambda: 1_000_000)
    monkeypatch.setattr("localinfer.engine.opening.open_engine", None)
    ran = cli("run", mine, "hi", "-c", "512")
    refused(ran, 3, f"`{mine}:BF16` needs ", " MB, but 1.0 MB is free", "localinfer quantize me/tiny:BF16 --bits 4")
    refused(cli("bench", str(tiny)), 3, "but 1.0 MB is free")


def test_a_smaller_form_that_fits_is_named(cli: Cli, mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from localinfer.cost.fit import estimate
    from localinfer.hub.resolve import resolve

    monkeypatch.setattr("localinfer.cost.fit.PAGES", Path("/nowhere"))  # a huge page would hold either form
    assert cli("quantize", mine, "--bits", "4", "--method", "rtn").code == 0
    need = estimate(resolve(f"{mine}:INT4").path).total_bytes
    monkeypatch.setattr("localinfer.cost.fit.available_bytes", lambda: need)
    ran = cli("run", mine, "hi")
    refused(ran, 3)
    assert ran.err.endswith("hint: run `localinfer run me/tiny:INT4`, which fits\n")


def test_a_gguf_file_is_never_given_to_another_engine_silently(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    refused(cli("run", str(file), "hi"), 5, "--backend llamacpp", "localinfer import")


def test_a_gguf_file_that_is_none(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF\3\0\0\0" + b"\xff" * 100)
    refused(cli("import", str(file)), 7, "m.gguf")
    refused(cli("import", str(tmp_path / "none.gguf")), 4, "none.gguf")


def test_a_missing_extra_is_named(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in {"llama_cpp", *(name for name in sys.modules if name.startswith("llama_cpp."))}:
        monkeypatch.setitem(sys.modules, module, None)
    for module in [name for name in sys.modules if name.startswith("localinfer.engine.llamacpp")]:
        monkeypatch.delitem(sys.modules, module)  # an earlier test may have imported it with the package
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    refused(cli("run", str(file), "hi", "--backend", "llamacpp"), 5, "pip install", "llamacpp")


def test_an_unknown_kernel_set(cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALINFER_ISA", "altivec")
    refused(cli("run", str(tiny), "hi"), 2, "LOCALINFER_ISA", "altivec")


# --- the prompt and the answer


def test_a_hundred_megabytes_on_standard_input(shell: Shell, tiny: Path) -> None:
    code = (
        "import resource, subprocess, sys\n"
        "zeros = subprocess.Popen(['head', '-c', '100000000', '/dev/zero'], stdout=subprocess.PIPE)\n"
        "ran = subprocess.run(sys.argv[1:], stdin=zeros.stdout, capture_output=True)\n"
        "sys.stdout.buffer.write(ran.stdout); sys.stderr.buffer.write(ran.stderr)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)\n"
        "sys.exit(ran.returncode)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *ENTRY, "run", str(tiny)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (ran.returncode, ran.stdout) == (8, "")
    *words, peak = ran.stderr.splitlines()
    assert words[0] == "error: standard input has more than 2.1 MB, too much for a context of 8192 tokens"
    assert int(peak) < 100_000, "kilobytes of memory"


def test_invalid_utf8(cli: Cli, tiny: Path) -> None:
    refused(cli("run", str(tiny), stdin=b"ok \xff"), 2, "standard input is not UTF-8: byte 0xff at offset 3")
    assert cli("run", str(tiny), "-n", "2", "--lossy", stdin=b"ok \xff").code == 0


def test_nothing_to_answer(cli: Cli, tiny: Path) -> None:
    refused(cli("run", str(tiny)), 2, "the prompt is empty")


@pytest.mark.parametrize("reader", ["head -1", "true", "head -c 3"])
def test_a_reader_that_leaves(shell: Shell, tiny: Path, reader: str) -> None:
    ran = shell(f'localinfer run {tiny} hello -n 400 -q | {reader}; exit "${{PIPESTATUS[0]}}"')
    assert ran.returncode in (0, 141)
    assert ran.stderr == b""


def test_a_reader_that_left_before_a_help_page(shell: Shell) -> None:
    ran = shell('localinfer run --help | true; exit "${PIPESTATUS[0]}"')
    assert ran.returncode in (0, 141)
    assert ran.stderr == b""


@pytest.mark.parametrize(
    "argv", ["run {} hello -n 4 -q", "run {} hello -n 4 -q --json", "list --json", "config show --json"]
)
def test_a_full_disk_behind_standard_output(shell: Shell, tiny: Path, argv: str) -> None:
    ran = shell(f"localinfer {argv.format(tiny)} > /dev/full")
    assert ran.returncode == 3
    assert ran.stderr.decode().startswith("error: standard output took no more: No space left on device\n\nhint: ")


def test_a_full_disk_behind_a_help_page(shell: Shell) -> None:
    ran = shell("localinfer --help > /dev/full")
    error = ran.stderr.decode().splitlines()[0].lower()
    assert (ran.returncode, error[:7], error[-23:]) == (3, "error: ", "no space left on device")


def test_a_closed_standard_output(shell: Shell, tiny: Path) -> None:
    ran = shell(f"localinfer run {tiny} hello -n 4 -q >&-")
    assert ran.returncode == 2
    assert ran.stderr.decode().startswith("error: standard output is closed\n\nhint: ")


def test_closed_standard_input_and_error(shell: Shell, tiny: Path) -> None:
    assert shell(f"localinfer run {tiny} hello -n 4 <&-").returncode == 0
    ran = shell(f"localinfer run {tiny} hello -n 4 2>&-")
    assert ran.returncode == 0
    assert ran.stdout


def test_ascii_terminals_do_not_break_it(shell: Shell, tiny: Path) -> None:
    flags = "-n 60 --temp 3 --seed 4 -q"
    usual = shell(f"localinfer run {tiny} hello {flags}")
    odd = shell(f"localinfer run {tiny} hello {flags}", LC_ALL="C", PYTHONIOENCODING="ascii")
    assert odd.returncode == 0
    assert odd.stdout == usual.stdout


def test_chat_wants_a_terminal(cli: Cli) -> None:
    refused(cli("chat", "starter"), 2, "`chat` needs a terminal", "localinfer run starter")


def test_chat_wants_to_be_seen(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    try:
        ran = subprocess.run(
            [*ENTRY, "chat", "starter"],
            stdin=theirs,
            stdout=theirs,
            stderr=subprocess.PIPE,
            env={**os.environ, "LOCALINFER_HOME": str(tmp_path)},
            timeout=60,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert ran.returncode == 2
    assert b"draws on standard error" in ran.stderr


def change_config(model: Path, **fields: object) -> None:
    config = json.loads((model / "config.json").read_text())
    config.update(fields)
    (model / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
