// Operations on one row of floats.
#include "kernels.h"
#include "math.h"

namespace avx2 {

static float largest_magnitude(const float* x, size_t n) {
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  __m256i largest = _mm256_setzero_si256();
  for (size_t i = 0; i < n; i += 8)
    largest = _mm256_max_epu32(largest, _mm256_castps_si256(_mm256_and_ps(load(x + i, n - i), magnitude)));
  __m128i m = _mm_max_epu32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
  return _mm_cvtss_f32(_mm_castsi128_ps(m));
}

static int32_t add_integers(__m256i v) {
  __m128i t = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(t, _mm_shuffle_epi32(t, 0xb1)));
}

// The first n (at most 8) of eight integers, each of which fits a byte.
static void store_bytes(int8_t* at, size_t n, __m256i v) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  const int64_t bytes = _mm_cvtsi128_si64(_mm_packs_epi16(words, words));
  __builtin_memcpy(at, &bytes, n < 8 ? n : 8);
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
  __m256i total = _mm256_setzero_si256();
  for (size_t i = 0; i < n; i += 8) {
    const __m256i rounded = _mm256_cvtps_epi32(_mm256_mul_ps(load(x + i, n - i), _mm256_set1_ps(inverse)));
    total = _mm256_add_epi32(total, rounded);
    store_bytes(q + i, n - i, rounded);
  }
  *sum = add_integers(total);
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
  __m256i total = _mm256_setzero_si256();
  for (size_t i = 0; i < n; i += 8) {
    const __m256i value = _mm256_cvtps_epi32(_mm256_mul_ps(load(x + i, n - i), _mm256_set1_ps(inverse)));
    const __m256i h = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(value), _mm256_set1_ps(1.0f / 255.0f)));
    total = _mm256_add_epi32(total, value);
    store_bytes(high + i, n - i, h);
    store_bytes(low + i, n - i, _mm256_sub_epi32(value, _mm256_sub_epi32(_mm256_slli_epi32(h, 8), h)));
  }
  *sum = add_integers(total);
}

void quantize_16(int8_t* high, int8_t* low, float* scale, int32_t* sum, const float* x, size_t k, size_t group) {
  for (size_t g = 0; g < k / group; ++g)
    quantize_group_16(high + g * group, low + g * group, scale + g, sum + g, x + g * group, group);
}

void rms_norm(float* out, const float* x, const float* w, size_t n, float eps) {
  __m256 l0 = _mm256_setzero_ps();
  __m256 l1 = _mm256_setzero_ps();
  for (size_t i = 0; i < n; i += 16) {
    const __m256 a = load(x + i, n - i);
    l0 = _mm256_fmadd_ps(a, a, l0);
    if (i + 8 >= n) break;
    const __m256 b = load(x + i + 8, n - i - 8);
    l1 = _mm256_fmadd_ps(b, b, l1);
  }
  const __m256 inverse = _mm256_set1_ps(1.0f / sqrtf(add_lanes(l0, l1) / static_cast<float>(n) + eps));
  for (size_t i = 0; i < n; i += 8)
    store(out + i, n - i, _mm256_mul_ps(_mm256_mul_ps(load(x + i, n - i), inverse), load(w + i, n - i)));
}

void rope(float* x, const float* cos, const float* sin, size_t d) {
  const size_t half = d / 2;
  for (size_t i = 0; i < half; i += 8) {
    const size_t n = half - i;
    const __m256 a = load(x + i, n);
    const __m256 b = load(x + half + i, n);
    const __m256 c = load(cos + i, n);
    const __m256 s = load(sin + i, n);
    store(x + i, n, _mm256_fmadd_ps(a, c, negate(_mm256_mul_ps(b, s))));
    store(x + half + i, n, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
  }
}

void gated(float* out, const float* gate, const float* up, size_t n, int activation) {
  for (size_t i = 0; i < n; i += 8) {
    const __m256 g = load(gate + i, n - i);
    const __m256 activated = activation == kSilu ? silu(g) : activation == kGelu ? gelu(g) : gelu_tanh(g);
    store(out + i, n - i, _mm256_mul_ps(activated, load(up + i, n - i)));
  }
}

void add(float* out, const float* a, const float* b, size_t n) {
  for (size_t i = 0; i < n; i += 8) store(out + i, n - i, _mm256_add_ps(load(a + i, n - i), load(b + i, n - i)));
}

size_t argmax(const float* x, size_t n) {
  __m256 largest = _mm256_set1_ps(-HUGE_VALF);
  const size_t full = n / 8 * 8;
  for (size_t i = 0; i < full; i += 8) largest = _mm256_max_ps(_mm256_loadu_ps(x + i), largest);  // keeps it at NaN
  float best = max_lane(largest);
  for (size_t i = full; i < n; ++i) best = x[i] > best ? x[i] : best;
  for (size_t i = 0; i < full; i += 8) {
    const int equal = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(best), _CMP_EQ_OQ));
    if (equal != 0) return i + static_cast<size_t>(__builtin_ctz(static_cast<unsigned>(equal)));
  }
  for (size_t i = full; i < n; ++i)
    if (x[i] == best) return i;
  return 0;
}

void exp_all(float* out, const float* x, size_t n) {
  for (size_t i = 0; i < n; i += 8) store(out + i, n - i, exp8(load(x + i, n - i)));
}

}  // namespace avx2
