"""A look at a checkpoint directory without opening its weights: is it whole, which form, how large."""

from pathlib import Path
from typing import Any

from localinfer.errors import LocalInferError
from localinfer.formats.chat_templates import FOLDER as TEMPLATE_FOLDER
from localinfer.formats.json_files import read_object
from localinfer.formats.layout import CONFIG, INDEX, INDEX_LIMIT, SINGLE
from localinfer.formats.quantization_said import quantization_said
from localinfer.hub.model import Variant, variant_of_bits

RECORD = "localinfer.json"
IMPORTED = "imported"
"""The `kind` of a model made from a GGUF file."""


def weight_files(index: dict[str, Any]) -> list[str]:
    """The file names in an index's `weight_map`, each once; anything that is not a plain name is left in as it is."""
    found = index.get("weight_map")
    return sorted({str(file) for file in found.values()}) if isinstance(found, dict) else []


def missing_file(directory: Path) -> str | None:
    """The first file a whole checkpoint would have and `directory` lacks; None when nothing is missing."""
    if not (directory / CONFIG).is_file():
        return CONFIG
    if (directory / SINGLE).is_file():
        return None  # an index beside it is not read
    if not (directory / INDEX).is_file():
        return SINGLE
    try:
        names = weight_files(read_object(directory / INDEX, INDEX_LIMIT))
    except LocalInferError:
        return INDEX
    if not names:
        return INDEX
    return next((name for name in names if "/" in name or not (directory / name).is_file()), None)


def variant_of(directory: Path) -> Variant:
    """The form that is stated of the weights; `BF16` when nothing is said of quantization or it cannot be read."""
    try:
        said = quantization_said(directory, read_object(directory / CONFIG))
    except LocalInferError:
        return "BF16"
    quantization = said[1] if said is not None else {}
    if quantization.get("quant_method") in ("gptq", "awq"):
        bits_said = quantization.get("bits")
        return variant_of_bits(bits_said) if isinstance(bits_said, int) else "BF16"
    groups = quantization.get("config_groups")
    if not isinstance(groups, dict):
        return "BF16"
    # The body is the form's name; the embedding and the head may have more bits than it.
    bits = [
        group["weights"]["num_bits"]
        for group in groups.values()
        if isinstance(group, dict)
        and isinstance(group.get("weights"), dict)
        and isinstance(group["weights"].get("num_bits"), int)
        and (group["weights"].get("type", "int") == "int" or group["weights"]["num_bits"] < 8)  # e4m3 runs as bf16
    ]
    return variant_of_bits(min(bits)) if bits else "BF16"


def recorded_revision(directory: Path) -> str | None:
    """The source's commit as `localinfer.json` tells it, or None."""
    try:
        record = read_object(directory / RECORD)
    except LocalInferError:
        return None
    source = record.get("source")
    revision = source.get("revision") if isinstance(source, dict) else record.get("revision")
    return revision if isinstance(revision, str) else None


def files_of(directory: Path) -> list[Path]:
    """All regular files of a model, links followed: those directly in `directory`, and further chat templates."""
    return sorted(path for path in (*directory.iterdir(), *(directory / TEMPLATE_FOLDER).glob("*")) if path.is_file())


def is_imported(directory: Path) -> bool:
    """Whether a GGUF file was its original."""
    try:
        return read_object(directory / RECORD).get("kind") == IMPORTED
    except LocalInferError:
        return False


def size_on_disk(directory: Path) -> int:
    """Bytes of all files of a model."""
    return sum(path.stat().st_size for path in files_of(directory))
