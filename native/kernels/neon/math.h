// 4 floats at a time, step for step what scalar/math.h says. The 16 lanes of a reduction are four vectors.
#pragma once
#include <arm_neon.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

namespace neon {

// The first n (at most 4) floats from `at`, zeros after them. Nothing else is touched.
static inline float32x4_t load(const float* at, size_t n) {
  if (n >= 4) return vld1q_f32(at);
  float some[4] = {};
  __builtin_memcpy(some, at, n * sizeof(float));
  return vld1q_f32(some);
}

static inline void store(float* at, size_t n, float32x4_t v) {
  if (n >= 4) return vst1q_f32(at, v);
  float some[4];
  vst1q_f32(some, v);
  __builtin_memcpy(at, some, n * sizeof(float));
}

// The fixed tree over 16 lanes; l0 holds the first four.
static inline float add_lanes(float32x4_t l0, float32x4_t l1, float32x4_t l2, float32x4_t l3) {
  const float32x4_t t4 = vaddq_f32(vaddq_f32(l0, l2), vaddq_f32(l1, l3));
  const float32x2_t t2 = vadd_f32(vget_low_f32(t4), vget_high_f32(t4));
  return vget_lane_f32(t2, 0) + vget_lane_f32(t2, 1);
}

// The larger of each lane; `b` where `a` is NaN.
static inline float32x4_t larger(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }

static inline float32x4_t exp4(float32x4_t x) {
  const float32x4_t round = vdupq_n_f32(12582912.0f);
  const float32x4_t one = vdupq_n_f32(1.0f);
  const float32x4_t t = vfmaq_f32(round, x, vdupq_n_f32(0x1.715476p+0f));
  const float32x4_t n = vsubq_f32(t, round);
  float32x4_t r = vfmaq_f32(x, n, vdupq_n_f32(-0x1.62e4p-1f));
  r = vfmaq_f32(r, n, vdupq_n_f32(-0x1.7f7d1cp-20f));
  float32x4_t p = vfmaq_f32(vdupq_n_f32(0x1.123a6cp-7f), vdupq_n_f32(0x1.6a2352p-10f), r);
  p = vfmaq_f32(vdupq_n_f32(0x1.5558f4p-5f), p, r);
  p = vfmaq_f32(vdupq_n_f32(0x1.55549p-3f), p, r);
  p = vfmaq_f32(vdupq_n_f32(0x1.fffffcp-2f), p, r);
  p = vfmaq_f32(one, p, r);
  p = vfmaq_f32(one, p, r);
  const uint32x4_t n_bits = vshlq_n_u32(vreinterpretq_u32_f32(t), 23);  // unsigned: it may wrap
  float32x4_t y = vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(p), n_bits));
  y = vbslq_f32(vcgtq_f32(x, vdupq_n_f32(88.7f)), vdupq_n_f32(HUGE_VALF), y);
  y = vbslq_f32(vcltq_f32(x, vdupq_n_f32(-87.3f)), vdupq_n_f32(0.0f), y);
  return vbslq_f32(vceqq_f32(x, x), y, x);
}

static inline float32x4_t silu(float32x4_t x) {
  return vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0f), exp4(vnegq_f32(x))));
}

static inline float32x4_t gelu_tanh(float32x4_t x) {
  const float32x4_t square = vmulq_f32(x, x);
  const float32x4_t u = vfmaq_f32(x, vmulq_f32(square, vdupq_n_f32(0.044715f)), x);
  const float32x4_t e = exp4(vmulq_f32(u, vdupq_n_f32(-1.5957691216057308f)));
  return vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0f), e));
}

static inline float32x4_t gelu(float32x4_t x) {
  const float32x4_t one = vdupq_n_f32(1.0f);
  const float32x4_t size = vabsq_f32(x);
  const float32x4_t t = vdivq_f32(one, vfmaq_f32(one, size, vdupq_n_f32(0x1.666666p-2f)));
  float32x4_t p = vfmaq_f32(vdupq_n_f32(0x1.268a88p-3f), vdupq_n_f32(-0x1.dd05aap-6f), t);
  p = vfmaq_f32(vdupq_n_f32(-0x1.05857ap-2f), p, t);
  p = vfmaq_f32(vdupq_n_f32(0x1.4537b2p-3f), p, t);
  p = vfmaq_f32(vdupq_n_f32(-0x1.76473cp-6f), p, t);
  p = vfmaq_f32(vdupq_n_f32(0x1.afaff8p-4f), p, t);
  p = vfmaq_f32(vdupq_n_f32(0x1.eaf57ep-4f), p, t);
  p = vfmaq_f32(vdupq_n_f32(0x1.1e6da6p-3f), p, t);
  p = vfmaq_f32(vdupq_n_f32(0x1.1df1f6p-3f), p, t);
  const float32x4_t e = exp4(vmulq_f32(vmulq_f32(size, vdupq_n_f32(-0.5f)), size));
  const float32x4_t tail = vmulq_f32(vmulq_f32(p, t), e);
  return vmulq_f32(x, vbslq_f32(vcltq_f32(x, vdupq_n_f32(0.0f)), tail, vsubq_f32(one, tail)));
}

// n, a multiple of 4, scores: cap * tanh(s / cap).
static inline void cap_softly(float* s, size_t n, float cap) {
  const float32x4_t one = vdupq_n_f32(1.0f), c = vdupq_n_f32(cap);
  for (size_t i = 0; i < n; i += 4) {
    const float32x4_t x = vld1q_f32(s + i);
    const float32x4_t e = exp4(vmulq_f32(vdupq_n_f32(-2.0f), vabsq_f32(vdivq_f32(x, c))));
    const float32x4_t size = vmulq_f32(c, vdivq_f32(vsubq_f32(one, e), vaddq_f32(one, e)));
    vst1q_f32(s + i, vaddq_f32(vbslq_f32(vdupq_n_u32(0x80000000u), x, size), vdupq_n_f32(0.0f)));
  }
}

}  // namespace neon
