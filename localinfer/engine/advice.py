"""What a model's makers advise for sampling: generation_config.json, checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localinfer.config import SamplingParams
from localinfer.errors import Corrupt
from localinfer.formats.json_files import read_object


def default_sampling(directory: Path) -> SamplingParams:
    """The advised settings; ours where the file, or a field of it, is missing.

    `do_sample: false` means the likeliest token, always. Raises `Corrupt` for a value that makes no sense.
    """
    path = directory / "generation_config.json"
    return sampling_from(read_object(path), str(path)) if path.exists() else SamplingParams()


def sampling_from(config: Mapping[str, Any], where: str) -> SamplingParams:
    """As `default_sampling`, from the file's content; `where` names it in errors."""
    ours = SamplingParams()

    def number(name: str, low: float, high: float, default: float) -> float:
        value = config.get(name)
        if value is None:
            return default
        kind = "whole number" if isinstance(default, int) else "number"
        good = isinstance(value, int) or (isinstance(value, float) and kind == "number")
        if isinstance(value, bool) or not good or not low <= value <= high:
            raise Corrupt(
                f"{where}: `{name}` is {str(value)[:40]}, not a {kind} between {low} and {high}",
                hint="download the model again, or correct the file",
            )
        return float(value) if kind == "number" else value

    temperature = number("temperature", 0.0, 100.0, ours.temperature)
    return SamplingParams(
        temperature=0.0 if config.get("do_sample") is False else temperature,
        top_k=int(number("top_k", 0, 1 << 22, ours.top_k)),
        top_p=number("top_p", 0.0, 1.0, ours.top_p),
        min_p=number("min_p", 0.0, 1.0, ours.min_p),
        repeat_penalty=number("repetition_penalty", 0.01, 100.0, ours.repeat_penalty),
    )
