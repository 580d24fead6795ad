// 16 floats at a time, step for step what scalar/math.h says.
#pragma once
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

namespace avx512 {

// The first n lanes; all of them from 16 on.
static inline __mmask16 first_lanes(size_t n) { return static_cast<__mmask16>(n >= 16 ? 0xffff : (1u << n) - 1); }

static inline float add_lanes(__m512 l) {
  const __m256 t8 = _mm256_add_ps(_mm512_castps512_ps256(l), _mm512_extractf32x8_ps(l, 1));
  const __m128 t4 = _mm_add_ps(_mm256_castps256_ps128(t8), _mm256_extractf128_ps(t8, 1));
  const __m128 t2 = _mm_add_ps(t4, _mm_movehl_ps(t4, t4));
  return _mm_cvtss_f32(_mm_add_ss(t2, _mm_movehdup_ps(t2)));
}

static inline __m512 exp16(__m512 x) {
  const __m512 round = _mm512_set1_ps(12582912.0f);
  const __m512 t = _mm512_fmadd_ps(x, _mm512_set1_ps(0x1.715476p+0f), round);
  const __m512 n = _mm512_sub_ps(t, round);
  __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0x1.62e4p-1f), x);
  r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0x1.7f7d1cp-20f), r);
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0x1.6a2352p-10f), r, _mm512_set1_ps(0x1.123a6cp-7f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.5558f4p-5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.55549p-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.fffffcp-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  const __m512i n_bits = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
  const __m512 y = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), n_bits));
  const __mmask16 low = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.3f), _CMP_LT_OQ);
  const __mmask16 high = _mm512_cmp_ps_mask(x, _mm512_set1_ps(88.7f), _CMP_GT_OQ);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512 upper = _mm512_mask_mov_ps(y, high, _mm512_set1_ps(HUGE_VALF));
  return _mm512_mask_mov_ps(_mm512_mask_mov_ps(upper, low, _mm512_setzero_ps()), nan, x);
}

static inline __m512 negate(__m512 x) { return _mm512_xor_ps(x, _mm512_set1_ps(-0.0f)); }

static inline __m512 silu(__m512 x) {
  return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), exp16(negate(x))));
}

static inline __m512 gelu_tanh(__m512 x) {
  const __m512 square = _mm512_mul_ps(x, x);
  const __m512 u = _mm512_fmadd_ps(_mm512_mul_ps(square, _mm512_set1_ps(0.044715f)), x, x);
  const __m512 e = exp16(_mm512_mul_ps(u, _mm512_set1_ps(-1.5957691216057308f)));
  return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), e));
}

static inline __m512 gelu(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 size = _mm512_andnot_ps(_mm512_set1_ps(-0.0f), x);
  const __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(size, _mm512_set1_ps(0x1.666666p-2f), one));
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(-0x1.dd05aap-6f), t, _mm512_set1_ps(0x1.268a88p-3f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-0x1.05857ap-2f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0x1.4537b2p-3f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-0x1.76473cp-6f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0x1.afaff8p-4f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0x1.eaf57ep-4f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0x1.1e6da6p-3f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0x1.1df1f6p-3f));
  const __m512 e = exp16(_mm512_mul_ps(_mm512_mul_ps(size, _mm512_set1_ps(-0.5f)), size));
  const __m512 tail = _mm512_mul_ps(_mm512_mul_ps(p, t), e);
  const __mmask16 left = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
  return _mm512_mul_ps(x, _mm512_mask_mov_ps(_mm512_sub_ps(one, tail), left, tail));
}

// n, a multiple of 16, scores: cap * tanh(s / cap).
static inline void cap_softly(float* s, size_t n, float cap) {
  const __m512 sign = _mm512_set1_ps(-0.0f), one = _mm512_set1_ps(1.0f), c = _mm512_set1_ps(cap);
  for (size_t i = 0; i < n; i += 16) {
    const __m512 x = _mm512_loadu_ps(s + i);
    const __m512 e = exp16(_mm512_mul_ps(_mm512_set1_ps(-2.0f), _mm512_andnot_ps(sign, _mm512_div_ps(x, c))));
    const __m512 size = _mm512_mul_ps(c, _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e)));
    _mm512_storeu_ps(s + i, _mm512_add_ps(_mm512_or_ps(size, _mm512_and_ps(x, sign)), _mm512_setzero_ps()));
  }
}

}  // namespace avx512
