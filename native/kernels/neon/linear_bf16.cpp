// bf16 panels times float rows. Lanes are output rows; k ascends, so every output is one chain of fused additions.
#include "kernels.h"
#include "math.h"

namespace neon {
namespace {

// V vectors of four panel rows, times M rows. A line of the panel is 64 bytes.
template <int V, int M>
void some_rows(float* out, size_t ldo, const uint8_t* line, size_t k, const float* x, size_t ldx) {
  float32x4_t f[V][M];
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v)
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) f[v][m] = vdupq_n_f32(0.0f);
  for (size_t i = 0; i < k; ++i, line += 64) {
    __builtin_prefetch(line + 8192, 0, 2);
    float32x4_t w[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v)
      w[v] = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<const uint16_t*>(line) + 4 * v), 16));
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const float32x4_t a = vld1q_dup_f32(x + m * ldx + i);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) f[v][m] = vfmaq_f32(f[v][m], a, w[v]);
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v)
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) vst1q_f32(out + m * ldo + 4 * v, f[v][m]);
}

// More than two rows: half a panel at a time, so that every sum and the weights stay in the 32 registers.
template <int M>
void by_halves(float* out, size_t ldo, const uint8_t* panel, size_t k, const float* x, size_t ldx) {
  some_rows<4, M>(out, ldo, panel, k, x, ldx);
  some_rows<4, M>(out + 16, ldo, panel + 32, k, x, ldx);
}

constexpr size_t kMost = 6;

}  // namespace

void linear_bf16(float* out, size_t ldo, const uint8_t* panel, size_t k, const float* x, size_t ldx, size_t rows) {
  for (size_t m = 0, blocks = (rows + kMost - 1) / kMost; blocks > 0; --blocks) {
    const size_t taken = (rows - m) / blocks;
    float* at = out + m * ldo;
    const float* from = x + m * ldx;
    switch (taken) {
      case 1: some_rows<8, 1>(at, ldo, panel, k, from, ldx); break;
      case 2: some_rows<8, 2>(at, ldo, panel, k, from, ldx); break;
      case 3: by_halves<3>(at, ldo, panel, k, from, ldx); break;
      case 4: by_halves<4>(at, ldo, panel, k, from, ldx); break;
      case 5: by_halves<5>(at, ldo, panel, k, from, ldx); break;
      default: by_halves<kMost>(at, ldo, panel, k, from, ldx); break;
    }
    m += taken;
  }
}

}  // namespace neon
