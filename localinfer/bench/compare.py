"""A report beside an earlier one: what became faster or slower, told as ratios."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localinfer.bench.rows import row_name
from localinfer.errors import Corrupt, LocalInferError, UsageError
from localinfer.formats.json_files import read_bytes

_LIMIT = 64 << 20
Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One figure in both reports: higher is better."""

    what: str
    before: float
    now: float

    @property
    def ratio(self) -> float:
        return self.now / self.before


@dataclass(frozen=True, slots=True)
class Comparison:
    """All figures that both reports have, and words about what differs otherwise."""

    speeds: tuple[Change, ...]
    """Medians of tokens a second: only for the same machine at the same speed of memory."""
    ratios: tuple[Change, ...]
    """How many times the other engine's speed ours is: stays the same when the machine has a bad day."""
    notes: tuple[str, ...]

    def drops(self, most: float) -> list[Change]:
        """The ratios to the other engine that fell by more than the share `most`."""
        return [change for change in self.ratios if change.ratio < 1 - most]


def read_report(path: Path, *, like: Mapping[str, str] | None = None) -> Report:
    """The report in `path`: JSON as `bench --json` prints it, or one of several lines of it.

    Of several lines, the last counts among those whose machine has most of `like` (fields of `machine`, the first of
    them counts most). Raises `Corrupt` when it is none, `NotFound` when it is not there.
    """
    data = read_bytes(path, _LIMIT).strip()
    whole = _report(data)
    every = [whole] if whole is not None else [_report(line) for line in data.splitlines()]
    last = every[-1] if every else None
    if last is not None:
        wanted = list((like or {}).items())

        def alike(report: Report) -> list[bool]:
            return [report.get("machine", {}).get(field) == value for field, value in wanted]

        return max(reversed([report for report in every if report is not None]), key=alike)
    raise Corrupt(f"{path}: holds no report", hint="give a file that `localinfer bench --json` wrote")


def _report(text: bytes) -> Report | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and _is_report(found) else None


def _is_report(found: Report) -> bool:
    rows, peers = found.get("rows"), found.get("peers") or []
    if not isinstance(rows, list) or not isinstance(peers, list):
        return False
    return all(isinstance(part, dict) for part in [*rows, *peers, found.get("machine", {}), found.get("model", {})])


def require_common(before: Report, names: Collection[str], where: str) -> None:
    """Raise `UsageError` when the report `before` (the file `where`) has none of the tests `names`."""
    if not _speeds(before).keys() & set(names):
        raise UsageError(f"{where}: has no test in common with this run", hint="name the same tests with `--test`")


def compare(before: Report, now: Report, where: str) -> Comparison:
    """What changed from `before` (the file `where`) to `now`. Raises `UsageError` when they have nothing in common."""
    require_common(before, _speeds(now), where)
    notes = []
    for part, field in (("machine", "cpu"), ("machine", "cores"), ("machine", "isa"), ("model", "name")):
        old, new = (report.get(part, {}).get(field) for report in (before, now))
        if old != new:
            notes.append(f"another {field if part == 'machine' else 'model'}: {old} then, {new} now")
    ours_before, ours_now = _speeds(before), _speeds(now)
    peers_before, peers_now = _ratios(before), _ratios(now)
    notes += [f"{name} is only in {where}" for name in ours_before if name not in ours_now]
    notes += [f"{name} ran against another engine only then" for name in peers_before if name not in peers_now]
    notes += [f"{name} is new" for name in ours_now if name not in ours_before]
    notes += [f"another {words}: {', '.join(old)} then, {', '.join(new)} now" for words, old, new in _ways(before, now)]
    return Comparison(_changes(ours_before, ours_now), _changes(peers_before, peers_now), tuple(notes))


def comparison_table(comparison: Comparison, where: str) -> str:
    """Lines for people; every line ends with a newline."""
    lines = [f"against {where}:"]
    lines += [f"  {c.what}: {c.ratio:.2f} x ({c.before:.1f} t/s then, {c.now:.1f} now)" for c in comparison.speeds]
    lines += [
        f"  {c.what}: {c.now:.2f} x the other engine, {c.before:.2f} then ({c.ratio - 1:+.0%})"
        for c in comparison.ratios
    ]
    lines += [f"  {note}" for note in comparison.notes]
    return "".join(line + "\n" for line in lines)


def fail_on_drops(comparison: Comparison, most: float) -> None:
    """Raise `LocalInferError` naming each ratio to the other engine that fell by more than the share `most`, and
    `UsageError` when there is none to compare."""
    fallen = comparison.drops(most)
    if fallen:
        words = "; ".join(f"{c.what} from {c.before:.2f} to {c.now:.2f}" for c in fallen)
        raise LocalInferError(
            f"slower against the other engine by more than {most:.0%}: {words}",
            hint="run it again on a quiet machine; if it stays, look at what changed since",
        )
    if not comparison.ratios:
        raise UsageError(
            "no ratio to the other engine is in both reports", hint="add `--against llamacpp`, and name the same tests"
        )


def _speeds(report: Report) -> dict[str, float]:
    found = {}
    for row in report["rows"]:
        name = row_name(row) if "test" in row else f"{row.get('n_rows')} rows"
        value = row.get("tok_s_median", row.get("tok_s"))
        if isinstance(value, int | float) and value > 0:
            found[name] = float(value)
    return found


def _ways(before: Report, now: Report) -> Iterator[tuple[str, list[str], list[str]]]:
    """What the rows of two reports were run with, where that differs."""
    for field, words in (("threads", "number of threads"), ("kv_bits", "width of the cache")):
        old, new = (sorted({str(row[field]) for row in report["rows"] if field in row}) for report in (before, now))
        if old and new and old != new:
            yield words, old, new


def _ratios(report: Report) -> dict[str, float]:
    peers: Sequence[Report] = report.get("peers") or ()
    pairs = ((_peer_test(peer), peer.get("ratio")) for peer in peers)
    return {name: float(value) for name, value in pairs if isinstance(value, int | float) and value > 0}


def _peer_test(peer: Report) -> str:
    """The test, with the engine's name unless that is llama.cpp."""
    test, backend = str(peer.get("test")), str(peer.get("backend", "llamacpp"))
    return test if backend == "llamacpp" else f"{test} {backend}"


def _changes(before: dict[str, float], now: dict[str, float]) -> tuple[Change, ...]:
    return tuple(Change(name, value, now[name]) for name, value in before.items() if name in now)
