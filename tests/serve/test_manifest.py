"""What is told of a model's files in other programs' words."""

from pathlib import Path

from localinfer.hub.details import details
from localinfer.hub.resolve import resolve
from localinfer.serve.manifest import manifest
from tests.hub.test_starter import write_gguf
from tests.tiny import make_checkpoint


def test_a_manifest_tells_files_apart(isolated: Path, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m")
    found = resolve(str(path))
    about = manifest(found)
    assert (about.family, about.quantization, about.parameters) == ("llama", "BF16", details(found)["parameters"])
    assert (len(about.digest), manifest(found)) == (64, about)
    (path / "generation_config.json").write_text("{}")
    assert manifest(found).digest != about.digest
    (path / "config.json").write_text("{")
    assert (manifest(found).family, manifest(found).parameters) == ("", 0)
    write_gguf(tmp_path / "m.gguf")
    file = resolve(str(tmp_path / "m.gguf"))
    assert manifest(file).family == "llama"
    assert manifest(file).parameters == details(file)["parameters"]
    assert manifest(file).quantization in ("F32", "F16", "BF16", "Q8_0", "Q4_0")
