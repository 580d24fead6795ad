// bf16 panels times float rows. Lanes are output rows; k ascends, so every output is one chain of fused additions.
#include "kernels.h"
#include "math.h"

namespace avx2 {
namespace {

__m256 widen(const uint8_t* at) {
  const __m256i halves = _mm256_cvtepu16_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(at)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(halves, 16));
}

template <int M>
void some_rows(float* out, size_t ldo, const uint8_t* line, size_t k, const float* x, size_t ldx) {
  __m256 f[4][M];
#pragma GCC unroll 4
  for (int octet = 0; octet < 4; ++octet)
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) f[octet][m] = _mm256_setzero_ps();
  for (size_t i = 0; i < k; ++i, line += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(line + 8192), _MM_HINT_T1);
    __m256 v[M];
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) v[m] = _mm256_set1_ps(x[m * ldx + i]);
#pragma GCC unroll 4
    for (int octet = 0; octet < 4; ++octet) {
      const __m256 w = widen(line + 16 * octet);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) f[octet][m] = _mm256_fmadd_ps(v[m], w, f[octet][m]);
    }
  }
#pragma GCC unroll 4
  for (int octet = 0; octet < 4; ++octet)
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) _mm256_storeu_ps(out + m * ldo + 8 * octet, f[octet][m]);
}

constexpr size_t kMost = 3;  // 12 accumulators, 3 activations, 1 weight: all 16 registers

}  // namespace

void linear_bf16(float* out, size_t ldo, const uint8_t* panel, size_t k, const float* x, size_t ldx, size_t rows) {
  for (size_t m = 0, blocks = (rows + kMost - 1) / kMost; blocks > 0; --blocks) {
    const size_t here = (rows - m) / blocks;
    switch (here) {
      case 1: some_rows<1>(out + m * ldo, ldo, panel, k, x + m * ldx, ldx); break;
      case 2: some_rows<2>(out + m * ldo, ldo, panel, k, x + m * ldx, ldx); break;
      default: some_rows<kMost>(out + m * ldo, ldo, panel, k, x + m * ldx, ldx); break;
    }
    m += here;
  }
}

}  // namespace avx2
