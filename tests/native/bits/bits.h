// What the parts of this program share: seeded inputs, outputs with guards, and a count of what differed.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "kernels/table.h"

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  size_t below(size_t n) { return bits() % n; }
  // In [-1, 1), a whole number of 2^-23.
  float value() { return static_cast<float>(static_cast<int32_t>(bits() & 0xffffff) - 0x800000) * 0x1p-23f; }

 private:
  uint64_t state_;
};

using Floats = std::vector<float>;

Floats some(Random& random, size_t n, float size);
// The same with zeros of both signs, subnormal, huge, infinite and NaN values among them.
Floats strange(Random& random, size_t n);

// Zero bytes that start at a multiple of 64; the one after the last is nobody's.
class Aligned {
 public:
  explicit Aligned(size_t n) : room_(static_cast<uint8_t*>(::operator new(n, std::align_val_t{64}))) {
    std::memset(room_.get(), 0, n);
  }
  uint8_t* data() { return room_.get(); }

 private:
  struct Free {
    void operator()(uint8_t* room) const { ::operator delete(room, std::align_val_t{64}); }
  };
  std::unique_ptr<uint8_t, Free> room_;
};

// `rows` rows of `columns`, with room between and around them that nobody may write to.
template <class T>
class Output {
 public:
  Output(size_t rows, size_t columns) : rows_(rows), columns_(columns), room_((rows + 2) * ld(), kFill) {}
  size_t ld() const { return columns_ + 3; }
  T* data() { return room_.data() + ld(); }
  const T* row(size_t m) const { return room_.data() + (m + 1) * ld(); }
  bool kept_to_itself() const {
    for (size_t i = 0; i < room_.size(); ++i) {
      const size_t m = i / ld();
      const bool inside = m >= 1 && m <= rows_ && i % ld() < columns_;
      if (!inside && std::memcmp(&room_[i], &kFill, sizeof(T)) != 0) return false;
    }
    return true;
  }

 private:
  static constexpr T kFill = static_cast<T>(77);
  size_t rows_, columns_;
  std::vector<T> room_;
};

// Equal to the last bit; any NaN equals any NaN.
bool same(const float* a, const float* b, size_t n);

// Counts and, the first few times, says what is wrong.
void expect(bool ok, const char* isa, const std::string& what);

void compare_vectors(const KernelTable& table, const KernelTable& scalar);
void compare_linear(const KernelTable& table, const KernelTable& scalar);
void compare_attention(const KernelTable& table, const KernelTable& scalar);
void compare_recurrent(const KernelTable& table, const KernelTable& scalar);
// Runs a small random model, in chunks and in company; says one line with a hash of its logits.
void run_model(const char* isa, size_t threads, size_t kv_bits);
void exercise_pool();
// Leaves the program with 2 when there is no such fault.
void make_fault(const std::string& name);
