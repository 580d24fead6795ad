// Integer panels times quantized rows. Lanes are output rows; weights are unsigned, activations signed, as
// vpdpbusd wants them; the weights' offset is taken off by starting each dot at -offset * (sum of the activations).
#include "kernels.h"
#include "math.h"

namespace avx512 {
namespace {

// A vector of 16 rows holds 4 columns. Eight columns are two vectors, `low` (the first four) and `high`.
struct Pair {
  __m512i low, high;
};

// One source vector holds both: low values at bit 0 and high values at bit 4 of each byte.
template <int mask>
struct Nibbles {
  static constexpr int kPlanes = 1;  // rows of q that one row of activations takes
  static constexpr int kHighShift = 4;  // packed(): high values are 16 times too large
  static Pair packed(__m512i x) {
    return {_mm512_and_si512(x, _mm512_set1_epi8(mask)),
            _mm512_and_si512(x, _mm512_set1_epi8(static_cast<char>(mask << 4)))};
  }
  static Pair split(__m512i x) {
    const __m512i m = _mm512_set1_epi8(mask);
    return {_mm512_and_si512(x, m), _mm512_and_si512(_mm512_srli_epi16(x, 4), m)};
  }
};

struct Int4 : Nibbles<15> {
  static constexpr size_t kHeader = 64;  // bytes of a tile before its values
  static constexpr bool kAffine = false;
  static constexpr size_t kBits = 4;
  static constexpr int kOffset = 8;
  static constexpr size_t kRun = 64;  // bytes of one row block before those of the other
  static __m512i source(const uint8_t* at, size_t j) { return _mm512_load_si512(at + 128 * j); }
  static Pair packed(const uint8_t* at, size_t j) { return Nibbles::packed(source(at, j)); }
  static Pair split(const uint8_t* at, size_t j) { return Nibbles::split(source(at, j)); }
};

struct Affine4 : Int4 {
  static constexpr bool kAffine = true;
  static constexpr int kOffset = 0;
};

struct Mxfp4 : Int4 {
  static constexpr size_t kHeader = 0;
  static constexpr int kOffset = 12;
  static constexpr int kHighShift = 0;
  static Pair packed(const uint8_t* at, size_t j) { return split(at, j); }
  static Pair split(const uint8_t* at, size_t j) {
    const __m128i values = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
    const __m512i table = _mm512_broadcast_i32x4(values);
    const Pair codes = Int4::split(at, j);
    return {_mm512_shuffle_epi8(table, codes.low), _mm512_shuffle_epi8(table, codes.high)};
  }
};

// Takes bits of `a` where the mask is set, of `b` elsewhere.
template <int mask>
__m512i select(__m512i a, __m512i b) {
  return _mm512_ternarylogic_epi32(a, b, _mm512_set1_epi8(static_cast<char>(mask)), 0xe4);
}

struct Int3 : Nibbles<7> {
  static constexpr size_t kHeader = 64;
  static constexpr bool kAffine = false;
  static constexpr size_t kBits = 3;
  static constexpr int kOffset = 4;
  static constexpr size_t kRun = 192;
  static __m512i source(const uint8_t* at, size_t j) {
    const uint8_t* planes = at + 384 * (j / 4);
    const __m512i l0 = _mm512_load_si512(planes);
    const __m512i l1 = _mm512_load_si512(planes + 64);
    const __m512i h = _mm512_load_si512(planes + 128);
    switch (j % 4) {
      case 0: return select<0x33>(l0, h);
      case 1: return _mm512_srli_epi16(select<0xcc>(l0, h), 1);
      case 2: return select<0x33>(l1, _mm512_srli_epi16(h, 1));
      default: return select<0x66>(_mm512_srli_epi16(l1, 1), h);
    }
  }
  static Pair packed(const uint8_t* at, size_t j) { return Nibbles::packed(source(at, j)); }
  static Pair split(const uint8_t* at, size_t j) { return Nibbles::split(source(at, j)); }
};

struct Int5 {
  static constexpr size_t kHeader = 64;
  static constexpr bool kAffine = false;
  static constexpr int kPlanes = 1;
  static constexpr size_t kBits = 5;
  static constexpr int kOffset = 16;
  static constexpr size_t kRun = 320;
  static constexpr int kHighShift = 0;
  static Pair packed(const uint8_t* at, size_t j) { return split(at, j); }
  static Pair split(const uint8_t* at, size_t j) {
    at += 640 * (j / 4);
    const __m512i x = _mm512_load_si512(at + 64 * (j % 4));
    const __m512i h = _mm512_srli_epi16(_mm512_load_si512(at + 256), static_cast<unsigned>(j % 4));
    const __m512i values = _mm512_set1_epi8(31);
    return {_mm512_and_si512(select<15>(x, h), values),
            _mm512_and_si512(select<30>(_mm512_srli_epi16(x, 3), h), values)};
  }
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
  static constexpr int kOffset = 128;
  static constexpr size_t kRun = 128;
  static constexpr int kHighShift = 0;
  static Pair packed(const uint8_t* at, size_t j) { return split(at, j); }
  static Pair split(const uint8_t* at, size_t j) {
    return {_mm512_load_si512(at + 256 * j), _mm512_load_si512(at + 256 * j + 64)};
  }
};

struct Int8Of16 : Int8 {
  static constexpr int kPlanes = 2;
};

// Two planes' dots as one.
__m512i joined(__m512i high, __m512i low) {
  return _mm512_add_epi32(_mm512_sub_epi32(_mm512_slli_epi32(high, 8), high), low);
}

__m512i four(const int8_t* a) {
  int32_t word;
  __builtin_memcpy(&word, a, sizeof word);
  return _mm512_set1_epi32(word);
}

__m512 halves_at(const uint8_t* at) {
  return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(at)));
}

// The tiles of a panel, and the lines before them, one of so many bytes for each 1 << shift groups.
struct Tiles {
  const uint8_t* tile;
  const uint8_t* lines;
  int shift;
  size_t bytes;
  const uint8_t* line(size_t g) const { return lines + (g >> shift) * bytes; }
};

// Of one row block: factors, and what they are factors of.
__m512 factored(const uint8_t* factors, const uint8_t* halves) {
  const __m512i wide = _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(factors)));
  return _mm512_mul_ps(halves_at(halves), _mm512_cvtepi32_ps(wide));
}

template <class Kind>
__m512 scales(const uint8_t* tile, const uint8_t* line, int block) {
  if constexpr (Kind::kAffine) return factored(tile + 16 * block, line + 32 * block);
  if constexpr (Kind::kHeader == 0) {
    const __m128i exponents = _mm_load_si128(reinterpret_cast<const __m128i*>(line) + block);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu8_epi32(exponents), 23));
  }
  return halves_at(tile + 32 * block);
}

__m512 minima(const uint8_t* tile, const uint8_t* line, int block) {
  return factored(tile + kPanelRows + 16 * block, line + 2 * kPanelRows + 32 * block);
}

// How far ahead weights are asked for, into the second level cache. Only where a tile is worked on for longer than it
// takes to read it: there the processor's own prefetcher, which follows what is read, comes late. Elsewhere (one
// and two rows) it brings up to half as much again from memory as asking does (Zen 4: docs/inside/perf).
constexpr size_t kAhead = 16384;

template <size_t bytes>
void prefetch(const uint8_t* tile) {
  for (size_t i = 0; i < bytes; i += 64) _mm_prefetch(reinterpret_cast<const char*>(tile + kAhead + i), _MM_HINT_T1);
}

// One row. High values keep their place in the byte and have their own accumulator: no shift a vector, one a group.
template <class Kind, size_t group>
void one_row(float* out, const Tiles& tiles, size_t groups, const int8_t* q, const float* scale, const int32_t* sum) {
  constexpr size_t kTile = Kind::kHeader + 4 * group * Kind::kBits;
  const uint8_t* tile = tiles.tile;
  __m512 f0 = _mm512_setzero_ps();
  __m512 f1 = _mm512_setzero_ps();
  for (size_t g = 0; g < groups; ++g, tile += kTile, q += group) {
    if constexpr (Kind::kBits == 3) prefetch<kTile>(tile);
    const uint8_t* w = tile + Kind::kHeader;
    __m512i low0 = _mm512_set1_epi32(-Kind::kOffset * sum[g]);
    __m512i low1 = low0;
    __m512i high0 = _mm512_setzero_si512();
    __m512i high1 = high0;
#pragma GCC unroll 16
    for (size_t j = 0; j < group / 8; ++j) {
      const __m512i a = four(q + 8 * j);
      const __m512i b = four(q + 8 * j + 4);
      const Pair x = Kind::packed(w, j);
      const Pair y = Kind::packed(w + Kind::kRun, j);
      low0 = _mm512_dpbusd_epi32(low0, x.low, a);
      high0 = _mm512_dpbusd_epi32(high0, x.high, b);
      low1 = _mm512_dpbusd_epi32(low1, y.low, a);
      high1 = _mm512_dpbusd_epi32(high1, y.high, b);
    }
    const __m512i dot0 = _mm512_add_epi32(low0, _mm512_srai_epi32(high0, Kind::kHighShift));
    const __m512i dot1 = _mm512_add_epi32(low1, _mm512_srai_epi32(high1, Kind::kHighShift));
    const __m512 s = _mm512_set1_ps(scale[g]);
    const uint8_t* line = tiles.line(g);
    f0 = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot0), _mm512_mul_ps(scales<Kind>(tile, line, 0), s), f0);
    f1 = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot1), _mm512_mul_ps(scales<Kind>(tile, line, 1), s), f1);
    if constexpr (!Kind::kAffine) continue;
    const __m512 all = _mm512_set1_ps(static_cast<float>(sum[g]));
    f0 = _mm512_fmadd_ps(all, _mm512_mul_ps(minima(tile, line, 0), s), f0);
    f1 = _mm512_fmadd_ps(all, _mm512_mul_ps(minima(tile, line, 1), s), f1);
  }
  _mm512_storeu_ps(out, f0);
  _mm512_storeu_ps(out + 16, f1);
}

// The rows of one block: a block of `a` that starts at row m.
struct Rows {
  const int8_t* q;
  const float* scale;
  const int32_t* sum;
  size_t ldq, lds;
  Rows(const ActRows& a, size_t m, size_t planes)
      : q(a.q + m * planes * a.ldq), scale(a.scale + m * a.lds), sum(a.sum + m * a.lds), ldq(a.ldq), lds(a.lds) {}
};

// M rows of q at once: weights are unpacked once and used M times, one integer accumulator a row and row block. With
// two planes, rows 2m and 2m + 1 are one row of activations, and the low one takes the weights' offset off.
template <class Kind, size_t group, int M>
void some_rows(float* out, size_t ldo, const Tiles& tiles, size_t groups, const Rows& a) {
  constexpr size_t kTile = Kind::kHeader + 4 * group * Kind::kBits;
  const uint8_t* tile = tiles.tile;
  constexpr int planes = Kind::kPlanes;
  constexpr int rows = M / planes;
  __m512 f[2][rows];
  for (int m = 0; m < rows; ++m) f[0][m] = f[1][m] = _mm512_setzero_ps();
  for (size_t g = 0; g < groups; ++g, tile += kTile) {
    if constexpr (M > 2) prefetch<kTile>(tile);
    const uint8_t* w = tile + Kind::kHeader;
    const int8_t* q = a.q + g * group;
    __m512i c[2][M];
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
      c[0][m] = c[1][m] = (m + 1) % planes != 0 ? _mm512_setzero_si512()
                                                : _mm512_set1_epi32(-Kind::kOffset * a.sum[m / planes * a.lds + g]);
#pragma GCC unroll 16
    for (size_t j = 0; j < group / 8; ++j) {
      const Pair x = Kind::split(w, j);
      const Pair y = Kind::split(w + Kind::kRun, j);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const int8_t* row = q + (m / 3) * (3 * a.ldq) + (m % 3) * a.ldq + 8 * j;  // few address registers
        const __m512i low = four(row);
        const __m512i high = four(row + 4);
        c[0][m] = _mm512_dpbusd_epi32(c[0][m], x.low, low);
        c[1][m] = _mm512_dpbusd_epi32(c[1][m], y.low, low);
        c[0][m] = _mm512_dpbusd_epi32(c[0][m], x.high, high);
        c[1][m] = _mm512_dpbusd_epi32(c[1][m], y.high, high);
      }
    }
    const uint8_t* line = tiles.line(g);
    const __m512 s0 = scales<Kind>(tile, line, 0);
    const __m512 s1 = scales<Kind>(tile, line, 1);
#pragma GCC unroll 16
    for (int m = 0; m < rows; ++m) {
      const __m512i dot0 = planes == 1 ? c[0][m] : joined(c[0][2 * m], c[0][2 * m + 1]);
      const __m512i dot1 = planes == 1 ? c[1][m] : joined(c[1][2 * m], c[1][2 * m + 1]);
      const __m512 s = _mm512_set1_ps(a.scale[m * a.lds + g]);
      f[0][m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot0), _mm512_mul_ps(s0, s), f[0][m]);
      f[1][m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot1), _mm512_mul_ps(s1, s), f[1][m]);
    }
    if constexpr (!Kind::kAffine) continue;
    const __m512 t0 = minima(tile, line, 0);
    const __m512 t1 = minima(tile, line, 1);
#pragma GCC unroll 16
    for (int m = 0; m < rows; ++m) {
      const __m512 s = _mm512_set1_ps(a.scale[m * a.lds + g]);
      const __m512 all = _mm512_set1_ps(static_cast<float>(a.sum[m * a.lds + g]));
      f[0][m] = _mm512_fmadd_ps(all, _mm512_mul_ps(t0, s), f[0][m]);
      f[1][m] = _mm512_fmadd_ps(all, _mm512_mul_ps(t1, s), f[1][m]);
    }
  }
  for (int m = 0; m < rows; ++m) {
    _mm512_storeu_ps(out + m * ldo, f[0][m]);
    _mm512_storeu_ps(out + m * ldo + 16, f[1][m]);
  }
}

constexpr size_t kMost = 8;  // rows of q in one block: 16 integer accumulators, the rest for weights and activations

// Row blocks of nearly equal size walk the panel one after the other; after the first walk it lies in the cache.
template <class Kind, size_t group>
void all_rows(float* out, size_t ldo, const Tiles& panel, size_t groups, const ActRows& a, size_t rows) {
  constexpr size_t planes = Kind::kPlanes;
  constexpr size_t most = kMost / planes;
  for (size_t m = 0, blocks = (rows + most - 1) / most; blocks > 0; --blocks) {
    const size_t taken = (rows - m) / blocks;
    const Rows block(a, m, planes);
    float* at = out + m * ldo;
    switch (taken * planes) {
      case 1:
        if constexpr (planes == 1) one_row<Kind, group>(at, panel, groups, block.q, block.scale, block.sum);
        break;
      case 2: some_rows<Kind, group, 2>(at, ldo, panel, groups, block); break;
      case 3:
        if constexpr (planes == 1) some_rows<Kind, group, 3>(at, ldo, panel, groups, block);
        break;
      case 4: some_rows<Kind, group, 4>(at, ldo, panel, groups, block); break;
      case 5:
        if constexpr (planes == 1) some_rows<Kind, group, 5>(at, ldo, panel, groups, block);
        break;
      case 6: some_rows<Kind, group, 6>(at, ldo, panel, groups, block); break;
      case 7:
        if constexpr (planes == 1) some_rows<Kind, group, 7>(at, ldo, panel, groups, block);
        break;
      default: some_rows<Kind, group, kMost>(at, ldo, panel, groups, block); break;
    }
    m += taken;
  }
}

template <class Kind>
void linear(float* out, size_t ldo, const Tiles& panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  switch (group) {
    case 32: return all_rows<Kind, 32>(out, ldo, panel, k / 32, *a, rows);
    case 64: return all_rows<Kind, 64>(out, ldo, panel, k / 64, *a, rows);
    default: return all_rows<Kind, 128>(out, ldo, panel, k / 128, *a, rows);
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
  __m512i sum[lanes];
  for (auto& one : sum) one = _mm512_setzero_si512();
  for (size_t i = 0; i < rounds; ++i)
#pragma GCC unroll 16
    for (size_t lane = 0; lane < lanes; ++lane) {
      __m512i one = _mm512_dpbusd_epi32(sum[lane], _mm512_set1_epi8(3), _mm512_set1_epi8(5));
      __asm__ volatile("" : "+v"(one));  // every product is done
      sum[lane] = one;  // not before: the compiler would keep the sums in memory
    }
  return rounds * lanes * 64;
}

}  // namespace avx512
