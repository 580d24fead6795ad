"""What `show` says of a model."""

from pathlib import Path

from localinfer.hub.details import details
from localinfer.hub.importing import import_file
from localinfer.hub.resolve import resolve
from tests.hub.test_starter import write_gguf
from tests.tiny import make_checkpoint


def test_a_checkpoint(isolated: Path, tmp_path: Path) -> None:
    about = details(resolve(str(make_checkpoint(tmp_path / "m"))))
    assert (about["architecture"], about["layers"], about["hidden_size"], about["vocab_size"]) == ("llama", 2, 64, 320)
    assert about["parameters"] > 10_000
    assert about["bits_per_weight"] == 16.0
    assert "im_start" in about["template"]
    assert about["problem"] is None


def test_a_gguf_file_and_what_was_made_of_it(isolated: Path, tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf")
    about = details(resolve(str(tmp_path / "m.gguf")))
    assert (about["architecture"], about["context"], about["layers"], about["vocab_size"]) == ("llama", 64, 1, 128)
    made = details(import_file(tmp_path / "m.gguf"))
    assert made["architecture"] == "llama"
    assert made["made_from"]["source"]["file"] == "m.gguf"
    assert made["problem"] is None


def test_what_cannot_be_read_is_said(isolated: Path, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m")
    (path / "tokenizer.json").write_text("{")
    about = details(resolve(str(path)))
    assert "tokenizer.json" in about["problem"]
    assert about["architecture"] == "llama"
