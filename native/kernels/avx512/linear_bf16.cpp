// bf16 panels times float rows. Lanes are output rows; k ascends, so every output is one chain of fused additions.
#include "kernels.h"
#include "math.h"

namespace avx512 {
namespace {

__m512 widen(const uint8_t* at) {
  const __m512i halves = _mm512_cvtepu16_epi32(_mm256_load_si256(reinterpret_cast<const __m256i*>(at)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(halves, 16));
}

template <int M>
void some_rows(float* out, size_t ldo, const uint8_t* line, size_t k, const float* x, size_t ldx) {
  __m512 f[2][M];
  for (int m = 0; m < M; ++m) f[0][m] = f[1][m] = _mm512_setzero_ps();
  for (size_t i = 0; i < k; ++i, line += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(line + 8192), _MM_HINT_T1);
    const __m512 w0 = widen(line);
    const __m512 w1 = widen(line + 32);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const __m512 v = _mm512_set1_ps(x[(m / 3) * (3 * ldx) + (m % 3) * ldx + i]);
      f[0][m] = _mm512_fmadd_ps(v, w0, f[0][m]);
      f[1][m] = _mm512_fmadd_ps(v, w1, f[1][m]);
    }
  }
  for (int m = 0; m < M; ++m) {
    _mm512_storeu_ps(out + m * ldo, f[0][m]);
    _mm512_storeu_ps(out + m * ldo + 16, f[1][m]);
  }
}

constexpr size_t kMost = 8;  // rows in one block: 16 accumulators hide the latency of the fused addition

void row_block(float* out, size_t ldo, const uint8_t* panel, size_t k, const float* x, size_t ldx, size_t rows) {
  switch (rows) {
    case 1: return some_rows<1>(out, ldo, panel, k, x, ldx);
    case 2: return some_rows<2>(out, ldo, panel, k, x, ldx);
    case 3: return some_rows<3>(out, ldo, panel, k, x, ldx);
    case 4: return some_rows<4>(out, ldo, panel, k, x, ldx);
    case 5: return some_rows<5>(out, ldo, panel, k, x, ldx);
    case 6: return some_rows<6>(out, ldo, panel, k, x, ldx);
    case 7: return some_rows<7>(out, ldo, panel, k, x, ldx);
    default: return some_rows<kMost>(out, ldo, panel, k, x, ldx);
  }
}

}  // namespace

void linear_bf16(float* out, size_t ldo, const uint8_t* panel, size_t k, const float* x, size_t ldx, size_t rows) {
  for (size_t m = 0, blocks = (rows + kMost - 1) / kMost; blocks > 0; --blocks) {
    const size_t here = (rows - m) / blocks;
    row_block(out + m * ldo, ldo, panel, k, x + m * ldx, ldx, here);
    m += here;
  }
}

}  // namespace avx512
