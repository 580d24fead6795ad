"""Whole answers, with drafts and without, in turn: what people wait for.

Each way of drafting has an engine of its own, and the engines take turns prompt by prompt, so that a slow minute of the
machine hits all of them. An answer is greedy and ends where the model ends it, or at a limit; its time is that from its
first token to its last. All ways must give the same tokens: if one does not, that is an error and no figure.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

from localinfer.bench.measure import Clock
from localinfer.bench.prompts import TaskPrompt
from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.protocol import Engine, Request
from localinfer.errors import LocalInferError
from localinfer.events import Finished, OnProgress, output_hash, tokens_of

ToTokens = Callable[[Engine, str], tuple[int, ...]]
"""A prompt as the model reads it, with its chat template."""

Open = Callable[[EngineConfig], Engine]


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer of one way of drafting."""

    token_ids: tuple[int, ...]
    decode_s: float
    """From the first token to the last."""
    ttft_s: float
    drafted: int
    accepted: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One task and way of drafting: one line of the table, one object of the JSON. Speeds in tokens a second."""

    test: str
    draft: str
    prompts: int
    tokens: int
    tok_s: float
    """All tokens after the first ones over all their time."""
    ttft_ms: float
    acceptance: float | None
    """Part of the guesses that were right."""
    tokens_per_step: float
    times_plain: float | None
    """Time of all answers without drafts over that with them."""
    times_plain_median: float | None
    """The median of that ratio over the prompts."""
    times_plain_least: float | None
    output_hash: str
    """Of all tokens of all answers."""


def run_answers(
    open_engine: Open,
    config: EngineConfig,
    prompts: Sequence[TaskPrompt],
    drafts: Mapping[str, EngineConfig],
    to_tokens: ToTokens,
    *,
    max_tokens: int,
    on_progress: OnProgress = lambda what, done, total: None,
    clock: Clock = time.perf_counter,
) -> list[TaskRow]:
    """For each task a row of each of `drafts` (configurations by their names), `off` among them or put before them.

    Raises `LocalInferError` when an answer differs from the one without drafts.
    """
    ways = {"off": replace(config, draft="off", draft_model=None), **drafts}
    found: dict[str, dict[str, list[Answered]]] = {}
    with ExitStack() as stack:
        engines = {name: stack.enter_context(open_engine(way)) for name, way in ways.items()}
        for engine in engines.values():
            _answer(engine, to_tokens(engine, "Say hello."), 16, clock)  # warm
        for number, prompt in enumerate(prompts):
            of_task = found.setdefault(prompt.task, {name: [] for name in ways})
            tokens = to_tokens(engines["off"], prompt.prompt)
            # Who begins changes from prompt to prompt: none always has the warmer cache.
            names = list(ways)[number % len(ways) :] + list(ways)[: number % len(ways)]
            answers = {}
            for turn, name in enumerate(names):
                on_progress(f"{prompt.task} {name}", number * len(ways) + turn, len(prompts) * len(ways))
                answers[name] = _answer(engines[name], tokens, max_tokens, clock)
            for name in ways:
                _require_same(prompt, name, answers[name].token_ids, answers["off"].token_ids)
                of_task[name].append(answers[name])
    on_progress("done", 1, 1)
    return [
        _row(task, name, answered, by_way["off"]) for task, by_way in found.items() for name, answered in by_way.items()
    ]


def _answer(engine: Engine, prompt: tuple[int, ...], most: int, clock: Clock) -> Answered:
    most = min(most, engine.context_size - len(prompt) - 1)
    started, times = clock(), list[float]()
    for (events,) in engine.driver.steps([Request(prompt, SamplingParams(temperature=0.0, max_tokens=max(1, most)))]):
        if tokens_of(events):
            times.append(clock())
        finished = events[-1]
    assert isinstance(finished, Finished)
    stats, last = finished.stats, clock()
    first = times[0] if times else last
    decode = (times[-1] if times else last) - first
    return Answered(finished.token_ids, decode, first - started, stats.drafted, stats.accepted, stats.steps)


def _require_same(prompt: TaskPrompt, name: str, found: tuple[int, ...], plain: tuple[int, ...]) -> None:
    if found != plain:
        at = next(
            (i for i, (a, b) in enumerate(zip(found, plain, strict=False)) if a != b), min(len(found), len(plain))
        )
        raise LocalInferError(
            f"with `--draft {name}` the answer to a {prompt.task} prompt differs from token {at} on",
            hint="this is a bug of ours; please report it with the model and this command",
        )


def _row(task: str, name: str, answered: Sequence[Answered], plain: Sequence[Answered]) -> TaskRow:
    seconds = sum(one.decode_s for one in answered)
    after_first = sum(max(0, len(one.token_ids) - 1) for one in answered)
    drafted, steps = sum(one.drafted for one in answered), sum(one.steps for one in answered)
    pairs = [(p.decode_s / a.decode_s) for a, p in zip(answered, plain, strict=True) if a.decode_s > 0]
    ratios = pairs if name != "off" else []
    return TaskRow(
        test=task,
        draft=name,
        prompts=len(answered),
        tokens=sum(len(one.token_ids) for one in answered),
        tok_s=after_first / seconds if seconds > 0 else 0.0,
        ttft_ms=1e3 * statistics.median(one.ttft_s for one in answered),
        acceptance=sum(one.accepted for one in answered) / drafted if drafted else None,
        tokens_per_step=sum(len(one.token_ids) for one in answered) / max(1, steps),
        times_plain=sum(one.decode_s for one in plain) / seconds if ratios and seconds > 0 else None,
        times_plain_median=statistics.median(ratios) if ratios else None,
        times_plain_least=min(ratios) if ratios else None,
        output_hash=output_hash([token for one in answered for token in one.token_ids]),
    )


def answers_table(rows: Sequence[TaskRow]) -> str:
    """Markdown, a line a row."""
    head = ["task", "draft", "tokens", "t/s", "x plain", "median", "least", "kept", "tokens a step", "output"]
    cells = [head, ["---", "---", *["---:"] * 7, "---"]]
    for row in rows:
        accepted = "" if row.acceptance is None else f"{row.acceptance:.0%}"
        ratios = (row.times_plain, row.times_plain_median, row.times_plain_least)
        times = ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        step = f"{row.tokens_per_step:.2f}"
        cells.append(
            [row.test, row.draft, str(row.tokens), f"{row.tok_s:.1f}", *times, accepted, step, row.output_hash[:8]]
        )
    return "".join("| " + " | ".join(line) + " |\n" for line in cells)


def as_json(rows: Sequence[TaskRow]) -> list[dict[str, Any]]:
    """The rows as scripts read them."""
    return [asdict(row) for row in rows]
