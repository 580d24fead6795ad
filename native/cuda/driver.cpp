#include "cuda/driver.h"

#include <dlfcn.h>

#include <cstdlib>
#include <utility>

#include "core/error.h"

namespace cuda {
namespace {

constexpr Result kOutOfMemory = 2;
constexpr int kMultiprocessors = 16, kMemoryClock = 36, kBusWidth = 37, kMajor = 75, kMinor = 76, kSharedOptIn = 97;
constexpr const char* kUseCpu = "run on the processor with `--backend cpu`";

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

template <class F>
void find(F& function, void* handle, const char* name, const std::string& library) {
  function = reinterpret_cast<F>(dlsym(handle, name));
  if (function == nullptr)
    throw Unusable(library + " has no function " + name + ": the NVIDIA driver is too old", "install a newer driver");
}

void* open_library(const std::string& name) {
  void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle != nullptr) return handle;
  const char* why = dlerror();
  throw Unusable("there is no NVIDIA driver (" + std::string(why != nullptr ? why : name.c_str()) + ")",
                 std::string("install the driver of the card, or ") + kUseCpu);
}

}  // namespace

std::shared_ptr<const Driver> Driver::load() {
  const char* named = std::getenv("LOCALINFER_LIBCUDA");
  std::shared_ptr<Driver> driver(new Driver);
  Driver& d = *driver;
  d.library = named != nullptr && *named != '\0' ? named : "libcuda.so.1";
  d.handle_ = open_library(d.library);
  const auto get = [&](auto& function, const char* name) { find(function, d.handle_, name, d.library); };
  get(d.Init, "cuInit");
  get(d.DriverGetVersion, "cuDriverGetVersion");
  get(d.GetErrorString, "cuGetErrorString");
  d.check(d.DriverGetVersion(&d.version), "asking for the driver's version");
  if (d.version < kOldestDriver)
    throw Unusable("the NVIDIA driver is for CUDA " + version_text(d.version) + ", but " + version_text(kOldestDriver) +
                       " is needed",
                   "install driver 525 or newer");
  if (const Result result = d.Init(0); result != 0)
    throw Unusable("the NVIDIA driver does not start: CUDA error " + std::to_string(result) + " (" + d.text(result) + ")",
                   std::string("see whether `nvidia-smi` finds the card, or ") + kUseCpu);
  get(d.DeviceGetCount, "cuDeviceGetCount");
  get(d.DeviceGet, "cuDeviceGet");
  get(d.DeviceGetName, "cuDeviceGetName");
  get(d.DeviceGetAttribute, "cuDeviceGetAttribute");
  get(d.DeviceTotalMem, "cuDeviceTotalMem_v2");
  get(d.DeviceGetUuid, "cuDeviceGetUuid");
  get(d.DevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain");
  get(d.DevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2");
  get(d.CtxSetCurrent, "cuCtxSetCurrent");
  get(d.MemGetInfo, "cuMemGetInfo_v2");
  get(d.MemAlloc, "cuMemAlloc_v2");
  get(d.MemFree, "cuMemFree_v2");
  get(d.MemAllocHost, "cuMemAllocHost_v2");
  get(d.MemFreeHost, "cuMemFreeHost");
  get(d.MemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2");
  get(d.MemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2");
  get(d.MemsetD8Async, "cuMemsetD8Async");
  get(d.ModuleLoadData, "cuModuleLoadData");
  get(d.ModuleUnload, "cuModuleUnload");
  get(d.ModuleGetFunction, "cuModuleGetFunction");
  get(d.FuncSetAttribute, "cuFuncSetAttribute");
  get(d.StreamCreate, "cuStreamCreate");
  get(d.StreamDestroy, "cuStreamDestroy_v2");
  get(d.StreamSynchronize, "cuStreamSynchronize");
  get(d.LaunchKernel, "cuLaunchKernel");
  get(d.StreamBeginCapture, "cuStreamBeginCapture_v2");
  get(d.StreamEndCapture, "cuStreamEndCapture");
  get(d.GraphInstantiate, "cuGraphInstantiateWithFlags");
  get(d.GraphLaunch, "cuGraphLaunch");
  get(d.GraphExecDestroy, "cuGraphExecDestroy");
  get(d.GraphDestroy, "cuGraphDestroy");
  return driver;
}

Driver::~Driver() = default;  // the library stays: unloading a driver is not safe

std::string Driver::text(Result result) const {
  const char* found = nullptr;
  return GetErrorString != nullptr && GetErrorString(result, &found) == 0 && found != nullptr ? found : "unknown";
}

Full::Full(size_t bytes, const char* what)
    : std::runtime_error(bytes != 0 ? OutOfMemory(bytes, what).what()
                                    : std::string(what) + ": CUDA error 2 (out of memory)") {}

void Driver::check(Result result, const char* what, size_t bytes) const {
  if (result == 0) return;
  if (result == kOutOfMemory) throw Full(bytes, what);
  throw Failed(std::string(what) + ": CUDA error " + std::to_string(result) + " (" + text(result) + ")");
}

std::vector<Card> cards(const Driver& driver) {
  int count = 0;
  driver.check(driver.DeviceGetCount(&count), "counting the cards");
  std::vector<Card> found;
  for (int i = 0; i < count; ++i) {
    int device = 0;
    driver.check(driver.DeviceGet(&device, i), "asking for a card");
    const auto attribute = [&](int which) {
      int value = 0;
      return driver.DeviceGetAttribute(&value, which, device) == 0 ? value : 0;
    };
    Card card;
    card.ordinal = i;
    char name[256] = {};
    driver.check(driver.DeviceGetName(name, sizeof name - 1, device), "asking for a card's name");
    card.name = name;
    unsigned char uuid[16] = {};
    if (driver.DeviceGetUuid(uuid, device) == 0)
      for (const unsigned char byte : uuid) card.uuid += {"0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]};
    int major = 0, minor = 0;
    driver.check(driver.DeviceGetAttribute(&major, kMajor, device), "asking for a card's compute capability");
    driver.check(driver.DeviceGetAttribute(&minor, kMinor, device), "asking for a card's compute capability");
    card.sm = 10 * major + minor;
    card.multiprocessors = attribute(kMultiprocessors);
    card.shared_bytes = static_cast<size_t>(attribute(kSharedOptIn));
    driver.check(driver.DeviceTotalMem(&card.total_bytes, device), "asking for a card's memory");
    card.peak_gb_s = 2e3 * attribute(kMemoryClock) * attribute(kBusWidth) / 8 / 1e9;  // kHz; two transfers a clock
    found.push_back(card);
  }
  return found;
}

Card card(const Driver& driver, int ordinal) {
  const std::vector<Card> all = cards(driver);
  if (ordinal < 0 || static_cast<size_t>(ordinal) >= all.size())
    throw Unusable("there is no card " + std::to_string(ordinal) + ": the driver knows " + std::to_string(all.size()),
                   all.empty() ? std::string("see whether `nvidia-smi` finds the card, or ") + kUseCpu
                               : "choose one of 0 to " + std::to_string(all.size() - 1));
  const Card& found = all[static_cast<size_t>(ordinal)];
  if (found.sm < kOldestCard)
    throw Unusable(found.name + " has compute capability " + std::to_string(found.sm / 10) + "." +
                       std::to_string(found.sm % 10) + ", but 7.5 is needed",
                   kUseCpu);
  return found;
}

Session::Session(std::shared_ptr<const Driver> driver, Card card) : driver_(std::move(driver)), card_(std::move(card)) {
  int device = 0;
  check(driver_->DeviceGet(&device, card_.ordinal), "asking for the card");
  check(driver_->DevicePrimaryCtxRetain(&context_, device), "opening the card");
  try {
    enter();
    constexpr unsigned non_blocking = 1;
    check(driver_->StreamCreate(&stream_, non_blocking), "making a stream");
  } catch (...) {
    release();  // a context holds hundreds of megabytes of the card
    throw;
  }
}

Session::~Session() { release(); }

void Session::release() noexcept {
  driver_->CtxSetCurrent(context_);
  if (stream_ != nullptr) driver_->StreamDestroy(stream_);
  int device = 0;
  if (driver_->DeviceGet(&device, card_.ordinal) == 0) driver_->DevicePrimaryCtxRelease(device);
}

void Session::enter() const { check(driver_->CtxSetCurrent(context_), "entering the card's context"); }

bool Session::try_enter() const noexcept { return driver_->CtxSetCurrent(context_) == 0; }

void Session::wait() const { check(driver_->StreamSynchronize(stream_), "waiting for the card"); }

size_t Session::free_bytes() const {
  enter();
  size_t free = 0, total = 0;
  check(driver_->MemGetInfo(&free, &total), "asking for free memory of the card");
  return free;
}

CardMemory::CardMemory(std::shared_ptr<const Session> session, size_t bytes, const char* what)
    : session_(std::move(session)), size_(bytes) {
  if (bytes == 0) return;
  session_->enter();
  session_->driver().check(session_->driver().MemAlloc(&start_, bytes), what, bytes);
}

CardMemory::~CardMemory() {
  if (start_ != 0 && session_->try_enter()) session_->driver().MemFree(start_);
}

CardMemory::CardMemory(CardMemory&& other) noexcept { *this = std::move(other); }

CardMemory& CardMemory::operator=(CardMemory&& other) noexcept {
  std::swap(session_, other.session_);
  std::swap(start_, other.start_);
  std::swap(size_, other.size_);
  return *this;
}

void CardMemory::put(size_t offset, const void* from, size_t bytes) const {
  if (bytes == 0) return;
  session_->enter();
  session_->check(session_->driver().MemcpyHtoDAsync(at(offset), from, bytes, session_->stream()), "copying to the card");
  session_->wait();
}

void CardMemory::get(size_t offset, void* to, size_t bytes) const {
  if (bytes == 0) return;
  session_->enter();
  session_->check(session_->driver().MemcpyDtoHAsync(to, at(offset), bytes, session_->stream()), "copying from the card");
  session_->wait();
}

PinnedMemory::PinnedMemory(std::shared_ptr<const Session> session, size_t bytes)
    : session_(std::move(session)), size_(bytes) {
  void* data = nullptr;
  session_->enter();
  session_->driver().check(session_->driver().MemAllocHost(&data, bytes), "pinned memory", bytes);
  data_ = static_cast<uint8_t*>(data);
}

PinnedMemory::~PinnedMemory() {
  if (data_ != nullptr && session_->try_enter()) session_->driver().MemFreeHost(data_);
}

PinnedMemory::PinnedMemory(PinnedMemory&& other) noexcept { *this = std::move(other); }

PinnedMemory& PinnedMemory::operator=(PinnedMemory&& other) noexcept {
  std::swap(session_, other.session_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace cuda
