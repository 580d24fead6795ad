// What the stand-in driver remembers: memory, handles, streams with their work, and which call is to fail.
#pragma once
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace stand_in {

using DevicePointer = unsigned long long;

enum Result : int {
  kSuccess = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kNotInitialized = 3,
  kInvalidDevice = 101,
  kInvalidContext = 201,
  kInvalidHandle = 400,
  kNotFound = 500,
  kNotReady = 600,
  kCapturing = 900,
  kInvalidated = 901,
};

inline const char* setting(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : otherwise;
}

// LI_EMU_FAIL=<entry point>:<code>[:<calls that still succeed>]; several are separated by commas.
inline int injected(const char* entry) {
  static std::map<std::string, long> calls;
  const std::string faults = setting("LI_EMU_FAIL", "");
  for (size_t at = 0; at < faults.size();) {
    const size_t end = std::min(faults.find(',', at), faults.size()), colon = faults.find(':', at);
    if (colon < end && faults.compare(at, colon - at, entry) == 0) {
      char* rest = nullptr;
      const long code = std::strtol(faults.c_str() + colon + 1, &rest, 10);
      const long spared = *rest == ':' ? std::strtol(rest + 1, nullptr, 10) : 0;
      if (++calls[entry] > spared) return int(code);
    }
    at = end + 1;
  }
  return kSuccess;
}

// LI_EMU_LATE=1: a stream works only when it is waited for, so that a forgotten wait is seen.
inline bool late() { return *setting("LI_EMU_LATE", "0") == '1'; }

// Objects by the handle that the caller holds; one that was destroyed is known no more.
template <class T>
class Handles {
 public:
  template <class... A>
  void* make(A&&... arguments) {
    auto object = std::make_unique<T>(T{std::forward<A>(arguments)...});
    void* handle = object.get();
    objects_[handle] = std::move(object);
    return handle;
  }
  T* find(void* handle) const {
    const auto at = objects_.find(handle);
    return at == objects_.end() ? nullptr : at->second.get();
  }
  bool destroy(void* handle) { return objects_.erase(handle) == 1; }
  auto begin() const { return objects_.begin(); }
  auto end() const { return objects_.end(); }

 private:
  std::map<void*, std::unique_ptr<T>> objects_;
};

using Work = std::function<void()>;

struct Stream {
  unsigned flags = 0;
  std::vector<Work> waiting{};
  bool capturing = false;
  bool spoiled = false;  // the capture, by a call that it forbids
  int mode = 0;          // of the capture: 0 forbids calls to all threads, 1 to the one that began it, 2 to none
  std::thread::id by{};

  void add(Work work) {
    if (capturing || late()) {
      waiting.push_back(std::move(work));
    } else {
      work();
    }
  }
  void finish() {
    if (capturing) return;
    for (const std::vector<Work> all = std::exchange(waiting, {}); const Work& work : all) work();
  }
};

struct Graph {
  std::vector<Work> work{};
};

struct Event {
  bool recorded = false;
  std::chrono::steady_clock::time_point when{};
};

// Ranges of memory by their start: the device's, or pinned memory of the host.
class Memory {
 public:
  static constexpr size_t kAlignment = 256;

  void* allocate(size_t bytes) {
    void* data = nullptr;
    if (posix_memalign(&data, kAlignment, bytes) != 0) return nullptr;
    std::memset(data, 0xff, bytes);  // what nobody wrote is NaN
    sizes_[reinterpret_cast<uintptr_t>(data)] = bytes;
    used_ += bytes;
    return data;
  }
  bool release(void* data) {
    const auto at = sizes_.find(reinterpret_cast<uintptr_t>(data));
    if (at == sizes_.end()) return false;
    used_ -= at->second;
    sizes_.erase(at);
    std::free(data);
    return true;
  }
  // Whether the range lies in one allocation.
  bool holds(uintptr_t begin, size_t bytes) const {
    auto next = sizes_.upper_bound(begin);
    if (next == sizes_.begin()) return false;
    --next;
    return begin - next->first <= next->second && bytes <= next->second - (begin - next->first);
  }
  size_t used() const { return used_; }

 private:
  std::map<uintptr_t, size_t> sizes_;
  size_t used_ = 0;
};

struct State {
  std::recursive_mutex lock;
  bool initialized = false;
  int retained = 0;
  Memory device, pinned;
  Handles<int> modules;
  Handles<Stream> streams;
  Handles<Graph> graphs;
  Handles<Graph> executables;
  Handles<Event> events;
  Stream null_stream;

  // Destroyed never: calls may still come while the process ends.
  static State& get() {
    static State& state = *new State;
    return state;
  }

  Stream* stream(void* handle) { return handle == nullptr ? &null_stream : streams.find(handle); }
  // For a call that captures forbid: true if one forbids it to this thread, which has spoiled it.
  bool spoil_capture() {
    bool any = false;
    for (const auto& [handle, stream] : streams) {
      const bool ours = stream->mode == 0 || (stream->mode == 1 && stream->by == std::this_thread::get_id());
      if (stream->capturing && ours) any = stream->spoiled = true;
    }
    return any;
  }
  // What a call without a stream waits for: every stream that was not made to stand aside (flag 1).
  void finish_blocking() {
    null_stream.finish();
    for (const auto& [handle, stream] : streams) {
      if ((stream->flags & 1) == 0) stream->finish();
    }
  }
};

inline thread_local void* current_context = nullptr;  // each thread of the host has its own

}  // namespace stand_in
