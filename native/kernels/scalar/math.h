// Scalar building blocks: exp, activations, half precision, the 16-lane reduction. This is where they are defined;
// the vector folders repeat the same steps in the same order.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace scalar {

static inline uint32_t bits_of(float x) {
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}

static inline float float_of(uint32_t u) {
  float x;
  memcpy(&x, &u, sizeof x);
  return x;
}

// Magnitudes compare like integers; NaN is above infinity.
static inline float largest_magnitude(const float* x, size_t n) {
  uint32_t largest = 0;
  for (size_t i = 0; i < n; ++i) {
    const uint32_t magnitude = bits_of(x[i]) & 0x7fffffff;
    if (magnitude > largest) largest = magnitude;
  }
  return float_of(largest);
}

// Adding 1.5 * 2^23 leaves the nearest integer (ties to even) in the low bits of the float.
static const float kRound = 12582912.0f;

// exp(x) = 2^n * p(r), n = nearest integer of x / ln 2, r = x - n ln 2 in two steps. p is the polynomial of degree 6
// with 1 + r fixed and the rest chosen for the smallest largest relative error on |r| <= ln 2 / 2 (3e-9).
static inline float exp1(float x) {
  if (x < -87.3f) return 0.0f;
  if (x > 88.7f) return HUGE_VALF;
  if (x != x) return x;
  const float t = fmaf(x, 0x1.715476p+0f, kRound);
  const float n = t - kRound;
  float r = fmaf(n, -0x1.62e4p-1f, x);
  r = fmaf(n, -0x1.7f7d1cp-20f, r);
  float p = fmaf(0x1.6a2352p-10f, r, 0x1.123a6cp-7f);
  p = fmaf(p, r, 0x1.5558f4p-5f);
  p = fmaf(p, r, 0x1.55549p-3f);
  p = fmaf(p, r, 0x1.fffffcp-2f);
  p = fmaf(p, r, 1.0f);
  p = fmaf(p, r, 1.0f);
  return float_of(bits_of(p) + (bits_of(t) << 23));  // p lies in [0.7, 1.42]: adding n to its exponent is exact
}

static inline float silu(float x) { return x / (1.0f + exp1(-x)); }

// 0.5 x (1 + tanh(u)) = x / (1 + exp(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3).
static inline float gelu_tanh(float x) {
  const float square = x * x;
  const float u = fmaf(square * 0.044715f, x, x);
  return x / (1.0f + exp1(u * -1.5957691216057308f));
}

// x * Phi(x), the normal distribution's: half of erfc(|x| / sqrt 2) is exp(-x^2 / 2) * t * p(t), t = 1 / (1 + 0.35 |x|).
// p is the polynomial of degree 8 with the smallest largest relative error up to |x| = 13.3 (4e-8), beyond which exp
// gives 0.
static inline float gelu(float x) {
  const float size = fabsf(x);
  const float t = 1.0f / fmaf(size, 0x1.666666p-2f, 1.0f);
  float p = fmaf(-0x1.dd05aap-6f, t, 0x1.268a88p-3f);
  p = fmaf(p, t, -0x1.05857ap-2f);
  p = fmaf(p, t, 0x1.4537b2p-3f);
  p = fmaf(p, t, -0x1.76473cp-6f);
  p = fmaf(p, t, 0x1.afaff8p-4f);
  p = fmaf(p, t, 0x1.eaf57ep-4f);
  p = fmaf(p, t, 0x1.1e6da6p-3f);
  p = fmaf(p, t, 0x1.1df1f6p-3f);
  const float tail = (p * t) * exp1((size * -0.5f) * size);
  return x * (x < 0.0f ? tail : 1.0f - tail);
}

// cap * tanh(x / cap), tanh(|a|) = (1 - e) / (1 + e), e = exp(-2|a|). Never -0: which zero is largest would depend on the
// order.
static inline float cap_softly(float x, float cap) {
  const float e = exp1(-2.0f * fabsf(x / cap));
  return copysignf(cap * ((1.0f - e) / (1.0f + e)), x) + 0.0f;
}

// The fixed tree over 16 partial lanes.
static inline float add_lanes(const float* l) {
  float t[8];
  for (int i = 0; i < 8; ++i) t[i] = l[i] + l[i + 8];
  for (int i = 0; i < 4; ++i) t[i] = t[i] + t[i + 4];
  for (int i = 0; i < 2; ++i) t[i] = t[i] + t[i + 2];
  return t[0] + t[1];
}

static inline float from_bf16(uint16_t h) { return float_of(static_cast<uint32_t>(h) << 16); }

static inline float from_f16(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t exponent = (h >> 10) & 31;
  const uint32_t mantissa = h & 0x3ff;
  if (exponent == 0) {  // zero and subnormals: mantissa * 2^-24, exact
    const float value = static_cast<float>(mantissa) * 0x1p-24f;
    return float_of(bits_of(value) | sign);
  }
  if (exponent < 31) return float_of(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const uint32_t quiet = mantissa != 0 ? 0x400000u : 0u;
  return float_of(sign | 0x7f800000u | quiet | (mantissa << 13));
}

// Nearest half, ties to even; too large gives infinity.
static inline uint16_t to_f16(float x) {
  const uint32_t u = bits_of(x);
  const uint32_t sign = (u >> 16) & 0x8000;
  const uint32_t magnitude = u & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00 | ((magnitude >> 13) & 0x1ff));
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // 65520 and above
  if (magnitude < 0x38800000) {  // below 2^-14: the addition rounds to a multiple of 2^-24
    const float value = float_of(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (bits_of(value) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

}  // namespace scalar
