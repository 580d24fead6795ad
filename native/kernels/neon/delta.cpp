// The gated delta rule, and Mamba-2's scan, on the state of one head: columns side by side, 32 at once, so that each sum keeps its order.
#include <arm_neon.h>

#include "kernels.h"

namespace neon {

// Columns [0, 4 n) of `to`, `from`, `delta` and `out`, whose rows lie `ld` apart.
template <size_t n>
static void scan(float* to, const float* from, float* out, const float* delta, const float* q, const float* k, float decay,
                 size_t key_dim, size_t ld) {
  float32x4_t sum[n], change[n];
  for (size_t j = 0; j < n; ++j) {
    sum[j] = vdupq_n_f32(0);
    change[j] = vld1q_f32(delta + 4 * j);
  }
  const float32x4_t keep = vdupq_n_f32(decay);
  for (size_t i = 0; i < key_dim; ++i) {
    const float32x4_t key = vdupq_n_f32(k[i]), query = vdupq_n_f32(q[i]);
    for (size_t j = 0; j < n; ++j) {
      const float32x4_t state = vfmaq_f32(vmulq_f32(key, change[j]), keep, vld1q_f32(from + i * ld + 4 * j));
      vst1q_f32(to + i * ld + 4 * j, state);
      sum[j] = vfmaq_f32(sum[j], state, query);
    }
  }
  for (size_t j = 0; j < n; ++j) vst1q_f32(out + 4 * j, sum[j]);
}

// Columns [0, 4 n) of `to`, `from`, `v`, `delta` and `out`, whose rows lie `ld` apart.
template <size_t n>
static void rule(float* to, const float* from, float* out, float* delta, const float* q, const float* k, const float* v,
                 float decay, float beta, size_t key_dim, size_t ld) {
  float32x4_t sum[n];
  for (size_t j = 0; j < n; ++j) sum[j] = vdupq_n_f32(0);
  for (size_t i = 0; i < key_dim; ++i) {
    const float32x4_t key = vdupq_n_f32(k[i]);
    for (size_t j = 0; j < n; ++j) sum[j] = vfmaq_f32(sum[j], vld1q_f32(from + i * ld + 4 * j), key);
  }
  const float32x4_t keep = vdupq_n_f32(decay), rate = vdupq_n_f32(beta);
  for (size_t j = 0; j < n; ++j)
    vst1q_f32(delta + 4 * j, vmulq_f32(rate, vfmsq_f32(vld1q_f32(v + 4 * j), keep, sum[j])));
  scan<n>(to, from, out, delta, q, k, decay, key_dim, ld);
}

void delta_rule(float* to, const float* from, float* out, float* delta, const float* q, const float* k, const float* v,
                float decay, float beta, size_t key_dim, size_t value_dim) {
  size_t j = 0;
  for (; j + 32 <= value_dim; j += 32)
    rule<8>(to + j, from + j, out + j, delta + j, q, k, v + j, decay, beta, key_dim, value_dim);
  for (; j < value_dim; j += 16)
    rule<4>(to + j, from + j, out + j, delta + j, q, k, v + j, decay, beta, key_dim, value_dim);
}

void delta_scan(float* to, const float* from, float* out, const float* delta, const float* q, const float* k, float decay,
                size_t key_dim, size_t value_dim) {
  size_t j = 0;
  for (; j + 32 <= value_dim; j += 32)
    scan<8>(to + j, from + j, out + j, delta + j, q, k, decay, key_dim, value_dim);
  for (; j < value_dim; j += 16)
    scan<4>(to + j, from + j, out + j, delta + j, q, k, decay, key_dim, value_dim);
}

void delta_replay(float* to, const float* from, const float* k, const float* delta, float decay, size_t key_dim,
                  size_t value_dim) {
  const float32x4_t keep = vdupq_n_f32(decay);
  for (size_t i = 0; i < key_dim; ++i) {
    const float32x4_t key = vdupq_n_f32(k[i]);
    for (size_t j = 0; j < value_dim; j += 4) {
      const float32x4_t change = vmulq_f32(key, vld1q_f32(delta + j));
      vst1q_f32(to + i * value_dim + j, vfmaq_f32(change, keep, vld1q_f32(from + i * value_dim + j)));
    }
  }
}

}  // namespace neon
