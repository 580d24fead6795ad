// Writing a token into a KV block, and the rotation of keys and queries.
#include "kernels.h"
#include "math.h"

namespace avx2 {

enum { kMaxHeadDim = 512 };

void kv_put_8(uint8_t* block, size_t token, const float* k, const float* v, size_t head_dim) {
  int8_t q[kMaxHeadDim];
  float scale;
  int32_t sum;
  uint8_t* scales = block + 2 * kKvBlock * head_dim;
  quantize(q, &scale, &sum, k, head_dim, head_dim);
  for (size_t d = 0; d < head_dim; d += 4) {
    uint32_t word;
    __builtin_memcpy(&word, q + d, sizeof word);
    word ^= 0x80808080u;  // q + 128
    __builtin_memcpy(block + d * kKvBlock + token * 4, &word, sizeof word);
  }
  __builtin_memcpy(scales + 4 * token, &scale, sizeof scale);
  quantize(reinterpret_cast<int8_t*>(block + kKvBlock * head_dim + token * head_dim), &scale, &sum, v, head_dim,
           head_dim);
  __builtin_memcpy(scales + 4 * (kKvBlock + token), &scale, sizeof scale);
}

void kv_put_16(uint8_t* block, size_t token, const float* k, const float* v, size_t head_dim) {
  uint8_t* values = block + 2 * (kKvBlock + token) * head_dim;
  for (size_t d = 0; d < head_dim; d += 8) {
    uint16_t keys[8];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(keys), _mm256_cvtps_ph(_mm256_loadu_ps(k + d), 0));
    for (size_t i = 0; i < 8; ++i)
      __builtin_memcpy(block + 2 * ((d + i) * kKvBlock + token), keys + i, sizeof keys[i]);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(values + 2 * d), _mm256_cvtps_ph(_mm256_loadu_ps(v + d), 0));
  }
}

// 32 columns to q + 8, and their scale.
static uint16_t to_nibbles(uint8_t* q, const float* x) {
  __m256i largest = _mm256_setzero_si256();  // magnitudes compare like integers
  for (size_t i = 0; i < 32; i += 8) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i));
    largest = _mm256_max_epu32(largest, _mm256_and_si256(v, _mm256_set1_epi32(0x7fffffff)));
  }
  __m128i most = _mm_max_epu32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
  most = _mm_max_epu32(most, _mm_shuffle_epi32(most, 0x4e));
  most = _mm_max_epu32(most, _mm_shuffle_epi32(most, 0xb1));
  const float absmax = _mm_cvtss_f32(_mm_castsi128_ps(most));
  const float inverse = 7.0f / absmax;
  const __m256i usable = _mm256_set1_epi32(inverse > 0.0f && inverse < HUGE_VALF ? -1 : 0);
  for (size_t i = 0; i < 32; i += 8) {
    const __m256i rounded = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(inverse)));
    const __m256i stored = _mm256_add_epi32(_mm256_and_si256(rounded, usable), _mm256_set1_epi32(8));
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(stored), _mm256_extracti128_si256(stored, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(q + i), _mm_packus_epi16(words, words));
  }
  return static_cast<uint16_t>(_cvtss_sh(absmax / 7.0f, 0));
}

void kv_put_4(uint8_t* block, size_t token, const float* k, const float* v, size_t head_dim) {
  const size_t groups = head_dim / 32;
  uint8_t* values = block + (kKvBlock + token) * head_dim / 2;
  uint8_t* scales = block + kKvBlock * head_dim;
  uint8_t q[32];
  for (size_t g = 0; g < groups; ++g) {
    const uint16_t k_scale = to_nibbles(q, k + 32 * g);
    for (size_t i = 0; i < 4; ++i) {
      uint32_t low, high;
      __builtin_memcpy(&low, q + 8 * i, sizeof low);
      __builtin_memcpy(&high, q + 8 * i + 4, sizeof high);
      low |= high << 4;
      __builtin_memcpy(block + (4 * g + i) * (4 * kKvBlock) + token * 4, &low, sizeof low);
    }
    __builtin_memcpy(scales + 2 * (g * kKvBlock + token), &k_scale, sizeof k_scale);
    const uint16_t v_scale = to_nibbles(q, v + 32 * g);
    const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q));
    const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q + 16));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(values + 16 * g), _mm_or_si128(low, _mm_slli_epi16(high, 4)));
    __builtin_memcpy(scales + 2 * (groups * (kKvBlock + token) + g), &v_scale, sizeof v_scale);
  }
}

// The pairs at distance h inside a vector: x becomes other + x, or other - x where the lane number has bit h.
template <int h>
static __m256 turn(__m256 x) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), distance = _mm256_set1_epi32(h);
  const __m256 other = _mm256_permutevar8x32_ps(x, _mm256_xor_si256(lanes, distance));
  const __m256i later = _mm256_cmpeq_epi32(_mm256_and_si256(lanes, distance), distance);
  return _mm256_blendv_ps(_mm256_add_ps(other, x), _mm256_sub_ps(other, x), _mm256_castsi256_ps(later));
}

void rotate(float* x, size_t head_dim) {
  const size_t n = head_dim & (~head_dim + 1);
  for (size_t i = 0; i < head_dim; i += 8)
    _mm256_storeu_ps(x + i, turn<4>(turn<2>(turn<1>(_mm256_loadu_ps(x + i)))));
  for (size_t h = 8; h < n; h *= 2)
    for (size_t i = 0; i < head_dim; i += 8) {
      if ((i & h) != 0) continue;
      const __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + h);
      _mm256_storeu_ps(x + i, _mm256_add_ps(a, b));
      _mm256_storeu_ps(x + i + h, _mm256_sub_ps(a, b));
    }
}

}  // namespace avx2
