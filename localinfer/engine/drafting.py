"""Who guesses for an engine: the drafters that were asked for, and the controller that chooses among them."""

import time

from localinfer.config import MOST_DRAFTS, EngineConfig
from localinfer.engine.calibration import Calibration
from localinfer.speculation.controller import Controller
from localinfer.speculation.cost import Measured, StepCost
from localinfer.speculation.drafter import Drafter
from localinfer.speculation.lookup import LookupDrafter


def guessing(config: EngineConfig, measured: Calibration) -> Controller | None:
    """The controller for what `config` asks for; None where drafts are off."""
    if config.draft == "off":
        return None
    drafters: list[Drafter] = [LookupDrafter()]
    cost = StepCost(Measured(measured.step_s, measured.deep_s, measured.depth))
    return Controller(drafters, cost, most_rows=MOST_DRAFTS, clock=time.perf_counter)
