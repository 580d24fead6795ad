// Operations on one row of floats.
#include "kernels.h"
#include "math.h"

namespace neon {

static float largest_magnitude(const float* x, size_t n) {
  uint32x4_t largest = vdupq_n_u32(0);
  for (size_t i = 0; i < n; i += 4)
    largest = vmaxq_u32(largest, vreinterpretq_u32_f32(vabsq_f32(load(x + i, n - i))));
  const uint32_t bits = vmaxvq_u32(largest);
  float magnitude;
  __builtin_memcpy(&magnitude, &bits, sizeof magnitude);
  return magnitude;
}

// The first n (at most 4) of four integers, each of which fits a byte.
static void store_bytes(int8_t* at, size_t n, int32x4_t v) {
  const int16x4_t words = vmovn_s32(v);
  const int8x8_t bytes = vmovn_s16(vcombine_s16(words, words));
  const int32_t four = vget_lane_s32(vreinterpret_s32_s8(bytes), 0);
  __builtin_memcpy(at, &four, n < 4 ? n : 4);
}

static void quantize_group(int8_t* q, float* scale, int32_t* sum, const float* x, size_t n) {
  const float absmax = largest_magnitude(x, n);
  const float inverse = 127.0f / absmax;
  *scale = absmax / 127.0f;
  *sum = 0;
  if (!(inverse > 0.0f && inverse < HUGE_VALF)) {
    for (size_t i = 0; i < n; ++i) q[i] = 0;
    return;
  }
  int32x4_t total = vdupq_n_s32(0);
  for (size_t i = 0; i < n; i += 4) {
    const int32x4_t rounded = vcvtnq_s32_f32(vmulq_n_f32(load(x + i, n - i), inverse));
    total = vaddq_s32(total, rounded);
    store_bytes(q + i, n - i, rounded);
  }
  *sum = vaddvq_s32(total);
}

void quantize(int8_t* q, float* scale, int32_t* sum, const float* x, size_t k, size_t group) {
  for (size_t g = 0; g < k / group; ++g)
    quantize_group(q + g * group, scale + g, sum + g, x + g * group, group);
}

// The nearest integer of value / 255 is never nearer to a tie than 1/510: the product below rounds to it.
static void quantize_group_16(int8_t* high, int8_t* low, float* scale, int32_t* sum, const float* x, size_t n) {
  const float absmax = largest_magnitude(x, n);
  const float inverse = 32512.0f / absmax;
  *scale = absmax / 32512.0f;
  *sum = 0;
  if (!(inverse > 0.0f && inverse < HUGE_VALF)) {
    for (size_t i = 0; i < n; ++i) high[i] = low[i] = 0;
    return;
  }
  int32x4_t total = vdupq_n_s32(0);
  for (size_t i = 0; i < n; i += 4) {
    const int32x4_t value = vcvtnq_s32_f32(vmulq_n_f32(load(x + i, n - i), inverse));
    const int32x4_t h = vcvtnq_s32_f32(vmulq_n_f32(vcvtq_f32_s32(value), 1.0f / 255.0f));
    total = vaddq_s32(total, value);
    store_bytes(high + i, n - i, h);
    store_bytes(low + i, n - i, vmlsq_n_s32(value, h, 255));
  }
  *sum = vaddvq_s32(total);
}

void quantize_16(int8_t* high, int8_t* low, float* scale, int32_t* sum, const float* x, size_t k, size_t group) {
  for (size_t g = 0; g < k / group; ++g)
    quantize_group_16(high + g * group, low + g * group, scale + g, sum + g, x + g * group, group);
}

void rms_norm(float* out, const float* x, const float* w, size_t n, float eps) {
  float32x4_t lanes[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
  const size_t full = n / 16 * 16;
  for (size_t i = 0; i < full; i += 16)
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; ++v) {
      const float32x4_t a = vld1q_f32(x + i + 4 * v);
      lanes[v] = vfmaq_f32(lanes[v], a, a);
    }
  for (size_t i = full; i < n; i += 4) {
    const float32x4_t a = load(x + i, n - i);
    lanes[(i - full) / 4] = vfmaq_f32(lanes[(i - full) / 4], a, a);
  }
  const float sum = add_lanes(lanes[0], lanes[1], lanes[2], lanes[3]);
  const float inverse = 1.0f / sqrtf(sum / static_cast<float>(n) + eps);
  for (size_t i = 0; i < n; i += 4)
    store(out + i, n - i, vmulq_f32(vmulq_n_f32(load(x + i, n - i), inverse), load(w + i, n - i)));
}

void rope(float* x, const float* cos, const float* sin, size_t d) {
  const size_t half = d / 2;
  for (size_t i = 0; i < half; i += 4) {
    const size_t n = half - i;
    const float32x4_t a = load(x + i, n);
    const float32x4_t b = load(x + half + i, n);
    const float32x4_t c = load(cos + i, n);
    const float32x4_t s = load(sin + i, n);
    store(x + i, n, vfmaq_f32(vnegq_f32(vmulq_f32(b, s)), a, c));
    store(x + half + i, n, vfmaq_f32(vmulq_f32(a, s), b, c));
  }
}

void gated(float* out, const float* gate, const float* up, size_t n, int activation) {
  for (size_t i = 0; i < n; i += 4) {
    const float32x4_t g = load(gate + i, n - i);
    const float32x4_t activated = activation == kSilu ? silu(g) : activation == kGelu ? gelu(g) : gelu_tanh(g);
    store(out + i, n - i, vmulq_f32(activated, load(up + i, n - i)));
  }
}

void add(float* out, const float* a, const float* b, size_t n) {
  for (size_t i = 0; i < n; i += 4) store(out + i, n - i, vaddq_f32(load(a + i, n - i), load(b + i, n - i)));
}

size_t argmax(const float* x, size_t n) {
  float32x4_t largest = vdupq_n_f32(-HUGE_VALF);
  const size_t full = n / 4 * 4;
  for (size_t i = 0; i < full; i += 4) largest = larger(vld1q_f32(x + i), largest);
  float best = vmaxvq_f32(largest);
  for (size_t i = full; i < n; ++i) best = x[i] > best ? x[i] : best;
  for (size_t i = 0; i < full; i += 4) {
    if (vmaxvq_u32(vceqq_f32(vld1q_f32(x + i), vdupq_n_f32(best))) == 0) continue;
    for (size_t j = i;; ++j)
      if (x[j] == best) return j;
  }
  for (size_t i = full; i < n; ++i)
    if (x[i] == best) return i;
  return 0;
}

void exp_all(float* out, const float* x, size_t n) {
  for (size_t i = 0; i < n; i += 4) store(out + i, n - i, exp4(load(x + i, n - i)));
}

}  // namespace neon
