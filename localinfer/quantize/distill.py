"""A small model trained end to end until its words are the original's.

What is minimized is KL(original || small) of the next token over the whole vocabulary, on calibration text, through the
model as it will run. With `kl` the integers stay, and scales and norm gains are trained: every one is its first value
times 1 + c, and Adam moves the c. With `qat` the integers move as well (moving.py), first layer by layer (layerwise.py)
and then with all the rest. The learning rate falls with the work done, or with the time used if there is a limit to it
and that is nearer.
"""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from localinfer.formats.compressed import pack
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.layerwise import Layerwise, Rates
from localinfer.quantize.moving import Moving, adam
from localinfer.quantize.student import Runner, Student, half_width
from localinfer.quantize.time_plan import LOOKING, Effort

RATE = 3e-4
"""Of the first steps: about the share by which a scale may change in one."""

NUMBERS_RATE = 5e-3
"""The same for the numbers behind the integers, in steps of the scale."""

WARM_UP = 0.05
"""Share of the work in which the rate rises to `RATE`."""

PASSES = 2
"""Over the calibration text, if no time limit ends it before."""

LAYERWISE = 0.2
"""Share of the time in which the layers are trained one by one, at most."""

_ROWS = 128
"""Positions whose scores over the vocabulary are in memory at once."""


@dataclass(frozen=True, slots=True)
class State:
    """Where a training stands, after `layer` layers and then `step` sequences; all that is needed to go on with the
    same numbers. `at`, `drift` and `power` are those of `Moving` and move with it; `kl` has none of them."""

    layer: int
    step: int
    used: float
    """Seconds."""
    began: float
    """Seconds that were used when the training end to end began."""
    check: int
    """How many looks at the held-out text there were."""
    given: float
    """KL divergence on held-out text before the first step; of `best` and `chosen` it is `least`."""
    least: float
    change: Tensor
    mean: Tensor
    square: Tensor
    best: Tensor
    at: Tensor
    drift: Tensor
    power: Tensor
    chosen: Tensor
    """int8: the integers that go with `best`."""


class Distillation:
    """Trains `model`, the small form of `original`, on `tokens` [sequences, 512], but for the first ones: as many as
    `effort` holds out.

    One step takes one sequence. Nothing depends on the clock until `seconds` of a limit end it: the last step ends in
    time for the last look at the held-out text, which takes as long as the first one took.
    """

    def __init__(
        self,
        original: Checkpoint,
        model: Checkpoint,
        tokens: NDArray[np.int32],
        seed: int,
        *,
        effort: Effort | None = None,
        seconds: float = 0.0,
        method: Literal["kl", "qat"] = "kl",
    ) -> None:
        kind = half_width()
        self.teacher, self.student = Runner(original, kind), Student(model, kind)
        self.moving = Moving(self.student, original) if method == "qat" else None
        effort = effort or Effort()
        self.seed, self.seconds, self.checks = seed, seconds, effort.checks
        self._look_s = self._step_s = 0.0
        ids = torch.from_numpy(tokens).long()
        count = min(effort.held_out, max(1, len(ids) // 8))
        self.held_out, self.text = ids[:count], ids[count:]
        self.steps = PASSES * len(self.text)
        self._layers = (
            Layerwise(self.teacher, self.student, self.moving, ids, count, effort.sequences)
            if self.moving and effort.sequences
            else None
        )
        self._seen: dict[int, Tensor] = {}
        self._head = original.graph.head

    def begin(self, clock: Callable[[], float] = time.monotonic) -> State:
        """Before the first step. Where time is limited, no more is looked at than the first look has time for."""
        state = self.empty()
        self.student.become(state.change)
        if self.seconds:
            begun = clock()
            with torch.no_grad():
                self._compare(-1, self.held_out[0], self.student.through(self.held_out[0]), learn=False)
            self._look_less(clock() - begun)
        given = self.divergence()
        return replace(state, given=given, least=given)

    def _look_less(self, first_s: float) -> None:
        """Fewer held-out sequences, and fewer looks at them, where both models take `first_s` for one and all of it
        would take more than its share of the time."""
        found = [(held, checks) for held in range(len(self.held_out), 0, -1) for checks in range(self.checks, 0, -1)]
        fits = (one for one in found if one[0] * (2 + 1.5 * one[1]) * first_s / 2 <= LOOKING * self.seconds)
        held, self.checks = max(fits, key=lambda one: (one[0] * one[1], one[0]), default=(1, 1))
        self.held_out = self.held_out[:held]

    def empty(self) -> State:
        """The same with nothing measured."""
        moving, zeros = self.moving, [torch.zeros_like(self.student.first) for _ in range(4)]
        none = [torch.empty(0) for _ in range(4)]
        parts = [moving.at, moving.drift, moving.power, self.student.numbers.clone()] if moving else none
        return State(0, 0, 0.0, 0.0, 0, math.inf, math.inf, *zeros, *parts)

    def progress(self, state: State) -> float:
        """From 0 to 1, by steps or by time."""
        if self._layers is None:
            return self._share(state)
        layers = state.layer / self._layers.count
        return LAYERWISE * layers + (1 - LAYERWISE) * (self._share(state) if layers == 1 else 0)

    def _share(self, state: State) -> float:
        """Of the training end to end, from 0 to 1."""
        end = self.seconds - self._look_s - self._step_s
        late = (state.used - state.began) / max(end - state.began, 1e-9) if self.seconds else 0.0
        return min(1.0, max(state.step / self.steps, late))

    def run(
        self,
        state: State | None,
        clock: Callable[[], float],
        on_step: Callable[[State], None],
        began: float | None = None,
    ) -> State:
        """Go on from `state` to the end; None begins, and counts from `began` on if that is given. `on_step` is told of
        each state."""
        looked = clock()
        if state is None:
            state = self.begin(clock)
            before = looked if began is None else began
            state = replace(state, used=clock() - before, began=clock() - before)
        else:
            before = looked - state.used
        self._look_s = clock() - looked
        if self.moving is not None and self._layers is None:
            self.moving.take(state.at, state.drift, state.power)
        if self._layers is not None:
            state = self._one_by_one(self._layers, state, lambda: clock() - before, on_step)
        while (share := self._share(state)) < 1:
            stepped = clock()
            state = replace(self._step(state, share), used=clock() - before)
            self._step_s = max(self._step_s, clock() - stepped)
            due = int(self._share(state) * self.checks + 1e-9)
            if due > state.check:
                looked = clock()
                state = self._checked(replace(state, check=due))
                state = replace(state, used=clock() - before)
                self._look_s = max(self._look_s, clock() - looked)
            on_step(state)
        return state

    def _one_by_one(
        self, layers: Layerwise, state: State, used: Callable[[], float], on_step: Callable[[State], None]
    ) -> State:
        """Put the student where `state` is, and train the layers that are left."""
        moving, rates = layers.moving, Rates(RATE, NUMBERS_RATE)
        moving.take(state.at, state.drift, state.power)
        if state.layer < layers.count:
            layers.pass_over(state.change, state.layer)
        slowest = 0.0
        while state.layer < layers.count:
            end = LAYERWISE * self.seconds if self.seconds else math.inf
            if used() + slowest > end:  # no time: the others stay as they are
                state = self._resumed(replace(state, layer=layers.count), used)
                on_step(state)
                break
            until, begun = used() + (end - used()) / (layers.count - state.layer), used()
            change = layers.train(state.change, state.layer, rates, lambda: used() >= until)  # noqa: B023
            state = replace(state, change=change, layer=state.layer + 1, used=used())
            slowest = max(slowest, used() - begun)
            if state.layer == layers.count:
                state = self._resumed(state, used)
            on_step(state)
        return state

    def _resumed(self, state: State, used: Callable[[], float]) -> State:
        """The layers are trained one by one; all with each other comes next."""
        assert self._layers is not None
        self._layers.forget()
        self._layers.moving.forget()
        return replace(self._checked(state), began=used(), used=used())

    def _checked(self, state: State) -> State:
        self.student.become(state.change)
        now = self.divergence()
        if not now < state.least:
            return state
        chosen = self.student.numbers.clone() if self.moving else state.chosen
        return replace(state, least=now, best=state.change.clone(), chosen=chosen)

    @torch.no_grad()
    def divergence(self) -> float:
        """Mean KL(original || small) on held-out text, with the values as they would be stored."""
        self.student.as_stored()
        each = [
            self._compare(-1 - i, ids, self.student.through(ids), learn=False)[0] for i, ids in enumerate(self.held_out)
        ]
        mean = sum(each) / len(each)
        return mean if math.isfinite(mean) else math.inf

    def _step(self, state: State, share: float) -> State:
        student, moving = self.student, self.moving
        student.become(state.change)
        student.slopes.zero_()
        turn, at = divmod(state.step, len(self.text))
        order = list(range(len(self.text)))
        random.Random(f"{self.seed} {turn}").shuffle(order)
        ids = self.text[order[at]]
        x = student.through(ids)
        _, slope = self._compare(order[at], ids, x.detach(), learn=True)
        step, height = state.step + 1, min(1.0, share / WARM_UP + 0.1) * (1 + math.cos(math.pi * share)) / 2
        if moving:
            moving.step, moving.rate, student.learn = step, NUMBERS_RATE * height, moving.learn
        x.backward(slope)  # type: ignore[no-untyped-call]
        student.learn = None
        slopes = student.slopes * student.first
        change, mean, square = adam(state.change, state.mean, state.square, slopes, step, RATE * height)
        if not bool(torch.isfinite(change).all()):
            return replace(state, step=step)  # a step into nothing is not taken
        return replace(state, step=step, change=change, mean=mean, square=square)

    def _compare(self, number: int, ids: Tensor, x: Tensor, *, learn: bool) -> tuple[float, Tensor]:
        """KL divergence a position, or if we `learn` its slope by the residual stream `x` after the layers."""
        if number not in self._seen:
            with torch.no_grad():
                self._seen[number] = self.teacher.through(ids)
        total, slopes = 0.0, []
        for true, mine in zip(torch.split(self._seen[number], _ROWS), torch.split(x, _ROWS), strict=True):
            with torch.no_grad():
                wanted = self.teacher.head(self._head, true)
            leaf = mine.clone().requires_grad_(learn)
            got = self.student.head(self._head, leaf)
            if learn:
                with torch.no_grad():
                    slope = (got.softmax(-1) - wanted.softmax(-1)) / len(x)
                got.backward(slope)  # type: ignore[no-untyped-call]
                assert leaf.grad is not None
                slopes.append(leaf.grad)
            else:
                wanted = wanted.log_softmax(-1)
                total += float((wanted.exp() * (wanted - got.log_softmax(-1))).sum() / len(x))
        return total, torch.cat(slopes) if slopes else x

    def stored(self, state: State) -> dict[str, NDArray[Any]]:
        """What to write: the best scales and norms, and with `qat` "NAME packed", the integers that go with them."""
        told = self.student.stored(state.best)
        if self.moving:
            self.student.numbers.copy_(state.chosen)
            for name, integers in self.student.integers.items():
                told[f"{name} packed"] = pack(integers.flatten(1).numpy(), self.student.bits[name])
        return told
