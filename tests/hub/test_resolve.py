"""From a reference to what is on this machine, and what is said when it is not."""

import json
import os
from pathlib import Path

import pytest

from localinfer.errors import Corrupt, LocalInferError, NotFound, UsageError
from localinfer.hub.cache import list_models, repo_dir, variant_dir
from localinfer.hub.model import Variant
from localinfer.hub.resolve import resolve

A, B = "a" * 40, "b" * 40
SMOL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def checkpoint(path: Path, bits: int | None = None, revision: str | None = None) -> Path:
    path.mkdir(parents=True)
    config: dict[str, object] = {"model_type": "llama"}
    if bits:
        groups = {"group_0": {"weights": {"num_bits": bits}}, "group_1": {"weights": {"num_bits": 8}}}
        config["quantization_config"] = {"quant_method": "compressed-tensors", "config_groups": groups}
    (path / "config.json").write_text(json.dumps(config))
    (path / "model.safetensors").write_bytes(b"x" * 100)
    if revision:
        (path / "localinfer.json").write_text(json.dumps({"source": {"revision": revision}}))
    return path


def download(name: str, commit: str = A, branch: str | None = "main") -> Path:
    """A download as the Hub's tools lay it out: links to blobs."""
    repo = repo_dir(name)
    made = checkpoint(repo / "snapshots" / commit)
    (repo / "blobs").mkdir(exist_ok=True)
    for path in list(made.iterdir()):
        blob = repo / "blobs" / f"{path.name}-{commit}"
        path.rename(blob)
        path.symlink_to(os.path.relpath(blob, made))
    if branch:
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs" / branch).write_text(commit)
    return made


def ours(name: str, variant: Variant, revision: str | None = A) -> Path:
    bits = {"INT8": 8, "INT4": 4, "INT3": 3}.get(variant)
    return checkpoint(variant_dir(name, variant), bits, revision)


def test_a_name_is_the_original_and_a_form_is_asked_for(isolated: Path) -> None:
    source, small = download("org/one"), ours("org/one", "INT4")
    assert resolve("org/one").path == source
    assert resolve("hf://org/one").path == source
    assert resolve("org/one:BF16").path == source
    assert resolve("org/one:int4").path == small
    assert resolve("org/one:INT4").variant == "INT4"
    assert resolve("org/one:INT4").revision == A
    assert resolve("org/one:INT4").source == "ours"
    assert resolve("org/one").size_bytes == 100 + (source / "config.json").stat().st_size


def test_the_starter_is_its_best_quantized_form(isolated: Path) -> None:
    with pytest.raises(NotFound) as error:
        resolve("starter")
    assert error.value.hint == "run `localinfer pull starter`"
    for variant in ("BF16", "INT3", "INT4", "INT8"):
        path = ours(SMOL, variant)
        assert resolve("starter").path == path
    assert resolve("starter:INT4").variant == "INT4"
    assert resolve(SMOL).variant == "BF16"


def test_revisions_are_told_apart(isolated: Path) -> None:
    old = download("org/one", A, branch="v1")
    new = download("org/one", B, branch="main")
    assert resolve("org/one").path == new
    assert resolve("org/one@v1").path == old
    assert resolve(f"org/one@{A}").path == old
    assert resolve("org/one@aaaaaaa").path == old
    assert resolve("org/one", revision="v1").path == old
    with pytest.raises(NotFound):
        resolve("org/one@v2")
    with pytest.raises(UsageError, match="two revisions"):
        resolve("org/one@v1", revision="main")
    assert [model.ref for model in list_models()] == ["org/one", f"org/one@{A}"]
    assert [resolve(model.ref) for model in list_models()] == list_models()


def test_a_download_without_a_branch_answers_to_its_name(isolated: Path) -> None:
    path = download("org/one", A, branch=None)
    assert resolve("org/one").path == path


def test_paths(isolated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = checkpoint(tmp_path / "mine", 3, B)
    assert resolve(str(made)).variant == "INT3"
    assert resolve(str(made)).revision == B
    monkeypatch.chdir(tmp_path)
    assert resolve("./mine").path == made
    assert resolve("mine").path == made
    checkpoint(tmp_path / "starter")
    with pytest.raises(NotFound):
        resolve("starter")  # an alias cannot be taken over by a folder that happens to lie here
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    assert (resolve("x.gguf").kind, resolve("x.gguf").variant, resolve("x.gguf").size_bytes) == ("gguf", "GGUF", 4)
    (made / "model.safetensors").unlink()
    with pytest.raises(Corrupt, match=r"lacks `model\.safetensors`"):
        resolve("./mine")


@pytest.mark.parametrize(
    ("ref", "kind", "hint"),
    [
        ("org/none", NotFound, "run `localinfer pull org/none`"),
        ("org/none@v1", NotFound, "run `localinfer pull org/none@v1`"),
        ("org/none:INT4", NotFound, "run `localinfer pull org/none`"),
        ("nothing", NotFound, "localinfer list"),
        ("./nothing", NotFound, "check the path"),
        ("nothing.gguf", NotFound, "check the path"),
        ("/", NotFound, "give the directory"),
        ("/dev/null", NotFound, "config.json"),
        ("org/one:INT6", UsageError, "INT4"),
        ("org/one@../../x", UsageError, "commit"),
        ("../../nowhere", NotFound, "path"),
        ("org/../x", UsageError, "org/name"),
        ("\x1b[31mred", UsageError, "org/name"),
    ],
)
def test_what_is_not_here_says_what_to_type(isolated: Path, ref: str, kind: type[LocalInferError], hint: str) -> None:
    with pytest.raises(LocalInferError) as error:
        resolve(ref)
    assert type(error.value) is kind
    assert hint in str(error.value.hint)
    assert "\x1b[" not in error.value.message


def test_a_name_that_is_nearly_right_is_told(isolated: Path) -> None:
    download("org/one-chat")
    ours("me/größe", "INT4")
    for ref, meant in (
        ("org/one-chta", "or did you mean `org/one-chat`?"),
        ("ORG/One-Chat2", "or did you mean `org/one-chat`?"),
        ("one-chat", "did you mean `org/one-chat`?"),
        ("größe", "did you mean `me/größe:INT4`?"),
        ("startr", "did you mean `starter`?"),
    ):
        with pytest.raises(NotFound) as error:
            resolve(ref)
        assert meant in str(error.value.hint), ref
    for ref in ("org/another", "zzz"):
        with pytest.raises(NotFound) as error:
            resolve(ref)
        assert "did you mean" not in str(error.value.hint)


def test_hints_lead_to_the_form_asked_for(isolated: Path) -> None:
    download("org/one")
    with pytest.raises(NotFound) as error:
        resolve("org/one:INT3")
    assert error.value.hint == "make it with `localinfer quantize org/one --bits 3`"
    ours("org/two", "INT4")
    with pytest.raises(NotFound) as error:
        resolve("org/two")
    assert error.value.hint == "the original is not here, but `localinfer run org/two:INT4` works"
    with pytest.raises(NotFound) as error:
        resolve("org/three", offline=True)
    assert error.value.hint == "go online and run `localinfer pull org/three`"


def test_partial_and_broken_folders_are_passed_over(isolated: Path) -> None:
    (download("org/cut") / "model.safetensors").unlink()
    indices = {
        "shards": json.dumps({"weight_map": {"a": "gone.safetensors"}}),
        "liar": json.dumps({"weight_map": {"a": "../../../x.safetensors"}}),
        "broken": "{",
    }
    for name, index in indices.items():
        folder = download(f"org/{name}")
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(index)
    dangling = download("org/dangling")
    (dangling / "model.safetensors").resolve().unlink()
    ours("org/partial", "INT4").rename(variant_dir("org/partial", "INT4").with_name("INT4.partial"))
    assert list_models() == []
    whole = download("org/whole")  # an index beside a single file is not read
    (whole / "model.safetensors.index.json").write_text("{")
    assert [model.ref for model in list_models()] == ["org/whole"]


def test_links_that_lead_out_are_not_followed(isolated: Path, tmp_path: Path) -> None:
    outside = checkpoint(tmp_path / "outside")
    inside = download("org/leaky")
    (inside / "config.json").unlink()
    (inside / "config.json").symlink_to(outside / "config.json")
    variant_dir("org/link", "INT4").parent.mkdir(parents=True)
    variant_dir("org/link", "INT4").symlink_to(outside)
    repo_dir("org/linked").symlink_to(outside)
    refs = repo_dir("org/refs") / "refs"
    download("org/refs", A, branch=None)
    refs.mkdir()
    (refs / "main").symlink_to("/etc/hostname")
    assert [model.name for model in list_models()] == ["org/refs"]


def test_junk_in_the_folders_is_ignored(isolated: Path) -> None:
    download("org/one")
    for junk in ("models--x--..", "models--", "datasets--a--b", "models--a--b--c"):
        (repo_dir("org/one").parent / junk / "snapshots" / A).mkdir(parents=True)
    (repo_dir("org/one") / "snapshots" / "not-a-commit").mkdir()
    (repo_dir("org/one") / "refs" / "main").write_text("../../x")
    assert [model.name for model in list_models()] == ["org/one"]
