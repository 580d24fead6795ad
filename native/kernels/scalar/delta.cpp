// The gated delta rule, and Mamba-2's scan, on the state of one head.
#include "kernels.h"
#include "math.h"

namespace scalar {

void delta_rule(float* to, const float* from, float* out, float* delta, const float* q, const float* k, const float* v,
                float decay, float beta, size_t key_dim, size_t value_dim) {
  for (size_t j = 0; j < value_dim; ++j) delta[j] = 0.0f;
  for (size_t i = 0; i < key_dim; ++i)
    for (size_t j = 0; j < value_dim; ++j) delta[j] = fmaf(from[i * value_dim + j], k[i], delta[j]);
  for (size_t j = 0; j < value_dim; ++j) delta[j] = beta * fmaf(-decay, delta[j], v[j]);
  delta_scan(to, from, out, delta, q, k, decay, key_dim, value_dim);
}

void delta_scan(float* to, const float* from, float* out, const float* delta, const float* q, const float* k, float decay,
                size_t key_dim, size_t value_dim) {
  delta_replay(to, from, k, delta, decay, key_dim, value_dim);
  for (size_t j = 0; j < value_dim; ++j) out[j] = 0.0f;
  for (size_t i = 0; i < key_dim; ++i)
    for (size_t j = 0; j < value_dim; ++j) out[j] = fmaf(to[i * value_dim + j], q[i], out[j]);
}

void delta_replay(float* to, const float* from, const float* k, const float* delta, float decay, size_t key_dim,
                  size_t value_dim) {
  for (size_t i = 0; i < key_dim; ++i)
    for (size_t j = 0; j < value_dim; ++j)
      to[i * value_dim + j] = fmaf(decay, from[i * value_dim + j], k[i] * delta[j]);
}

}  // namespace scalar
