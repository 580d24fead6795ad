// How often global memory is read through load4, load8, load16 and copy_async16: in all, and in watched ranges.
// Ordinary dereferences are not seen.
#pragma once
#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <vector>

namespace emu {

struct Watch {
  uintptr_t begin;
  size_t size;
  uint64_t bytes = 0;           // read from the range
  std::vector<uint32_t> times;  // that each 4 bytes of it were read, whole or in part

  // "Each byte exactly once" is fewest() == 1 and most() == 1; the sum alone would not show it.
  uint32_t fewest() const { return times.empty() ? 0 : *std::min_element(times.begin(), times.end()); }
  uint32_t most() const { return times.empty() ? 0 : *std::max_element(times.begin(), times.end()); }
};

struct Counters {
  uint64_t bytes = 0;                  // read from global memory
  std::map<uintptr_t, Watch> watches;  // by their begin; they do not overlap
};

inline Counters counters;

// From now on the range is counted separately too; one that begins at the same place is replaced.
inline Watch& watch(const void* pointer, size_t bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(pointer);
  Watch fresh{begin, bytes, 0, std::vector<uint32_t>((bytes + 3) / 4)};
  return counters.watches.insert_or_assign(begin, std::move(fresh)).first->second;
}

inline void unwatch() { counters.watches.clear(); }

inline void reset_counters() {
  counters.bytes = 0;
  for (auto& [begin, watch] : counters.watches) {
    watch.bytes = 0;
    std::fill(watch.times.begin(), watch.times.end(), 0);
  }
}

inline void count_watched(uintptr_t from, size_t size) {
  auto next = counters.watches.lower_bound(from + size);
  if (next == counters.watches.begin()) return;
  Watch& watch = std::prev(next)->second;
  const uintptr_t first = std::max(from, watch.begin), last = std::min(from + size, watch.begin + watch.size);
  if (first >= last) return;
  watch.bytes += last - first;
  for (size_t i = (first - watch.begin) / 4; i <= (last - 1 - watch.begin) / 4; ++i) ++watch.times[i];
}

inline void count_read(const void* pointer, size_t size) {
  counters.bytes += size;
  if (!counters.watches.empty()) count_watched(reinterpret_cast<uintptr_t>(pointer), size);
}

}  // namespace emu
