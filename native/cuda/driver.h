// The NVIDIA driver, found at run time: nothing of CUDA is needed to build this, or to run it without a card.
// Prototypes are our own, after the driver API's reference.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace cuda {

// No card can be used. The message: what is wrong, with its numbers, and on the next line what to do.
struct Unusable : std::runtime_error {
  Unusable(const std::string& what, const std::string& fix) : std::runtime_error(what + "\n" + fix) {}
};

// A call of the driver failed: `what: CUDA error 700 (...)`. The card may be of no more use to this process.
struct Failed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The card's memory is full, or the host's for pinned pages. `bytes` 0: the driver did not say for what.
struct Full : std::runtime_error {
  Full(size_t bytes, const char* what);
};

using Result = int;
using Pointer = unsigned long long;  // memory of the card
using Handle = struct Opaque*;       // context, module, function, stream, event, graph

constexpr int kOldestDriver = 12000;  // the CUDA version that our compiler's output needs
constexpr int kOldestCard = 75;       // 10 * major + minor

// The entry points, by their names without `cu`. An instance lives as long as anyone uses the library.
class Driver {
 public:
  // Throws Unusable: no library, too old, or it finds no card. `LOCALINFER_LIBCUDA` names another library.
  static std::shared_ptr<const Driver> load();
  ~Driver();
  Driver(const Driver&) = delete;
  Driver& operator=(const Driver&) = delete;

  // Throws Full or Failed.
  void check(Result result, const char* what, size_t bytes = 0) const;
  std::string text(Result result) const;

  int version = 0;  // 1000 * major + 10 * minor, of the newest CUDA that the driver knows
  std::string library;

  Result (*Init)(unsigned) = nullptr;
  Result (*DriverGetVersion)(int*) = nullptr;
  Result (*DeviceGetCount)(int*) = nullptr;
  Result (*DeviceGet)(int*, int) = nullptr;
  Result (*DeviceGetName)(char*, int, int) = nullptr;
  Result (*DeviceGetAttribute)(int*, int, int) = nullptr;
  Result (*DeviceTotalMem)(size_t*, int) = nullptr;
  Result (*DeviceGetUuid)(unsigned char*, int) = nullptr;
  Result (*DevicePrimaryCtxRetain)(Handle*, int) = nullptr;
  Result (*DevicePrimaryCtxRelease)(int) = nullptr;
  Result (*CtxSetCurrent)(Handle) = nullptr;
  Result (*MemGetInfo)(size_t*, size_t*) = nullptr;
  Result (*MemAlloc)(Pointer*, size_t) = nullptr;
  Result (*MemFree)(Pointer) = nullptr;
  Result (*MemAllocHost)(void**, size_t) = nullptr;
  Result (*MemFreeHost)(void*) = nullptr;
  Result (*MemcpyHtoDAsync)(Pointer, const void*, size_t, Handle) = nullptr;
  Result (*MemcpyDtoHAsync)(void*, Pointer, size_t, Handle) = nullptr;
  Result (*MemsetD8Async)(Pointer, unsigned char, size_t, Handle) = nullptr;
  Result (*ModuleLoadData)(Handle*, const void*) = nullptr;
  Result (*ModuleUnload)(Handle) = nullptr;
  Result (*ModuleGetFunction)(Handle*, Handle, const char*) = nullptr;
  Result (*FuncSetAttribute)(Handle, int, int) = nullptr;
  Result (*StreamCreate)(Handle*, unsigned) = nullptr;
  Result (*StreamDestroy)(Handle) = nullptr;
  Result (*StreamSynchronize)(Handle) = nullptr;
  Result (*LaunchKernel)(Handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Handle, void**,
                         void**) = nullptr;
  Result (*StreamBeginCapture)(Handle, int) = nullptr;
  Result (*StreamEndCapture)(Handle, Handle*) = nullptr;
  Result (*GraphInstantiate)(Handle*, Handle, unsigned long long) = nullptr;
  Result (*GraphLaunch)(Handle, Handle) = nullptr;
  Result (*GraphExecDestroy)(Handle) = nullptr;
  Result (*GraphDestroy)(Handle) = nullptr;
  Result (*GetErrorString)(Result, const char**) = nullptr;

 private:
  Driver() = default;
  void* handle_ = nullptr;
};

struct Card {
  int ordinal = 0;
  std::string name, uuid;
  int sm = 0;  // 10 * major + minor
  int multiprocessors = 0;
  size_t total_bytes = 0;
  size_t shared_bytes = 0;  // of a block, at most
  double peak_gb_s = 0;     // of its memory, by clock and bus width; 0 when the driver does not say
};

// All cards, the driver's order.
std::vector<Card> cards(const Driver& driver);
// Number `ordinal`. Throws Unusable when it is not there, or too old.
Card card(const Driver& driver, int ordinal);

// A card's context, stream and memory, for one user. Every call makes the context current on the calling thread.
class Session {
 public:
  Session(std::shared_ptr<const Driver> driver, Card card);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const Driver& driver() const { return *driver_; }
  const Card& card() const { return card_; }
  Handle stream() const { return stream_; }
  void enter() const;             // makes the context current
  bool try_enter() const noexcept;  // false: it is gone
  void wait() const;   // until the stream is empty
  size_t free_bytes() const;
  void check(Result result, const char* what) const { driver_->check(result, what); }

 private:
  std::shared_ptr<const Driver> driver_;
  Card card_;
  Handle context_ = nullptr, stream_ = nullptr;

  void release() noexcept;
};

// Memory of the card. Throws Full naming `what`.
class CardMemory {
 public:
  CardMemory() = default;
  CardMemory(std::shared_ptr<const Session> session, size_t bytes, const char* what);
  ~CardMemory();
  CardMemory(CardMemory&& other) noexcept;
  CardMemory& operator=(CardMemory&& other) noexcept;

  Pointer at(size_t offset = 0) const { return start_ + offset; }
  size_t size() const { return size_; }
  void put(size_t offset, const void* from, size_t bytes) const;  // returns when it is there
  void get(size_t offset, void* to, size_t bytes) const;
  template <class T>
  T* as(size_t offset = 0) const {
    return reinterpret_cast<T*>(static_cast<uintptr_t>(start_ + offset));
  }

 private:
  std::shared_ptr<const Session> session_;
  Pointer start_ = 0;
  size_t size_ = 0;
};

// Memory here that the card reads and writes by itself.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  PinnedMemory(std::shared_ptr<const Session> session, size_t bytes);
  ~PinnedMemory();
  PinnedMemory(PinnedMemory&& other) noexcept;
  PinnedMemory& operator=(PinnedMemory&& other) noexcept;
  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::shared_ptr<const Session> session_;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace cuda
