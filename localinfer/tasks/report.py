"""Right answers as a table for people and as JSON for scripts."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from localinfer.evaluate.report import aligned, peak_bytes
from localinfer.tasks.draw import SEED
from localinfer.tasks.needle import TOKENS
from localinfer.tasks.scores import ModelScore, TaskScore


def to_json(scores: Sequence[ModelScore]) -> dict[str, Any] | list[dict[str, Any]]:
    """One model's figures as one object, those of several as a list."""
    rows = [asdict(one) | {"items_seed": SEED, "peak_bytes": peak_bytes()} for one in scores]
    return rows[0] if len(rows) == 1 else rows


def table(scores: Sequence[ModelScore]) -> str:
    """Markdown, a line for each model and task, then how it was asked; every line ends with a newline."""
    compared = scores[0].reference is not None
    head = ["model", "task", "right", "95 %", "cut off"]
    head += ["original", "lost", "won", "difference"] if compared else []
    lines = [_line(one.model, task, found, compared=compared) for one in scores for task, found in one.tasks.items()]
    return aligned([head, *lines]) + "\n" + _conditions(scores)


def _line(model: str, task: str, found: TaskScore, *, compared: bool) -> list[str]:
    cells = [model, task, f"{found.right} of {found.items}", f"{found.low:.0%} to {found.high:.0%}", str(found.cut)]
    if not compared:
        return cells
    assert found.difference is not None
    assert found.difference_low is not None
    assert found.difference_high is not None
    spread = f"{found.difference:+.0%} ({found.difference_low:+.0%} to {found.difference_high:+.0%})"
    return [*cells, str(found.reference_right), str(found.lost), str(found.won), spread]


def _conditions(scores: Sequence[ModelScore]) -> str:
    said = [f"greedy answers to our own items, seed {SEED}, {scores[0].kv_bits}-bit cache"]
    if scores[0].reference is not None:
        said[0] += f"; the original is {scores[0].reference}, with a 16-bit cache, on the same items"
    for one in scores:
        if one.needle_tokens is not None and one.needle_tokens < TOKENS:
            said.append(f"{one.model}: needles in {one.needle_tokens} tokens, which is all of its context")
    return "".join(line + "\n" for line in said)
