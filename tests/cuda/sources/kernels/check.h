// What the programs of this folder share: arrays that end where they must, numbers of all sorts, and comparisons that
// forgive nothing. A program runs kernels of native/cuda in the emulator, and the CPU's scalar kernels on the same
// input: `linear <schedule>...` prints what differs.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "cuda/kernels.cuh"
#include "kernels/scalar/kernels.h"

namespace check {

#if defined(LI_TSAN) || defined(LI_FEW_SHAPES)
inline constexpr bool kFewShapes = true;
#else
inline constexpr bool kFewShapes = false;
#endif

inline int wrong = 0, compared = 0;
inline std::string current;  // the case at hand

// An allocation of its own, as long as a kernel may reach and no longer: ASan sees what goes past the end, and without
// it a fence sees what is written there. What nobody fills is NaN as a float, and no sensible integer.
template <class T>
class Array {
 public:
  static constexpr int kUnset = 0xff;      // of inputs
  static constexpr int kUntouched = 0xa5;  // of results: an ordinary number, so that a NaN written over it is seen

  explicit Array(size_t n = 0, int byte = kUnset)
      : size_(n), data_(static_cast<T*>(std::malloc(n * sizeof(T) + kFence))) {
    std::memset(static_cast<void*>(data_), byte, n * sizeof(T));
    std::memset(static_cast<void*>(data_ + n), kUntouched, kFence);
  }
  Array(const Array& other) : Array(other.size_) { std::copy_n(other.data_, size_, data_); }
  Array(Array&& other) noexcept : size_(std::exchange(other.size_, 0)), data_(std::exchange(other.data_, nullptr)) {}
  Array& operator=(Array other) noexcept {
    std::swap(size_, other.size_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~Array() {
    if (data_ != nullptr && !whole_fence()) {
      std::printf("%s: something is written past the end\n", current.c_str());
      ++wrong;
    }
    std::free(data_);
  }

  T* data() const { return data_; }
  size_t size() const { return size_; }
  T& operator[](size_t i) const { return data_[i]; }
  T* begin() const { return data_; }
  T* end() const { return data_ + size_; }

 private:
#if defined(LI_ASAN)
  static constexpr size_t kFence = 0;
#else
  static constexpr size_t kFence = 4096;
#endif

  bool whole_fence() const {
    const auto* fence = reinterpret_cast<const unsigned char*>(data_ + size_);
    return std::all_of(fence, fence + kFence, [](unsigned char byte) { return byte == kUntouched; });
  }

  size_t size_;
  T* data_;
};

template <class T>
Array<T> results(size_t n) {
  return Array<T>(n, Array<T>::kUntouched);
}

// Elements that rows of `columns`, `ld` apart, reach.
inline size_t reach(size_t rows, size_t ld, size_t columns) { return (rows - 1) * ld + columns; }
inline size_t round_to(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }
inline int as_int(size_t n) { return static_cast<int>(n); }

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  uint32_t bits() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<uint32_t>(state_ >> 32);
  }
  size_t below(size_t n) { return bits() % n; }
  float even(float low, float high) { return low + (high - low) * (static_cast<float>(bits() >> 8) * 0x1p-24f); }

 private:
  uint64_t state_;
};

// What a row of numbers is like. Halfway: quantized, many lie between two integers.
enum class Sort { plain, sizes, halfway, zeros, tiny, infinite, nan };
inline constexpr Sort kSorts[] = {Sort::plain, Sort::halfway, Sort::sizes, Sort::zeros,
                                  Sort::tiny,  Sort::infinite, Sort::nan};

// `most` is the largest integer that numbers are going to be: `halfway` needs it.
inline float number(Random& random, Sort sort, size_t i, float most) {
  const float sign = random.bits() & 1 ? 1.0f : -1.0f;
  switch (sort) {
    case Sort::sizes: return sign * std::ldexp(random.even(1, 2), static_cast<int>(random.below(40)) - 30);
    case Sort::halfway:
      return sign * (i % 32 == 3 ? most : static_cast<float>(random.below(static_cast<size_t>(most))) + 0.5f);
    case Sort::zeros: return sign * 0.0f;
    case Sort::tiny: return sign * std::ldexp(random.even(1, 2), -120 - static_cast<int>(random.below(28)));
    case Sort::infinite: return random.below(150) == 7 ? sign * HUGE_VALF : random.even(-3, 3);
    case Sort::nan: return random.below(150) == 7 ? li::float_of(0x7fc00000u | random.bits()) : random.even(-3, 3);
    default: return random.even(-3, 3);
  }
}

inline void fill(float* to, size_t n, Random& random, Sort sort = Sort::plain, float most = 127) {
  for (size_t i = 0; i < n; ++i) to[i] = number(random, sort, i, most);
}

inline Array<float> numbers(size_t n, Random& random, Sort sort = Sort::plain) {
  Array<float> all(n);
  fill(all.data(), n, random, sort);
  return all;
}

template <class T>
bool same(T a, T b) {
  if constexpr (std::is_same_v<T, float>) {
    if (a != a && b != b) return true;
  }
  return std::memcmp(&a, &b, sizeof a) == 0;
}

// A half, of which any NaN is like any other.
struct Half {
  uint16_t bits;
};
inline bool same(Half a, Half b) {
  const auto nan = [](Half h) { return (h.bits & 0x7fff) > 0x7c00; };
  return a.bits == b.bits || (nan(a) && nan(b));
}

inline double shown(Half h) { return h.bits; }
template <class T>
double shown(T value) {
  return static_cast<double>(value);
}

template <class T>
void expect(const char* what, const T* found, const T* expected, size_t n) {
  ++compared;
  for (size_t i = 0; i < n; ++i) {
    if (same(found[i], expected[i])) continue;
    std::printf("%s: %s[%zu] is %.9g, expected %.9g\n", current.c_str(), what, i, shown(found[i]), shown(expected[i]));
    ++wrong;
    return;
  }
}
template <class T>
void expect(const char* what, const Array<T>& found, const Array<T>& expected) {
  expect(what, found.data(), expected.data(), expected.size());
}

template <class... Parts>
void name_case(const char* format, Parts... parts) {
  char text[200];
  std::snprintf(text, sizeof text, format, parts...);
  current = text;
}

inline std::vector<uint32_t> schedules;

// Runs `kernel` under each schedule on results made anew by `fresh`, then hands them to `compare`.
template <class Fresh, class Kernel, class Compare>
void under_each_schedule(const Fresh& fresh, dim3 grid, unsigned threads, size_t shared, const Kernel& kernel,
                         const Compare& compare) {
  const std::string name = current;
  for (const uint32_t schedule : schedules) {
    current = name + " under schedule " + std::to_string(schedule);
    auto to = fresh();
    emu::launch(grid, threads, shared, [&] { kernel(to); }, schedule);
    compare(to);
  }
}

inline int finish(int count, char** arguments, void (*all)()) {
  for (int i = 1; i < count; ++i) schedules.push_back(static_cast<uint32_t>(std::atoi(arguments[i])));
  all();
  std::printf("%d compared, %d wrong\n", compared, wrong);
  return wrong != 0;
}

inline unsigned grid_of(size_t n, size_t at_once) { return static_cast<unsigned>((n + at_once - 1) / at_once); }

}  // namespace check
