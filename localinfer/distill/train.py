"""`draft train`: the target reads its own text, a small model learns to go on from what it computed, and is judged."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from localinfer import native
from localinfer.distill.early import EarlyModel, judge_early
from localinfer.distill.features import frequent_tokens, read_text, reading_program
from localinfer.distill.head import HeadModel
from localinfer.distill.judge import judge, replay
from localinfer.engine.drafters import Arrays, Trained, key_of, make_head, write
from localinfer.events import OnProgress
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.prepared import head_norm
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.torch_threads import threads as torch_threads

VOCABULARY = 4096
"""Tokens that a head may guess."""

HELD_OUT = 6
"""Sequences that are never trained on."""

SEGMENT = 256
"""Tokens of a training step: many small steps learn more in the time than few large ones."""

STRIDE = 2
"""Scores are compared at every so many positions: neighbours say much the same, and the vocabulary is half the work."""

RATE, WARM_UP = 1e-3, 0.03
SECOND_FROM = 0.6
"""From this share of the time on the head also learns to go on from its own output."""

SECOND, NEAR = 0.6, 0.1
"""What the second guess in a row and the distance to the target's residual stream count beside the first guess."""

READING, JUDGING = 0.3, 0.15
"""Shares of the time that reading the text may take, and that are kept for judging."""

Kind = Literal["head", "early"]


@dataclass(frozen=True, slots=True)
class Result:
    """What training came to. `kept` is where it was written; None if it would not save time."""

    trained: Trained
    length: int
    """The best number of guesses in a row."""
    guess_s: float
    kept: Path | None


def train_drafter(
    path: Path,
    name: str,
    tokens: NDArray[np.int32],
    step_s: Mapping[int, float],
    *,
    kind: Kind = "head",
    seconds: float,
    seed: int = 0,
    steps: int | None = None,
    threads: int = 0,
    on_progress: OnProgress = lambda what, done, total: None,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Distil a drafter for the model at `path` from `tokens` int32 [sequences, length], in so many seconds: what cannot
    be read or judged in its part of them is left out, but for the first texts.

    `step_s` are this machine's seconds of a step by rows, which decide whether it is kept. With `steps` the number of
    steps is fixed, and the result depends on the seed alone.
    """
    started = clock()
    target, tokenizer = Checkpoint(path), Tokenizer(path)
    program = reading_program(target, tokens.shape[1], threads)
    layers = max(1, target.spec.layers // 3) if kind == "early" else 0

    def late(share: float) -> bool:
        return steps is None and clock() - started > share * seconds

    def tell(done: int, total: int) -> None:
        on_progress("reading", done, total)

    hidden = read_text(program, tokens, 0, tell, lambda: late(READING / (2 if layers else 1)))
    inner = read_text(program, tokens[: len(hidden)], layers) if layers else hidden
    tokens = tokens[: len(hidden)]
    ids = frequent_tokens(tokens, tokenizer.eos_ids, min(VOCABULARY, target.spec.vocab_size), target.spec.vocab_size)
    held = min(HELD_OUT, len(tokens) // 2)
    with torch_threads(threads or native.physical_cores()):
        learning = _Learning(target, program, ids)
        model = HeadModel(target, seed) if kind == "head" else EarlyModel(target.spec.hidden_size, layers, seed)
        left = max(1e-3, (1 - JUDGING) * seconds - (clock() - started))
        done = learning.train(model, tokens[held:], hidden[held:], inner[held:], seed, left, steps, clock, on_progress)
    arrays: Arrays = model.arrays(ids)
    if isinstance(model, HeadModel):
        draft_runner = make_head(arrays, target, program, parallel=1, threads=threads, isa="")
        chances, guess_s = judge(draft_runner, program, tokens[:held], hidden[:held], lambda: late(1 - JUDGING / 4))
    else:
        chances, guess_s = judge_early(model, program, hidden[:held], inner[:held], lambda: late(1 - JUDGING / 4))
    predicted, length = replay(chances, guess_s, step_s)
    trained = Trained(name, kind, key_of(target), time.time(), done, clock() - started, chances, predicted)
    return Result(trained, length, guess_s, write(trained, arrays) if predicted > 1 else None)


class _Learning:
    """The loss and the loop."""

    def __init__(self, target: Checkpoint, program: native.Program, ids: NDArray[np.int32]) -> None:
        head = target.graph.head
        self.program, self.eps, self.softcap = program, head.norm.eps, head.softcap
        norm, bias = head_norm(target, head)
        self.norm, self.centered = torch.from_numpy(norm), head.norm.centered
        self.norm_bias = torch.from_numpy(bias) if bias is not None and bias.size else torch.zeros(())
        self.rows = torch.from_numpy(target.linear(head.table.name).float32()[ids])

    def scores(self, x: Tensor) -> Tensor:
        """Logits of the reduced vocabulary from rows of the residual stream."""
        x = x - x.mean(-1, keepdim=True) if self.centered else x
        normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.norm + self.norm_bias
        scores = normed @ self.rows.T
        capped: Tensor = self.softcap * torch.tanh(scores / self.softcap) if self.softcap else scores
        return capped

    def embedded(self, tokens: NDArray[np.int32]) -> Tensor:
        out = np.empty((tokens.size, self.program.hidden), np.float32)
        self.program.embed_rows(np.ascontiguousarray(tokens.ravel()), out)
        return torch.from_numpy(out).view(*tokens.shape, -1)

    def apart(self, true: Tensor, mine: Tensor) -> Tensor:
        """Mean KL divergence of the next token, as the true rows of the residual stream have it and as mine do."""
        with torch.no_grad():
            wanted = self.scores(true).log_softmax(-1)
        mean: Tensor = (wanted.exp() * (wanted - self.scores(mine).log_softmax(-1))).sum(-1).mean()
        return mean

    def loss(
        self, model: "HeadModel | EarlyModel", tokens: NDArray[np.int32], true: Tensor, inner: Tensor, *, second: bool
    ) -> Tensor:
        """Of one segment: tokens [1, n], and the target's residual streams [1, n, hidden]."""
        if isinstance(model, EarlyModel):
            return self.apart(true[:, ::STRIDE], model.forward(inner[:, ::STRIDE]))
        embedded = self.embedded(tokens)
        first = model.forward(embedded[:, 1:-1], true[:, :-2])
        near = (first - true[:, 1:-1]).abs().mean() / true.abs().mean().clamp_min(1e-6)
        loss: Tensor = self.apart(true[:, 1:-1:STRIDE], first[:, ::STRIDE]) + NEAR * near
        if not second:
            return loss
        after = model.forward(embedded[:, 2:-1], first[:, :-1])
        second_loss: Tensor = SECOND * self.apart(true[:, 2:-1:STRIDE], after[:, ::STRIDE])
        return loss + second_loss

    def train(
        self,
        model: "HeadModel | EarlyModel",
        tokens: NDArray[np.int32],
        true: NDArray[np.float16],
        inner: NDArray[np.float16],
        seed: int,
        seconds: float,
        steps: int | None,
        clock: Callable[[], float],
        on_progress: OnProgress,
    ) -> int:
        """Train until the time is over, or for so many steps; gives the number of tokens gone over."""
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
        draw, started, step, share = np.random.default_rng(seed), clock(), 0, 0.0
        length = min(SEGMENT, int(tokens.shape[1]))
        starts = [(i, at) for i in range(len(tokens)) for at in range(0, tokens.shape[1] - length + 1, length)]
        while share < 1:
            if step % len(starts) == 0:
                draw.shuffle(starts)
            i, at = starts[step % len(starts)]
            part = slice(at, at + length)
            for group in optimizer.param_groups:
                group["lr"] = (
                    RATE * min(1.0, share / WARM_UP + 0.1) * (0.02 + 0.98 * (1 + math.cos(math.pi * share)) / 2)
                )
            optimizer.zero_grad()
            streams = (torch.from_numpy(rows[i, part].astype(np.float32))[None] for rows in (true, inner))
            self.loss(model, tokens[i : i + 1, part], *streams, second=share >= SECOND_FROM).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            share = step / steps if steps else (clock() - started) / seconds
            on_progress("learning", int(1000 * min(1.0, share)), 1000)
        return step * length
