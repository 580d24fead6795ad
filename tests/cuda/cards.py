"""A card that is not there: programs of the tests on the stand-in driver, with the real kernels in the emulator."""

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from localinfer import native
from localinfer.engine import cuda


class Move:
    """Takes a program to the card, with what was compiled before kept in `keep`."""

    def __init__(self, keep: Path, graphs: bool = True) -> None:
        self.keep, self.graphs = keep, graphs

    def __call__(self, program: native.Program) -> None:
        native.use_cuda(program, 0, str(self.keep), list(cuda.libraries()), self.graphs)


Reads = Callable[[], list[tuple[int, int, int]]]
"""Of each range: bytes read, and how often its least and its most read word was."""


@contextmanager
def reads_of(ranges: Sequence[tuple[int, int]]) -> Iterator[Reads]:
    """Count what kernels read of these ranges of the card's memory, from now on."""
    library = ctypes.CDLL(os.environ["LOCALINFER_LIBCUDA"])
    for start, size in ranges:
        library.li_emu_watch(ctypes.c_uint64(start), ctypes.c_size_t(size))
    library.li_emu_reset()

    def reads() -> list[tuple[int, int, int]]:
        found = []
        for start, _ in ranges:
            total, fewest, most = ctypes.c_uint64(), ctypes.c_uint(), ctypes.c_uint()
            done = library.li_emu_watched(
                ctypes.c_uint64(start), ctypes.byref(total), ctypes.byref(fewest), ctypes.byref(most)
            )
            assert done == 0
            found.append((total.value, fewest.value, most.value))
        return found

    try:
        yield reads
    finally:
        library.li_emu_unwatch()
