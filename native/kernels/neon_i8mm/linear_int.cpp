// Integer panels times several quantized rows. SMMLA multiplies two panel rows of eight columns with two rows of q: twice
// the work of a dot product's instruction. Two panel rows of eight columns come from a panel's bytes by one ZIP.
#include "../neon/unpack.h"
#include "kernels.h"

namespace neon_i8mm {
namespace {

using neon::Pair;

struct Int4 {
  static constexpr size_t kHeader = 64;  // bytes of a tile before its values
  static constexpr bool kAffine = false;
  static constexpr int kPlanes = 1;  // rows of q that one row of activations takes
  static constexpr size_t kBits = 4;
  static constexpr int kOffset = 8;
  static Pair pair(const uint8_t* at, int j) { return neon::pair_i4(at, j); }
};

struct Affine4 : Int4 {
  static constexpr bool kAffine = true;
  static constexpr int kOffset = 0;
};

struct Mxfp4 : Int4 {
  static constexpr size_t kHeader = 0;
  static constexpr int kOffset = 0;
  static Pair pair(const uint8_t* at, int j) { return neon::pair_mx4(at, j); }
};

struct Int3 {
  static constexpr size_t kHeader = 64;
  static constexpr bool kAffine = false;
  static constexpr int kPlanes = 1;
  static constexpr size_t kBits = 3;
  static constexpr int kOffset = 4;
  static Pair pair(const uint8_t* at, int j) { return neon::pair_i3(at, j); }
};

struct Int5 {
  static constexpr size_t kHeader = 64;
  static constexpr bool kAffine = false;
  static constexpr int kPlanes = 1;
  static constexpr size_t kBits = 5;
  static constexpr int kOffset = 16;
  static Pair pair(const uint8_t* at, int j) { return neon::pair_i5(at, j); }
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
  static Pair pair(const uint8_t* at, int j) { return neon::pair_i8(at, j); }
};

struct Int8Of16 : Int8 {
  static constexpr int kPlanes = 2;
};

constexpr size_t kColumns = 512;  // a slice of the panel this wide is unpacked, then used by all rows: 16 KB
constexpr size_t kAhead = 8192;   // how far ahead weights are asked for

// Some groups of a panel, unpacked: for each group and eight panel rows, group / 8 times four vectors of two rows.
struct Slice {
  const uint8_t* tile;  // the packed groups: their scales are read from here
  size_t tile_bytes;
  size_t groups, group;
  size_t first;  // the first one's number in the panel
  const uint8_t* lines;  // before the tiles: one of `line_bytes` for each 1 << shift groups of the panel
  int shift;
  size_t line_bytes;
  alignas(64) int8_t w[kPanelRows * kColumns];
};

template <class Kind>
void unpack(Slice* slice) {
  const uint8_t* tile = slice->tile;
  for (size_t g = 0; g < slice->groups; ++g, tile += slice->tile_bytes) {
    for (size_t i = 0; i < slice->tile_bytes; i += 64) __builtin_prefetch(tile + kAhead + i, 0, 2);
    for (size_t v = 0; v < 8; ++v) {  // four panel rows
      const uint8_t* at = tile + Kind::kHeader + (v / 4) * neon::run_bytes(Kind::kBits) + (v % 4) * 16;
      int8_t* to = slice->w + (g * kPanelRows + v / 2 * 8) * slice->group + v % 2 * 32;
      for (size_t i = 0; i < slice->group; i += 32, at += 128 * Kind::kBits)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j, to += 64) {
          const Pair x = Kind::pair(at, j);
          const int32x4_t low = vreinterpretq_s32_s8(x.low);
          const int32x4_t high = vreinterpretq_s32_s8(x.high);
          vst1q_s8(to, vreinterpretq_s8_s32(vzip1q_s32(low, high)));
          vst1q_s8(to + 16, vreinterpretq_s8_s32(vzip2q_s32(low, high)));
        }
    }
  }
}

// The scales of four panel rows, and of affine weights their minima.
struct Four {
  float32x4_t scale, minimum;
};

template <class Kind>
Four four_of(const Slice& slice, size_t g, size_t v) {
  const uint8_t* tile = slice.tile + g * slice.tile_bytes;
  if constexpr (!Kind::kAffine && Kind::kHeader != 0) return {neon::halves_at(tile + 8 * v), vdupq_n_f32(0.0f)};
  const uint8_t* line = slice.lines + ((slice.first + g) >> slice.shift) * slice.line_bytes;
  if constexpr (!Kind::kAffine) return {neon::powers_at(line + 4 * v), vdupq_n_f32(0.0f)};
  return {neon::factored(tile + 4 * v, line + 8 * v), neon::minimum_of(tile, line, v)};
}

// One group's dots of four panel rows, of activation row m, are added to what the groups before gave.
template <class Kind>
void add_group(float* out, bool first, int32x4_t dot, const Four& of, float a_scale, int32_t sum) {
  float32x4_t acc = first ? vdupq_n_f32(0.0f) : vld1q_f32(out);
  acc = vfmaq_f32(acc, vcvtq_f32_s32(dot), vmulq_n_f32(of.scale, a_scale));
  if constexpr (Kind::kAffine)
    acc = vfmaq_f32(acc, vdupq_n_f32(static_cast<float>(sum)), vmulq_n_f32(of.minimum, a_scale));
  vst1q_f32(out, acc);
}

// P pairs of rows of q: two rows of activations, or the two planes of one. The second row of the last pair may be
// missing: then it is the first once more, and nobody looks at its dots.
template <class Kind, int P>
struct Rows {
  static constexpr size_t kEach = 2 / Kind::kPlanes;  // rows of activations in a pair
  const int8_t* q[P][2];
  const float* scale[P][2];
  const int32_t* sum[P][2];
  float* out[P][2];

  Rows(float* to, size_t ldo, const ActRows& a, size_t rows) {
    for (size_t p = 0; p < P; ++p)
      for (size_t i = 0; i < 2; ++i) {
        const size_t wanted = kEach * p + (kEach == 2 ? i : 0);
        const size_t m = wanted < rows ? wanted : rows - 1;
        q[p][i] = a.q + (m * Kind::kPlanes + (kEach == 2 ? 0 : i)) * a.ldq;
        scale[p][i] = a.scale + m * a.lds;
        sum[p][i] = a.sum + m * a.lds;
        out[p][i] = to + m * ldo;
      }
  }
};

// Group g of the slice, panel rows 8h .. 8h + 7: sixteen registers of dots.
template <class Kind, int P>
void one_group(const Rows<Kind, P>& rows, const Slice& slice, size_t g, size_t h) {
  const size_t number = slice.first + g;
  int32x4_t dot[4][P];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
    const int32x2_t start = Kind::kOffset == 0 ? vdup_n_s32(0) : vset_lane_s32(-Kind::kOffset * rows.sum[p][1][number],
                                                 vdup_n_s32(-Kind::kOffset * rows.sum[p][0][number]), 1);
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) dot[v][p] = vcombine_s32(start, start);
  }
  const int8_t* w = slice.w + (g * kPanelRows + 8 * h) * slice.group;
  for (size_t i = number * slice.group; i < (number + 1) * slice.group; i += 8, w += 64) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const int8x16_t a = vcombine_s8(vld1_s8(rows.q[p][0] + i), vld1_s8(rows.q[p][1] + i));
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) dot[v][p] = vmmlaq_s32(dot[v][p], vld1q_s8(w + 16 * v), a);
    }
  }
  const bool first = number == 0;
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 2
    for (size_t u = 0; u < 2; ++u) {
      const size_t row = 8 * h + 4 * u;
      const Four of = four_of<Kind>(slice, g, row / 4);
      const int32x4_t even = vuzp1q_s32(dot[2 * u][p], dot[2 * u + 1][p]);
      const int32x4_t odd = vuzp2q_s32(dot[2 * u][p], dot[2 * u + 1][p]);
      if (Kind::kPlanes == 2) {
        add_group<Kind>(rows.out[p][0] + row, first, vmlaq_n_s32(odd, even, 255), of, rows.scale[p][0][number], 0);
        continue;
      }
      add_group<Kind>(rows.out[p][0] + row, first, even, of, rows.scale[p][0][number], rows.sum[p][0][number]);
      if (rows.out[p][1] != rows.out[p][0])
        add_group<Kind>(rows.out[p][1] + row, first, odd, of, rows.scale[p][1][number], rows.sum[p][1][number]);
    }
}

template <class Kind, int P>
void some_rows(float* out, size_t ldo, const Slice& slice, const ActRows& a, size_t m0, size_t count) {
  const ActRows from{a.q + m0 * Kind::kPlanes * a.ldq, a.scale + m0 * a.lds, a.sum + m0 * a.lds, a.ldq, a.lds, 0};
  const Rows<Kind, P> rows(out + m0 * ldo, ldo, from, count);
  for (size_t g = 0; g < slice.groups; ++g)
    for (size_t h = 0; h < 4; ++h) one_group<Kind, P>(rows, slice, g, h);
}

// All rows, in blocks of nearly equal size of at most four pairs.
template <class Kind>
void all_rows(float* out, size_t ldo, const Slice& slice, const ActRows& a, size_t rows) {
  constexpr size_t each = 2 / Kind::kPlanes;
  constexpr size_t most = 4 * each;
  for (size_t m = 0, blocks = (rows + most - 1) / most; blocks > 0; --blocks) {
    const size_t taken = (rows - m) / blocks;
    switch ((taken + each - 1) / each) {
      case 1: some_rows<Kind, 1>(out, ldo, slice, a, m, taken); break;
      case 2: some_rows<Kind, 2>(out, ldo, slice, a, m, taken); break;
      case 3: some_rows<Kind, 3>(out, ldo, slice, a, m, taken); break;
      default: some_rows<Kind, 4>(out, ldo, slice, a, m, taken); break;
    }
    m += taken;
  }
}

template <class Kind>
void linear(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows,
            const uint8_t* lines = nullptr, int shift = 0, size_t line_bytes = 0) {
  Slice slice;
  slice.lines = lines;
  slice.shift = shift;
  slice.line_bytes = line_bytes;
  slice.group = group;
  slice.tile_bytes = Kind::kHeader + 4 * group * Kind::kBits;
  const size_t groups = k / group;
  for (slice.first = 0; slice.first < groups; slice.first += slice.groups) {
    slice.tile = panel + slice.first * slice.tile_bytes;
    slice.groups = groups - slice.first < kColumns / group ? groups - slice.first : kColumns / group;
    unpack<Kind>(&slice);
    all_rows<Kind>(out, ldo, slice, *a, rows);
  }
}

}  // namespace

// One row fills half of each product: dot products do it with less.
void linear_i4(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  if (rows == 1) return neon::linear_i4(out, ldo, panel, k, group, a, rows);
  linear<Int4>(out, ldo, panel, k, group, a, rows);
}

void linear_i3(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  if (rows == 1) return neon::linear_i3(out, ldo, panel, k, group, a, rows);
  linear<Int3>(out, ldo, panel, k, group, a, rows);
}

void linear_i5(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  if (rows == 1) return neon::linear_i5(out, ldo, panel, k, group, a, rows);
  linear<Int5>(out, ldo, panel, k, group, a, rows);
}

void linear_i8(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  if (rows == 1) return neon::linear_i8(out, ldo, panel, k, group, a, rows);
  linear<Int8>(out, ldo, panel, k, group, a, rows);
}

void linear_i8_16(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  if (rows == 1) return neon::linear_i8_16(out, ldo, panel, k, group, a, rows);
  linear<Int8Of16>(out, ldo, panel, k, group, a, rows);
}

void linear_a4(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, size_t wide, const ActRows* a,
               size_t rows) {
  if (rows == 1) return neon::linear_a4(out, ldo, panel, k, group, wide, a, rows);
  const uint8_t* tiles = panel + k / wide * 4 * kPanelRows;
  linear<Affine4>(out, ldo, tiles, k, group, a, rows, panel, __builtin_ctzll(wide / group), 4 * kPanelRows);
}

void linear_a5(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, size_t wide, const ActRows* a,
               size_t rows) {
  if (rows == 1) return neon::linear_a5(out, ldo, panel, k, group, wide, a, rows);
  const uint8_t* tiles = panel + k / wide * 4 * kPanelRows;
  linear<Affine5>(out, ldo, tiles, k, group, a, rows, panel, __builtin_ctzll(wide / group), 4 * kPanelRows);
}

void linear_mx4(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  if (rows == 1) return neon::linear_mx4(out, ldo, panel, k, group, a, rows);
  const uint8_t* tiles = panel + (k / group + 1) / 2 * 2 * kPanelRows;
  linear<Mxfp4>(out, ldo, tiles, k, group, a, rows, panel, 0, kPanelRows);
}

size_t int8_peak(size_t rounds) {
  constexpr size_t lanes = 16;  // enough sums at once to hide an instruction's delay
  int32x4_t sum[lanes];
  for (auto& one : sum) one = vdupq_n_s32(0);
  for (size_t i = 0; i < rounds; ++i)
#pragma GCC unroll 16
    for (size_t lane = 0; lane < lanes; ++lane) {
      int32x4_t one = vmmlaq_s32(sum[lane], vdupq_n_s8(3), vdupq_n_s8(5));
      __asm__ volatile("" : "+w"(one));  // every product is done
      sum[lane] = one;  // not before: the compiler would keep the sums in memory
    }
  return rounds * lanes * 32;
}

}  // namespace neon_i8mm
