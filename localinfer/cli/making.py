"""Make a smaller form of a model that is here, with progress; a stop loses nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from localinfer.cli.output import note
from localinfer.hub.model import LocalModel, variant_of_bits

if TYPE_CHECKING:
    from localinfer.quantize import Method, QuantizeReport


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
    name: str | None = None,
    threads: int = 0,
    quiet: bool,
) -> "QuantizeReport":
    """Quantize `source` to `name:INT<bits>` among our models. Ctrl-C keeps what is done and says so.

    `method` None is what loses least at that width; `calib`, `tokens` and `seed` say what it calibrates on.
    """
    from localinfer.chats.template import conversation
    from localinfer.cli.progress import Progress
    from localinfer.hub.cache import variant_dir
    from localinfer.quantize import DEFAULT_TOKENS, CalibrationText, default_method, quantize_checkpoint

    name = name or source.name
    made = f"{name}:{variant_of_bits(bits)}"
    if method is None:
        method, remark = default_method(bits)
        if remark and not quiet:
            note(remark)
    text = CalibrationText(tokens or DEFAULT_TOKENS, seed, tuple(calib), conversation)
    with Progress(long=True, quiet=quiet) as progress:
        try:
            return quantize_checkpoint(
                source.path,
                variant_dir(name, variant_of_bits(bits)),
                bits=cast(Literal[8, 4, 3], bits),
                group=group,
                method=method,
                text=text,
                bits_per_weight=bits_per_weight,
                target_bytes=target_bytes,
                threads=threads,
                on_progress=lambda done, total: progress(f"quantizing to {made}", done, total),
            )
        except KeyboardInterrupt:
            progress.clear()
            note("interrupted; the same command goes on where it stopped")
            raise
