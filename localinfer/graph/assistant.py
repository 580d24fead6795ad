"""A model that guesses for another one and reads its cache, loaded: a program that begins with a mix."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from localinfer import native
from localinfer.errors import Corrupt, UsageError
from localinfer.formats.bf16 import to_bf16
from localinfer.graph.ahead import MOST_ROWS, tokens_ahead
from localinfer.graph.families import gemma4_assistant
from localinfer.graph.graph import Graph
from localinfer.graph.key_powers import Evening
from localinfer.graph.ops import Attend
from localinfer.graph.program import Loader
from localinfer.graph.states import KvState
from localinfer.graph.stored import Bf16Linear, widen
from localinfer.graph.tensors import AGAIN
from localinfer.graph.weights import Checkpoint


@dataclass(frozen=True, slots=True)
class Clusters:
    """The rows of the head, cluster after cluster."""

    chosen: int
    tokens: NDArray[np.int32]
    """[clusters, tokens of each]."""
    rows: NDArray[np.uint16]
    """[clusters, tokens of each, hidden], in bfloat16."""

    def best(
        self, scores: NDArray[np.float32], made: NDArray[np.float32]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The tokens of the clusters that `scores` [clusters] puts first, ascending, and the logits that `made`
        [hidden] gives them."""
        first = np.argpartition(scores, len(scores) - self.chosen)[len(scores) - self.chosen :]
        tokens = self.tokens[first].reshape(-1)
        logits = widen(self.rows[first].reshape(len(tokens), -1)) @ made
        order = np.argsort(tokens)
        return tokens[order], logits[order]


def load_assistant(
    checkpoint: Checkpoint, target: Checkpoint, lender: native.Program, name: str, *, isa: str, context: int
) -> tuple[native.Program, NDArray[np.int32]]:
    """The program of `checkpoint`, which reads the cache of `lender`, the program of `target`, and the tokens that it
    scores. Raises `UsageError` where it was made for another model, and what `load_program` raises."""
    graph = _reading(checkpoint, target, name)
    ids = tokens_ahead(checkpoint.spec.vocab_size, target.spec.eos_token_ids)
    rows = None if len(ids) == graph.head.table.rows else ids.astype(np.intp)
    program = native.Program(checkpoint.spec.hidden_size, threads=lender.threads, isa=isa, max_rows=MOST_ROWS)
    with ExitStack() as files:
        loader = Loader(
            checkpoint,
            program,
            lender.threads,
            context + 1,
            files,
            lambda done, total: None,
            even_keys=False,
            head_rows=rows,
            evening=_evening(target, lender, files),
        )
        mix, *rest = graph.ops
        loader.add(mix)
        loader.program.borrow_kv(lender)
        for op in rest:
            loader.add(op)
        loader.build({})
    return program, ids


def read_clusters(checkpoint: Checkpoint) -> Clusters | None:
    """Those of `checkpoint`, None where it scores all tokens. Raises `Corrupt` where a token is in none, or in two."""
    of = checkpoint.spec.assistant
    assert of is not None
    if not of.clusters:
        return None
    vocab, hidden = checkpoint.spec.vocab_size, checkpoint.spec.hidden_size
    stored = checkpoint.stored.get(gemma4_assistant.ORDER)
    if stored is None or stored.info.shape != (vocab,) or stored.info.dtype not in ("I64", "I32"):
        found = "missing" if stored is None else f"{stored.info.dtype} {list(stored.info.shape)}"
        raise Corrupt(f"tensor `{gemma4_assistant.ORDER}` is {found}, not {vocab} whole numbers", hint=AGAIN)
    order = stored.read()
    if not np.array_equal(np.sort(order), np.arange(vocab)):
        raise Corrupt(f"tensor `{gemma4_assistant.ORDER}` orders no {vocab} tokens: some are there twice", hint=AGAIN)
    matrix = checkpoint.linear(checkpoint.graph.head.table.name)
    rows = matrix.rows_in(order.astype(np.intp))
    values = rows.values if isinstance(rows, Bf16Linear) else to_bf16(rows.float32())
    return Clusters(of.chosen, order.astype(np.int32).reshape(of.clusters, -1), values.reshape(of.clusters, -1, hidden))


def _reading(checkpoint: Checkpoint, target: Checkpoint, name: str) -> Graph:
    """The assistant's graph, whose layers read the cache of the target's last layer of their kind that keeps one."""
    spec, theirs = checkpoint.spec, target.spec
    assert spec.assistant is not None
    hint = "take the assistant that was made for this model, or leave `--draft` out"
    for what, mine, its in (
        ("a residual stream of {} values", spec.assistant.target_hidden, theirs.hidden_size),
        ("a vocabulary of {} tokens", spec.vocab_size, theirs.vocab_size),
    ):
        if mine != its:
            raise UsageError(
                f"`{name}` guesses for a model with {what.format(mine)}, and this one has {its}", hint=hint
            )
    last = {state.window > 0: (number, state) for number, state in enumerate(target.graph.kv())}
    shapes = []
    for window, shape in zip(spec.windows, spec.shapes, strict=True):
        number, state = last.get(window > 0, (0, None))
        reads = (window, shape.kv_heads, shape.head_dim)
        there = None if state is None else (state.window, state.kv_heads, state.head_dim)
        if reads != there:
            raise UsageError(
                f"`{name}` reads keys of window, heads and size {reads}, and the last ones of this model are "
                f"{there or 'none'}",
                hint=hint,
            )
        shapes.append(replace(shape, kv_of=number))
    return gemma4_assistant.graph(replace(spec, shapes=tuple(shapes)))


def _evening(target: Checkpoint, lender: native.Program, files: ExitStack) -> Evening:
    """What the target's keys were evened out by when it was loaded: queries of others must know."""
    even = any(bits != 16 for bits in lender.kv_bits)
    loader = Loader(target, lender, lender.threads, 1, files, lambda done, total: None, even_keys=even)
    for op in target.graph.body:
        if isinstance(op.state(), KvState):
            loader.heads(cast(Attend, op))
    return loader.evening
