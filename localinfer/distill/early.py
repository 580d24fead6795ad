"""The exit adapter as it is trained: a low-rank step from the residual stream of an early layer to the last one's."""

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from localinfer import native
from localinfer.distill.judge import DEPTH, likeliest_tokens
from localinfer.engine.draft_early import ExitAdapter
from localinfer.engine.drafters import Arrays

RANK = 64


class EarlyModel(nn.Module):
    """As `ExitAdapter`, in torch. Begins as no step at all."""

    def __init__(self, hidden: int, layers: int, seed: int) -> None:
        super().__init__()
        self.layers, rank = layers, min(RANK, hidden)
        self.down = nn.Parameter(torch.randn(rank, hidden, generator=torch.Generator().manual_seed(seed)) / hidden**0.5)
        self.up = nn.Parameter(torch.zeros(hidden, rank))

    def forward(self, x: Tensor) -> Tensor:
        normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return x + (normed @ self.down.T) @ self.up.T

    @torch.no_grad()
    def arrays(self, ids: NDArray[np.int32]) -> Arrays:
        """As it is kept; it guesses all tokens, so `ids` are not."""
        return {
            "layers": np.array([self.layers], np.int32),
            "down": self.down.numpy().copy(),
            "up": self.up.numpy().copy(),
        }


def judge_early(
    model: EarlyModel,
    program: native.Program,
    hidden: NDArray[np.float16],
    inner: NDArray[np.float16],
    late: Callable[[], bool] = lambda: False,
) -> tuple[tuple[float, ...], float]:
    """As `judge`: how often the exit's likeliest token was that of all layers, and the seconds of one guess. Later
    guesses in a row are taken to be as good as the first, since they run on rows like any other."""
    arrays = model.arrays(np.empty(0, np.int32))
    adapter = ExitAdapter(model.layers, arrays["down"], arrays["up"])
    agreed: list[float] = []
    for part, full in ((a.astype(np.float32), b.astype(np.float32)) for a, b in zip(inner, hidden, strict=True)):
        if agreed and late():
            break
        agreed.append((likeliest_tokens(program, adapter(part)) == likeliest_tokens(program, full)).mean())
    return (float(np.mean(agreed)),) * DEPTH, _seconds(program, adapter)


def _seconds(program: native.Program, adapter: ExitAdapter) -> float:
    """The least of some times of one guess."""
    one, table = np.zeros(1, np.int32), np.zeros((1, 1), np.int32)
    logits, hidden = np.empty((1, program.vocab), np.float32), np.empty((1, program.hidden), np.float32)
    none, empty = np.empty(0, np.int32), np.empty((0, program.vocab), np.float32)
    times = []
    for _ in range(8):
        started = time.perf_counter()
        program.step(one, one, one, table, none, empty, end=adapter.layers, hidden=hidden)
        stream = np.ascontiguousarray(adapter(hidden))
        program.step(one, one, one, table, one, logits, begin=program.layers, inputs=stream)
        times.append(time.perf_counter() - started)
    return min(times)
