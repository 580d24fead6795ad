"""Figures of several models as a table for people and as JSON for scripts."""

import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from localinfer.errors import size
from localinfer.evaluate.quality import Quality


def to_json(qualities: Sequence[Quality]) -> dict[str, Any] | list[dict[str, Any]]:
    """One model's figures as one object, those of several as a list; each with this process's `peak_bytes`."""
    rows = [asdict(quality) | {"peak_bytes": peak_bytes()} for quality in qualities]
    return rows[0] if len(rows) == 1 else rows


def peak_bytes() -> int:
    """Most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def table(qualities: Sequence[Quality]) -> str:
    """Markdown, a line a model, then what was measured; every line ends with a newline."""
    head = ["model", "size", "bits/weight", "layers", "ppl", "KLD mean", "median", "99 %", "top-1"]
    lines = [[
        quality.model,
        size(quality.size_bytes),
        f"{quality.bits_per_weight:.2f}",
        f"{quality.body_bits_per_weight:.2f}",
        f"{quality.ppl:.3f} ± {quality.ppl_se:.3f}",
        "" if quality.kld_mean is None else f"{quality.kld_mean:.5f} ± {quality.kld_se:.5f}",
        "" if quality.kld_median is None else f"{quality.kld_median:.5f}",
        "" if quality.kld_p99 is None else f"{quality.kld_p99:.4f}",
        "" if quality.top1_agreement is None else f"{quality.top1_agreement:.2%} ± {quality.top1_se:.2%}",
    ] for quality in qualities]  # fmt: skip
    return aligned([head, *lines]) + "\n" + conditions(qualities[0])


def conditions(quality: Quality) -> str:
    """What was measured and how, for all models of one run."""
    lines = [
        f"{quality.tokens} tokens scored: the second half of {quality.chunks} chunks of {quality.ctx}, "
        f"{quality.kv_bits}-bit cache"
    ]
    if quality.reference is not None:
        lines.append(f"reference {quality.reference}: ppl {quality.ppl_reference:.3f}, 16-bit cache")
        lines.append(
            f"the {quality.kv_bits}-bit cache alone loses {quality.kld_floor:.6f}: the reference from itself, which "
            "perfect weights would lose, too"
        )
    return "".join(line + "\n" for line in lines)


def in_a_line(quality: Quality) -> str:
    """What a model lost, for the end of `quantize`."""
    if quality.kld_mean is None:
        return f"ppl {quality.ppl:.3f}"
    return (
        f"ppl {quality.ppl:.3f}, {quality.ppl_reference:.3f} before; KL divergence {quality.kld_mean:.4f} ± "
        f"{quality.kld_se:.4f}, median {quality.kld_median:.4f}, 99 % {quality.kld_p99:.3f}, of "
        f"the cache alone {quality.kld_floor:.4f}; same first choice {quality.top1_agreement:.1%}"
    )


def aligned(cells: list[list[str]]) -> str:
    """The first column to the left, figures to the right."""
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    rows = [cells[0], rule, *cells[1:]]
    padded = (
        [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))] for row in rows
    )
    return "".join("| " + " | ".join(row) + " |\n" for row in padded)
