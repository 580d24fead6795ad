"""A plan of mixed widths for a given size: the model is asked what each width would cost, then the bytes are dealt."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import UsageError, size
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.mixed import Form, Option, choose, forms
from localinfer.quantize.plan import Job, Plan, body_of, graph_name, make_plan
from localinfer.quantize.sensitivity import sensitivities
from localinfer.quantize.torch_threads import threads


def mixed_plan(
    source: Path,
    plan: Plan,
    tokens: NDArray[np.int32],
    bits_per_weight: float | None,
    target_bytes: int | None,
    workers: int,
) -> Plan:
    """`plan` with other widths of the layers' matrices, so that they take `bits_per_weight` or all `target_bytes`.

    No matrix gets fewer bits than `plan` gives it. Raises `UsageError` when no mix has that size, with the bounds.
    """
    checkpoint = Checkpoint(source)
    jobs = {graph_name(checkpoint, job).removesuffix(".weight"): job for job in plan.jobs}
    body = body_of(checkpoint.graph)
    weights = sum(jobs[name].weights for name in body)
    others = plan.nbytes - sum(jobs[name].nbytes for name in body)
    possible = forms(body, plan.bits)
    sizes = {form: sum(_nbytes(jobs[name], form) for name in body) for form in possible}
    least, most = min(sizes.values()), max(sizes.values())
    if bits_per_weight is not None:
        budget = int(bits_per_weight * weights / 8) + 16 * len(body)  # each matrix also keeps its shape
        if budget < least or bits_per_weight > most * 8 / weights:
            raise UsageError(
                f"{bits_per_weight:g} bits a weight cannot be had: {least * 8 / weights:.3f} to "
                f"{most * 8 / weights:.3f} can, with no matrix below {plan.bits} bits",
                hint="choose a number between, or another `--bits`",
            )
    else:
        budget = (target_bytes or 0) - others
        if budget < least:
            raise UsageError(
                f"{size(target_bytes or 0)} cannot be had: the smallest is {size(least + others)}, with no matrix "
                f"below {plan.bits} bits",
                hint="choose a larger size, or a smaller `--bits`",
            )
    mix = deal_of(source, plan, tokens, workers).within(budget).mix
    return make_plan(source, plan.bits, plan.group, plan.method, mix, plan.head)


@dataclass(frozen=True, slots=True)
class Dealt:
    """A form for each matrix of the layers, the bytes of all of them, and what they are expected to cost together."""

    mix: dict[str, Form]
    nbytes: int
    nats: float


@dataclass(frozen=True, slots=True)
class Deal:
    """What each form of each fused group of matrices takes, and would cost in nats a token."""

    groups: tuple[tuple[str, ...], ...]
    options: tuple[tuple[Option, ...], ...]

    @property
    def least(self) -> int:
        """Bytes of the narrowest layers."""
        return sum(min(option.nbytes for option in options) for options in self.options)

    @property
    def most(self) -> int:
        """Bytes of the widest layers."""
        return sum(max(option.nbytes for option in options) for options in self.options)

    def within(self, budget: int) -> Dealt:
        """The mix of at most so many bytes that is expected to cost least."""
        chosen = choose(self.options, budget)
        mix = {name: option.form for names, option in zip(self.groups, chosen, strict=True) for name in names}
        return Dealt(mix, sum(option.nbytes for option in chosen), sum(option.cost for option in chosen))


def deal_of(source: Path, plan: Plan, tokens: NDArray[np.int32], workers: int) -> Deal:
    """Ask the model what each form would cost, from `plan`'s bits up."""
    checkpoint = Checkpoint(source)
    jobs = {graph_name(checkpoint, job).removesuffix(".weight"): job for job in plan.jobs}
    possible = forms(body_of(checkpoint.graph), plan.bits)
    with threads(workers):
        costs = sensitivities(checkpoint, tokens, possible)
    options = [
        tuple(Option(form, _group_bytes(jobs, names, form), cost[form]) for form in possible) for names, cost in costs
    ]
    return Deal(tuple(names for names, _ in costs), tuple(options))


def _group_bytes(jobs: dict[str, Job], names: Sequence[str], form: tuple[int, int]) -> int:
    return sum(_nbytes(jobs[name], form) for name in names)


def _nbytes(job: Job, form: tuple[int, int]) -> int:
    return Job(job.tensor, *form).nbytes
