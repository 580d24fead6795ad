"""Which backend runs a model, and why: never a silent fall back."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localinfer.config import EngineConfig
from localinfer.errors import DoesNotFit, NotSupported, size

if TYPE_CHECKING:
    from localinfer import native
    from localinfer.engine.cuda import Card

MOST_OF_CARD = 0.92
"""The part of a card's memory that may be counted on: a screen and the driver need the rest."""


@dataclass(slots=True)
class Placement:
    """Where programs of one engine run."""

    card: "Card | None"
    """None: the processor."""
    why: str
    """In words that go after `as`; empty where it was asked for."""
    note: str = ""
    """What was found while a program moved there."""

    def move(self, program: "native.Program") -> None:
        """Take a program there, before its cache is made."""
        if self.card is not None:
            from localinfer.engine import cuda

            self.note = cuda.move(program, self.card)


def choose(backend: str, config: EngineConfig, needed_bytes: Callable[[], int]) -> Placement:
    """The place for `backend` `auto`, `cpu` or `cuda`.

    `auto` takes the first NVIDIA card, if it has passed its test and the model fits there. `cuda` raises `NotSupported`
    with the reason where there is none, or where it computes wrong.
    """
    if backend == "cpu":
        return Placement(None, "")
    from localinfer.engine import cuda

    asked = backend == "cuda"
    if not asked and (isa := config.isa or os.environ.get("LOCALINFER_ISA")):
        return Placement(None, f"its kernel set {isa} is asked for")
    try:
        card = cuda.find_card()
    except (DoesNotFit, NotSupported) as error:
        if asked:
            raise
        return Placement(None, error.message.partition(" (")[0])
    if not asked and (needed := needed_bytes()) > MOST_OF_CARD * card.total_bytes:
        return Placement(None, f"the model needs {size(needed)} and {card} has less to give")
    try:
        wrong = _what_is_wrong(card)
    except (DoesNotFit, NotSupported) as error:
        if asked:
            raise
        return Placement(None, f"{card} cannot be used: {error.message}")
    if wrong and asked:
        raise NotSupported(wrong, hint="see `localinfer doctor`, or run on the processor with `--backend cpu`")
    if wrong:
        return Placement(None, wrong)
    return Placement(card, "" if asked else f"{card} has passed its test")


def _what_is_wrong(card: "Card") -> str:
    from localinfer.engine.cuda_proof import proof_of

    proof = proof_of(card)
    if proof.passed:
        return ""
    return (
        f"{card} COMPUTES WRONG: {len(proof.failures)} of {proof.checks} checks differ from the processor, "
        f"first {proof.failures[0]}"
    )
