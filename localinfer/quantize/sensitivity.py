"""What rounding each matrix would cost the model's answers: one pass back through the layers, before anything is made.

To second order, moving the outputs of a matrix by e changes the answers by KL = 1/2 E[(g . e)^2], where g is the
gradient of -log p(y) for a token y drawn from the model's own distribution (its Fisher information). Errors of single
outputs are taken as independent. Layers are gone through one at a time, so that only one is in memory.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from localinfer.graph.graph import together
from localinfer.graph.ops import LayerOp, Linear, Mixture
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.gptq import dequantized, nearest
from localinfer.reference.executor import Executor

SEQUENCES = 4
"""Of the calibration text; more move the choice by little."""

MOST_ROWS = 256
"""As many rows of a matrix, spread over it, stand for all."""

Form = tuple[int, int]
"""(bits, group)."""


def sensitivities(
    checkpoint: Checkpoint, tokens: NDArray[np.int32], forms: Sequence[Form], seed: int = 0
) -> list[tuple[tuple[str, ...], dict[Form, float]]]:
    """For the matrices that get one form (those that are loaded as one; of a mixture those of all experts) the cost of
    each, in nats a token."""
    probe = Probe(checkpoint)
    steps = together(checkpoint.graph.body)
    texts = tokens[:SEQUENCES]
    passed, gradients = probe.forward(steps, texts, torch.Generator().manual_seed(seed))
    found = []
    for ops, streams in zip(reversed(steps), reversed(passed), strict=True):
        seen, gradients = probe.back(ops, streams, gradients)
        for stages in reversed([stages for op in ops for stages in _alike(op)]):
            total = dict.fromkeys(forms, 0.0)
            for stage in stages:
                reached = [one for one in seen if stage[0].name in one]  # text may pass an expert by
                if not reached:
                    continue
                inputs = torch.cat([one[stage[0].name][0] for one in reached])
                slopes = [torch.cat([one[linear.name][1] for one in reached]) for linear in stage]
                costs = _costs([probe.weight(linear) for linear in stage], inputs, slopes, forms)
                total = {form: total[form] + costs[form] / texts.size for form in forms}
            found.append((tuple(linear.name for stage in stages for linear in stage), total))
        probe.forget()
    return found[::-1]


def _alike(op: LayerOp) -> list[tuple[tuple[Linear, ...], ...]]:
    """The stages of `op` that are rounded, those together that get one form: of all experts the first, and the last."""
    kept = op.unquantized()
    if not isinstance(op, Mixture):
        return [(stage,) for stage in op.fused() if stage[0] not in kept]
    experts = [tuple(one.inputs() for one in op.experts), tuple((one.down,) for one in op.experts)]
    shared = [] if op.shared is None else [(op.shared.inputs(),), ((op.shared.down,),)]
    return [*(((linear,),) for linear in op.latent or ()), *experts, *shared]


def _costs(
    matrices: Sequence[Tensor], inputs: Tensor, slopes: Sequence[Tensor], forms: Sequence[Form]
) -> dict[Form, float]:
    """Of each form, what it costs all rows of `inputs` together."""
    importance = inputs.pow(2).mean(0)
    costs = dict.fromkeys(forms, 0.0)
    for matrix, slope in zip(matrices, slopes, strict=True):
        step = -(-len(matrix) // MOST_ROWS)
        rows = matrix[::step].contiguous()
        for bits, group in forms:
            error = inputs @ (rows - dequantized(*nearest(rows, importance, bits, group))).T
            total = float((error * slope[:, ::step]).pow(2).double().sum())
            costs[bits, group] += 0.5 * total * len(matrix) / len(rows)
    return costs


class Probe(Executor):
    """Notes the input and the output of each matrix, so that gradients can be asked for."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self._noted: dict[str, tuple[Tensor, Tensor]] = {}

    def linear(self, linear: Linear, x: Tensor) -> Tensor:
        y = super().linear(linear, x)
        self._noted[linear.name] = (x, y)
        return y

    def forget(self) -> None:
        super().forget()
        self._noted.clear()

    def forward(
        self, steps: Sequence[Sequence[LayerOp]], texts: NDArray[np.int32], draw: torch.Generator
    ) -> tuple[list[list[Tensor]], list[Tensor]]:
        """The residual stream of each text before each step, which are operations that read the same one, and the
        gradient of each text's loss at the end."""
        passed: list[list[Tensor]] = []
        with torch.no_grad():
            streams = [self.embedded(torch.from_numpy(text).long()) for text in texts]
            self.forget()
            for ops in steps:
                passed.append(streams)
                streams = [self.after(ops, x) for x in streams]
                self.forget()
        gradients: list[Tensor] = []
        for x in streams:
            x.requires_grad_()
            scores = torch.log_softmax(self.head(self.checkpoint.graph.head, x), -1)
            drawn = torch.multinomial(scores.detach().exp(), 1, generator=draw)
            gradients += torch.autograd.grad(-scores.gather(1, drawn).sum(), x)
        self.forget()
        return passed, gradients

    def back(
        self, ops: Sequence[LayerOp], streams: Sequence[Tensor], gradients: Sequence[Tensor]
    ) -> tuple[list[dict[str, tuple[Tensor, Tensor]]], list[Tensor]]:
        """One step backwards: for each text the input and the slope of each matrix, and the slopes before it."""
        seen, before = [], []
        for stream, gradient in zip(streams, gradients, strict=True):
            self._noted.clear()
            x = stream.detach().requires_grad_()
            out = self.after(ops, x)
            names = list(self._noted)
            slopes = torch.autograd.grad(out, [x, *(self._noted[name][1] for name in names)], gradient)
            before.append(slopes[0])
            seen.append(
                {name: (self._noted[name][0].detach(), slope) for name, slope in zip(names, slopes[1:], strict=True)}
            )
        return seen, before
