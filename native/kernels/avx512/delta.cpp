// The gated delta rule, and Mamba-2's scan, on the state of one head: columns side by side, 64 at once, so that each sum keeps its order.
#include <immintrin.h>

#include "kernels.h"

namespace avx512 {

// Columns [0, 16 n) of `to`, `from`, `delta` and `out`, whose rows lie `ld` apart.
template <size_t n>
static void scan(float* to, const float* from, float* out, const float* delta, const float* q, const float* k, float decay,
                 size_t key_dim, size_t ld) {
  __m512 sum[n], change[n];
  for (size_t j = 0; j < n; ++j) {
    sum[j] = _mm512_setzero_ps();
    change[j] = _mm512_loadu_ps(delta + 16 * j);
  }
  const __m512 keep = _mm512_set1_ps(decay);
  for (size_t i = 0; i < key_dim; ++i) {
    const __m512 key = _mm512_set1_ps(k[i]), query = _mm512_set1_ps(q[i]);
    for (size_t j = 0; j < n; ++j) {
      const __m512 state = _mm512_fmadd_ps(keep, _mm512_loadu_ps(from + i * ld + 16 * j), _mm512_mul_ps(key, change[j]));
      _mm512_storeu_ps(to + i * ld + 16 * j, state);
      sum[j] = _mm512_fmadd_ps(state, query, sum[j]);
    }
  }
  for (size_t j = 0; j < n; ++j) _mm512_storeu_ps(out + 16 * j, sum[j]);
}

// Columns [0, 16 n) of `to`, `from`, `v`, `delta` and `out`, whose rows lie `ld` apart.
template <size_t n>
static void rule(float* to, const float* from, float* out, float* delta, const float* q, const float* k, const float* v,
                 float decay, float beta, size_t key_dim, size_t ld) {
  __m512 sum[n];
  for (size_t j = 0; j < n; ++j) sum[j] = _mm512_setzero_ps();
  for (size_t i = 0; i < key_dim; ++i) {
    const __m512 key = _mm512_set1_ps(k[i]);
    for (size_t j = 0; j < n; ++j) sum[j] = _mm512_fmadd_ps(_mm512_loadu_ps(from + i * ld + 16 * j), key, sum[j]);
  }
  const __m512 keep = _mm512_set1_ps(decay), rate = _mm512_set1_ps(beta);
  for (size_t j = 0; j < n; ++j)
    _mm512_storeu_ps(delta + 16 * j, _mm512_mul_ps(rate, _mm512_fnmadd_ps(keep, sum[j], _mm512_loadu_ps(v + 16 * j))));
  scan<n>(to, from, out, delta, q, k, decay, key_dim, ld);
}

void delta_rule(float* to, const float* from, float* out, float* delta, const float* q, const float* k, const float* v,
                float decay, float beta, size_t key_dim, size_t value_dim) {
  size_t j = 0;
  for (; j + 64 <= value_dim; j += 64)
    rule<4>(to + j, from + j, out + j, delta + j, q, k, v + j, decay, beta, key_dim, value_dim);
  for (; j < value_dim; j += 16)
    rule<1>(to + j, from + j, out + j, delta + j, q, k, v + j, decay, beta, key_dim, value_dim);
}

void delta_scan(float* to, const float* from, float* out, const float* delta, const float* q, const float* k, float decay,
                size_t key_dim, size_t value_dim) {
  size_t j = 0;
  for (; j + 64 <= value_dim; j += 64)
    scan<4>(to + j, from + j, out + j, delta + j, q, k, decay, key_dim, value_dim);
  for (; j < value_dim; j += 16)
    scan<1>(to + j, from + j, out + j, delta + j, q, k, decay, key_dim, value_dim);
}

void delta_replay(float* to, const float* from, const float* k, const float* delta, float decay, size_t key_dim,
                  size_t value_dim) {
  const __m512 keep = _mm512_set1_ps(decay);
  for (size_t i = 0; i < key_dim; ++i) {
    const __m512 key = _mm512_set1_ps(k[i]);
    for (size_t j = 0; j < value_dim; j += 16) {
      const __m512 change = _mm512_mul_ps(key, _mm512_loadu_ps(delta + j));
      _mm512_storeu_ps(to + i * value_dim + j, _mm512_fmadd_ps(keep, _mm512_loadu_ps(from + i * value_dim + j), change));
    }
  }
}

}  // namespace avx512
