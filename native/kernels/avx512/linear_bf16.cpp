// bf16 panels times float rows. Lanes are output rows; k ascends, so every output is one chain of fused additions.
#include "kernels.h"
#include "math.h"

namespace avx512 {
namespace {

// A line's even and odd rows, each widened by one cheap instruction.
__m512 even(__m512i line) { return _mm512_castsi512_ps(_mm512_slli_epi32(line, 16)); }
__m512 odd(__m512i line) {
  return _mm512_castsi512_ps(_mm512_and_si512(line, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
}

// Puts even and odd rows back in order.
void store(float* out, __m512 evens, __m512 odds) {
  const __m512i first = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
  _mm512_storeu_ps(out, _mm512_permutex2var_ps(evens, first, odds));
  _mm512_storeu_ps(out + 16, _mm512_permutex2var_ps(evens, second, odds));
}

template <int M>
void some_rows(float* out, size_t ldo, const uint8_t* line, size_t k, const float* x, size_t ldx) {
  __m512 f[2][M];
  for (int m = 0; m < M; ++m) f[0][m] = f[1][m] = _mm512_setzero_ps();
  for (size_t i = 0; i < k; ++i, line += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(line + 8192), _MM_HINT_T1);
    const __m512i w = _mm512_load_si512(line);
    const __m512 w0 = even(w);
    const __m512 w1 = odd(w);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const __m512 v = _mm512_set1_ps(x[(m / 3) * (3 * ldx) + (m % 3) * ldx + i]);
      f[0][m] = _mm512_fmadd_ps(v, w0, f[0][m]);
      f[1][m] = _mm512_fmadd_ps(v, w1, f[1][m]);
    }
  }
  for (int m = 0; m < M; ++m) store(out + m * ldo, f[0][m], f[1][m]);
}

constexpr size_t kMost = 12;  // rows in one block: 24 accumulators

void row_block(float* out, size_t ldo, const uint8_t* panel, size_t k, const float* x, size_t ldx, size_t rows) {
  switch (rows) {
    case 1: return some_rows<1>(out, ldo, panel, k, x, ldx);
    case 2: return some_rows<2>(out, ldo, panel, k, x, ldx);
    case 3: return some_rows<3>(out, ldo, panel, k, x, ldx);
    case 4: return some_rows<4>(out, ldo, panel, k, x, ldx);
    case 5: return some_rows<5>(out, ldo, panel, k, x, ldx);
    case 6: return some_rows<6>(out, ldo, panel, k, x, ldx);
    case 7: return some_rows<7>(out, ldo, panel, k, x, ldx);
    case 8: return some_rows<8>(out, ldo, panel, k, x, ldx);
    case 9: return some_rows<9>(out, ldo, panel, k, x, ldx);
    case 10: return some_rows<10>(out, ldo, panel, k, x, ldx);
    case 11: return some_rows<11>(out, ldo, panel, k, x, ldx);
    default: return some_rows<kMost>(out, ldo, panel, k, x, ldx);
  }
}

}  // namespace

void linear_bf16(float* out, size_t ldo, const uint8_t* panel, size_t k, const float* x, size_t ldx, size_t rows) {
  for (size_t m = 0, blocks = (rows + kMost - 1) / kMost; blocks > 0; --blocks) {
    const size_t taken = (rows - m) / blocks;
    row_block(out + m * ldo, ldo, panel, k, x + m * ldx, ldx, taken);
    m += taken;
  }
}

}  // namespace avx512
