// Memory from the system: zeroed, touched on first use, in huge pages where the system has them to give.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kLine = 64;

// Bytes that nobody may touch between arrays of one mapping; AddressSanitizer, where it is built in, then sees who does.
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kGap = 2 * kLine;
#else
constexpr size_t kGap = 0;
#endif
void forbid(const void* from, size_t bytes);

constexpr size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

// One mapping. Large ones start on a huge-page border.
class Memory {
 public:
  Memory() = default;
  Memory(size_t bytes, const char* what);  // throws OutOfMemory naming `what`
  ~Memory();
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  void* map_ = nullptr;
  size_t map_size_ = 0;
};

// A piece of a slab, on a 64-byte border. The slab is given back when its last piece goes.
struct Piece {
  std::shared_ptr<Memory> slab;
  uint8_t* data = nullptr;
  size_t size = 0;
};

// Weights share slabs: most are smaller than a huge page, and a page each would waste it. Any thread may call this.
Piece take_piece(size_t bytes, const char* what);
