// Shared memory, checked loads from global memory, and copies that land only when they are waited for.
#pragma once
#include "block.h"
#include "reads.h"

namespace emu {

inline constexpr size_t kStaticShared = 48 << 10;  // a block's, by the limits of every architecture
inline constexpr int kPoison = 0xff;               // NaN as a float, -1 as an int: what was never written stands out

inline bool is_shared(const void* pointer) {
  const char* p = static_cast<const char*>(pointer);
  for (const SharedArray& array : running->shared) {
    if (p >= array.data && p < array.data + array.bytes) return true;
  }
  return false;
}

// Each array is an allocation of its own, so that ASan sees the end of it.
inline char* add_shared(size_t bytes) {
  void* data = nullptr;
  if (posix_memalign(&data, 128, bytes) != 0) std::abort();
  std::memset(data, kPoison, bytes);
  running->shared.push_back({static_cast<char*>(data), bytes});
  return static_cast<char*>(data);
}

inline char* add_static_shared(size_t bytes, int line) {
  size_t sum = bytes;
  for (const SharedArray& array : running->shared) sum += array.data == running->dynamic_shared ? 0 : array.bytes;
  if (sum > kStaticShared) {
    fail_at(line, std::to_string(sum) + " bytes of static shared memory; a block has at most " +
                      std::to_string(kStaticShared));
  }
  return add_shared(bytes);
}

// The array of one LI_SHARED: every place where it is written has a Site of its own.
template <class T, size_t N, class Site>
T (&shared_array(Site, LI_LINE))[N] {
  static uint64_t launch = 0;
  static char* data = nullptr;
  Unseen unseen;
  if (launch != launches) {
    launch = launches;
    data = add_static_shared(sizeof(T) * N, line);
  }
  return *reinterpret_cast<T(*)[N]>(data);
}

template <class T>
T* dynamic_shared(LI_LINE) {
  Unseen unseen;
  if (running->dynamic_shared == nullptr) fail_at(line, "dynamic shared memory, and the launch asked for none");
  return reinterpret_cast<T*>(running->dynamic_shared);
}

inline void check_aligned(const void* pointer, size_t size, int line, const char* what) {
  const size_t off = reinterpret_cast<uintptr_t>(pointer) % size;
  if (off == 0) return;
  fail_at(line, "misaligned " + std::string(what) + " of " + std::to_string(size) + " bytes: the address is " +
                    std::to_string(off) + " past a multiple");
}

inline void check_global(const void* pointer, size_t size, int line, const char* what) {
  Unseen unseen;
  thread().line = line;
  check_aligned(pointer, size, line, what);
  if (is_shared(pointer)) fail_at(line, std::string(what) + " from shared memory; it reads global memory only");
  count_read(pointer, size);
}

template <class T>
T load(const void* pointer, int line) {
  check_global(pointer, sizeof(T), line, "load");
  return *static_cast<const T*>(pointer);  // the kernel's own access: a plain one, so that the sanitizers see it
}

// The source is read now. The destination holds poison until copy_wait: the real copy lands at any time between.
inline void copy_async16(void* to, const void* from, int line) {
  check_global(from, 16, line, "copy_async16");
  check_aligned(to, 16, line, "copy_async16");
  {
    Unseen unseen;
    if (!is_shared(to)) fail_at(line, "copy_async16 to memory that is not shared");
  }
  const Copy copy{static_cast<uint4*>(to), *static_cast<const uint4*>(from)};
  *copy.to = uint4{~0u, ~0u, ~0u, ~0u};
  Unseen unseen;
  thread().open.push_back(copy);
}

inline void copy_commit() {
  Unseen unseen;
  thread().pending.push_back(std::move(thread().open));
  thread().open.clear();
}

inline Copies take_oldest_group() {
  Unseen unseen;
  Copies group = std::move(thread().pending.front());
  thread().pending.erase(thread().pending.begin());
  return group;
}

inline size_t pending_groups() {
  Unseen unseen;
  return thread().pending.size();
}

// Until at most `left` groups are under way.
inline void copy_wait(size_t left) {
  while (pending_groups() > left) {
    const Copies group = take_oldest_group();
    for (const Copy& copy : group) *copy.to = copy.bytes;
  }
}

}  // namespace emu
