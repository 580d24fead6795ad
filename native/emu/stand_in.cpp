// A libcuda for machines without a GPU: the entry points that the backend uses, device memory being the host's and
// cuLaunchKernel running the emulator. The unchanged driver code opens this library by its path.
// It stands for the driver's rules, not for its speed: wrong handles, ranges and calls during a capture are refused.
//   LI_EMU_SM=75           the compute capability (86)         LI_EMU_MEMORY=<bytes>  of the device (8 GiB)
//   LI_EMU_SCHEDULE=<n>    0 forward, 1 reverse, else a seed   LI_EMU_LATE, LI_EMU_FAIL: driver_state.h
#define LI_EMULATE 1
#include "driver_facts.h"
#include "driver_kernels.h"
#include "driver_state.h"

namespace stand_in {
namespace {

State& state = State::get();

void* pointer(DevicePointer p) { return reinterpret_cast<void*>(p); }

// Adds work to a stream that reads and writes these ranges of device memory.
struct Range {
  DevicePointer begin;
  size_t bytes;
};
int add_checked(void* handle, std::initializer_list<Range> ranges, Work work) {
  Stream* stream = state.stream(handle);
  if (stream == nullptr) return kInvalidHandle;
  for (const Range& r : ranges) {
    if (!state.device.holds(r.begin, r.bytes)) return kInvalidValue;
  }
  stream->add(std::move(work));
  return kSuccess;
}

// A copy from pageable memory has left it when the call returns, one from pinned memory has not.
Work copy_in(DevicePointer to, const void* from, size_t bytes, const Stream* stream) {
  const bool later = (stream != nullptr && stream->capturing) || state.pinned.holds(reinterpret_cast<uintptr_t>(from), bytes);
  if (later || !late()) return [=] { std::memcpy(pointer(to), from, bytes); };
  const std::string taken(static_cast<const char*>(from), bytes);
  return [=] { std::memcpy(pointer(to), taken.data(), taken.size()); };
}

}  // namespace
}  // namespace stand_in

using namespace stand_in;

#define ENTRY extern "C" __attribute__((visibility("default"))) int
// How an entry point begins: it may be told to fail; it may need cuInit, a context, and that nothing is being captured.
#define BEGIN_UNREADY                      \
  const std::lock_guard guard(state.lock); \
  if (const int fault = injected(__func__)) return fault
#define BEGIN_DEVICE \
  BEGIN_UNREADY;     \
  if (!state.initialized) return kNotInitialized
#define BEGIN    \
  BEGIN_DEVICE;  \
  if (current_context == nullptr) return kInvalidContext
#define BEGIN_UNCAPTURED \
  BEGIN;                 \
  if (state.spoil_capture()) return kCapturing

ENTRY cuInit(unsigned flags) {
  BEGIN_UNREADY;
  state.initialized = flags == 0;
  return flags == 0 ? kSuccess : kInvalidValue;
}
ENTRY cuDriverGetVersion(int* version) {
  BEGIN_UNREADY;
  *version = 12090;
  return kSuccess;
}
ENTRY cuGetErrorName(int code, const char** text) {
  BEGIN_UNREADY;
  const auto at = kErrors.find(code);
  *text = at == kErrors.end() ? nullptr : at->second.first;
  return at == kErrors.end() ? kInvalidValue : kSuccess;
}
ENTRY cuGetErrorString(int code, const char** text) {
  BEGIN_UNREADY;
  const auto at = kErrors.find(code);
  *text = at == kErrors.end() ? nullptr : at->second.second;
  return at == kErrors.end() ? kInvalidValue : kSuccess;
}

// ---- the device and its context

ENTRY cuDeviceGetCount(int* count) {
  BEGIN_DEVICE;
  *count = 1;
  return kSuccess;
}
ENTRY cuDeviceGet(int* device, int ordinal) {
  BEGIN_DEVICE;
  *device = 0;
  return ordinal == 0 ? kSuccess : kInvalidDevice;
}
ENTRY cuDeviceGetName(char* name, int size, int device) {
  BEGIN_DEVICE;
  std::snprintf(name, size_t(size), "localinfer emulator");
  return device == 0 ? kSuccess : kInvalidDevice;
}
ENTRY cuDeviceGetAttribute(int* value, int attribute, int device) {
  BEGIN_DEVICE;
  if (device != 0) return kInvalidDevice;
  const std::map<int, int> all = attributes();
  const auto at = all.find(attribute);
  if (at == all.end()) return kInvalidValue;
  *value = at->second;
  return kSuccess;
}
ENTRY cuDeviceTotalMem_v2(size_t* bytes, int device) {
  BEGIN_DEVICE;
  *bytes = total_memory();
  return device == 0 ? kSuccess : kInvalidDevice;
}
ENTRY cuDeviceGetUuid(unsigned char* uuid, int device) {
  BEGIN_DEVICE;
  std::memcpy(uuid, "localinfer-emu-0", 16);
  return device == 0 ? kSuccess : kInvalidDevice;
}
ENTRY cuDevicePrimaryCtxRetain(void** context, int device) {
  BEGIN_DEVICE;
  if (device != 0) return kInvalidDevice;
  ++state.retained;
  *context = &state;
  return kSuccess;
}
ENTRY cuDevicePrimaryCtxRelease_v2(int device) {
  BEGIN_DEVICE;
  if (device != 0) return kInvalidDevice;
  if (state.retained == 0) return kInvalidContext;
  --state.retained;
  return kSuccess;
}
ENTRY cuCtxSetCurrent(void* context) {
  BEGIN_DEVICE;
  if (context != nullptr && (context != &state || state.retained == 0)) return kInvalidContext;
  current_context = context;
  return kSuccess;
}
ENTRY cuCtxGetCurrent(void** context) {
  BEGIN_DEVICE;
  *context = current_context;
  return kSuccess;
}

// ---- memory

ENTRY cuMemGetInfo_v2(size_t* free, size_t* total) {
  BEGIN;
  *total = total_memory();
  *free = *total - std::min(*total, state.device.used());
  return kSuccess;
}
ENTRY cuMemAlloc_v2(DevicePointer* p, size_t bytes) {
  BEGIN_UNCAPTURED;
  if (bytes == 0) return kInvalidValue;
  if (bytes > total_memory() - std::min(total_memory(), state.device.used())) return kOutOfMemory;
  void* data = state.device.allocate(bytes);
  *p = reinterpret_cast<DevicePointer>(data);
  return data == nullptr ? kOutOfMemory : kSuccess;
}
ENTRY cuMemFree_v2(DevicePointer p) {
  BEGIN_UNCAPTURED;
  for (const auto& [handle, stream] : state.streams) stream->finish();  // as the driver does: nothing is in use then
  state.null_stream.finish();
  return p == 0 || state.device.release(pointer(p)) ? kSuccess : kInvalidValue;
}
ENTRY cuMemAllocHost_v2(void** p, size_t bytes) {
  BEGIN_UNCAPTURED;
  if (bytes == 0) return kInvalidValue;
  *p = state.pinned.allocate(bytes);
  return *p == nullptr ? kOutOfMemory : kSuccess;
}
ENTRY cuMemFreeHost(void* p) {
  BEGIN_UNCAPTURED;
  return state.pinned.release(p) ? kSuccess : kInvalidValue;
}
ENTRY cuMemcpyHtoD_v2(DevicePointer to, const void* from, size_t bytes) {
  BEGIN_UNCAPTURED;
  if (!state.device.holds(to, bytes)) return kInvalidValue;
  state.finish_blocking();
  std::memcpy(pointer(to), from, bytes);
  return kSuccess;
}
ENTRY cuMemcpyDtoH_v2(void* to, DevicePointer from, size_t bytes) {
  BEGIN_UNCAPTURED;
  if (!state.device.holds(from, bytes)) return kInvalidValue;
  state.finish_blocking();
  std::memcpy(to, pointer(from), bytes);
  return kSuccess;
}
ENTRY cuMemcpyHtoDAsync_v2(DevicePointer to, const void* from, size_t bytes, void* stream) {
  BEGIN;
  return add_checked(stream, {{to, bytes}}, copy_in(to, from, bytes, state.stream(stream)));
}
ENTRY cuMemcpyDtoHAsync_v2(void* to, DevicePointer from, size_t bytes, void* stream) {
  BEGIN;
  return add_checked(stream, {{from, bytes}}, [=] { std::memcpy(to, pointer(from), bytes); });
}
ENTRY cuMemcpyDtoDAsync_v2(DevicePointer to, DevicePointer from, size_t bytes, void* stream) {
  BEGIN;
  return add_checked(stream, {{to, bytes}, {from, bytes}}, [=] { std::memmove(pointer(to), pointer(from), bytes); });
}
ENTRY cuMemsetD8Async(DevicePointer to, unsigned char value, size_t bytes, void* stream) {
  BEGIN;
  return add_checked(stream, {{to, bytes}}, [=] { std::memset(pointer(to), value, bytes); });
}

// ---- modules and kernels

ENTRY cuModuleLoadData(void** module, const void* image) {
  BEGIN_UNCAPTURED;
  if (image == nullptr) return kInvalidValue;
  *module = state.modules.make(0);
  return kSuccess;
}
ENTRY cuModuleUnload(void* module) {
  BEGIN_UNCAPTURED;
  return state.modules.destroy(module) ? kSuccess : kInvalidHandle;
}
ENTRY cuModuleGetFunction(void** function, void* module, const char* name) {
  BEGIN;
  if (state.modules.find(module) == nullptr) return kInvalidHandle;
  const auto at = kernels().find(name);
  if (at == kernels().end()) return kNotFound;
  *function = &at->second;
  return kSuccess;
}
ENTRY cuFuncSetAttribute(void* function, int attribute, int value) {
  BEGIN;
  constexpr int kDynamicShared = 8, kCarveout = 9;
  if (attribute == kCarveout) return kSuccess;
  if (attribute != kDynamicShared || value < 0 || value > most_shared()) return kInvalidValue;
  static_cast<Kernel*>(function)->dynamic_limit = unsigned(value);
  return kSuccess;
}
ENTRY cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                     unsigned block_y, unsigned block_z, unsigned dynamic_bytes, void* stream, void** arguments,
                     void** extra) {
  BEGIN;
  const Kernel& kernel = *static_cast<Kernel*>(function);
  const dim3 grid(grid_x, grid_y, grid_z), block(block_x, block_y, block_z);
  const uint64_t threads = uint64_t(block_x) * block_y * block_z;
  if (extra != nullptr || threads == 0 || threads > emu::kMaxThreads || block_z > 64) return kInvalidValue;
  if (grid_x == 0 || grid_y == 0 || grid_z == 0 || grid_y > 65535 || grid_z > 65535) return kInvalidValue;
  if (dynamic_bytes > kernel.dynamic_limit) return kInvalidValue;
  return add_checked(stream, {}, [=, body = kernel.bind(arguments)] {
    emu::launch(grid, block, dynamic_bytes, body, uint32_t(std::atoi(setting("LI_EMU_SCHEDULE", "0"))));
  });
}

// ---- streams, graphs, events

ENTRY cuStreamCreate(void** stream, unsigned flags) {
  BEGIN_UNCAPTURED;
  *stream = state.streams.make(flags);
  return kSuccess;
}
ENTRY cuStreamDestroy_v2(void* handle) {
  BEGIN;
  Stream* stream = state.streams.find(handle);
  if (stream == nullptr) return kInvalidHandle;
  if (!stream->capturing) stream->finish();
  state.streams.destroy(handle);
  return kSuccess;
}
ENTRY cuStreamSynchronize(void* handle) {
  BEGIN_UNCAPTURED;
  Stream* stream = state.stream(handle);
  if (stream == nullptr) return kInvalidHandle;
  if (stream->capturing) {  // another thread's
    stream->spoiled = true;
    return kCapturing;
  }
  stream->finish();
  return kSuccess;
}
ENTRY cuStreamQuery(void* handle) {
  BEGIN_UNCAPTURED;
  Stream* stream = state.stream(handle);
  if (stream == nullptr) return kInvalidHandle;
  const bool ready = stream->waiting.empty();
  stream->finish();  // so that a caller who asks again and again sees first "not ready", then the end
  return ready ? kSuccess : kNotReady;
}
ENTRY cuStreamBeginCapture_v2(void* handle, int mode) {
  BEGIN_UNCAPTURED;
  Stream* stream = state.streams.find(handle);  // the null stream cannot be captured
  if (stream == nullptr || mode < 0 || mode > 2) return stream == nullptr ? kCapturing : kInvalidValue;
  stream->finish();
  stream->capturing = true;
  stream->mode = mode;
  stream->by = std::this_thread::get_id();
  return kSuccess;
}
ENTRY cuStreamEndCapture(void* handle, void** graph) {
  BEGIN;
  Stream* stream = state.streams.find(handle);
  if (stream == nullptr || !stream->capturing) return kInvalidValue;
  stream->capturing = false;
  std::vector<Work> work = std::exchange(stream->waiting, {});
  if (std::exchange(stream->spoiled, false)) return kInvalidated;
  *graph = state.graphs.make(std::move(work));
  return kSuccess;
}
ENTRY cuGraphInstantiateWithFlags(void** executable, void* handle, unsigned long long) {
  BEGIN;
  const Graph* graph = state.graphs.find(handle);
  if (graph == nullptr) return kInvalidHandle;
  *executable = state.executables.make(graph->work);
  return kSuccess;
}
ENTRY cuGraphLaunch(void* executable, void* stream) {
  BEGIN;
  const Graph* graph = state.executables.find(executable);
  if (graph == nullptr) return kInvalidHandle;
  return add_checked(stream, {}, [work = graph->work] {
    for (const Work& one : work) one();
  });
}
ENTRY cuGraphExecDestroy(void* executable) {
  BEGIN;
  return state.executables.destroy(executable) ? kSuccess : kInvalidHandle;
}
ENTRY cuGraphDestroy(void* graph) {
  BEGIN;
  return state.graphs.destroy(graph) ? kSuccess : kInvalidHandle;
}
ENTRY cuEventCreate(void** event, unsigned) {
  BEGIN;
  *event = state.events.make();
  return kSuccess;
}
ENTRY cuEventRecord(void* handle, void* stream) {
  BEGIN;
  if (state.events.find(handle) == nullptr) return kInvalidHandle;
  return add_checked(stream, {}, [handle] {
    Event* event = state.events.find(handle);
    if (event != nullptr) *event = {true, std::chrono::steady_clock::now()};
  });
}
ENTRY cuEventSynchronize(void* event) {
  BEGIN_UNCAPTURED;
  if (state.events.find(event) == nullptr) return kInvalidHandle;
  state.null_stream.finish();
  for (const auto& [handle, stream] : state.streams) stream->finish();
  return kSuccess;
}
ENTRY cuEventElapsedTime(float* milliseconds, void* first, void* last) {
  BEGIN;
  const Event *from = state.events.find(first), *to = state.events.find(last);
  if (from == nullptr || to == nullptr || !from->recorded || !to->recorded) return kInvalidHandle;
  *milliseconds = std::chrono::duration<float, std::milli>(to->when - from->when).count();
  return kSuccess;
}
ENTRY cuEventDestroy_v2(void* event) {
  BEGIN;
  return state.events.destroy(event) ? kSuccess : kInvalidHandle;
}

// ---- what only a stand-in can tell: how often global memory was read, and how many kernels ran

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT uint64_t li_emu_reads() { return emu::counters.bytes; }
EXPORT uint64_t li_emu_launches() { return emu::launches; }
EXPORT void li_emu_reset() { emu::reset_counters(); }
EXPORT void li_emu_watch(DevicePointer p, size_t bytes) { emu::watch(pointer(p), bytes); }
EXPORT void li_emu_unwatch() { emu::unwatch(); }
// Of a watched range: the bytes read, and how often its least and most read word was. 1: it is not watched.
EXPORT int li_emu_watched(DevicePointer p, uint64_t* bytes, unsigned* fewest, unsigned* most) {
  const auto at = emu::counters.watches.find(uintptr_t(p));
  if (at == emu::counters.watches.end()) return 1;
  *bytes = at->second.bytes;
  *fewest = at->second.fewest();
  *most = at->second.most();
  return 0;
}
