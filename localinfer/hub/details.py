"""What a model says about itself, for a person: read from its configuration, nothing of it trusted or computed with."""

from typing import Any

from localinfer.formats.json_files import read_object
from localinfer.hub import catalogue
from localinfer.hub.checkpoint import CONFIG
from localinfer.hub.model import LocalModel

_FIELDS = {
    "architecture": "model_type",
    "max_context": "max_position_embeddings",
    "layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "vocabulary": "vocab_size",
}
_GGUF_FIELDS = {
    "max_context": "context_length",
    "layers": "block_count",
    "hidden_size": "embedding_length",
    "vocabulary": "vocab_size",
}


def details(model: LocalModel) -> dict[str, Any]:
    """`architecture, max_context, layers, hidden_size, vocabulary, licence, aliases, template`; None where unknown.

    Raises `Corrupt` when the configuration or the tokenizer's files cannot be read.
    """
    about = _of_gguf(model) if model.kind == "gguf" else _of_checkpoint(model)
    entry = catalogue.find(model.name)
    about["licence"] = entry.licence if entry else None
    about["aliases"] = list(entry.aliases) if entry else []
    return about


def _of_checkpoint(model: LocalModel) -> dict[str, Any]:
    from localinfer.formats.tokenizer import Tokenizer

    config = read_object(model.path / CONFIG)
    nested = config.get("text_config")
    text = nested if isinstance(nested, dict) else {}
    about: dict[str, Any] = {}
    for name, field in _FIELDS.items():
        value = config.get(field, text.get(field))
        about[name] = value if isinstance(value, (int, str)) else None
    about["template"] = Tokenizer(model.path).chat_template if (model.path / "tokenizer.json").is_file() else None
    return about


def _of_gguf(model: LocalModel) -> dict[str, Any]:
    from localinfer.formats.gguf import GgufFile

    metadata = GgufFile(model.path).metadata
    architecture = metadata.get("general.architecture")
    about: dict[str, Any] = {"architecture": architecture if isinstance(architecture, str) else None}
    for name, field in _GGUF_FIELDS.items():
        value = metadata.get(f"{architecture}.{field}")
        about[name] = value if isinstance(value, int) else None
    template = metadata.get("tokenizer.chat_template")
    about["template"] = template if isinstance(template, str) else None
    return about
