"""A picture of several models: bits a weight to the right, mean KL divergence upwards, on a logarithmic scale."""

from collections.abc import Sequence
from pathlib import Path

from localinfer.errors import UsageError
from localinfer.evaluate.quality import Quality
from localinfer.picture import require_picture, save_picture

_INCHES, _DPI = (9.6, 6.0), 100

_SMALLEST = 1e-6
"""Divergences below are drawn here: a logarithm knows no zero."""


def require_plot(path: Path) -> None:
    """Raise, before anything is measured, what would keep the picture from being drawn to `path`: see
    `require_picture`. It is a PNG."""
    require_picture(path, (".png",))


def plot(qualities: Sequence[Quality], path: Path) -> None:
    """Write the picture to `path` as a PNG. Raises as `require_plot`, and `UsageError` without a reference."""
    require_plot(path)
    points = [quality for quality in qualities if quality.kld_mean is not None]
    if not points:
        raise UsageError("there is no divergence to draw", hint="name the original: `--against REF`")
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    for point in points:
        kld, error = max(point.kld_mean or 0.0, _SMALLEST), point.kld_se or 0.0
        below = min(error, kld - _SMALLEST)
        axes.errorbar(
            point.bits_per_weight, kld, [[below], [error]], fmt="s", capsize=3, label=_shown(point.model, len(points))
        )
    axes.set_yscale("log")
    axes.margins(0.15)
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.set_xlabel("bits a weight, all weights as stored")
    axes.set_ylabel(f"mean KL divergence from {_plain(points[0].reference or '')}, nats a token")
    axes.legend()
    save_picture(figure, path)


def _shown(name: str, count: int) -> str:
    """A name for the legend, which would leave out one that begins with an underscore."""
    most = 60 if count < 10 else 30
    short = name if len(name) <= most else "…" + name[1 - most :]
    return _plain(short) if not short.startswith("_") else " " + _plain(short)


def _plain(text: str) -> str:
    """Text that is not taken for a formula."""
    return text.replace("$", r"\$")
