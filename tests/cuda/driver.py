"""libcuda through ctypes, as little of it as the tests of the stand-in need."""

import ctypes
from collections.abc import Sequence
from ctypes import byref, c_int, c_size_t, c_uint, c_uint64, c_void_p
from pathlib import Path

import numpy as np

Argument = c_uint64 | c_int | ctypes.c_float | ctypes.c_short
Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]


class Refused(Exception):
    """A call gave an error code."""

    def __init__(self, entry: str, code: int) -> None:
        super().__init__(f"{entry}: {code}")
        self.code = code


class Driver:
    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))
        self.library.li_emu_reads.restype = c_uint64
        self.library.li_emu_launches.restype = c_uint64

    def call(self, entry: str, *arguments: object) -> None:
        code = int(self.library[entry](*arguments))
        if code != 0:
            raise Refused(entry, code)

    def handle(self, entry: str, *arguments: object) -> c_void_p:
        """What a call that makes something puts into its first argument."""
        made = c_void_p()
        self.call(entry, byref(made), *arguments)
        return made

    def number(self, entry: str, *arguments: object) -> int:
        number = c_int()
        self.call(entry, byref(number), *arguments)
        return number.value

    def start(self) -> None:
        self.call("cuInit", c_uint(0))
        self.call("cuCtxSetCurrent", self.handle("cuDevicePrimaryCtxRetain", c_int(0)))

    def stream(self) -> c_void_p:
        return self.handle("cuStreamCreate", c_uint(1))

    def kernel(self, name: str) -> c_void_p:
        return self.handle("cuModuleGetFunction", self.handle("cuModuleLoadData", b"any"), name.encode())

    def allocate(self, size: int) -> c_uint64:
        pointer = c_uint64()
        self.call("cuMemAlloc_v2", byref(pointer), c_size_t(size))
        return pointer

    def upload(self, array: Array) -> c_uint64:
        pointer = self.allocate(array.nbytes)
        self.call("cuMemcpyHtoD_v2", pointer, c_void_p(array.ctypes.data), c_size_t(array.nbytes))
        return pointer

    def download(self, pointer: c_uint64, like: Array) -> Array:
        array = np.empty_like(like)
        self.call("cuMemcpyDtoH_v2", c_void_p(array.ctypes.data), pointer, c_size_t(array.nbytes))
        return array

    def launch(
        self,
        kernel: c_void_p,
        grid: int,
        block: int,
        arguments: Sequence[Argument],
        stream: c_void_p | None = None,
        shared: int = 0,
    ) -> None:
        values = (c_void_p * len(arguments))(*(ctypes.addressof(a) for a in arguments))
        sizes = [c_uint(n) for n in (grid, 1, 1, block, 1, 1, shared)]
        self.call("cuLaunchKernel", kernel, *sizes, stream, values, None)

    def watched(self, pointer: c_uint64) -> tuple[int, int, int]:
        """Bytes read from a watched range, and how often its least and its most read word was."""
        size, fewest, most = c_uint64(), c_uint(), c_uint()
        self.call("li_emu_watched", pointer, byref(size), byref(fewest), byref(most))
        return size.value, fewest.value, most.value
