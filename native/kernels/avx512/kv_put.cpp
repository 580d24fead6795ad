// Writing a token into a KV block, and the rotation of keys and queries.
#include "kernels.h"
#include "math.h"

namespace avx512 {

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
  for (size_t d = 0; d < head_dim; d += 16) {
    uint16_t keys[16];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(keys), _mm512_cvtps_ph(_mm512_loadu_ps(k + d), 0));
    for (size_t i = 0; i < 16; ++i)
      __builtin_memcpy(block + 2 * ((d + i) * kKvBlock + token), keys + i, sizeof keys[i]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(values + 2 * d), _mm512_cvtps_ph(_mm512_loadu_ps(v + d), 0));
  }
}

// 32 columns to q + 8, and their scale.
static uint16_t to_nibbles(__m512i q[2], const float* x) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff), eight = _mm512_set1_epi32(8);
  const __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
  const __m512i m0 = _mm512_and_si512(_mm512_castps_si512(x0), magnitude);
  const __m512i m1 = _mm512_and_si512(_mm512_castps_si512(x1), magnitude);
  const auto largest = static_cast<int>(_mm512_reduce_max_epu32(_mm512_max_epu32(m0, m1)));
  const float absmax = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(largest)));
  const float inverse = 7.0f / absmax;
  const __mmask16 usable = inverse > 0.0f && inverse < HUGE_VALF ? 0xffff : 0;
  const __m512 by = _mm512_set1_ps(inverse);
  q[0] = _mm512_add_epi32(_mm512_maskz_cvtps_epi32(usable, _mm512_mul_ps(x0, by)), eight);
  q[1] = _mm512_add_epi32(_mm512_maskz_cvtps_epi32(usable, _mm512_mul_ps(x1, by)), eight);
  return static_cast<uint16_t>(_cvtss_sh(absmax / 7.0f, 0));
}

void kv_put_4(uint8_t* block, size_t token, const float* k, const float* v, size_t head_dim) {
  const size_t groups = head_dim / 32;
  uint8_t* values = block + (kKvBlock + token) * head_dim / 2;
  uint8_t* scales = block + kKvBlock * head_dim;
  __m512i q[2];
  for (size_t g = 0; g < groups; ++g) {
    const uint16_t k_scale = to_nibbles(q, k + 32 * g);
    for (size_t i = 0; i < 2; ++i) {  // lanes 0 .. 3 take 4 .. 7 beside them, lanes 8 .. 11 take 12 .. 15
      const __m512i high = _mm512_slli_epi32(_mm512_shuffle_i32x4(q[i], q[i], 0xf5), 4);
      uint32_t words[4];
      _mm_storeu_si128(reinterpret_cast<__m128i*>(words), _mm512_cvtepi32_epi8(_mm512_or_si512(q[i], high)));
      uint8_t* keys = block + (4 * g + 2 * i) * (4 * kKvBlock) + token * 4;
      __builtin_memcpy(keys, words, sizeof *words);
      __builtin_memcpy(keys + 4 * kKvBlock, words + 2, sizeof *words);
    }
    __builtin_memcpy(scales + 2 * (g * kKvBlock + token), &k_scale, sizeof k_scale);
    const uint16_t v_scale = to_nibbles(q, v + 32 * g);
    const __m512i pairs = _mm512_or_si512(q[0], _mm512_slli_epi32(q[1], 4));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(values + 16 * g), _mm512_cvtepi32_epi8(pairs));
    __builtin_memcpy(scales + 2 * (groups * (kKvBlock + token) + g), &v_scale, sizeof v_scale);
  }
}

// The pairs at distance h inside a vector: x becomes other + x, or other - x where the lane number has bit h.
template <int h>
static __m512 turn(__m512 x) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i distance = _mm512_set1_epi32(h);
  const __m512 other = _mm512_permutexvar_ps(_mm512_xor_si512(lanes, distance), x);
  return _mm512_mask_sub_ps(_mm512_add_ps(other, x), _mm512_test_epi32_mask(lanes, distance), other, x);
}

void rotate(float* x, size_t head_dim) {
  const size_t n = head_dim & (~head_dim + 1);
  for (size_t i = 0; i < head_dim; i += 16)
    _mm512_storeu_ps(x + i, turn<8>(turn<4>(turn<2>(turn<1>(_mm512_loadu_ps(x + i))))));
  for (size_t h = 16; h < n; h *= 2)
    for (size_t i = 0; i < head_dim; i += 16) {
      if ((i & h) != 0) continue;
      const __m512 a = _mm512_loadu_ps(x + i), b = _mm512_loadu_ps(x + i + h);
      _mm512_storeu_ps(x + i, _mm512_add_ps(a, b));
      _mm512_storeu_ps(x + i + h, _mm512_sub_ps(a, b));
    }
}

}  // namespace avx512
