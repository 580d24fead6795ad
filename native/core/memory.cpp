#include "core/memory.h"

#include <sys/mman.h>

#include <limits>
#include <mutex>
#include <utility>

#include "core/error.h"

#if defined(__SANITIZE_ADDRESS__)
extern "C" {
void __asan_poison_memory_region(const volatile void* from, size_t bytes);
void __asan_unpoison_memory_region(const volatile void* from, size_t bytes);
}
void forbid(const void* from, size_t bytes) { __asan_poison_memory_region(from, bytes); }
static void allow(const void* from, size_t bytes) { __asan_unpoison_memory_region(from, bytes); }
#else
void forbid(const void*, size_t) {}
static void allow(const void*, size_t) {}
#endif

Memory::Memory(size_t bytes, const char* what) : size_(bytes) {
  if (bytes == 0) return;
  if (bytes > std::numeric_limits<size_t>::max() / 2) throw OutOfMemory(bytes, what);
  const bool huge = bytes >= kHugePage;
  map_size_ = huge ? round_up(bytes, kHugePage) + kHugePage : bytes;
  map_ = mmap(nullptr, map_size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map_ == MAP_FAILED) {
    map_ = nullptr;
    throw OutOfMemory(bytes, what);
  }
  const auto start = reinterpret_cast<uintptr_t>(map_);
  data_ = reinterpret_cast<uint8_t*>(huge ? round_up(start, kHugePage) : start);
#if defined(MADV_HUGEPAGE)
  // Advice only: without it everything works, a little slower.
  if (huge) (void)madvise(data_, round_up(bytes, kHugePage), MADV_HUGEPAGE);
#endif
}

Memory::~Memory() {
  if (map_ == nullptr) return;
  allow(map_, map_size_);
  munmap(map_, map_size_);
}

Memory::Memory(Memory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      map_(std::exchange(other.map_, nullptr)),
      map_size_(std::exchange(other.map_size_, 0)) {}

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(map_, other.map_);
  std::swap(map_size_, other.map_size_);
  return *this;
}

namespace {

constexpr size_t kSlab = 16 * kHugePage;

std::mutex slab_lock;
std::weak_ptr<Memory> open_slab;  // the one that still has room; weak, so that unloading a model gives it back
size_t open_used = 0;

}  // namespace

Piece take_piece(size_t bytes, const char* what) {
  const size_t size = round_up(bytes, kLine) + kGap;
  if (size > kSlab / 4) {
    auto memory = std::make_shared<Memory>(size, what);
    uint8_t* data = memory->data();
    forbid(data + bytes, size - bytes);
    return {std::move(memory), data, bytes};
  }
  const std::lock_guard guard(slab_lock);
  std::shared_ptr<Memory> slab = open_slab.lock();
  if (slab == nullptr || open_used + size > slab->size()) {
    slab = std::make_shared<Memory>(kSlab, what);
    open_slab = slab;
    open_used = 0;
  }
  uint8_t* data = slab->data() + open_used;
  open_used += size;
  forbid(data + bytes, size - bytes);
  return {std::move(slab), data, bytes};
}
