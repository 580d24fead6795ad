"""What `bench` can measure, and which flags mean something to each: one that means nothing is refused, not passed over.

Only flags that were typed are: a setting from the environment or the settings file may be meant for another command.
"""

from collections.abc import Collection, Mapping

from localinfer.errors import UsageError

_ANYTHING = {"model", "json", "quiet"}
_SUBJECT = {"random", "group", "head-bits", "revision", "offline", "no-history"}
_ENGINE = {"threads", "kv-bits", "prefill-chunk", "latency-goal", "experts"}
_COST = {"usd-per-kwh", "watts", "hardware-usd", "hardware-years"}
_RIVAL = {"against", "against-file"}
_TURNS = {"parallel", "reps", "seed"}
_USUAL = _SUBJECT | _ENGINE

TESTS, TASKS = "the usual tests", "`--tasks` and `--prompts`"

MODES: Mapping[str, Collection[str]] = {
    TESTS: _USUAL
    | _COST
    | _RIVAL
    | _TURNS
    | {"test", "rows", "compare", "max-drop", "ctx-size", "backend", "draft", "draft-tokens"},
    TASKS: _USUAL | {"tasks", "prompts", "max-tokens", "ctx-size", "kv-tokens", "backend", "draft", "draft-tokens"},
    "`--ladder`": _USUAL | _COST | _TURNS | {"ladder", "bits", "plot", "replay", "max-tokens", "draft-tokens"},
    "`--workload mixed`": _USUAL | _RIVAL | _TURNS | {"workload"},
    "`--workload poisson`": _USUAL | _COST | {"workload", "rate", "requests", "parallel", "seed", "draft"},
    "`--startup`": _SUBJECT - {"no-history"} | {"startup", "reps"},
    "`--history`": {"history"},
}
"""The flags that each takes."""


def mode_of(history: bool, ladder: bool, startup: bool, answers: bool, workload: str | None) -> str:
    """The key of `MODES` that was asked for."""
    if history or ladder:
        return "`--history`" if history else "`--ladder`"
    if startup:
        return "`--startup`"
    if answers:
        return TASKS
    return TESTS if workload is None else f"`--workload {workload}`"


def refuse_others(mode: str, typed: Collection[str]) -> None:
    """Raise `UsageError` for a flag on the command line that means nothing to `mode`."""
    for flag in sorted(set(typed) - _ANYTHING - set(MODES[mode])):
        owners = [name for name, flags in MODES.items() if flag in flags]
        hint = f"leave it out: it is for {', '.join(owners)}" if owners else "leave it out"
        raise UsageError(f"`--{flag}` means nothing to {mode}", hint=hint)
