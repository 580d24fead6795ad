// 8 floats at a time, step for step what scalar/math.h says. The 16 lanes of a reduction are two vectors.
#pragma once
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

namespace avx2 {

// All bits set in the first n of 8 lanes.
static inline __m256i first_lanes(size_t n) {
  const int count = n >= 8 ? 8 : static_cast<int>(n);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// The first n (at most 8) floats from `at`, zeros after them. Nothing else is touched.
static inline __m256 load(const float* at, size_t n) {
  return n >= 8 ? _mm256_loadu_ps(at) : _mm256_maskload_ps(at, first_lanes(n));
}

static inline void store(float* at, size_t n, __m256 v) {
  if (n >= 8)
    _mm256_storeu_ps(at, v);
  else
    _mm256_maskstore_ps(at, first_lanes(n), v);
}

// The fixed tree over 16 lanes: l0 holds the first eight.
static inline float add_lanes(__m256 l0, __m256 l1) {
  const __m256 t8 = _mm256_add_ps(l0, l1);
  const __m128 t4 = _mm_add_ps(_mm256_castps256_ps128(t8), _mm256_extractf128_ps(t8, 1));
  const __m128 t2 = _mm_add_ps(t4, _mm_movehl_ps(t4, t4));
  return _mm_cvtss_f32(_mm_add_ss(t2, _mm_movehdup_ps(t2)));
}

// The largest lane; no lane may be NaN.
static inline float max_lane(__m256 v) {
  const __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
  return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
}

static inline __m256 exp8(__m256 x) {
  const __m256 round = _mm256_set1_ps(12582912.0f);
  const __m256 t = _mm256_fmadd_ps(x, _mm256_set1_ps(0x1.715476p+0f), round);
  const __m256 n = _mm256_sub_ps(t, round);
  __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-0x1.62e4p-1f), x);
  r = _mm256_fmadd_ps(n, _mm256_set1_ps(-0x1.7f7d1cp-20f), r);
  __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(0x1.6a2352p-10f), r, _mm256_set1_ps(0x1.123a6cp-7f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.5558f4p-5f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.55549p-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.fffffcp-2f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  const __m256i n_bits = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
  const __m256 y = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), n_bits));
  const __m256 low = _mm256_cmp_ps(x, _mm256_set1_ps(-87.3f), _CMP_LT_OQ);
  const __m256 high = _mm256_cmp_ps(x, _mm256_set1_ps(88.7f), _CMP_GT_OQ);
  const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  const __m256 upper = _mm256_blendv_ps(y, _mm256_set1_ps(HUGE_VALF), high);
  return _mm256_blendv_ps(_mm256_andnot_ps(low, upper), x, nan);
}

static inline __m256 negate(__m256 x) { return _mm256_xor_ps(x, _mm256_set1_ps(-0.0f)); }

static inline __m256 silu(__m256 x) {
  return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), exp8(negate(x))));
}

static inline __m256 gelu_tanh(__m256 x) {
  const __m256 square = _mm256_mul_ps(x, x);
  const __m256 u = _mm256_fmadd_ps(_mm256_mul_ps(square, _mm256_set1_ps(0.044715f)), x, x);
  const __m256 e = exp8(_mm256_mul_ps(u, _mm256_set1_ps(-1.5957691216057308f)));
  return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), e));
}

static inline __m256 gelu(__m256 x) {
  const __m256 one = _mm256_set1_ps(1.0f);
  const __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
  const __m256 t = _mm256_div_ps(one, _mm256_fmadd_ps(size, _mm256_set1_ps(0x1.666666p-2f), one));
  __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(-0x1.dd05aap-6f), t, _mm256_set1_ps(0x1.268a88p-3f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-0x1.05857ap-2f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0x1.4537b2p-3f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-0x1.76473cp-6f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0x1.afaff8p-4f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0x1.eaf57ep-4f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0x1.1e6da6p-3f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0x1.1df1f6p-3f));
  const __m256 e = exp8(_mm256_mul_ps(_mm256_mul_ps(size, _mm256_set1_ps(-0.5f)), size));
  const __m256 tail = _mm256_mul_ps(_mm256_mul_ps(p, t), e);
  const __m256 left = _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ);
  return _mm256_mul_ps(x, _mm256_blendv_ps(_mm256_sub_ps(one, tail), tail, left));
}

// n, a multiple of 8, scores: cap * tanh(s / cap).
static inline void cap_softly(float* s, size_t n, float cap) {
  const __m256 sign = _mm256_set1_ps(-0.0f), one = _mm256_set1_ps(1.0f), c = _mm256_set1_ps(cap);
  for (size_t i = 0; i < n; i += 8) {
    const __m256 x = _mm256_loadu_ps(s + i);
    const __m256 e = exp8(_mm256_mul_ps(_mm256_set1_ps(-2.0f), _mm256_andnot_ps(sign, _mm256_div_ps(x, c))));
    const __m256 size = _mm256_mul_ps(c, _mm256_div_ps(_mm256_sub_ps(one, e), _mm256_add_ps(one, e)));
    _mm256_storeu_ps(s + i, _mm256_add_ps(_mm256_or_ps(size, _mm256_and_ps(x, sign)), _mm256_setzero_ps()));
  }
}

}  // namespace avx2
