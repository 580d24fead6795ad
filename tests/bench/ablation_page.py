"""Put the ablations of docs/inside/perf into docs/guides/cost.md: `python -m tests.bench.ablation_page`."""

import json
import re
from pathlib import Path
from textwrap import fill

from localinfer.bench.ablation_report import ablation_table

ROOT = Path(__file__).parents[2]
NAMES = ("starter", "qwen2-1.5b")


def part(name: str) -> str:
    """What the page says of one ablation: the command, and its table."""
    report = json.loads((ROOT / "docs/inside/perf" / f"ladder-{name}.json").read_text(encoding="utf-8"))
    lines = [line if line.startswith("|") else fill(line, 100) for line in ablation_table(report).splitlines()]
    return "\n".join([f"<!-- ladder {name} -->", f"`{report['command']}`", "", *lines, "<!-- end -->"])


def page(text: str) -> str:
    """`text` with the parts in their places."""
    for name in NAMES:
        place = re.compile(rf"<!-- ladder {re.escape(name)} -->(.*?<!-- end -->)?", re.DOTALL)
        text = place.sub(lambda _, name=name: part(name), text, count=1)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    cost = ROOT / "docs/guides/cost.md"
    cost.write_text(page(cost.read_text(encoding="utf-8")), encoding="utf-8")
