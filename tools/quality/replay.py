"""What guessing would win for a model that is not here: real answers replayed against its step times.

    python -m tools.quality.replay MODEL --step-s '{"1": 0.036, "2": 0.036, "8": 0.044}' [--most 10]

MODEL answers our prompts without drafts, greedily. Then the controller and the free drafters go over each answer once
more on a clock that only the given step times move: what they guess is checked against the answer. The texts are
MODEL's, the times another's, so this is a replay and no measurement; a line of JSON for each task.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from localinfer.bench.prompts import TASKS, bundled_prompts
from localinfer.chats.chat import Chat
from localinfer.config import MOST_DRAFTS, EngineConfig, SamplingParams
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Request
from localinfer.events import Finished
from localinfer.speculation.controller import Controller
from localinfer.speculation.cost import Measured, Part, StepCost
from localinfer.speculation.drafter import Ask
from localinfer.speculation.lookup import LookupDrafter
from localinfer.speculation.suffix import SuffixDrafter


class Clock:
    """Moves when it is told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def controller(step_s: Mapping[int, float], clock: Clock) -> Controller:
    """The free drafters, on a machine of these step times."""
    cost = StepCost(Measured(step_s, {}, 0))
    return Controller([SuffixDrafter(), LookupDrafter()], cost, most_rows=MOST_DRAFTS, clock=clock)


def replayed(
    control: Controller, clock: Clock, handle: int, prompt: Sequence[int], answer: Sequence[int], step: StepCost
) -> tuple[float, float]:
    """Seconds of decoding `answer` with guesses and without."""
    known, text, spent = [*prompt, answer[0]], [*prompt, *answer], 0.0
    while len(known) < len(text):
        most = min(MOST_DRAFTS, len(text) - len(known) - 1)
        asks = [Ask(handle, known, most, lambda logits, taken: 0)] if most else []
        chains = control.draft([Part(1, 0)], asks, [0]) if asks else []
        guesses = chains[0].tokens if chains else ()
        right = 0
        while right < len(guesses) and guesses[right] == text[len(known) + right]:
            right += 1
        seconds = step.rows(1 + len(guesses))
        if asks:
            control.settle([right], seconds)
        clock.now += seconds
        spent += seconds
        known = text[: len(known) + right + 1]
    control.forget(handle)
    return spent, step.rows(1) * (len(answer) - 1)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--step-s", type=json.loads, required=True)
    parser.add_argument("--most", type=int, default=10)
    parser.add_argument("--max-tokens", type=int, default=256)
    given = parser.parse_args()
    step_s = {int(rows): float(seconds) for rows, seconds in given.step_s.items()}
    truth, clock = StepCost(Measured(step_s, {}, 0)), Clock()
    control = controller(step_s, clock)
    with open_engine(given.model, EngineConfig(context=4096, draft="off")) as engine:
        for task in TASKS:
            times = []
            for number, one in enumerate(bundled_prompts([task], given.most)):
                prompt = Chat(engine).tokens_of(one.prompt)
                sampling = SamplingParams(temperature=0.0, max_tokens=given.max_tokens)
                said = next(e for e in engine.stream(Request(tuple(prompt), sampling)) if isinstance(e, Finished))
                if len(said.token_ids) > 1:
                    times.append(replayed(control, clock, number, prompt, said.token_ids, truth))
            ratios = [plain / spent for spent, plain in times]
            told = {"task": task, "answers": len(times), "total": sum(p for _, p in times) / sum(s for s, _ in times)}
            print(json.dumps(told | {"median": statistics.median(ratios), "least": min(ratios)}), flush=True)


if __name__ == "__main__":
    main()
