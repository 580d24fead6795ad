"""What computes here: the processor, its kernels, and which of them will run."""

import os
from dataclasses import dataclass

from localinfer.cost.machine import available_bytes, cpu_model, total_bytes


@dataclass(frozen=True, slots=True)
class Processor:
    """The processor as `doctor` shows it. Memory in bytes."""

    cpu: str
    cores: int
    """Physical ones: as many threads are used unless told otherwise."""
    features: tuple[str, ...]
    """What the kernels ask the processor for, as far as it and the system have it."""
    kernels: tuple[str, ...]
    """Kernel sets that run here, slowest first."""
    kernel: str
    """The one that will run."""
    why: str
    memory_bytes: int
    free_bytes: int


def processor() -> Processor:
    """Ask the machine. Raises `UsageError` or `NotSupported` for a `LOCALINFER_ISA` that cannot run."""
    from localinfer import native

    kernel = native.choose_isa()
    asked = os.environ.get("LOCALINFER_ISA")
    return Processor(
        cpu=cpu_model(),
        cores=native.physical_cores(),
        features=tuple(native.cpu()["features"]),
        kernels=tuple(native.supported_isas()),
        kernel=kernel,
        why="asked for by LOCALINFER_ISA" if asked else "the best this CPU has",
        memory_bytes=total_bytes(),
        free_bytes=available_bytes(),
    )
