// Integer panels times quantized rows. Lanes are output rows, four a vector; SDOT multiplies four signed bytes of a lane
// with four of a row, which lie in one lane of its register. INT5, INT4 and INT3 weights are signed bytes as they are stored,
// and their offset is taken off by starting each dot at -offset * (sum of the activations).
#include "kernels.h"
#include "math.h"
#include "unpack.h"

namespace neon {
namespace {

struct Int4 {
  static constexpr size_t kHeader = 64;  // bytes of a tile before its values
  static constexpr bool kAffine = false;
  static constexpr int kPlanes = 1;  // rows of q that one row of activations takes
  static constexpr size_t kBits = 4;
  static constexpr int kOffset = 8;
  static Pair pair(const uint8_t* at, int j) { return pair_i4(at, j); }
};

struct Affine4 : Int4 {
  static constexpr bool kAffine = true;
  static constexpr int kOffset = 0;
};

struct Mxfp4 : Int4 {
  static constexpr size_t kHeader = 0;
  static constexpr int kOffset = 0;
  static Pair pair(const uint8_t* at, int j) { return pair_mx4(at, j); }
};

struct Int3 {
  static constexpr size_t kHeader = 64;
  static constexpr bool kAffine = false;
  static constexpr int kPlanes = 1;
  static constexpr size_t kBits = 3;
  static constexpr int kOffset = 4;
  static Pair pair(const uint8_t* at, int j) { return pair_i3(at, j); }
};

struct Int5 {
  static constexpr size_t kHeader = 64;
  static constexpr bool kAffine = false;
  static constexpr int kPlanes = 1;
  static constexpr size_t kBits = 5;
  static constexpr int kOffset = 16;
  static Pair pair(const uint8_t* at, int j) { return pair_i5(at, j); }
};

struct Affine5 : Int5 {
  static constexpr bool kAffine = true;
  static constexpr int kOffset = 0;
};

struct Int8 {
  static constexpr size_t kHeader = 64;
  static constexpr bool kAffine = false;
  static constexpr int kPlanes = 1;
  static constexpr size_t kBits = 8;
  static constexpr int kOffset = 0;  // unpacking takes it off
  static Pair pair(const uint8_t* at, int j) { return pair_i8(at, j); }
};

struct Int8Of16 : Int8 {
  static constexpr int kPlanes = 2;
};

// Two planes' dots as one.
int32x4_t joined(int32x4_t high, int32x4_t low) { return vmlaq_n_s32(low, high, 255); }

// Eight columns: M rows of q, of which `a` holds 16 columns, times V vectors of panel rows. The vectors of a row block
// are 16 bytes apart.
template <class Kind, int j, int V, int M>
inline __attribute__((always_inline)) void eight_columns(int32x4_t dot[V][M], const uint8_t* at, const int8x16_t a[M]) {
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) {
    const Pair w = Kind::pair(at + (v / 4) * run_bytes(Kind::kBits) + (v % 4) * 16, j);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      dot[v][m] = vdotq_laneq_s32(dot[v][m], w.low, a[m], j % 2 * 2);
      dot[v][m] = vdotq_laneq_s32(dot[v][m], w.high, a[m], j % 2 * 2 + 1);
    }
  }
}

// The dots of one group.
template <class Kind, int V, int M>
inline __attribute__((always_inline)) void group_dot(int32x4_t dot[V][M], const uint8_t* at, const int8_t* q,
                                                     size_t ldq, size_t group) {
  for (size_t i = 0; i < group; i += 32, at += 128 * Kind::kBits) {
    int8x16_t a[M];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) a[m] = vld1q_s8(q + m * ldq + i);
    eight_columns<Kind, 0, V, M>(dot, at, a);
    eight_columns<Kind, 1, V, M>(dot, at, a);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) a[m] = vld1q_s8(q + m * ldq + i + 16);
    eight_columns<Kind, 2, V, M>(dot, at, a);
    eight_columns<Kind, 3, V, M>(dot, at, a);
  }
}

constexpr size_t kAhead = 8192;  // how far ahead weights are asked for

// The tiles of a panel, and the lines before them, one of so many bytes for each 1 << shift groups.
struct Tiles {
  const uint8_t* tile;
  const uint8_t* lines;
  int shift;
  size_t bytes;
  const uint8_t* line(size_t g) const { return lines + (g >> shift) * bytes; }
};

template <class Kind>
float32x4_t scale_of(const uint8_t* tile, const uint8_t* line, int v) {
  if constexpr (Kind::kAffine) return factored(tile + 4 * v, line + 8 * v);
  if constexpr (Kind::kHeader == 0) return powers_at(line + 4 * v);
  return halves_at(tile + 8 * v);
}

// M rows of q at once. Sixteen dots lie in registers: of eight, four or two vectors of panel rows; the float sums wait
// in the nearest cache for the end of their group. With two planes, rows 2m and 2m + 1 are one row of activations.
template <class Kind, int M>
void some_rows(float* out, size_t ldo, const Tiles& tiles, size_t groups, size_t group, const ActRows& a, size_t m0) {
  constexpr int rows = M / Kind::kPlanes;
  constexpr int V = M <= 2 ? 8 : M <= 4 ? 4 : 2;
  const size_t tile_bytes = Kind::kHeader + 4 * group * Kind::kBits;
  const uint8_t* tile = tiles.tile;
  const float* scale = a.scale + m0 * a.lds;
  const int32_t* sum = a.sum + m0 * a.lds;
  const int8_t* q = a.q + m0 * Kind::kPlanes * a.ldq;
  float32x4_t f[8][rows];
  for (int v = 0; v < 8; ++v)
    for (int m = 0; m < rows; ++m) f[v][m] = vdupq_n_f32(0.0f);
  for (size_t g = 0; g < groups; ++g, tile += tile_bytes, q += group) {
    for (size_t i = 0; i < tile_bytes; i += 64) __builtin_prefetch(tile + kAhead + i, 0, 2);
    for (int v0 = 0; v0 < 8; v0 += V) {
      int32x4_t dot[V][M];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v)
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m)
          dot[v][m] = vdupq_n_s32(Kind::kOffset == 0 ? 0 : -Kind::kOffset * sum[m * a.lds + g]);
      const uint8_t* w = tile + Kind::kHeader + (v0 / 4) * run_bytes(Kind::kBits) + (v0 % 4) * 16;
      group_dot<Kind, V, M>(dot, w, q, a.ldq, group);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        const float32x4_t s = scale_of<Kind>(tile, tiles.line(g), v0 + v);
#pragma GCC unroll 8
        for (int m = 0; m < rows; ++m) {
          const int32x4_t joint = Kind::kPlanes == 1 ? dot[v][m] : joined(dot[v][2 * m], dot[v][2 * m + 1]);
          f[v0 + v][m] = vfmaq_f32(f[v0 + v][m], vcvtq_f32_s32(joint), vmulq_n_f32(s, scale[m * a.lds + g]));
        }
        if constexpr (!Kind::kAffine) continue;
        const float32x4_t t = minimum_of(tile, tiles.line(g), v0 + v);
#pragma GCC unroll 8
        for (int m = 0; m < rows; ++m) {
          const float32x4_t all = vdupq_n_f32(static_cast<float>(sum[m * a.lds + g]));
          f[v0 + v][m] = vfmaq_f32(f[v0 + v][m], all, vmulq_n_f32(t, scale[m * a.lds + g]));
        }
      }
    }
  }
  for (int v = 0; v < 8; ++v)
    for (int m = 0; m < rows; ++m) vst1q_f32(out + m * ldo + 4 * v, f[v][m]);
}

constexpr size_t kMost = 8;  // rows of q in one block: 16 dots, 8 activations, the rest for weights and masks

// Row blocks of nearly equal size walk the panel one after the other; after the first walk it lies in the cache.
template <class Kind>
void linear(float* out, size_t ldo, const Tiles& panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  constexpr int P = Kind::kPlanes;
  constexpr size_t most = kMost / P;
  for (size_t m = 0, blocks = (rows + most - 1) / most; blocks > 0; --blocks) {
    const size_t taken = (rows - m) / blocks;
    float* at = out + m * ldo;
    switch (taken) {
      case 1: some_rows<Kind, 1 * P>(at, ldo, panel, k / group, group, *a, m); break;
      case 2: some_rows<Kind, 2 * P>(at, ldo, panel, k / group, group, *a, m); break;
      case 3: some_rows<Kind, 3 * P>(at, ldo, panel, k / group, group, *a, m); break;
      case 5:
        if constexpr (P == 1) some_rows<Kind, 5>(at, ldo, panel, k / group, group, *a, m);
        break;
      case 6:
        if constexpr (P == 1) some_rows<Kind, 6>(at, ldo, panel, k / group, group, *a, m);
        break;
      case 7:
        if constexpr (P == 1) some_rows<Kind, 7>(at, ldo, panel, k / group, group, *a, m);
        break;
      case 8:
        if constexpr (P == 1) some_rows<Kind, 8>(at, ldo, panel, k / group, group, *a, m);
        break;
      default: some_rows<Kind, 4 * P>(at, ldo, panel, k / group, group, *a, m); break;
    }
    m += taken;
  }
}

template <class Kind>
void linear(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  linear<Kind>(out, ldo, Tiles{panel, panel, 0, 0}, k, group, a, rows);
}

}  // namespace

void linear_i4(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  linear<Int4>(out, ldo, panel, k, group, a, rows);
}

void linear_i3(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  linear<Int3>(out, ldo, panel, k, group, a, rows);
}

void linear_i5(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  linear<Int5>(out, ldo, panel, k, group, a, rows);
}

void linear_i8(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  linear<Int8>(out, ldo, panel, k, group, a, rows);
}

void linear_i8_16(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  linear<Int8Of16>(out, ldo, panel, k, group, a, rows);
}

void linear_a4(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, size_t wide, const ActRows* a,
               size_t rows) {
  const Tiles tiles{panel + k / wide * 4 * kPanelRows, panel, __builtin_ctzll(wide / group), 4 * kPanelRows};
  linear<Affine4>(out, ldo, tiles, k, group, a, rows);
}

void linear_a5(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, size_t wide, const ActRows* a,
               size_t rows) {
  const Tiles tiles{panel + k / wide * 4 * kPanelRows, panel, __builtin_ctzll(wide / group), 4 * kPanelRows};
  linear<Affine5>(out, ldo, tiles, k, group, a, rows);
}

void linear_mx4(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  const Tiles tiles{panel + (k / group + 1) / 2 * 2 * kPanelRows, panel, 0, kPanelRows};
  linear<Mxfp4>(out, ldo, tiles, k, group, a, rows);
}

size_t int8_peak(size_t rounds) {
  constexpr size_t lanes = 16;  // enough sums at once to hide an instruction's delay
  int32x4_t sum[lanes];
  for (auto& one : sum) one = vdupq_n_s32(0);
  for (size_t i = 0; i < rounds; ++i)
#pragma GCC unroll 16
    for (size_t lane = 0; lane < lanes; ++lane) {
      int32x4_t one = vdotq_s32(sum[lane], vdupq_n_s8(3), vdupq_n_s8(5));
      __asm__ volatile("" : "+w"(one));  // every product is done
      sum[lane] = one;  // not before: the compiler would keep the sums in memory
    }
  return rounds * lanes * 16;
}

}  // namespace neon
