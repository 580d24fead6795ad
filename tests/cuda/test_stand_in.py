"""The stand-in libcuda: it runs kernels, keeps the driver's rules, and fails when it is told to."""

import ctypes
import re
from ctypes import byref, c_char_p, c_float, c_int, c_short, c_size_t, c_ubyte, c_uint, c_uint64, c_void_p

import numpy as np
import pytest

from tests.cuda.build import SCHEDULES
from tests.cuda.driver import Array, Driver, Refused

pytestmark = pytest.mark.xdist_group("cuda")

INVALID_VALUE, OUT_OF_MEMORY, NOT_INITIALIZED, INVALID_CONTEXT = 1, 2, 3, 201
INVALID_HANDLE, NOT_FOUND, NOT_READY, CAPTURING, INVALIDATED = 400, 500, 600, 900, 901

ENTRY_POINTS = re.findall(
    r"\w+",
    """
cuInit cuDriverGetVersion cuGetErrorString cuGetErrorName
cuDeviceGetCount cuDeviceGet cuDeviceGetName cuDeviceGetAttribute cuDeviceTotalMem_v2 cuDeviceGetUuid
cuDevicePrimaryCtxRetain cuDevicePrimaryCtxRelease_v2 cuCtxSetCurrent cuCtxGetCurrent
cuMemGetInfo_v2 cuMemAlloc_v2 cuMemFree_v2 cuMemAllocHost_v2 cuMemFreeHost cuMemcpyHtoD_v2 cuMemcpyDtoH_v2
cuMemcpyHtoDAsync_v2 cuMemcpyDtoHAsync_v2 cuMemcpyDtoDAsync_v2 cuMemsetD8Async
cuModuleLoadData cuModuleUnload cuModuleGetFunction cuFuncSetAttribute cuLaunchKernel
cuStreamCreate cuStreamDestroy_v2 cuStreamSynchronize cuStreamQuery cuStreamBeginCapture_v2 cuStreamEndCapture
cuGraphInstantiateWithFlags cuGraphLaunch cuGraphExecDestroy cuGraphDestroy
cuEventCreate cuEventRecord cuEventSynchronize cuEventElapsedTime cuEventDestroy_v2
""",
)


def refused(code: int, driver: Driver, entry: str, *arguments: object) -> None:
    with pytest.raises(Refused) as error:
        driver.call(entry, *arguments)
    assert error.value.code == code


def address(array: Array) -> c_void_p:
    return c_void_p(array.ctypes.data)


@pytest.fixture
def started(driver: Driver) -> Driver:
    driver.start()
    return driver


@pytest.mark.parametrize("entry", ENTRY_POINTS)
def test_entry_point_is_there(entry: str, driver: Driver) -> None:
    assert driver.library[entry]


def test_order_of_the_first_calls(driver: Driver) -> None:
    assert driver.number("cuDriverGetVersion") == 12090
    refused(NOT_INITIALIZED, driver, "cuDeviceGet", byref(c_int()), c_int(0))
    driver.call("cuInit", c_uint(0))
    refused(INVALID_CONTEXT, driver, "cuMemAlloc_v2", byref(c_uint64()), c_size_t(16))
    context = driver.handle("cuDevicePrimaryCtxRetain", c_int(0))
    driver.call("cuCtxSetCurrent", context)
    assert driver.handle("cuCtxGetCurrent").value == context.value
    driver.allocate(16)
    driver.call("cuDevicePrimaryCtxRelease_v2", c_int(0))
    refused(INVALID_CONTEXT, driver, "cuDevicePrimaryCtxRelease_v2", c_int(0))


@pytest.mark.parametrize(("sm", "shared"), [("86", 101376), ("75", 65536), ("120", 101376)])
def test_facts_of_the_device(sm: str, shared: int, started: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LI_EMU_SM", sm)
    name, uuid = ctypes.create_string_buffer(64), (c_ubyte * 16)()
    started.call("cuDeviceGetName", name, c_int(64), c_int(0))
    started.call("cuDeviceGetUuid", uuid, c_int(0))
    assert (name.value, bytes(uuid)) == (b"localinfer emulator", b"localinfer-emu-0")
    seen = [started.number("cuDeviceGetAttribute", c_int(a), c_int(0)) for a in (75, 76, 16, 97, 36, 37)]
    assert seen == [int(sm) // 10, int(sm) % 10, 2, shared, 7001000, 128]
    assert started.number("cuDeviceGetCount") == 1
    assert started.number("cuDeviceGet", c_int(0)) == 0
    refused(INVALID_VALUE, started, "cuDeviceGetAttribute", byref(c_int()), c_int(9999), c_int(0))


def test_memory_is_counted_and_ends(started: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LI_EMU_MEMORY", "1000000")
    free, total = c_size_t(), c_size_t()
    first = started.allocate(600_000)
    started.call("cuMemGetInfo_v2", byref(free), byref(total))
    assert (free.value, total.value) == (400_000, 1_000_000)
    refused(OUT_OF_MEMORY, started, "cuMemAlloc_v2", byref(c_uint64()), c_size_t(400_001))
    started.call("cuMemFree_v2", first)
    refused(INVALID_VALUE, started, "cuMemFree_v2", first)
    started.allocate(1_000_000)
    started.call("cuMemGetInfo_v2", byref(free), byref(total))
    assert free.value == 0


def test_memory_that_nobody_wrote_stands_out(started: Driver) -> None:
    assert np.isnan(started.download(started.allocate(64), np.zeros(16, np.float32))).all()


def test_copies_stay_inside_an_allocation(started: Driver) -> None:
    host = np.zeros(16, np.uint8)
    pointer = started.upload(host)
    for start, size in ((1, 16), (0, 17), (-1, 2), (17, 0)):
        outside = c_uint64(pointer.value + start)
        refused(INVALID_VALUE, started, "cuMemcpyDtoH_v2", address(host), outside, c_size_t(size))
        refused(INVALID_VALUE, started, "cuMemsetD8Async", outside, c_ubyte(0), c_size_t(size), None)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_kernels_run(schedule: int, started: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LI_EMU_SCHEDULE", str(schedule))
    values = np.arange(384, dtype=np.float32)
    pointer, stream = started.upload(values), started.stream()
    started.launch(started.kernel("add"), 6, 64, [pointer, c_float(0.5), c_int(380)], stream)
    started.launch(started.kernel("reverse_rows"), 3, 128, [pointer], stream, shared=512)
    started.call("cuStreamSynchronize", stream)
    values[:380] += 0.5
    np.testing.assert_array_equal(started.download(pointer, values), values.reshape(3, 128)[:, ::-1].ravel())
    assert started.library.li_emu_launches() == 2


def test_launches_that_the_driver_refuses(started: Driver) -> None:
    pointer = started.allocate(4096)
    module = started.handle("cuModuleLoadData", b"any")
    refused(NOT_FOUND, started, "cuModuleGetFunction", byref(c_void_p()), module, b"nothing")
    kernel = started.kernel("reverse_rows")
    for grid, block, shared in ((0, 32, 0), (1, 0, 0), (1, 1025, 0), (1, 32, 48 * 1024 + 1)):
        with pytest.raises(Refused) as error:
            started.launch(kernel, grid, block, [pointer], shared=shared)
        assert error.value.code == INVALID_VALUE
    started.call("cuFuncSetAttribute", kernel, c_int(8), c_int(99 * 1024))
    started.launch(kernel, 1, 32, [pointer], shared=99 * 1024)
    refused(INVALID_VALUE, started, "cuFuncSetAttribute", kernel, c_int(8), c_int(99 * 1024 + 1))
    started.call("cuModuleUnload", module)
    refused(INVALID_HANDLE, started, "cuModuleUnload", module)


def captured(driver: Driver, stream: c_void_p, host: Array, result: Array, pointer: c_uint64) -> c_void_p:
    """A graph: half of the memory zeroed, the rest copied in; all of it added to, and copied out."""
    half, kernel = c_size_t(host.nbytes), driver.kernel("add")
    driver.call("cuStreamBeginCapture_v2", stream, c_int(0))
    driver.call("cuMemsetD8Async", c_uint64(pointer.value + host.nbytes), c_ubyte(0), half, stream)
    driver.call("cuMemcpyHtoDAsync_v2", pointer, address(host), half, stream)
    what = c_float(2)
    driver.launch(kernel, 1, 64, [pointer, what, c_int(32)], stream)
    what.value = 99  # too late: arguments were taken at the launch
    driver.call("cuMemcpyDtoHAsync_v2", address(result), pointer, c_size_t(result.nbytes), stream)
    graph = c_void_p()
    driver.call("cuStreamEndCapture", stream, byref(graph))
    return graph


def test_a_graph_runs_what_was_captured_each_time(started: Driver) -> None:
    stream, pointer = started.stream(), started.allocate(128)
    host, result = np.arange(16, dtype=np.float32), np.full(32, -1, np.float32)
    graph = captured(started, stream, host, result, pointer)
    executable = started.handle("cuGraphInstantiateWithFlags", graph, c_uint64(0))
    started.call("cuGraphDestroy", graph)
    assert (result == -1).all()
    for shift in (0, 10):
        host[:] = np.arange(16) + shift
        started.call("cuGraphLaunch", executable, stream)
        started.call("cuStreamSynchronize", stream)
        np.testing.assert_array_equal(result, np.concatenate([host + 2, np.full(16, 2)]))
    started.call("cuGraphExecDestroy", executable)
    refused(INVALID_HANDLE, started, "cuGraphLaunch", executable, stream)


def test_a_capture_is_lost_by_waiting(started: Driver) -> None:
    stream, pointer, host = started.stream(), started.allocate(16), np.zeros(4, np.float32)
    refused(INVALID_VALUE, started, "cuStreamEndCapture", stream, byref(c_void_p()))
    started.call("cuStreamBeginCapture_v2", stream, c_int(0))
    refused(CAPTURING, started, "cuStreamSynchronize", stream)
    refused(CAPTURING, started, "cuStreamQuery", stream)
    refused(CAPTURING, started, "cuMemAlloc_v2", byref(c_uint64()), c_size_t(16))
    refused(CAPTURING, started, "cuMemcpyDtoH_v2", address(host), pointer, c_size_t(16))
    refused(INVALIDATED, started, "cuStreamEndCapture", stream, byref(c_void_p()))
    started.call("cuStreamSynchronize", stream)


def test_a_late_stream_shows_a_forgotten_wait(started: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LI_EMU_LATE", "1")
    stream, pointer = started.stream(), started.allocate(16)
    host, result = np.ones(4, np.float32), np.zeros(4, np.float32)
    started.call("cuMemcpyHtoDAsync_v2", pointer, address(host), c_size_t(16), stream)
    host[:] = 5  # the copy has left pageable memory
    started.launch(started.kernel("add"), 1, 32, [pointer, c_float(1), c_int(4)], stream)
    started.call("cuMemcpyDtoHAsync_v2", address(result), pointer, c_size_t(16), stream)
    assert (result == 0).all()
    refused(NOT_READY, started, "cuStreamQuery", stream)
    started.call("cuStreamQuery", stream)
    assert (result == 2).all()


def test_a_late_copy_from_pinned_memory_takes_what_is_there_then(
    started: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LI_EMU_LATE", "1")
    stream, pointer = started.stream(), started.allocate(16)
    pinned = started.handle("cuMemAllocHost_v2", c_size_t(16))
    started.call("cuMemcpyHtoDAsync_v2", pointer, pinned, c_size_t(16), stream)
    ctypes.memset(pinned.value or 0, 7, 16)
    started.call("cuStreamSynchronize", stream)
    assert (started.download(pointer, np.zeros(16, np.uint8)) == 7).all()
    started.call("cuMemFreeHost", pinned)
    refused(INVALID_VALUE, started, "cuMemFreeHost", pinned)


def test_events_tell_time_in_order(started: Driver) -> None:
    stream, pointer = started.stream(), started.allocate(4096)
    first, last = started.handle("cuEventCreate", c_uint(0)), started.handle("cuEventCreate", c_uint(0))
    elapsed = c_float(-1)
    refused(INVALID_HANDLE, started, "cuEventElapsedTime", byref(elapsed), first, last)
    started.call("cuEventRecord", first, stream)
    started.launch(started.kernel("add"), 16, 64, [pointer, c_float(1), c_int(1024)], stream)
    started.call("cuEventRecord", last, stream)
    started.call("cuEventSynchronize", last)
    started.call("cuEventElapsedTime", byref(elapsed), first, last)
    assert elapsed.value > 0
    started.call("cuEventDestroy_v2", first)
    refused(INVALID_HANDLE, started, "cuEventRecord", first, stream)
    started.call("cuStreamDestroy_v2", stream)
    refused(INVALID_HANDLE, started, "cuStreamSynchronize", stream)


def test_a_call_fails_when_it_is_told_to(started: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LI_EMU_FAIL", "cuStreamCreate:719,cuMemAlloc_v2:2:2,cuModuleLoadData:222")
    refused(719, started, "cuStreamCreate", byref(c_void_p()), c_uint(1))
    refused(222, started, "cuModuleLoadData", byref(c_void_p()), b"any")
    started.allocate(16)
    started.allocate(16)
    refused(OUT_OF_MEMORY, started, "cuMemAlloc_v2", byref(c_uint64()), c_size_t(16))
    monkeypatch.delenv("LI_EMU_FAIL")
    started.allocate(16)


def test_errors_have_names(driver: Driver) -> None:
    text = c_char_p()
    driver.call("cuGetErrorName", c_int(2), byref(text))
    assert text.value == b"CUDA_ERROR_OUT_OF_MEMORY"
    driver.call("cuGetErrorString", c_int(700), byref(text))
    assert text.value == b"an illegal memory access was encountered"
    refused(INVALID_VALUE, driver, "cuGetErrorName", c_int(12345), byref(text))


def test_each_read_is_counted(started: Driver) -> None:
    words = np.arange(256, dtype=np.uint32)
    pointer, sums, kernel = started.upload(words), started.allocate(256), started.kernel("sum_words")
    started.library.li_emu_watch(pointer, c_size_t(words.nbytes))
    started.launch(kernel, 2, 32, [pointer, sums, c_short(0)])
    assert started.library.li_emu_reads() == words.nbytes
    assert started.watched(pointer) == (words.nbytes, 1, 1)
    np.testing.assert_array_equal(started.download(sums, words[:64]), words.reshape(64, 4).sum(axis=1))
    started.library.li_emu_reset()
    started.launch(kernel, 1, 32, [pointer, sums, c_short(1)])
    assert started.watched(pointer) == (words.nbytes // 2 + 4, 0, 2)
    started.library.li_emu_unwatch()
    refused(1, started, "li_emu_watched", pointer, byref(c_uint64()), byref(c_uint()), byref(c_uint()))
