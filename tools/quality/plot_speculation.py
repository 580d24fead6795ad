"""The picture in docs/guides/speculate.md, of the last line kept: python -m tools.quality.plot_speculation OUT.svg"""

import json
import sys
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "docs" / "inside" / "perf" / "speculation.jsonl"


def main() -> None:
    """Draw the cost of rows, and the gain by task."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "localinfer"
    from matplotlib import pyplot

    saved = json.loads(RESULTS.read_text(encoding="utf-8").splitlines()[-1])
    picture, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    steps = {int(rows): ratio if rows != "1" else 1.0 for rows, ratio in saved["step_over_one"].items()}
    left.plot(list(steps), list(steps.values()), "o-")
    left.plot(list(steps), list(steps), "--", color="grey", label="as many steps of one row")
    left.set(xlabel="rows of a step", ylabel="time, of a step of one row", title="t(n) / t(1)", ylim=(0, 12))
    left.legend()
    tasks = list(dict.fromkeys(row["test"] for row in saved["tasks"]))
    for shift, way in ((-0.2, "suffix"), (0.2, "auto")):
        gains = [r["times_plain"] for task in tasks for r in saved["tasks"] if (r["test"], r["draft"]) == (task, way)]
        right.bar([i + shift for i in range(len(tasks))], gains, 0.4, label=way)
    right.axhline(1, color="grey", linestyle="--")
    right.set_xticks(range(len(tasks)), tasks, rotation=20)
    right.set(ylabel="times plain decoding", title="whole answers, greedy, equal text")
    right.legend()
    picture.savefig(sys.argv[1], metadata={"Date": None})


if __name__ == "__main__":
    main()
