"""`draft train --minutes`: how long the model may write, and how long it takes to read, learn and judge."""

import time
from pathlib import Path

from localinfer.quantize.estimates import LEAST_TOKENS, Costs
from localinfer.quantize.schedule import Clock, Phase, Running, scheduled
from localinfer.quantize.speeds import Speeds, measure_speeds
from localinfer.quantize.torch_installed import require_torch

FLAG = "`--minutes`"

SPEAKING = 0.4
"""Share of the time in which the model writes, at most."""

TOGETHER = 16
"""Texts that it writes side by side."""

LEAST_STEPS = 8
"""Steps from which on anything is learned."""

STEP_PASSES = 0.5
"""What a step of learning takes, as a share of one pass of 512 tokens through the model, with its own overhead."""

JUDGED = 2
"""Texts that must be judged, each as long as some passes, since guesses are made one at a time."""


def plan_training(
    path: Path,
    seconds: float,
    *,
    workers: int,
    started: float,
    clock: Clock = time.monotonic,
    speeds: Speeds | None = None,
) -> Running:
    """Divide `seconds` since `started`, for a drafter of the model at `path`, into `writing` and `learning`.

    Raises `UsageError`, with the numbers, where that is too little for any text and any learning, and `NotSupported`
    without torch.
    """
    require_torch("training a drafter", instead="guess with `--draft suffix`, which needs no training")
    costs = Costs.of(path, 16, speeds or measure_speeds(workers, torch=False))
    least = costs.speaking(LEAST_TOKENS, TOGETHER)
    one = costs.one_read()
    reading = LEAST_TOKENS // 512 * one
    training = (
        costs.beside() + costs.torch() + costs.loading(1) + reading + (LEAST_STEPS * STEP_PASSES + 3 * JUDGED) * one
    )
    phases = [
        Phase("writing", least, max(least, SPEAKING * seconds)),
        Phase("learning", training, max(training, (1 - SPEAKING) * seconds)),
    ]
    found = scheduled(phases, seconds, used=clock() - started, flag=FLAG, job="a drafter")
    return Running(found, started, clock)
