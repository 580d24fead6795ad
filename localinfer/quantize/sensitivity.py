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

from localinfer.graph.ops import Attend, Embed, GatedMLP, Head, Linear
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.gptq import dequantized, nearest
from localinfer.reference.executor import Executor

SEQUENCES = 4
"""Of the calibration text; more move the choice by little."""

MOST_ROWS = 256
"""As many rows of a matrix, spread over it, stand for all."""

Form = tuple[int, int]
"""(bits, group)."""

Stage = tuple[Linear, ...]
Half = Attend | GatedMLP


def sensitivities(
    checkpoint: Checkpoint, tokens: NDArray[np.int32], forms: Sequence[Form], seed: int = 0
) -> list[tuple[tuple[str, ...], dict[Form, float]]]:
    """For the matrices of each stage (those that are loaded as one) the cost of each form, in nats a token."""
    probe = _Probe(checkpoint)
    halves = [op for op in checkpoint.graph.ops if isinstance(op, Attend | GatedMLP)]
    texts = tokens[:SEQUENCES]
    passed, gradients = probe.forward(halves, texts, torch.Generator().manual_seed(seed))
    found = []
    for half, streams in zip(reversed(halves), reversed(passed), strict=True):
        seen, gradients = probe.back(half, streams, gradients)
        for stage in reversed(stages(half)):
            inputs = torch.cat([one[stage[0].name][0] for one in seen])
            slopes = [torch.cat([one[linear.name][1] for one in seen]) for linear in stage]
            costs = _costs([probe.weight(linear) for linear in stage], inputs, slopes, forms)
            found.append((tuple(linear.name for linear in stage), costs))
        probe.forget()
    return found[::-1]


def stages(half: Half) -> tuple[Stage, Stage]:
    """The matrices of half a layer that must have one form: those with the same input."""
    if isinstance(half, Attend):
        return (half.q, half.k, half.v), (half.o,)
    return (half.gate, half.up), (half.down,)


def _costs(
    matrices: Sequence[Tensor], inputs: Tensor, slopes: Sequence[Tensor], forms: Sequence[Form]
) -> dict[Form, float]:
    importance = inputs.pow(2).mean(0)
    costs = dict.fromkeys(forms, 0.0)
    for matrix, slope in zip(matrices, slopes, strict=True):
        step = -(-len(matrix) // MOST_ROWS)
        rows = matrix[::step].contiguous()
        for bits, group in forms:
            error = inputs @ (rows - dequantized(*nearest(rows, importance, bits, group))).T
            total = float((error * slope[:, ::step]).pow(2).double().sum())
            costs[bits, group] += 0.5 * total * len(matrix) / len(rows) / len(inputs)
    return costs


class _Probe(Executor):
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
        self, halves: Sequence[Half], texts: NDArray[np.int32], draw: torch.Generator
    ) -> tuple[list[list[Tensor]], list[Tensor]]:
        """The residual stream of each text before each half, and the gradient of each text's loss at the end."""
        embed = next(op for op in self.checkpoint.graph.ops if isinstance(op, Embed))
        head = next(op for op in self.checkpoint.graph.ops if isinstance(op, Head))
        passed: list[list[Tensor]] = []
        with torch.no_grad():
            table = self.weight(embed.table)
            streams = [table[torch.from_numpy(text).long()] * embed.scale for text in texts]
            self.forget()
            for half in halves:
                passed.append(streams)
                streams = [x + self._half(half, x) for x in streams]
                self.forget()
        gradients: list[Tensor] = []
        for x in streams:
            x.requires_grad_()
            scores = torch.log_softmax(self.head(head, x), -1)
            drawn = torch.multinomial(scores.detach().exp(), 1, generator=draw)
            gradients += torch.autograd.grad(-scores.gather(1, drawn).sum(), x)
        self.forget()
        return passed, gradients

    def back(
        self, half: Half, streams: Sequence[Tensor], gradients: Sequence[Tensor]
    ) -> tuple[list[dict[str, tuple[Tensor, Tensor]]], list[Tensor]]:
        """One half backwards: for each text the input and the gradient of each matrix, and the gradients before it."""
        seen, before = [], []
        for stream, gradient in zip(streams, gradients, strict=True):
            self._noted.clear()
            x = stream.detach().requires_grad_()
            out = x + self._half(half, x)
            names = list(self._noted)
            slopes = torch.autograd.grad(out, [x, *(self._noted[name][1] for name in names)], gradient)
            before.append(slopes[0])
            seen.append(
                {name: (self._noted[name][0].detach(), slope) for name, slope in zip(names, slopes[1:], strict=True)}
            )
        return seen, before

    def _half(self, half: Half, x: Tensor) -> Tensor:
        return self.attend(half, x) if isinstance(half, Attend) else self.gated_mlp(half, x)
