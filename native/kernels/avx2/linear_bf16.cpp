// bf16 panels times float rows. Lanes are output rows; k ascends, so every output is one chain of fused additions.
#include "kernels.h"
#include "math.h"

namespace avx2 {
namespace {

// Even and odd rows of half a line, each widened by one cheap instruction.
__m256 even(__m256i half) { return _mm256_castsi256_ps(_mm256_slli_epi32(half, 16)); }
__m256 odd(__m256i half) {
  return _mm256_castsi256_ps(_mm256_and_si256(half, _mm256_set1_epi32(static_cast<int>(0xffff0000))));
}

// Puts even and odd rows back in order.
void store(float* out, __m256 evens, __m256 odds) {
  const __m256 low = _mm256_unpacklo_ps(evens, odds);   // rows 0 to 3 and 8 to 11
  const __m256 high = _mm256_unpackhi_ps(evens, odds);  // rows 4 to 7 and 12 to 15
  _mm256_storeu_ps(out, _mm256_permute2f128_ps(low, high, 0x20));
  _mm256_storeu_ps(out + 8, _mm256_permute2f128_ps(low, high, 0x31));
}

template <int M>
void some_rows(float* out, size_t ldo, const uint8_t* line, size_t k, const float* x, size_t ldx) {
  __m256 f[4][M];
#pragma GCC unroll 4
  for (int part = 0; part < 4; ++part)
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) f[part][m] = _mm256_setzero_ps();
  for (size_t i = 0; i < k; ++i, line += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(line + 8192), _MM_HINT_T1);
    __m256 v[M];
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) v[m] = _mm256_set1_ps(x[m * ldx + i]);
#pragma GCC unroll 4
    for (int part = 0; part < 4; ++part) {
      const __m256i half = _mm256_load_si256(reinterpret_cast<const __m256i*>(line) + part / 2);
      const __m256 w = part % 2 == 0 ? even(half) : odd(half);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) f[part][m] = _mm256_fmadd_ps(v[m], w, f[part][m]);
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) {
    store(out + m * ldo, f[0][m], f[1][m]);
    store(out + m * ldo + 16, f[2][m], f[3][m]);
  }
}

constexpr size_t kMost = 3;  // 12 accumulators, 3 activations, 1 weight: all 16 registers

}  // namespace

void linear_bf16(float* out, size_t ldo, const uint8_t* panel, size_t k, const float* x, size_t ldx, size_t rows) {
  for (size_t m = 0, blocks = (rows + kMost - 1) / kMost; blocks > 0; --blocks) {
    const size_t taken = (rows - m) / blocks;
    switch (taken) {
      case 1: some_rows<1>(out + m * ldo, ldo, panel, k, x + m * ldx, ldx); break;
      case 2: some_rows<2>(out + m * ldo, ldo, panel, k, x + m * ldx, ldx); break;
      default: some_rows<kMost>(out + m * ldo, ldo, panel, k, x + m * ldx, ldx); break;
    }
    m += taken;
  }
}

}  // namespace avx2
