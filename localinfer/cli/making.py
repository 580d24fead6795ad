"""Make a smaller form of a model that is here, with progress; a stop loses nothing."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localinfer.cli.output import note
from localinfer.hub.model import LocalModel, variant_of_bits

if TYPE_CHECKING:
    from localinfer.cli.progress import Progress
    from localinfer.quantize import CalibrationText, Method, QuantizeReport


def make_small(
    source: LocalModel,
    bits: int,
    *,
    group: int | None = None,
    method: "Method | None" = None,
    calib: Sequence[Path] = (),
    tokens: int | None = None,
    seed: int = 0,
    bits_per_weight: float | None = None,
    target_bytes: int | None = None,
    refine: bool = False,
    seconds: float = 0.0,
    name: str | None = None,
    threads: int = 0,
    quiet: bool,
) -> "QuantizeReport":
    """Quantize `source` to `name:INT<bits>` among our models. Ctrl-C keeps what is done and says so.

    `method` None is what loses least at that width; `calib`, `tokens` and `seed` say what it calibrates on. `refine`
    then trains the scales, for `seconds` at most if that is not 0.
    """
    from localinfer.chats.template import conversation
    from localinfer.cli.progress import Progress
    from localinfer.hub.cache import variant_dir
    from localinfer.quantize import DEFAULT_TOKENS, CalibrationText, default_method

    name = name or source.name
    made = f"{name}:{variant_of_bits(bits)}"
    if method is None:
        method, remark = default_method(bits)
        if remark and not quiet:
            note(remark)
    text = CalibrationText(tokens or DEFAULT_TOKENS, seed, tuple(calib), conversation)
    settings: dict[str, Any] = {
        "bits": bits,
        "group": group,
        "method": method,
        "bits_per_weight": bits_per_weight,
        "target_bytes": target_bytes,
    }
    dest = variant_dir(name, variant_of_bits(bits))
    with Progress(long=True, quiet=quiet) as progress:
        try:
            return _made(source.path, dest, made, settings, text, threads, seconds if refine else None, progress)
        except KeyboardInterrupt:
            progress.clear()
            note("interrupted; the same command goes on where it stopped")
            raise


def _made(
    source: Path,
    dest: Path,
    name: str,
    settings: dict[str, Any],
    text: "CalibrationText",
    threads: int,
    refining: float | None,
    progress: "Progress",
) -> "QuantizeReport":
    """Quantize to `dest`, and refine for `refining` seconds at most; 0: as long as it takes, `None`: not at all."""
    from localinfer.quantize import quantize_checkpoint, refine_checkpoint

    def tell(what: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(f"{what} {name}", done, total)

    def make(where: Path) -> "QuantizeReport":
        return quantize_checkpoint(
            source, where, text=text, threads=threads, on_progress=tell("quantizing to"), **settings
        )

    if refining is None:
        return make(dest)
    return refine_checkpoint(
        source, dest, make, settings, text=text, seconds=refining, threads=threads, on_progress=tell("refining")
    )
