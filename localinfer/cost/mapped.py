"""Mixtures of experts that do not fit into memory: how many experts are held then, and how fast that will be."""

from dataclasses import dataclass

from localinfer.cost.fit import Fit
from localinfer.graph.memory import Experts

TAKEN = 0.9
"""Part of what is free that experts take; the system keeps the rest, for what it reads from the file."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """Experts in a file, some of them held. Bytes."""

    experts_bytes: int
    """Of all experts, which is what the file takes on disk."""
    held_bytes: int
    """Of those that are held at a time."""
    total_bytes: int
    """What a run takes in memory."""
    least_bytes: int
    """The same with as few experts held as can be: those of one layer."""
    token_bytes: int
    """Of experts that one token goes to."""
    free_bytes: int

    @property
    def fits(self) -> bool:
        return self.least_bytes <= self.free_bytes

    def read_s(self, disk_bytes_per_s: float) -> float:
        """Seconds that a token waits for the disk, were all experts as likely; those wanted lately often come again."""
        missing = 1 - self.held_bytes / self.experts_bytes
        return self.token_bytes * missing / disk_bytes_per_s if disk_bytes_per_s else 0.0


def mapped(fit: Fit, *, held_bytes: int = 0) -> Mapped | None:
    """What `fit` becomes with experts in a file; None without experts. `held_bytes` 0: as many as there is room for."""
    if fit.experts.nbytes == 0:
        return None
    experts: Experts = fit.experts
    rest = fit.total_bytes - experts.nbytes
    room = held_bytes or int(TAKEN * (fit.free_bytes - rest))
    held = min(max(room, experts.layer_bytes), experts.nbytes)
    least = rest + experts.layer_bytes
    return Mapped(experts.nbytes, held, rest + held, least, experts.token_bytes, fit.free_bytes)
