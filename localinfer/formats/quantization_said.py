"""Where a Hugging Face directory says how its weights were quantized: in config.json or in a file beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localinfer.errors import Corrupt, LocalInferError
from localinfer.formats.json_files import read_object

Said = tuple[str, Mapping[str, Any]]
"""The file, and what it says."""

_AWQ_WORDS = {"w_bit": "bits", "q_group_size": "group_size"}


def quantization_said(directory: Path, config: Mapping[str, Any]) -> Said | None:
    """What is said of quantization, in the words of `quantization_config`; None for plain weights.

    `quantization_config` goes before `compression_config` (older compressed-tensors), this before
    `quantize_config.json` (AutoGPTQ) and `quant_config.json` (AutoAWQ), which are left unread beside plain weights.
    A text model inside another may say it itself.
    Raises `Corrupt` for what is no object.
    """
    inner = config.get("text_config")
    for table in (config, inner if isinstance(inner, Mapping) else {}):
        for name, method in (("quantization_config", None), ("compression_config", "compressed-tensors")):
            said = table.get(name)
            if said is None:
                continue
            if not isinstance(said, Mapping):
                raise Corrupt(f"config.json: `{name}` is not an object", hint="download the model again")
            return "config.json", said if method is None else {"quant_method": method, **said}
    for file, method in (("quantize_config.json", "gptq"), ("quant_config.json", "awq")):
        if (directory / file).is_file() and not _plain(directory):
            said = read_object(directory / file)
            renamed = {_AWQ_WORDS.get(name, name): value for name, value in said.items()}
            return file, {"quant_method": method, **renamed}
    return None


def _plain(directory: Path) -> bool:
    """Whether there are weights, and none of them packed: a file that an export left behind says nothing of them."""
    from localinfer.formats.checkpoint_files import open_tensors

    try:
        return not any(name.endswith(".qweight") for name in open_tensors(directory))
    except LocalInferError:
        return False
