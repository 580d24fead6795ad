// Integer panels times quantized rows. Lanes are output rows, eight (an octet) a vector; two octets, a row block, share
// each activation. vpmaddubsw multiplies unsigned weights with signed activations and adds two neighbours in 16 bits,
// saturating; nothing here can reach that:
//   INT4, INT3: eight products of a lane are at most 8 * 2 * 15 * 127 = 30480.
//   INT5: four are at most 4 * 2 * 31 * 127 = 31496, so its sums are widened after 16 columns.
//   MXFP4: four are at most 4 * 2 * 24 * 127 = 24384, as are these.
// INT8 would, so it takes vpmaddwd on words: a dot is at most 128 * 255 * 32512 < 2^31.
// Long because all kinds share their walks, and nothing inline is shared between folders.
#include "kernels.h"
#include "math.h"

namespace avx2 {
namespace {

__m256i vector_at(const uint8_t* at) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(at)); }

__m256i four(const void* a) {
  int32_t word;
  __builtin_memcpy(&word, a, sizeof word);
  return _mm256_set1_epi32(word);
}

// sum += a dot of neighbours, in 16 or 32 bits. In assembly, because left alone GCC makes the products of a whole chain
// first and spills them: half the speed.
void add_bytes(__m256i& sum, __m256i w, __m256i a) {
  __m256i product;
  __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(w), "x"(a));
}

void add_words(__m256i& sum, __m256i w, __m256i a) {
  __m256i product;
  __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(w), "x"(a));
}

// The first or the last four of eight columns, of one octet.
template <int mask>
__m256i nibbles(__m256i x, size_t half) {
  return _mm256_and_si256(half == 0 ? x : _mm256_srli_epi16(x, 4), _mm256_set1_epi8(mask));
}

// Takes bits of `a` where the mask is set, of `b` elsewhere.
template <int mask>
__m256i select(__m256i a, __m256i b) {
  const __m256i differ = _mm256_and_si256(_mm256_xor_si256(a, b), _mm256_set1_epi8(static_cast<char>(mask)));
  return _mm256_xor_si256(b, differ);
}

// dot[octet][m] += a group of one row block times M rows, for weights of 5 bits or less: Kind::values gives four columns,
// the j-th of 32. `single`: the group has 32, so that no sum has to be kept beside those of 16 bits: there is no register
// for it.
template <class Kind, int M, bool single>
inline __attribute__((always_inline)) void small_dot(__m256i (*dot)[M], const uint8_t* at, const int8_t* q, size_t ldq,
                                                     size_t group) {
  for (size_t k = 0; k < (single ? 32 : group); k += 32, at += 128 * Kind::kBits, q += 32)
#pragma GCC unroll 2
    for (size_t first = 0; first < 4; first += Kind::kEights) {
      __m256i sum[2][M];
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) sum[0][m] = sum[1][m] = _mm256_setzero_si256();
#pragma GCC unroll 4
      for (size_t j = first; j < first + Kind::kEights; ++j)
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; ++half) {
          const __m256i x = Kind::values(at, j, half), y = Kind::values(at + 32, j, half);
#pragma GCC unroll 4
          for (int m = 0; m < M; ++m) {
            const __m256i a = four(q + m * ldq + 8 * j + 4 * half);
            add_bytes(sum[0][m], x, a);
            add_bytes(sum[1][m], y, a);
          }
        }
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
        for (int octet = 0; octet < 2; ++octet) {
          const __m256i words = _mm256_madd_epi16(sum[octet][m], _mm256_set1_epi16(1));
          dot[octet][m] = single && first == 0 ? words : _mm256_add_epi32(dot[octet][m], words);
        }
    }
}

struct Int4 {
  static constexpr size_t kHeader = 64;  // bytes of a tile before its values
  static constexpr size_t kEights = 4;   // how many eight columns are added up in 16 bits
  static constexpr bool kAffine = false;
  static constexpr size_t kPlanes = 1;
  static constexpr size_t kBits = 4;
  static constexpr int kOffset = 8;  // what is stored is that more than the value
  static constexpr size_t kRun = 64;  // bytes of one row block before those of the other
  static constexpr size_t kFew = 16;  // rows up to which taking values apart each time is cheaper than storing them
  static __m256i values(const uint8_t* at, size_t j, size_t half) { return nibbles<15>(vector_at(at + 128 * j), half); }
};

struct Affine4 : Int4 {
  static constexpr bool kAffine = true;
};

struct Mxfp4 : Int4 {
  static constexpr size_t kHeader = 0;
  static constexpr size_t kEights = 2;
  static constexpr int kOffset = 12;
  static __m256i values(const uint8_t* at, size_t j, size_t half) {
    const __m256i table = _mm256_broadcastsi128_si256(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    return _mm256_shuffle_epi8(table, Int4::values(at, j, half));
  }
};

struct Int3 {
  static constexpr size_t kHeader = 64;
  static constexpr size_t kEights = 4;
  static constexpr bool kAffine = false;
  static constexpr size_t kPlanes = 1;
  static constexpr size_t kBits = 3;
  static constexpr int kOffset = 4;
  static constexpr size_t kRun = 192;
  static constexpr size_t kFew = 4;
  static __m256i values(const uint8_t* planes, size_t j, size_t half) {
    const __m256i l0 = vector_at(planes);
    const __m256i l1 = vector_at(planes + 64);
    const __m256i h = vector_at(planes + 128);
    switch (j) {
      case 0: return nibbles<7>(select<0x33>(l0, h), half);
      case 1: return nibbles<7>(_mm256_srli_epi16(select<0xcc>(l0, h), 1), half);
      case 2: return nibbles<7>(select<0x33>(l1, _mm256_srli_epi16(h, 1)), half);
      default: return nibbles<7>(select<0x66>(_mm256_srli_epi16(l1, 1), h), half);
    }
  }
};

struct Int5 {
  static constexpr size_t kHeader = 64;
  static constexpr size_t kEights = 2;
  static constexpr bool kAffine = false;
  static constexpr size_t kPlanes = 1;
  static constexpr size_t kBits = 5;
  static constexpr int kOffset = 16;
  static constexpr size_t kRun = 320;
  static constexpr size_t kFew = 4;
  static __m256i values(const uint8_t* at, size_t j, size_t half) {
    const __m256i x = vector_at(at + 64 * j);
    const __m256i h = _mm256_srli_epi16(vector_at(at + 256), static_cast<int>(j));
    if (half == 0) return _mm256_or_si256(nibbles<15>(x, 0), _mm256_and_si256(h, _mm256_set1_epi8(16)));
    const __m256i upper = _mm256_and_si256(_mm256_srli_epi16(x, 3), _mm256_set1_epi8(30));
    return _mm256_or_si256(upper, _mm256_and_si256(h, _mm256_set1_epi8(1)));
  }
};

struct Affine5 : Int5 {
  static constexpr bool kAffine = true;
};

// Values of a Kind of 5 bits or less, unpacked once for many rows: a byte each, in the order of int8 panels.
template <class Kind>
struct Unpacked {
  static constexpr bool kAffine = Kind::kAffine;
  static constexpr size_t kPlanes = 1;
  static constexpr size_t kBits = 8;
  static constexpr int kOffset = Kind::kOffset;
  static constexpr size_t kHeader = Kind::kHeader;
  static constexpr size_t kEights = Kind::kEights;
  static constexpr size_t kRun = 128;
  static __m256i values(const uint8_t* at, size_t j, size_t half) { return vector_at(at + 256 * j + 64 * half); }
};

template <class Kind>
void unpack(uint8_t* to, const uint8_t* from, size_t group) {
  for (size_t k = 0; k < group; k += 32, from += 128 * Kind::kBits, to += 1024) {
#pragma GCC unroll 32
    for (size_t i = 0; i < 32; ++i) {
      const size_t j = i / 8, block = i / 4 % 2, half = i / 2 % 2, octet = i % 2;
      const __m256i values = Kind::values(from + block * Kind::kRun + octet * 32, j, half);
      _mm256_store_si256(reinterpret_cast<__m256i*>(to + 32 * i), values);
    }
  }
}

constexpr size_t kMost = 4;     // rows in one block: 8 sums, 4 weights, an activation, a product, a mask of 16 registers
constexpr size_t kGroup = 128;  // the largest

// Eight bits of weights are multiplied in 16: activations are widened first, a block of rows and a group at a time, each
// four columns in the order 0, 2, 1, 3, as the even and the odd bytes of weights come. As a call it would keep its sums in
// memory.
template <int M>
inline __attribute__((always_inline)) void wide_dot(__m256i (*dot)[M], const uint8_t* at, const int16_t* a, size_t group) {
  const __m256i even = _mm256_set1_epi16(255);
  for (size_t k = 0; k < group; k += 8, at += 256)
#pragma GCC unroll 2
    for (size_t half = 0; half < 2; ++half, a += 4) {
      const __m256i x = vector_at(at + 64 * half);
      const __m256i y = vector_at(at + 64 * half + 32);
      const __m256i x0 = _mm256_and_si256(x, even);
      const __m256i y0 = _mm256_and_si256(y, even);
      const __m256i x1 = _mm256_srli_epi16(x, 8);
      const __m256i y1 = _mm256_srli_epi16(y, 8);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) {
        const __m256i first = four(a + m * kGroup);
        const __m256i second = four(a + m * kGroup + 2);
        add_words(dot[0][m], x0, first);
        add_words(dot[1][m], y0, first);
        add_words(dot[0][m], x1, second);
        add_words(dot[1][m], y1, second);
      }
    }
}

__m256i widened(const int8_t* q) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)));
}

void store_words(int16_t* to, __m256i x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(x, 0xd8), 0xd8));
}

struct Int8 {
  static constexpr size_t kHeader = 64;
  static constexpr bool kAffine = false;
  static constexpr size_t kPlanes = 1;
  static constexpr size_t kBits = 8;
  static constexpr int kOffset = 128;
  static constexpr size_t kRun = 128;
  static void widen(int16_t* to, const int8_t* q, size_t, size_t group) {
    for (size_t k = 0; k < group; k += 16) store_words(to + k, widened(q + k));
  }
};

struct Int8Of16 : Int8 {
  static constexpr size_t kPlanes = 2;
  static void widen(int16_t* to, const int8_t* q, size_t ldq, size_t group) {
    for (size_t k = 0; k < group; k += 16) {
      const __m256i high = widened(q + k);
      store_words(to + k, _mm256_add_epi16(_mm256_sub_epi16(_mm256_slli_epi16(high, 8), high), widened(q + ldq + k)));
    }
  }
};

template <class Kind>
constexpr bool kWide = Kind::kOffset == 128;

// Where the scales of a group lie: at its tile; of affine weights the tile has factors of what the line has.
struct Scales {
  const uint8_t* tile;
  const uint8_t* line;
};

__m256 halves_at(const uint8_t* at) { return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(at))); }

// Of one octet: factors, and what they are factors of.
__m256 factored(const uint8_t* factors, const uint8_t* halves) {
  const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(factors)));
  return _mm256_mul_ps(halves_at(halves), _mm256_cvtepi32_ps(wide));
}

template <class Kind>
__m256 scale_of(const Scales& at, size_t octet) {
  if constexpr (Kind::kAffine) return factored(at.tile + 8 * octet, at.line + 16 * octet);
  if constexpr (Kind::kHeader == 0) {
    const __m128i exponents = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at.line + 8 * octet));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu8_epi32(exponents), 23));
  }
  return halves_at(at.tile + 16 * octet);
}

__m256 minimum_of(const Scales& at, size_t octet) {
  return factored(at.tile + kPanelRows + 8 * octet, at.line + 2 * kPanelRows + 16 * octet);
}

// A group's dots of one octet and row as products with its scale, added to those before.
template <class Kind>
__m256 with_group(__m256 acc, __m256i dot, int32_t sum, __m256 w_scale, __m256 scale) {
  if constexpr (!Kind::kAffine)
    dot = _mm256_sub_epi32(dot, _mm256_set1_epi32(Kind::kOffset * sum));
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(w_scale, scale), acc);
}

__m256 with_minimum(__m256 acc, int32_t sum, __m256 minimum, __m256 scale) {
  return _mm256_fmadd_ps(_mm256_set1_ps(static_cast<float>(sum)), _mm256_mul_ps(minimum, scale), acc);
}

// The tiles of a panel, and the lines before them, one of so many bytes for each 1 << shift groups.
struct Tiles {
  const uint8_t* tile;
  const uint8_t* lines;
  int shift;
  size_t bytes;
  const uint8_t* line(size_t g) const { return lines + (g >> shift) * bytes; }
};

// How far ahead many rows ask for weights, a tile at a time. One row uses them up sooner, and asks line by line.
constexpr size_t kAhead = 8192;

void prefetch(const uint8_t* tile, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) _mm_prefetch(reinterpret_cast<const char*>(tile + kAhead + i), _MM_HINT_T1);
}

inline __attribute__((always_inline)) void prefetch_for_one(const uint8_t* at, size_t bytes, size_t ahead) {
#pragma GCC unroll 8
  for (size_t i = 0; i < bytes; i += 64) _mm_prefetch(reinterpret_cast<const char*>(at + ahead + i), _MM_HINT_T0);
}

// dot[octet] = a group of all four octets times one row, in the order in which the weights lie.
template <class Kind>
inline __attribute__((always_inline)) void one_row_dot(__m256i (&dot)[4], const uint8_t* w, const int8_t* q, size_t group,
                                                       size_t ahead) {
  for (size_t k = 0; k < group; k += 32, w += 128 * Kind::kBits, q += 32) {
    prefetch_for_one(w, 128 * Kind::kBits, ahead);
    constexpr bool byColumns = Kind::kRun == 64;  // else a row block has its run of 32 columns before the other
#pragma GCC unroll 2
    for (size_t first = 0; first < 4; first += Kind::kEights) {
      __m256i sum[4];
#pragma GCC unroll 4
      for (auto& one : sum) one = _mm256_setzero_si256();
#pragma GCC unroll 16
      for (size_t i = 0; i < 4 * Kind::kEights; ++i) {
        const size_t j = first + (byColumns ? i / 4 : i % Kind::kEights), octet = byColumns ? i % 4 : i / Kind::kEights;
        const uint8_t* at = w + octet / 2 * Kind::kRun + octet % 2 * 32;
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; ++half)
          add_bytes(sum[octet], Kind::values(at, j, half), four(q + 8 * j + 4 * half));
      }
#pragma GCC unroll 4
      for (size_t octet = 0; octet < 4; ++octet)
        dot[octet] = _mm256_add_epi32(dot[octet], _mm256_madd_epi16(sum[octet], _mm256_set1_epi16(1)));
    }
  }
}

inline __attribute__((always_inline)) void one_wide_dot(__m256i (&dot)[4], const uint8_t* w, const int16_t* a, size_t group,
                                                        size_t ahead) {
  const __m256i even = _mm256_set1_epi16(255);
  for (size_t k = 0; k < group; k += 8, w += 256, a += 8) {
    prefetch_for_one(w, 256, ahead);
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; ++i) {
      const size_t block = i / 4, half = i / 2 % 2, octet = i % 2;
      const __m256i x = vector_at(w + 128 * block + 64 * half + 32 * octet);
      add_words(dot[2 * block + octet], _mm256_and_si256(x, even), four(a + 4 * half));
      add_words(dot[2 * block + octet], _mm256_srli_epi16(x, 8), four(a + 4 * half + 2));
    }
  }
}

// One row and a whole panel, or two of them by turns, a group each: a core that reads two streams has more lines on their
// way from memory. What decode does: it walks straight through the weights, and asks for them ahead.
template <class Kind>
void one_row(float* out, const Tiles& tiles, size_t groups, size_t group, const ActRows& a) {
  const size_t panels = a.second == 0 ? 1 : 2;
  alignas(64) float acc[2 * kPanelRows];
  for (size_t i = 0; i < panels * kPanelRows; i += 8) _mm256_store_ps(acc + i, _mm256_setzero_ps());
  const int8_t* q = a.q;
  const uint8_t* first = tiles.tile;
  for (size_t g = 0; g < groups; ++g, first += Kind::kHeader + 4 * group * Kind::kBits, q += group) {
    const __m256 scale = _mm256_set1_ps(a.scale[g]);
    int16_t words[kWide<Kind> ? kGroup : 1];
    if constexpr (kWide<Kind>) Kind::widen(words, q, a.ldq, group);
#pragma GCC unroll 1
    for (size_t panel = 0; panel < panels; ++panel) {
      const uint8_t* tile = first + panel * a.second;
      __m256i dot[4];
#pragma GCC unroll 4
      for (auto& one : dot) one = _mm256_setzero_si256();
      prefetch_for_one(tile, Kind::kHeader, a.prefetch);
      if constexpr (kWide<Kind>)
        one_wide_dot(dot, tile + Kind::kHeader, words, group, a.prefetch);
      else
        one_row_dot<Kind>(dot, tile + Kind::kHeader, q, group, a.prefetch);
      const Scales scales{tile, tiles.line(g) + panel * a.second};
#pragma GCC unroll 4
      for (size_t octet = 0; octet < 4; ++octet) {
        float* at = acc + panel * kPanelRows + 8 * octet;
        __m256 sums = with_group<Kind>(_mm256_load_ps(at), dot[octet], a.sum[g], scale_of<Kind>(scales, octet), scale);
        if constexpr (Kind::kAffine) sums = with_minimum(sums, a.sum[g], minimum_of(scales, octet), scale);
        _mm256_store_ps(at, sums);
      }
    }
  }
  for (size_t i = 0; i < panels * kPanelRows; i += 8) _mm256_storeu_ps(out + i, _mm256_load_ps(acc + i));
}

// One group of M rows: acc[m][32 panel rows] = fma(float(dot), w_scale * a_scale, acc). q, a_scale and sum are at the
// group's place in the first row; w are the weights' values. `single` as for small_dot.
template <class Kind, int M, bool single>
__attribute__((noinline)) void one_group(float* acc, const uint8_t* tile, const uint8_t* w, const int8_t* q, const float* a_scale,
               const int32_t* sum, const ActRows& a, size_t group, const uint8_t* line) {
  const Scales scales{tile, line};
  int16_t words[kWide<Kind> ? M * kGroup : 1];
  if constexpr (kWide<Kind>)
    for (int m = 0; m < M; ++m) Kind::widen(words + m * kGroup, q + Kind::kPlanes * m * a.ldq, a.ldq, group);
#pragma GCC unroll 1
  for (size_t block = 0; block < 2; ++block, w += Kind::kRun, acc += 16) {
    __m256i dot[2][M];
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) dot[0][m] = dot[1][m] = _mm256_setzero_si256();
    __asm__("" : "+r"(q));  // GCC would read all activations once for both blocks, and has no registers to keep them
    if constexpr (kWide<Kind>)
      wide_dot<M>(dot, w, words, group);
    else
      small_dot<Kind, M, single>(dot, w, q, a.ldq, group);
    const __m256 w_scale[2] = {scale_of<Kind>(scales, 2 * block), scale_of<Kind>(scales, 2 * block + 1)};
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      const __m256 scale = _mm256_set1_ps(a_scale[m * a.lds]);
#pragma GCC unroll 2
      for (size_t octet = 0; octet < 2; ++octet) {
        float* at = acc + m * kPanelRows + 8 * octet;
        _mm256_store_ps(at, with_group<Kind>(_mm256_load_ps(at), dot[octet][m], sum[m * a.lds], w_scale[octet], scale));
      }
    }
    if constexpr (!Kind::kAffine) continue;
    const __m256 minimum[2] = {minimum_of(scales, 2 * block), minimum_of(scales, 2 * block + 1)};
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      const __m256 scale = _mm256_set1_ps(a_scale[m * a.lds]);
#pragma GCC unroll 2
      for (size_t octet = 0; octet < 2; ++octet) {
        float* at = acc + m * kPanelRows + 8 * octet;
        _mm256_store_ps(at, with_minimum(_mm256_load_ps(at), sum[m * a.lds], minimum[octet], scale));
      }
    }
  }
}

// One group of any number of rows, in blocks of nearly equal size.
template <class Kind, bool single>
void one_tile(float* acc, const Scales& scales, const uint8_t* w, size_t g, size_t group, const ActRows& a, size_t m0,
              size_t rows) {
  const uint8_t* tile = scales.tile;
  for (size_t m = 0, blocks = (rows + kMost - 1) / kMost; blocks > 0; --blocks) {
    const size_t taken = (rows - m) / blocks;
    float* to = acc + m * kPanelRows;
    const int8_t* q = a.q + (m0 + m) * Kind::kPlanes * a.ldq + g * group;
    const float* scale = a.scale + (m0 + m) * a.lds + g;
    const int32_t* sum = a.sum + (m0 + m) * a.lds + g;
    switch (taken) {
      case 1: one_group<Kind, 1, single>(to, tile, w, q, scale, sum, a, group, scales.line); break;
      case 2: one_group<Kind, 2, single>(to, tile, w, q, scale, sum, a, group, scales.line); break;
      case 3: one_group<Kind, 3, single>(to, tile, w, q, scale, sum, a, group, scales.line); break;
      default: one_group<Kind, kMost, single>(to, tile, w, q, scale, sum, a, group, scales.line); break;
    }
    m += taken;
  }
}

constexpr size_t kWalk = 32;  // rows that go through the panel together: their sums fill an eighth of the first cache

// All rows use a tile while it, unpacked, lies in the first level cache.
template <class Kind, bool single>
void walk(float* out, size_t ldo, const Tiles& tiles, size_t groups, size_t group, const ActRows& a, size_t m0,
          size_t rows) {
  alignas(64) float acc[kWalk * kPanelRows];
  for (size_t i = 0; i < rows * kPanelRows; i += 8) _mm256_store_ps(acc + i, _mm256_setzero_ps());
  const size_t bytes = Kind::kHeader + 4 * group * Kind::kBits;
  const uint8_t* tile = tiles.tile;
  for (size_t g = 0; g < groups; ++g, tile += bytes) {
    prefetch(tile, bytes);
    const Scales scales{tile, tiles.line(g)};
    if constexpr (Kind::kBits < 8) {
      if (rows > Kind::kFew) {
        alignas(64) uint8_t values[kPanelRows * kGroup];
        unpack<Kind>(values, tile + Kind::kHeader, group);
        one_tile<Unpacked<Kind>, single>(acc, scales, values, g, group, a, m0, rows);
        continue;
      }
    }
    one_tile<Kind, single>(acc, scales, tile + Kind::kHeader, g, group, a, m0, rows);
  }
  for (size_t m = 0; m < rows; ++m)
    for (size_t i = 0; i < kPanelRows; i += 8)
      _mm256_storeu_ps(out + m * ldo + i, _mm256_load_ps(acc + m * kPanelRows + i));
}

template <class Kind>
void linear(float* out, size_t ldo, const Tiles& tiles, size_t k, size_t group, const ActRows* a, size_t rows) {
  const auto some = group == 32 && !kWide<Kind> ? walk<Kind, true> : walk<Kind, false>;
  if (rows == 1) return one_row<Kind>(out, tiles, k / group, group, *a);
  for (size_t m = 0; m < rows; m += kWalk)
    some(out + m * ldo, ldo, tiles, k / group, group, *a, m, rows - m < kWalk ? rows - m : kWalk);
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

template <class Kind>
static void linear_affine(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, size_t wide,
                          const ActRows* a, size_t rows) {
  const int shift = __builtin_ctzll(wide / group);
  linear<Kind>(out, ldo, Tiles{panel + k / wide * 4 * kPanelRows, panel, shift, 4 * kPanelRows}, k, group, a, rows);
}

void linear_a4(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, size_t wide, const ActRows* a,
               size_t rows) {
  linear_affine<Affine4>(out, ldo, panel, k, group, wide, a, rows);
}

void linear_a5(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, size_t wide, const ActRows* a,
               size_t rows) {
  linear_affine<Affine5>(out, ldo, panel, k, group, wide, a, rows);
}

void linear_mx4(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  const size_t lines = (k / group + 1) / 2 * 2 * kPanelRows;
  linear<Mxfp4>(out, ldo, Tiles{panel + lines, panel, 0, kPanelRows}, k, group, a, rows);
}

size_t int8_peak(size_t rounds) {
  constexpr size_t lanes = 8;  // enough sums at once to hide an instruction's delay
  __m256i sum[lanes];
  __m256i factor = _mm256_set1_epi8(5);
  for (auto& one : sum) one = _mm256_setzero_si256();
  for (size_t i = 0; i < rounds; ++i)
#pragma GCC unroll 8
    for (size_t lane = 0; lane < lanes; ++lane) {
      __asm__ volatile("" : "+x"(factor));  // not the same product each time, as far as the compiler knows
      __m256i one = _mm256_add_epi16(sum[lane], _mm256_maddubs_epi16(_mm256_set1_epi8(3), factor));
      __asm__ volatile("" : "+x"(one));  // every product is done
      sum[lane] = one;  // not before: the compiler would keep the sums in memory
    }
  return rounds * lanes * 32;
}

}  // namespace avx2
