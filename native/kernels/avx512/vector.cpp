// Operations on one row of floats. Tails are masked: the lanes are the same as in the scalar code.
#include "kernels.h"
#include "math.h"

namespace avx512 {

static float largest_magnitude(const float* x, size_t n) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i largest = _mm512_setzero_si512();
  for (size_t i = 0; i < n; i += 16) {
    const __m512i v = _mm512_maskz_loadu_epi32(first_lanes(n - i), x + i);
    largest = _mm512_max_epu32(largest, _mm512_and_si512(v, magnitude));
  }
  const __m128i bits = _mm_cvtsi32_si128(static_cast<int>(_mm512_reduce_max_epu32(largest)));
  return _mm_cvtss_f32(_mm_castsi128_ps(bits));
}

static void quantize_group(int8_t* q, float* scale, int32_t* sum, const float* x, size_t n) {
  const float absmax = largest_magnitude(x, n);
  const float inverse = 127.0f / absmax;
  const __mmask16 usable = inverse > 0.0f && inverse < HUGE_VALF ? 0xffff : 0;
  __m512i total = _mm512_setzero_si512();
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = first_lanes(n - i);
    const __m512 scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + i), _mm512_set1_ps(inverse));
    const __m512i rounded = _mm512_maskz_cvtps_epi32(usable & lanes, scaled);
    total = _mm512_add_epi32(total, rounded);
    _mm512_mask_cvtepi32_storeu_epi8(q + i, lanes, rounded);
  }
  *scale = absmax / 127.0f;
  *sum = _mm512_reduce_add_epi32(total);
}

void quantize(int8_t* q, float* scale, int32_t* sum, const float* x, size_t k, size_t group) {
  for (size_t g = 0; g < k / group; ++g)
    quantize_group(q + g * group, scale + g, sum + g, x + g * group, group);
}

// The nearest integer of value / 255 is never nearer to a tie than 1/510: the product below rounds to it.
static void quantize_group_16(int8_t* high, int8_t* low, float* scale, int32_t* sum, const float* x, size_t n) {
  const float absmax = largest_magnitude(x, n);
  const float inverse = 32512.0f / absmax;
  const __mmask16 usable = inverse > 0.0f && inverse < HUGE_VALF ? 0xffff : 0;
  __m512i total = _mm512_setzero_si512();
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = first_lanes(n - i);
    const __m512 scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + i), _mm512_set1_ps(inverse));
    const __m512i value = _mm512_maskz_cvtps_epi32(usable & lanes, scaled);
    const __m512i h = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(value), _mm512_set1_ps(1.0f / 255.0f)));
    const __m512i l = _mm512_sub_epi32(value, _mm512_sub_epi32(_mm512_slli_epi32(h, 8), h));
    total = _mm512_add_epi32(total, value);
    _mm512_mask_cvtepi32_storeu_epi8(high + i, lanes, h);
    _mm512_mask_cvtepi32_storeu_epi8(low + i, lanes, l);
  }
  *scale = absmax / 32512.0f;
  *sum = _mm512_reduce_add_epi32(total);
}

void quantize_16(int8_t* high, int8_t* low, float* scale, int32_t* sum, const float* x, size_t k, size_t group) {
  for (size_t g = 0; g < k / group; ++g)
    quantize_group_16(high + g * group, low + g * group, scale + g, sum + g, x + g * group, group);
}

void rms_norm(float* out, const float* x, const float* w, size_t n, float eps) {
  __m512 lanes = _mm512_setzero_ps();
  for (size_t i = 0; i < n; i += 16) {
    const __m512 v = _mm512_maskz_loadu_ps(first_lanes(n - i), x + i);
    lanes = _mm512_fmadd_ps(v, v, lanes);
  }
  const __m512 inverse = _mm512_set1_ps(1.0f / sqrtf(add_lanes(lanes) / static_cast<float>(n) + eps));
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 mask = first_lanes(n - i);
    const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), inverse);
    _mm512_mask_storeu_ps(out + i, mask, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, w + i)));
  }
}

void rope(float* x, const float* cos, const float* sin, size_t d) {
  const size_t half = d / 2;
  for (size_t i = 0; i < half; i += 16) {
    const __mmask16 mask = first_lanes(half - i);
    const __m512 a = _mm512_maskz_loadu_ps(mask, x + i);
    const __m512 b = _mm512_maskz_loadu_ps(mask, x + half + i);
    const __m512 c = _mm512_maskz_loadu_ps(mask, cos + i);
    const __m512 s = _mm512_maskz_loadu_ps(mask, sin + i);
    _mm512_mask_storeu_ps(x + i, mask, _mm512_fmadd_ps(a, c, negate(_mm512_mul_ps(b, s))));
    _mm512_mask_storeu_ps(x + half + i, mask, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
  }
}

void gated(float* out, const float* gate, const float* up, size_t n, int activation) {
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 mask = first_lanes(n - i);
    const __m512 g = _mm512_maskz_loadu_ps(mask, gate + i);
    const __m512 activated = activation == kSilu ? silu(g) : activation == kGelu ? gelu(g) : gelu_tanh(g);
    _mm512_mask_storeu_ps(out + i, mask, _mm512_mul_ps(activated, _mm512_maskz_loadu_ps(mask, up + i)));
  }
}

void add(float* out, const float* a, const float* b, size_t n) {
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 mask = first_lanes(n - i);
    const __m512 sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, a + i), _mm512_maskz_loadu_ps(mask, b + i));
    _mm512_mask_storeu_ps(out + i, mask, sum);
  }
}

size_t argmax(const float* x, size_t n) {
  __m512 largest = _mm512_set1_ps(-HUGE_VALF);
  for (size_t i = 0; i < n; i += 16) {  // max(v, largest) keeps `largest` where v is NaN
    const __m512 v = _mm512_mask_loadu_ps(_mm512_set1_ps(-HUGE_VALF), first_lanes(n - i), x + i);
    largest = _mm512_max_ps(v, largest);
  }
  const __m512 best = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 mask = first_lanes(n - i);
    const unsigned equal = _mm512_mask_cmp_ps_mask(mask, _mm512_maskz_loadu_ps(mask, x + i), best, _CMP_EQ_OQ);
    if (equal != 0) return i + static_cast<size_t>(__builtin_ctz(equal));
  }
  return 0;
}

void exp_all(float* out, const float* x, size_t n) {
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 mask = first_lanes(n - i);
    _mm512_mask_storeu_ps(out + i, mask, exp16(_mm512_maskz_loadu_ps(mask, x + i)));
  }
}

}  // namespace avx512
