"""All there is to say about one model without loading it; for `show`."""

from pathlib import Path
from typing import Any

from localinfer.errors import LocalInferError
from localinfer.formats.json_files import read_object
from localinfer.formats.layout import CONFIG
from localinfer.hub import catalogue
from localinfer.hub.checkpoint import RECORD
from localinfer.hub.model import LocalModel


def details(model: LocalModel) -> dict[str, Any]:
    """What its files say, with None for what they do not: `architecture`, `context` (tokens), `layers`, `hidden_size`,
    `vocab_size`, `parameters`, `bits_per_weight`, `licence`, `aliases`, `made_from` (of a model made here), `template`
    (the chat template's source) and `problem` (why something could not be read).

    All text in it comes from outside.
    """
    entry = catalogue.find(model.name)
    about: dict[str, Any] = {
        "architecture": None,
        "context": None,
        "layers": None,
        "hidden_size": None,
        "vocab_size": None,
        "parameters": entry.parameters if entry else None,
        "bits_per_weight": None,
        "licence": entry.licence if entry else None,
        "aliases": list(entry.aliases) if entry else [],
        "made_from": None,
        "template": None,
        "problem": None,
    }
    readers = (_gguf,) if model.kind == "gguf" else (_checkpoint, _template)
    for read in readers:
        try:
            about |= read(model.path)
        except LocalInferError as error:
            about["problem"] = error.message
    if about["parameters"]:
        about["bits_per_weight"] = round(about.pop("weight_bytes", model.size_bytes) * 8 / about["parameters"], 2)
    about.pop("weight_bytes", None)
    return about


def _checkpoint(path: Path) -> dict[str, Any]:
    from localinfer.formats.checkpoint_files import open_tensors

    config = read_object(path / CONFIG)
    text = config.get("text_config")
    sizes = {**config, **text} if isinstance(text, dict) else config
    tensors = open_tensors(path)
    about = {
        "architecture": config.get("model_type"),
        "context": sizes.get("max_position_embeddings"),
        "layers": sizes.get("num_hidden_layers"),
        "hidden_size": sizes.get("hidden_size"),
        "vocab_size": sizes.get("vocab_size"),
        "weight_bytes": tensors.nbytes,
    }
    if (path / RECORD).is_file():
        record = read_object(path / RECORD)
        about["made_from"] = {name: record[name] for name in ("source", "recipe", "report") if name in record} or None
    elif not any(name.endswith("_packed") for name in tensors):
        about["parameters"] = sum(_count(tensor.info.shape) for tensor in tensors.values())
    return about


def _template(path: Path) -> dict[str, Any]:
    from localinfer.formats.tokenizer import Tokenizer

    return {"template": Tokenizer(path).chat_template}


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count


def _gguf(path: Path) -> dict[str, Any]:
    from localinfer.formats.gguf import GgufFile

    file = GgufFile(path)
    architecture = file.text("general.architecture")
    template = file.metadata.get("tokenizer.chat_template")
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    return {
        "architecture": architecture,
        "context": file.metadata.get(f"{architecture}.context_length"),
        "layers": file.metadata.get(f"{architecture}.block_count"),
        "hidden_size": file.metadata.get(f"{architecture}.embedding_length"),
        "vocab_size": len(tokens) if isinstance(tokens, list) else None,
        "parameters": sum(_count(tensor.shape) for tensor in file.tensors.values()),
        "template": template if isinstance(template, str) else None,
    }
