// The gated delta rule on the state of one head: columns side by side, 32 at once, so that each sum keeps its order.
#include <arm_neon.h>

#include "kernels.h"

namespace neon {

// Columns [0, 4 n) of `to`, `from`, `v`, `delta` and `out`, whose rows lie `ld` apart.
template <size_t n>
static void rule(float* to, const float* from, float* out, float* delta, const float* q, const float* k, const float* v,
                 float decay, float beta, size_t key_dim, size_t ld) {
  float32x4_t sum[n], correction[n];
  for (size_t j = 0; j < n; ++j) sum[j] = vdupq_n_f32(0);
  for (size_t i = 0; i < key_dim; ++i) {
    const float32x4_t key = vdupq_n_f32(k[i]);
    for (size_t j = 0; j < n; ++j) sum[j] = vfmaq_f32(sum[j], vld1q_f32(from + i * ld + 4 * j), key);
  }
  const float32x4_t keep = vdupq_n_f32(decay), rate = vdupq_n_f32(beta);
  for (size_t j = 0; j < n; ++j) {
    correction[j] = vmulq_f32(rate, vfmsq_f32(vld1q_f32(v + 4 * j), keep, sum[j]));
    vst1q_f32(delta + 4 * j, correction[j]);
    sum[j] = vdupq_n_f32(0);
  }
  for (size_t i = 0; i < key_dim; ++i) {
    const float32x4_t key = vdupq_n_f32(k[i]), query = vdupq_n_f32(q[i]);
    for (size_t j = 0; j < n; ++j) {
      const float32x4_t state = vfmaq_f32(vmulq_f32(key, correction[j]), keep, vld1q_f32(from + i * ld + 4 * j));
      vst1q_f32(to + i * ld + 4 * j, state);
      sum[j] = vfmaq_f32(sum[j], state, query);
    }
  }
  for (size_t j = 0; j < n; ++j) vst1q_f32(out + 4 * j, sum[j]);
}

void delta_rule(float* to, const float* from, float* out, float* delta, const float* q, const float* k, const float* v,
                float decay, float beta, size_t key_dim, size_t value_dim) {
  size_t j = 0;
  for (; j + 32 <= value_dim; j += 32)
    rule<8>(to + j, from + j, out + j, delta + j, q, k, v + j, decay, beta, key_dim, value_dim);
  for (; j < value_dim; j += 16)
    rule<4>(to + j, from + j, out + j, delta + j, q, k, v + j, decay, beta, key_dim, value_dim);
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
