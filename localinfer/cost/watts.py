"""What a processor is rated to draw, by its name, or where a virtual machine hides that, by family and model."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Rated:
    """A processor as its maker rates it."""

    name: str
    watts: float
    """Of the whole package at its base clock."""
    cores: int
    source: str

    @property
    def watts_per_core(self) -> float:
        """Watts of one busy core: its even share, as if all were busy."""
        return self.watts / self.cores


@cache
def table() -> tuple[dict[str, Any], ...]:
    """The processors of `processors.toml`, in order; the first that fits counts."""
    text = Path(__file__).with_name("processors.toml").read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)["processor"])


def rated(cpuinfo: Path = Path("/proc/cpuinfo")) -> Rated | None:
    """The processor that `cpuinfo` describes; None for one that is not in the table."""
    fields = _fields(cpuinfo)
    name = fields.get("model name", "")
    for entry in table():
        if "match" in entry:
            fits = entry["match"].lower() in name.lower()
        else:
            told = (fields.get("vendor_id"), fields.get("cpu family"), fields.get("model"))
            fits = told == (entry["vendor"], str(entry["family"]), str(entry["model"]))
        if fits:
            return Rated(entry["name"], float(entry["watts"]), int(entry["cores"]), entry["source"])
    return None


def _fields(cpuinfo: Path) -> dict[str, str]:
    """The first processor's."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): " ".join(value.split()) for key, _, value in pairs}
