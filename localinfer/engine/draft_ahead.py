"""The head that a checkpoint brings to guess tokens ahead, as a drafter (multi-token prediction, Gloeckle, 2024).

It goes on from what the target made of a position, behind the target's last norm; its own output, behind its own last
norm, stands for that in the next guess.
"""

import numpy as np

from localinfer import native
from localinfer.engine.draft_head import HeadDraftRunner, Inputs
from localinfer.graph.ahead import load_ahead, tokens_ahead
from localinfer.graph.last_norm import last_norm
from localinfer.graph.memory import AHEAD_WINDOW
from localinfer.graph.prepared import norm_weight
from localinfer.graph.program import Move
from localinfer.graph.weights import Checkpoint

RECENT = 256
"""Positions that it looks back on of a text that it has not followed."""


def open_ahead(
    target: Checkpoint,
    program: native.Program,
    *,
    parallel: int,
    threads: int,
    isa: str,
    always: tuple[int, ...] = (),
    move: Move | None = None,
) -> HeadDraftRunner:
    """The head of `target`, which `program` runs; `always` are tokens that it must be able to guess.

    Raises what opening a checkpoint and loading it raises."""
    ahead = Checkpoint(target.path, ahead=True)
    mix = ahead.graph.mix
    assert mix is not None
    assert mix.stream_norm is not None
    ids = tokens_ahead(target.spec.vocab_size, (*target.spec.eos_token_ids, *always))
    made = load_ahead(ahead, ids, threads=threads, isa=isa, window=AHEAD_WINDOW, parallel=parallel, move=move)
    gains = np.stack([norm_weight(ahead, norm) for norm in mix.norms()])
    inputs = Inputs(gains, mix.stream_norm.eps, theirs=last_norm(target), ours=last_norm(ahead))
    return HeadDraftRunner(made, program, ids, inputs, parallel=parallel, window=AHEAD_WINDOW, recent=RECENT)
