// The vector types that CUDA has built in, and the number formats: halves, bfloat16, sums of four bytes.
#pragma once
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

struct alignas(8) int2 {
  int x, y;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

namespace emu {

inline constexpr uint16_t kHalfNan = 0x7fff;  // the one NaN that a GPU converts to

inline float half_to_float(uint16_t half) {
  const uint32_t sign = uint32_t(half & 0x8000) << 16;
  const uint32_t exponent = half >> 10 & 31, fraction = half & 0x3ff;
  if (exponent == 31) return std::bit_cast<float>(fraction == 0 ? sign | 0x7f800000u : 0x7fffffffu);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  const float tiny = std::ldexp(float(fraction), -24);
  return sign != 0 ? -tiny : tiny;
}

// Round to nearest, ties to even.
inline uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), size = bits & 0x7fffffffu;
  const auto sign = uint16_t(bits >> 16 & 0x8000);
  if (size > 0x7f800000u) return kHalfNan;
  if (size >= 0x477ff000u) return uint16_t(sign | 0x7c00);  // from halfway between 65504 and 65536 on
  if (size < 0x38800000u) {                                 // below the smallest normal half: a multiple of 2^-24
    const float steps = std::nearbyint(std::ldexp(std::bit_cast<float>(size), 24));
    return uint16_t(sign | uint16_t(steps));
  }
  const uint32_t rounded = size + 0xfff + (size >> 13 & 1);  // may carry into the exponent, as it should
  return uint16_t(sign | ((rounded >> 13) - (112u << 10)));
}

inline float bfloat_to_float(uint16_t bfloat) { return std::bit_cast<float>(uint32_t(bfloat) << 16); }

// c + the sum of four signed products; wraps, as the instruction does.
inline int dp4a(int a, int b, int c) {
  int sum = 0;
  for (int shift = 0; shift < 32; shift += 8) sum += int(int8_t(a >> shift)) * int(int8_t(b >> shift));
  return int(unsigned(c) + unsigned(sum));
}

}  // namespace emu
