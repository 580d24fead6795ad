"""The fake Hub as the endpoint, and a model small enough to be pulled a hundred times."""

import json
from collections.abc import Iterator

import pytest

from localinfer.hub.patience import Patience
from tests.hub.fake_hub import FakeHub, fake_hub

NAME = "org/tiny"


class Naps(list[float]):
    """The waits that were asked for, instead of waiting."""

    def patience(self, **changes: float) -> Patience:
        fields = {"attempts": 3, "connect": 2.0, "stall": 0.5, "longest_retry_after": 60.0, **changes}
        return Patience(sleep=self.append, **fields)  # type: ignore[arg-type]


@pytest.fixture
def naps() -> Naps:
    return Naps()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    from huggingface_hub import close_session

    with fake_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        close_session()  # its proxy settings are read once
        hub.add(NAME, tiny_files())
        yield hub
        close_session()


def tiny_files(seed: int = 0) -> dict[str, bytes]:
    """A repository as they look on the Hub, things we must not download among them."""
    weights = bytes((i * 7 + seed) % 251 for i in range(300_000))
    return {
        "config.json": json.dumps({"model_type": "llama", "seed": seed}).encode(),
        "tokenizer.json": b'{"version": "1.0"}',
        "chat_template.jinja": b"{{ messages }}",
        "merges.txt": b"a b\n",
        "additional_chat_templates/tool_use.jinja": b"{{ tools }}",
        "additional_chat_templates/notes.txt": b"of no use",
        "model.safetensors": weights,
        "modeling_evil.py": b"raise SystemExit\n",
        "pytorch_model.bin": b"\x80\x02pickle",
        "original/params.json": b"{}",
        "README.md": b"# Tiny\n",
    }


def sharded_files() -> dict[str, bytes]:
    files = tiny_files()
    weights = files.pop("model.safetensors")
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    files[names[0]], files[names[1]] = weights[:100_000], weights[100_000:]
    index = {"metadata": {}, "weight_map": {"a": names[0], "b": names[1], "c": names[1]}}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    files["consolidated.safetensors"] = b"the same weights again, in another layout"
    return files
