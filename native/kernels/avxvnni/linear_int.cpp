// Integer panels times quantized rows. Lanes are output rows, eight (an octet) a vector; weights are unsigned,
// activations signed, as the dot product wants them; the weights' offset is taken off by starting each dot at
// -offset * (sum of the activations).
#include "dot.h"
#include "kernels.h"

namespace avxvnni {
namespace {

// Eight columns of an octet: the first four and the last four.
struct Pair {
  __m256i low, high;
};

__m256i vector_at(const uint8_t* at) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(at)); }

__m256i four(const int8_t* a) {
  int32_t word;
  __builtin_memcpy(&word, a, sizeof word);
  return _mm256_set1_epi32(word);
}

// Two planes' dots as one.
__m256i joined(__m256i high, __m256i low) {
  return _mm256_add_epi32(_mm256_sub_epi32(_mm256_slli_epi32(high, 8), high), low);
}

template <int mask>
Pair nibbles(__m256i x) {
  const __m256i m = _mm256_set1_epi8(mask);
  return {_mm256_and_si256(x, m), _mm256_and_si256(_mm256_srli_epi16(x, 4), m)};
}

// Takes bits of `a` where the mask is set, of `b` elsewhere.
template <int mask>
__m256i select(__m256i a, __m256i b) {
  const __m256i differ = _mm256_and_si256(_mm256_xor_si256(a, b), _mm256_set1_epi8(static_cast<char>(mask)));
  return _mm256_xor_si256(b, differ);
}

// A kind gives columns 8j .. 8j+7 of the 32 columns at `at`, for the octet whose bytes `at` points to.
struct Int4 {
  static constexpr size_t kHeader = 64;  // bytes of a tile before its values
  static constexpr bool kAffine = false;
  static constexpr int kPlanes = 1;  // rows of q that one row of activations takes
  static constexpr size_t kBits = 4;
  static constexpr int kOffset = 8;
  static constexpr size_t kRun = 64;  // bytes of one row block before those of the other
  static Pair pair(const uint8_t* at, size_t j) { return nibbles<15>(vector_at(at + 128 * j)); }
};

struct Affine4 : Int4 {
  static constexpr bool kAffine = true;
  static constexpr int kOffset = 0;
};

struct Mxfp4 : Int4 {
  static constexpr size_t kHeader = 0;
  static constexpr int kOffset = 12;
  static Pair pair(const uint8_t* at, size_t j) {
    const __m128i values = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
    const __m256i table = _mm256_broadcastsi128_si256(values);
    const Pair codes = Int4::pair(at, j);
    return {_mm256_shuffle_epi8(table, codes.low), _mm256_shuffle_epi8(table, codes.high)};
  }
};

struct Int3 {
  static constexpr size_t kHeader = 64;
  static constexpr bool kAffine = false;
  static constexpr int kPlanes = 1;
  static constexpr size_t kBits = 3;
  static constexpr int kOffset = 4;
  static constexpr size_t kRun = 192;
  static Pair pair(const uint8_t* planes, size_t j) {
    const __m256i l0 = vector_at(planes);
    const __m256i l1 = vector_at(planes + 64);
    const __m256i h = vector_at(planes + 128);
    switch (j) {
      case 0: return nibbles<7>(select<0x33>(l0, h));
      case 1: return nibbles<7>(_mm256_srli_epi16(select<0xcc>(l0, h), 1));
      case 2: return nibbles<7>(select<0x33>(l1, _mm256_srli_epi16(h, 1)));
      default: return nibbles<7>(select<0x66>(_mm256_srli_epi16(l1, 1), h));
    }
  }
};

struct Int5 {
  static constexpr size_t kHeader = 64;
  static constexpr bool kAffine = false;
  static constexpr int kPlanes = 1;
  static constexpr size_t kBits = 5;
  static constexpr int kOffset = 16;
  static constexpr size_t kRun = 320;
  static Pair pair(const uint8_t* at, size_t j) {
    const __m256i x = vector_at(at + 64 * j);
    const __m256i h = _mm256_srli_epi16(vector_at(at + 256), static_cast<int>(j));
    const __m256i values = _mm256_set1_epi8(31);
    return {_mm256_and_si256(select<15>(x, h), values),
            _mm256_and_si256(select<30>(_mm256_srli_epi16(x, 3), h), values)};
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
  static Pair pair(const uint8_t* at, size_t j) { return {vector_at(at + 256 * j), vector_at(at + 256 * j + 64)}; }
};

struct Int8Of16 : Int8 {
  static constexpr int kPlanes = 2;
};

// Values of a Kind, unpacked for many rows: a byte each, in the order of int8 panels.
template <class Kind>
struct Unpacked : Int8 {
  static constexpr size_t kHeader = Kind::kHeader;
  static constexpr bool kAffine = Kind::kAffine;
  static constexpr int kOffset = Kind::kOffset;
};

// Some groups of a panel. Their weights may lie elsewhere, unpacked.
struct Groups {
  const uint8_t* tile;  // packed: scales are read from here
  size_t tile_bytes;
  const uint8_t* w;
  size_t w_bytes;
  size_t first, count, group;
  const uint8_t* lines;  // before the tiles: one of `line_bytes` for each 1 << shift groups of the panel
  int shift;
  size_t line_bytes;
  const uint8_t* line(size_t g) const { return lines + ((first + g) >> shift) * line_bytes; }
};

__m256 halves_at(const uint8_t* at) { return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(at))); }

// Of one octet: factors, and what they are factors of.
__m256 factored(const uint8_t* factors, const uint8_t* halves) {
  const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(factors)));
  return _mm256_mul_ps(halves_at(halves), _mm256_cvtepi32_ps(wide));
}

template <class Kind>
__m256 scale_of(const uint8_t* tile, const uint8_t* line, int octet) {
  if constexpr (Kind::kAffine) return factored(tile + 8 * octet, line + 16 * octet);
  if constexpr (Kind::kHeader == 0) {
    const __m128i exponents = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(line + 8 * octet));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu8_epi32(exponents), 23));
  }
  return halves_at(tile + 16 * octet);
}

__m256 minimum_of(const uint8_t* tile, const uint8_t* line, int octet) {
  return factored(tile + kPanelRows + 8 * octet, line + 2 * kPanelRows + 16 * octet);
}

// How far ahead many rows ask for weights. One row asks as it is told.
constexpr size_t kAhead = 8192;

void prefetch(const uint8_t* tile, size_t bytes, size_t ahead = kAhead) {
  for (size_t i = 0; i < bytes; i += 64) _mm_prefetch(reinterpret_cast<const char*>(tile + ahead + i), _MM_HINT_T1);
}

// M rows of q at once, octets of 16 panel rows or, when there is room in the 16 registers, of 32. With two planes, rows
// 2m and 2m + 1 are one row of activations, and the low one takes the weights' offset off. After the first groups of a
// panel, the sums go on from what `out` holds.
template <class Kind, int M>
void some_rows(float* out, size_t ldo, const Groups& some, const ActRows& a, size_t m0) {
  constexpr int planes = Kind::kPlanes;
  constexpr int rows = M / planes;
  constexpr int V = M <= 2 ? 4 : 2;
  const float* scale = a.scale + m0 * a.lds + some.first;
  const int32_t* sum = a.sum + m0 * a.lds + some.first;
  const int8_t* q = a.q + m0 * planes * a.ldq + some.first * some.group;
  __m256 f[4][rows];
  for (int v = 0; v < 4; ++v)
    for (int m = 0; m < rows; ++m)
      f[v][m] = some.first == 0 ? _mm256_setzero_ps() : _mm256_loadu_ps(out + m * ldo + 8 * v);
  for (size_t g = 0; g < some.count; ++g, q += some.group) {
    const uint8_t* tile = some.tile + g * some.tile_bytes;
    const uint8_t* w = some.w + g * some.w_bytes;
    if (some.w_bytes == some.tile_bytes && (rows > 1 || a.prefetch != 0))
      prefetch(tile, some.tile_bytes, rows > 1 ? kAhead : a.prefetch);
#pragma GCC unroll 2
    for (int v0 = 0; v0 < 4; v0 += V) {
      __m256i dot[V][M];
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) {
        const int start = (m + 1) % planes != 0 ? 0 : -Kind::kOffset * sum[m / planes * a.lds + g];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) dot[v][m] = _mm256_set1_epi32(start);
      }
      const uint8_t* at = w + v0 / 2 * Kind::kRun;
      for (size_t i = 0; i < some.group; i += 32, at += 128 * Kind::kBits)
#pragma GCC unroll 4
        for (size_t j = 0; j < 4; ++j) {
          Pair x[V];
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) x[v] = Kind::pair(at + v / 2 * Kind::kRun + v % 2 * 32, j);
#pragma GCC unroll 4
          for (int m = 0; m < M; ++m) {
            const __m256i low = four(q + m * a.ldq + i + 8 * j);
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) dot[v][m] = add_dot(dot[v][m], x[v].low, low);
          }
#pragma GCC unroll 4
          for (int m = 0; m < M; ++m) {
            const __m256i high = four(q + m * a.ldq + i + 8 * j + 4);
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) dot[v][m] = add_dot(dot[v][m], x[v].high, high);
          }
        }
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        const __m256 s = scale_of<Kind>(tile, some.line(g), v0 + v);
#pragma GCC unroll 4
        for (int m = 0; m < rows; ++m) {
          const __m256i joint = planes == 1 ? dot[v][m] : joined(dot[v][2 * m], dot[v][2 * m + 1]);
          const __m256 both = _mm256_mul_ps(s, _mm256_set1_ps(scale[m * a.lds + g]));
          f[v0 + v][m] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(joint), both, f[v0 + v][m]);
        }
        if constexpr (!Kind::kAffine) continue;
        const __m256 t = minimum_of(tile, some.line(g), v0 + v);
#pragma GCC unroll 4
        for (int m = 0; m < rows; ++m) {
          const __m256 both = _mm256_mul_ps(t, _mm256_set1_ps(scale[m * a.lds + g]));
          f[v0 + v][m] = _mm256_fmadd_ps(_mm256_set1_ps(static_cast<float>(sum[m * a.lds + g])), both, f[v0 + v][m]);
        }
      }
    }
  }
  for (int v = 0; v < 4; ++v)
    for (int m = 0; m < rows; ++m) _mm256_storeu_ps(out + m * ldo + 8 * v, f[v][m]);
}

constexpr size_t kMost = 4;  // rows of q in one block: 8 dots, 4 weights, an activation and a mask of 16 registers

// Row blocks of nearly equal size go over the groups one after the other.
template <class Kind>
void all_rows(float* out, size_t ldo, const Groups& some, const ActRows& a, size_t rows) {
  constexpr size_t planes = Kind::kPlanes;
  constexpr size_t most = kMost / planes;
  for (size_t m = 0, blocks = (rows + most - 1) / most; blocks > 0; --blocks) {
    const size_t taken = (rows - m) / blocks;
    float* at = out + m * ldo;
    switch (taken * planes) {
      case 1:
        if constexpr (planes == 1) some_rows<Kind, 1>(at, ldo, some, a, m);
        break;
      case 2: some_rows<Kind, 2>(at, ldo, some, a, m); break;
      case 3:
        if constexpr (planes == 1) some_rows<Kind, 3>(at, ldo, some, a, m);
        break;
      default: some_rows<Kind, kMost>(at, ldo, some, a, m); break;
    }
    m += taken;
  }
}

template <class Kind>
void linear(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows,
            const uint8_t* lines, int shift, size_t line_bytes) {
  const size_t tile_bytes = Kind::kHeader + 4 * group * Kind::kBits;
  const uint8_t* w = panel + Kind::kHeader;
  const Groups all{panel, tile_bytes, w, tile_bytes, 0, k / group, group, lines, shift, line_bytes};
  all_rows<Kind>(out, ldo, all, *a, rows);
}

template <class Kind>
void unpack(uint8_t* to, const uint8_t* from, size_t group) {
  for (size_t k = 0; k < group; k += 32, from += 128 * Kind::kBits, to += 1024)
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; ++i) {
      const size_t j = i / 4, block = i / 2 % 2, octet = i % 2;
      const Pair w = Kind::pair(from + block * Kind::kRun + octet * 32, j);
      uint8_t* at = to + 256 * j + block * 128 + octet * 32;
      _mm256_store_si256(reinterpret_cast<__m256i*>(at), w.low);
      _mm256_store_si256(reinterpret_cast<__m256i*>(at + 64), w.high);
    }
}

constexpr size_t kColumns = 512;    // a slice of the panel this wide is unpacked, then used by all rows: 16 KB
constexpr size_t kFewRows = 2;    // up to here weights are unpacked in registers: more rows leave no room for it

// Kinds of 5 bits or less.
template <class Kind>
void linear_small(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows,
                  const uint8_t* lines = nullptr, int shift = 0, size_t line_bytes = 0) {
  if (rows <= kFewRows) return linear<Kind>(out, ldo, panel, k, group, a, rows, lines, shift, line_bytes);
  alignas(64) uint8_t w[kPanelRows * kColumns];
  const size_t w_bytes = kPanelRows * group, most = kColumns / group, groups = k / group;
  Groups some{panel, Kind::kHeader + 4 * group * Kind::kBits, w, w_bytes, 0, 0, group, lines, shift, line_bytes};
  for (; some.first < groups; some.first += some.count) {
    some.count = groups - some.first < most ? groups - some.first : most;
    some.tile = panel + some.first * some.tile_bytes;
    for (size_t g = 0; g < some.count; ++g) {
      const uint8_t* tile = some.tile + g * some.tile_bytes;
      prefetch(tile, some.tile_bytes);
      unpack<Kind>(w + g * w_bytes, tile + Kind::kHeader, group);
    }
    all_rows<Unpacked<Kind>>(out, ldo, some, *a, rows);
  }
}

}  // namespace

void linear_i4(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  linear_small<Int4>(out, ldo, panel, k, group, a, rows);
}

void linear_i3(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  linear_small<Int3>(out, ldo, panel, k, group, a, rows);
}

void linear_i5(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  linear_small<Int5>(out, ldo, panel, k, group, a, rows);
}

void linear_i8(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  linear<Int8>(out, ldo, panel, k, group, a, rows, nullptr, 0, 0);
}

void linear_i8_16(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  linear<Int8Of16>(out, ldo, panel, k, group, a, rows, nullptr, 0, 0);
}

void linear_a4(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, size_t wide, const ActRows* a,
               size_t rows) {
  const uint8_t* tiles = panel + k / wide * 4 * kPanelRows;
  linear_small<Affine4>(out, ldo, tiles, k, group, a, rows, panel, __builtin_ctzll(wide / group),
                        4 * kPanelRows);
}

void linear_a5(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, size_t wide, const ActRows* a,
               size_t rows) {
  const uint8_t* tiles = panel + k / wide * 4 * kPanelRows;
  linear_small<Affine5>(out, ldo, tiles, k, group, a, rows, panel, __builtin_ctzll(wide / group),
                        4 * kPanelRows);
}

void linear_mx4(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  const uint8_t* tiles = panel + (k / group + 1) / 2 * 2 * kPanelRows;
  linear_small<Mxfp4>(out, ldo, tiles, k, group, a, rows, panel, 0, kPanelRows);
}

size_t int8_peak(size_t rounds) {
  constexpr size_t lanes = 12;  // enough sums at once to hide an instruction's delay
  __m256i sum[lanes];
  for (auto& one : sum) one = _mm256_setzero_si256();
  for (size_t i = 0; i < rounds; ++i)
#pragma GCC unroll 12
    for (size_t lane = 0; lane < lanes; ++lane) {
      __m256i one = add_dot(sum[lane], _mm256_set1_epi8(3), _mm256_set1_epi8(5));
      __asm__ volatile("" : "+x"(one));  // every product is done
      sum[lane] = one;  // not before: the compiler would keep the sums in memory
    }
  return rounds * lanes * 32;
}

}  // namespace avxvnni
