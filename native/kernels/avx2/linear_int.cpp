// Integer panels times quantized rows. Lanes are output rows, eight at a time. vpmaddubsw multiplies unsigned weights
// with signed activations and adds two neighbours in 16 bits, saturating; nothing here can reach that:
//   INT4, INT3: eight products of a lane are at most 8 * 2 * 15 * 127 = 30480.
//   INT8: |w| <= 128 with the sign moved to the activation gives at most 2 * 128 * 127 = 32512, widened at once.
#include "kernels.h"
#include "math.h"

namespace avx2 {
namespace {

// Eight columns of eight rows: the first four and the last four.
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

// dot[m] += 32 columns of eight rows times M rows of activations; ldq apart.
template <class Kind, int M>
void dot_nibbles(__m256i dot[M], const uint8_t* at, const int8_t* q, size_t ldq) {
  __m256i sum[M];
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) sum[m] = _mm256_setzero_si256();
#pragma GCC unroll 4
  for (size_t j = 0; j < 4; ++j) {
    const Pair w = Kind::pair(at, j);
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      const int8_t* a = q + m * ldq + 8 * j;
      sum[m] = _mm256_add_epi16(sum[m], _mm256_maddubs_epi16(w.low, four(a)));
      sum[m] = _mm256_add_epi16(sum[m], _mm256_maddubs_epi16(w.high, four(a + 4)));
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m)
    dot[m] = _mm256_add_epi32(dot[m], _mm256_madd_epi16(sum[m], _mm256_set1_epi16(1)));
}

struct Int4 {
  static constexpr int kPlanes = 1;  // rows of q that one row of activations takes
  static constexpr size_t kBits = 4;
  static constexpr int kOffset = 8;
  static Pair pair(const uint8_t* at, size_t j) { return nibbles<15>(vector_at(at + 64 * j)); }
  template <int M>
  static void dot(__m256i d[M], const uint8_t* at, const int8_t* q, size_t ldq) {
    dot_nibbles<Int4, M>(d, at, q, ldq);
  }
};

struct Int3 {
  static constexpr int kPlanes = 1;
  static constexpr size_t kBits = 3;
  static constexpr int kOffset = 4;
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
  template <int M>
  static void dot(__m256i d[M], const uint8_t* at, const int8_t* q, size_t ldq) {
    dot_nibbles<Int3, M>(d, at, q, ldq);
  }
};

struct Int8 {
  static constexpr int kPlanes = 1;
  static constexpr size_t kBits = 8;
  static constexpr int kOffset = 0;  // weights are made signed here
  template <int M>
  static void dot(__m256i d[M], const uint8_t* at, const int8_t* q, size_t ldq) {
    for (size_t j = 0; j < 8; ++j) {
      const __m256i w = _mm256_xor_si256(vector_at(at + 64 * j), _mm256_set1_epi8(-128));
      const __m256i size = _mm256_abs_epi8(w);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) {
        const __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(four(q + m * ldq + 4 * j), w));
        d[m] = _mm256_add_epi32(d[m], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
      }
    }
  }
};

struct Int8Of16 : Int8 {
  static constexpr int kPlanes = 2;
};

constexpr size_t kAhead = 8192;  // how far ahead weights are asked for

// M rows of q; the 32 panel rows are four octets. With two planes, rows 2m and 2m + 1 are one row of activations.
template <class Kind, int M>
void some_rows(float* out, size_t ldo, const uint8_t* tile, size_t groups, size_t group, const ActRows& a, size_t m0) {
  constexpr int rows = M / Kind::kPlanes;
  const size_t block = 16 * group * Kind::kBits / 8;  // bytes of 16 rows
  const size_t step = 16 * 32 * Kind::kBits / 8;      // bytes of 16 rows and 32 columns
  const float* scale = a.scale + m0 * a.lds;
  const int32_t* sum = a.sum + m0 * a.lds;
  __m256 f[4][rows];
  for (int octet = 0; octet < 4; ++octet)
    for (int m = 0; m < rows; ++m) f[octet][m] = _mm256_setzero_ps();
  for (size_t g = 0; g < groups; ++g, tile += 64 + 2 * block) {
    const int8_t* q = a.q + m0 * Kind::kPlanes * a.ldq + g * group;
    for (size_t i = 0; i < 64 + 2 * block; i += 64)
      _mm_prefetch(reinterpret_cast<const char*>(tile + kAhead + i), _MM_HINT_T1);
#pragma GCC unroll 4
    for (size_t octet = 0; octet < 4; ++octet) {
      const uint8_t* w = tile + 64 + (octet / 2) * block + (octet % 2) * 32;
      __m256i dot[M];
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m)
        dot[m] = Kind::kOffset == 0 ? _mm256_setzero_si256() : _mm256_set1_epi32(-Kind::kOffset * sum[m * a.lds + g]);
      for (size_t k = 0; k < group / 32; ++k) Kind::template dot<M>(dot, w + k * step, q + 32 * k, a.ldq);
      const __m128i halves = _mm_load_si128(reinterpret_cast<const __m128i*>(tile) + octet);
#pragma GCC unroll 4
      for (int m = 0; m < rows; ++m) {
        const __m256i whole = Kind::kPlanes == 1 ? dot[m] : joined(dot[2 * m], dot[2 * m + 1]);
        const __m256 s = _mm256_mul_ps(_mm256_cvtph_ps(halves), _mm256_set1_ps(scale[m * a.lds + g]));
        f[octet][m] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole), s, f[octet][m]);
      }
    }
  }
  for (int octet = 0; octet < 4; ++octet)
    for (int m = 0; m < rows; ++m) _mm256_storeu_ps(out + m * ldo + 8 * octet, f[octet][m]);
}

constexpr size_t kMost = 4;  // rows of q in one block: 16 registers are few

// Row blocks of nearly equal size walk the panel one after the other; after the first walk it lies in the cache.
template <class Kind>
void linear(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  constexpr int planes = Kind::kPlanes;
  constexpr size_t most = kMost / planes;
  for (size_t m = 0, blocks = (rows + most - 1) / most; blocks > 0; --blocks) {
    const size_t here = (rows - m) / blocks;
    float* at = out + m * ldo;
    switch (here * planes) {
      case 1:
        if constexpr (planes == 1) some_rows<Kind, 1>(at, ldo, panel, k / group, group, *a, m);
        break;
      case 2: some_rows<Kind, 2>(at, ldo, panel, k / group, group, *a, m); break;
      case 3:
        if constexpr (planes == 1) some_rows<Kind, 3>(at, ldo, panel, k / group, group, *a, m);
        break;
      default: some_rows<Kind, kMost>(at, ldo, panel, k / group, group, *a, m); break;
    }
    m += here;
  }
}

}  // namespace

void linear_i4(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  linear<Int4>(out, ldo, panel, k, group, a, rows);
}

void linear_i3(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  linear<Int3>(out, ldo, panel, k, group, a, rows);
}

void linear_i8(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  linear<Int8>(out, ldo, panel, k, group, a, rows);
}

void linear_i8_16(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  linear<Int8Of16>(out, ldo, panel, k, group, a, rows);
}

}  // namespace avx2
