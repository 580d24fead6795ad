// Attention. Lanes are tokens for the scores and dimensions for the values; up to six queries share every key and value
// that is loaded. A KV split is taken in three sweeps: all scores, the softmax of each query, all values; so the sums
// of values stay in registers from the first token to the last.
// Long because three kinds of cache are read, and the sweeps are templates over them.
#include "kernels.h"
#include "math.h"

namespace avx512 {

enum { kMaxHeadDim = 512, kMost = 6, kBlocks = kKvChunk / kKvBlock };
enum { kColumns = 32, kMaxGroups = kMaxHeadDim / kColumns };  // 4 bit: that share a scale, and how many do
static_assert(int{kAttendRoom} >= int{kMost} * int{kKvChunk} * int{kMaxGroups}, "the room of a job");

namespace {

// One query of a group, and what it sees: tokens [from, to) of the KV split.
struct Query {
  const float* q;
  const int8_t* q8;
  int32_t start[kMaxGroups];  // -128 * (sum of q8), 4 bit: -8 * (sum of each group): takes the keys' offset off
  float scale;    // 8 and 4 bit: of q8 and the score; 16 bit: of the score
  size_t from, to;
  float *m, *l, *acc;
  bool merge;  // into what is valid
};

// What is known of a group between the sweeps. weight holds the scores first.
struct Group {
  Query query[kMost];
  size_t from, to;            // tokens that some query sees
  size_t all_from, all_to;    // tokens that all see; empty when all_from >= all_to
  float m[kMost], l[kMost];
  alignas(64) float weight[kMost][kKvChunk];
  // 4 bit: weight times the scale of the value, of query h, token t and group g at [(h*kKvChunk + t)*groups + g].
  float* spread;
  alignas(64) float c[kMost][2 * kBlocks];  // what the sums so far are multiplied by when a block begins
};

struct Cache8 {
  static const bool kQuantized = true;
  static const size_t kScales = 0;  // of a value's parts; 0: none, or one that soften applies

  static void start(Query* query, size_t, int32_t sum) { query->start[0] = -128 * sum; }

  static size_t bytes(size_t head_dim) { return 2 * kKvBlock * (head_dim + sizeof(float)); }

  template <int C>
  static void values(__m512 v[C], const uint8_t* block, size_t head_dim, size_t t, size_t d) {
    const auto* at = reinterpret_cast<const __m128i*>(block + (kKvBlock + t) * head_dim + d);
#pragma GCC unroll 4
    for (int i = 0; i < C; ++i) v[i] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_load_si128(at + i)));
  }

  template <int H>
  static void scores(Group* group, size_t at, const uint8_t* block, size_t head_dim) {
    __m512i c[H][2];
    for (int h = 0; h < H; ++h) c[h][0] = c[h][1] = _mm512_set1_epi32(group->query[h].start[0]);
    for (size_t d = 0; d < head_dim; d += 4) {
      const __m512i k0 = _mm512_load_si512(block + d * kKvBlock);
      const __m512i k1 = _mm512_load_si512(block + d * kKvBlock + 64);
#pragma GCC unroll 6
      for (int h = 0; h < H; ++h) {
        int32_t word;
        __builtin_memcpy(&word, group->query[h].q8 + d, sizeof word);
        c[h][0] = _mm512_dpbusd_epi32(c[h][0], k0, _mm512_set1_epi32(word));
        c[h][1] = _mm512_dpbusd_epi32(c[h][1], k1, _mm512_set1_epi32(word));
      }
    }
    const float* k_scale = reinterpret_cast<const float*>(block + 2 * kKvBlock * head_dim);
    for (int h = 0; h < H; ++h)
      for (size_t i = 0; i < 2; ++i) {
        const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(group->query[h].scale), _mm512_load_ps(k_scale + 16 * i));
        _mm512_store_ps(group->weight[h] + at + 16 * i, _mm512_mul_ps(_mm512_cvtepi32_ps(c[h][i]), scale));
      }
  }

  static __m512 weight(__m512 p, const uint8_t* block, size_t head_dim, size_t i) {
    const float* v_scale = reinterpret_cast<const float*>(block + 2 * kKvBlock * head_dim) + kKvBlock;
    return _mm512_mul_ps(p, _mm512_load_ps(v_scale + 16 * i));
  }

  static float weight_of(const Group& group, int h, size_t t, size_t, size_t) { return group.weight[h][t]; }
};

struct Cache16 {
  static const bool kQuantized = false;
  static const size_t kScales = 0;

  static size_t bytes(size_t head_dim) { return 4 * kKvBlock * head_dim; }

  template <int C>
  static void values(__m512 v[C], const uint8_t* block, size_t head_dim, size_t t, size_t d) {
    const auto* at = reinterpret_cast<const __m256i*>(block + 2 * ((kKvBlock + t) * head_dim + d));
#pragma GCC unroll 4
    for (int i = 0; i < C; ++i) v[i] = _mm512_cvtph_ps(_mm256_load_si256(at + i));
  }

  template <int H>
  static void scores(Group* group, size_t at, const uint8_t* block, size_t head_dim) {
    __m512 s[H][2];
    for (int h = 0; h < H; ++h) s[h][0] = s[h][1] = _mm512_setzero_ps();
    for (size_t d = 0; d < head_dim; ++d) {
      const __m256i* line = reinterpret_cast<const __m256i*>(block + 2 * d * kKvBlock);
      const __m512 k0 = _mm512_cvtph_ps(_mm256_load_si256(line));
      const __m512 k1 = _mm512_cvtph_ps(_mm256_load_si256(line + 1));
#pragma GCC unroll 6
      for (int h = 0; h < H; ++h) {
        const __m512 q = _mm512_set1_ps(group->query[h].q[d]);
        s[h][0] = _mm512_fmadd_ps(q, k0, s[h][0]);
        s[h][1] = _mm512_fmadd_ps(q, k1, s[h][1]);
      }
    }
    for (int h = 0; h < H; ++h)
      for (size_t i = 0; i < 2; ++i)
        _mm512_store_ps(group->weight[h] + at + 16 * i, _mm512_mul_ps(_mm512_set1_ps(group->query[h].scale), s[h][i]));
  }

  static __m512 weight(__m512 p, const uint8_t*, size_t, size_t) { return p; }

  static float weight_of(const Group& group, int h, size_t t, size_t, size_t) { return group.weight[h][t]; }
};

struct Cache4 {
  static const bool kQuantized = true;
  static const size_t kScales = kMaxGroups;

  static void start(Query* query, size_t head_dim, int32_t) {
    for (size_t g = 0; g < head_dim / kColumns; ++g) {
      const __m256i q = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(query->q8 + g * kColumns));
      const __m256i eights = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(8), q);
      query->start[g] = -_mm512_reduce_add_epi32(_mm512_zextsi256_si512(eights));
    }
  }

  static size_t bytes(size_t head_dim) { return 36 * head_dim; }

  // C is even and d a multiple of 32.
  template <int C>
  static void values(__m512 v[C], const uint8_t* block, size_t head_dim, size_t t, size_t d) {
    const __m512 table = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    const auto* at = reinterpret_cast<const __m128i*>(block + ((kKvBlock + t) * head_dim + d) / 2);
#pragma GCC unroll 2
    for (int i = 0; i < C; i += 2) {
      const __m512i x = _mm512_cvtepu8_epi32(_mm_load_si128(at + i / 2));
      v[i] = _mm512_permutexvar_ps(x, table);  // looks at the low four bits
      v[i + 1] = _mm512_permutexvar_ps(_mm512_srli_epi32(x, 4), table);
    }
  }

  template <int H>
  static void scores(Group* group, size_t at, const uint8_t* block, size_t head_dim) {
    const __m512i nibble = _mm512_set1_epi8(15);
    const auto* k_scale = reinterpret_cast<const __m256i*>(block + kKvBlock * head_dim);
    __m512 s[H][2];
    for (int h = 0; h < H; ++h) s[h][0] = s[h][1] = _mm512_setzero_ps();
    for (size_t g = 0; g < head_dim / kColumns; ++g) {
      __m512i c[H][2];
#pragma GCC unroll 6
      for (int h = 0; h < H; ++h) c[h][0] = c[h][1] = _mm512_set1_epi32(group->query[h].start[g]);
#pragma GCC unroll 4
      for (size_t d = 0; d < kColumns; d += 8) {
        const uint8_t* line = block + (g * kColumns + d) * (kKvBlock / 2);
        const __m512i k0 = _mm512_load_si512(line), k1 = _mm512_load_si512(line + 64);
        const __m512i low0 = _mm512_and_si512(k0, nibble), low1 = _mm512_and_si512(k1, nibble);
        const __m512i high0 = _mm512_and_si512(_mm512_srli_epi16(k0, 4), nibble);
        const __m512i high1 = _mm512_and_si512(_mm512_srli_epi16(k1, 4), nibble);
#pragma GCC unroll 6
        for (int h = 0; h < H; ++h) {
          int32_t words[2];
          __builtin_memcpy(words, group->query[h].q8 + g * kColumns + d, sizeof words);
          const __m512i q = _mm512_set1_epi32(words[0]), r = _mm512_set1_epi32(words[1]);
          c[h][0] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(c[h][0], low0, q), high0, r);
          c[h][1] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(c[h][1], low1, q), high1, r);
        }
      }
#pragma GCC unroll 2
      for (size_t i = 0; i < 2; ++i) {
        const __m512 scale = _mm512_cvtph_ps(_mm256_load_si256(k_scale + 2 * g + i));
#pragma GCC unroll 6
        for (int h = 0; h < H; ++h) s[h][i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(c[h][i]), scale, s[h][i]);
      }
    }
    for (int h = 0; h < H; ++h)
      for (size_t i = 0; i < 2; ++i)
        _mm512_store_ps(group->weight[h] + at + 16 * i, _mm512_mul_ps(s[h][i], _mm512_set1_ps(group->query[h].scale)));
  }

  static __m512 weight(__m512 p, const uint8_t*, size_t, size_t) { return p; }

  static float weight_of(const Group& group, int h, size_t t, size_t head_dim, size_t d) {
    return group.spread[(static_cast<size_t>(h) * kKvChunk + t) * (head_dim / kColumns) + d / kColumns];
  }

  // 16 tokens are `groups` vectors of scales, and lane i of vector e belongs to token (16e + i) / groups of them.
  template <int H>
  static void spread(Group* group, const AttendJob& job) {
    const size_t groups = job.head_dim / kColumns, first = group->from / 16, end = (group->to + 15) / 16;
    const __m512 lane = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (size_t e = 0; e < groups; ++e) {
      const __m512 number = _mm512_add_ps(lane, _mm512_set1_ps(static_cast<float>(16 * e) + 0.5f));
      const __m512i token = _mm512_cvttps_epi32(_mm512_div_ps(number, _mm512_set1_ps(static_cast<float>(groups))));
      for (size_t t = first; t < end; ++t) {
        const uint8_t* v_scale = job.blocks[t / 2] + kKvBlock * (job.head_dim + 2 * groups) + 32 * (t % 2 * groups + e);
        const __m512 scale = _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(v_scale)));
#pragma GCC unroll 6
        for (int h = 0; h < H; ++h) {
          const __m512 p = _mm512_permutexvar_ps(token, _mm512_load_ps(group->weight[h] + 16 * t));
          _mm512_store_ps(group->spread + h * kKvChunk * groups + 16 * (t * groups + e), _mm512_mul_ps(p, scale));
        }
      }
    }
  }
};

// Lane b of the result: the fixed tree over the 16 lanes of v[b], with `op` for the sum.
template <class Op>
__m256 reduce_each(const __m512 v[kBlocks], Op op) {
  __m512 x[4], y[2];
  for (int i = 0; i < 4; ++i)
    x[i] = op(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x44), _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xee));
  for (int i = 0; i < 2; ++i)
    y[i] = op(_mm512_shuffle_f32x4(x[2 * i], x[2 * i + 1], 0x88), _mm512_shuffle_f32x4(x[2 * i], x[2 * i + 1], 0xdd));
  const __m512d y0 = _mm512_castps_pd(y[0]), y1 = _mm512_castps_pd(y[1]);
  const __m512 z = op(_mm512_castpd_ps(_mm512_unpacklo_pd(y0, y1)), _mm512_castpd_ps(_mm512_unpackhi_pd(y0, y1)));
  const __m512 r = op(z, _mm512_movehdup_ps(z));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
  return _mm512_castps512_ps256(_mm512_permutexvar_ps(order, r));
}

// Lane i: the largest of the lanes up to i.
__m256 running_max(__m256 v) {
  const __m256 none = _mm256_set1_ps(-HUGE_VALF);
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  for (int by = 1; by < 8; by *= 2) {
    const __m256i from = _mm256_sub_epi32(lanes, _mm256_set1_epi32(by));
    const auto valid = static_cast<__mmask8>(0xff << by);
    v = _mm256_max_ps(v, _mm256_mask_permutexvar_ps(none, valid, from, v));
  }
  return v;
}

// The lanes of half i of block b that the query sees.
__mmask16 lanes_seen(const Query& query, size_t b, size_t i) {
  const size_t at = b * kKvBlock + 16 * i;
  const auto below = [&](size_t t) { return t > at ? first_lanes(t - at) : __mmask16{0}; };
  return static_cast<__mmask16>(below(query.to) & ~below(query.from));
}

// exp for what is not above zero, or NaN.
__m512 exp_low(__m512 x) {
  const __m512 round = _mm512_set1_ps(12582912.0f);
  const __m512 t = _mm512_fmadd_ps(x, _mm512_set1_ps(0x1.715476p+0f), round);
  const __m512 n = _mm512_sub_ps(t, round);
  __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0x1.62e4p-1f), x);
  r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0x1.7f7d1cp-20f), r);
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0x1.6a2352p-10f), r, _mm512_set1_ps(0x1.123a6cp-7f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.5558f4p-5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.55549p-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.fffffcp-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  const __m512i n_bits = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
  const __m512 y = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), n_bits));
  const __mmask16 keep = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.3f), _CMP_NLT_UQ);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_mask_mov_ps(_mm512_maskz_mov_ps(keep, y), nan, x);
}

// The softmax of query h over the KV split: scores become weights.
template <class Cache>
void soften(Group* group, size_t h, const AttendJob& job) {
  const Query& query = group->query[h];
  const size_t first = query.from / kKvBlock, end = (query.to - 1) / kKvBlock + 1;
  float* s = group->weight[h];
  if (job.softcap > 0.0f) cap_softly(s + first * kKvBlock, (end - first) * kKvBlock, job.softcap);
  __m512 v[kBlocks];
  for (size_t b = 0; b < kBlocks; ++b) v[b] = _mm512_set1_ps(-HUGE_VALF);
  for (size_t b = first; b < end; ++b)
    for (size_t i = 0; i < 2; ++i)  // max(s, v) keeps v where s is NaN
      v[b] = _mm512_mask_max_ps(v[b], lanes_seen(query, b, i), _mm512_load_ps(s + b * kKvBlock + 16 * i), v[b]);
  const __m256 largest = running_max(reduce_each(v, [](__m512 a, __m512 b) { return _mm512_max_ps(a, b); }));
  const __m256i shift = _mm256_setr_epi32(0, 0, 1, 2, 3, 4, 5, 6);
  const __m256 before = _mm256_mask_permutexvar_ps(_mm256_set1_ps(-HUGE_VALF), 0xfe, shift, largest);
  alignas(32) float m[kBlocks], sum[kBlocks];
  _mm256_store_ps(m, largest);
  const __m512 c = exp_low(_mm512_castps256_ps512(_mm256_sub_ps(before, largest)));
  const auto seen = static_cast<__mmask16>(((1u << end) - 1) & ~((1u << first) - 1));
  _mm512_store_ps(group->c[h], _mm512_mask_mov_ps(_mm512_set1_ps(1.0f), seen, c));
  for (size_t b = 0; b < kBlocks; ++b) v[b] = _mm512_setzero_ps();
  for (size_t b = first; b < end; ++b) {
    const __m512 now = _mm512_set1_ps(m[b]);
    float* at = s + b * kKvBlock;
    const __m512 p0 = _mm512_maskz_mov_ps(lanes_seen(query, b, 0), exp_low(_mm512_sub_ps(_mm512_load_ps(at), now)));
    const __m512 p1 =
        _mm512_maskz_mov_ps(lanes_seen(query, b, 1), exp_low(_mm512_sub_ps(_mm512_load_ps(at + 16), now)));
    v[b] = _mm512_add_ps(p0, p1);
    _mm512_store_ps(at, Cache::weight(p0, job.blocks[b], job.head_dim, 0));
    _mm512_store_ps(at + 16, Cache::weight(p1, job.blocks[b], job.head_dim, 1));
  }
  _mm256_store_ps(sum, reduce_each(v, [](__m512 a, __m512 b) { return _mm512_add_ps(a, b); }));
  float l = 0.0f;
  for (size_t b = first; b < end; ++b) l = fmaf(l, group->c[h][b], sum[b]);
  group->m[h] = m[end - 1];
  group->l[h] = l;
}

// acc += weight[t] * value[t] for t in [from, to), C vectors of dimensions from d on. `edge`: not all see all of these.
// Meanwhile, if there is anything `ahead`, it is fetched, `lines` lines a token.
template <class Cache, int H, int C, bool edge>
inline __attribute__((always_inline)) void add_values(__m512 acc[H][C], const Group& group, const uint8_t* block,
                                                      const AttendJob& job, size_t d, size_t from, size_t to,
                                                      const uint8_t* ahead, size_t lines) {
  const size_t head_dim = job.head_dim;
  for (size_t t = from; t < to; ++t) {
    for (size_t i = 0; i < lines; ++i)
      _mm_prefetch(reinterpret_cast<const char*>(ahead + (t % kKvBlock * lines + i) * 64), _MM_HINT_T1);
    __m512 v[C];
    Cache::template values<C>(v, block, head_dim, t % kKvBlock, d);
#pragma GCC unroll 6
    for (int h = 0; h < H; ++h) {
      const bool sees = !edge || (t >= group.query[h].from && t < group.query[h].to);
      const auto mask = static_cast<__mmask16>(sees ? 0xffff : 0);
#pragma GCC unroll 4
      for (int i = 0; i < C; ++i) {
        const __m512 w = _mm512_set1_ps(Cache::weight_of(group, h, t, head_dim, d + 16 * i));
        acc[h][i] = edge ? _mm512_mask3_fmadd_ps(w, v[i], acc[h][i], mask) : _mm512_fmadd_ps(w, v[i], acc[h][i]);
      }
    }
  }
}

// The sums of dimensions d .. d + 16 C - 1 over the whole KV split, stored or merged.
template <class Cache, int H, int C>
void sum_values(const Group& group, const AttendJob& job, size_t d, bool fetch) {
  __m512 acc[H][C];
#pragma GCC unroll 6
  for (int h = 0; h < H; ++h)
#pragma GCC unroll 4
    for (int i = 0; i < C; ++i) acc[h][i] = _mm512_setzero_ps();
  for (size_t b = group.from / kKvBlock; b * kKvBlock < group.to; ++b) {
#pragma GCC unroll 6
    for (int h = 0; h < H; ++h)
#pragma GCC unroll 4
      for (int i = 0; i < C; ++i) acc[h][i] = _mm512_mul_ps(acc[h][i], _mm512_set1_ps(group.c[h][b]));
    const auto inside = [&](size_t t) {
      return t < b * kKvBlock ? b * kKvBlock : t > (b + 1) * kKvBlock ? (b + 1) * kKvBlock : t;
    };
    const size_t from = inside(group.from), to = inside(group.to);
    const size_t all_from = inside(group.all_from), all_to = inside(group.all_to);
    const uint8_t* block = job.blocks[b];
    const uint8_t* ahead = fetch ? job.ahead[b] : nullptr;
    const size_t lines = ahead != nullptr ? Cache::bytes(job.head_dim) / (64 * kKvBlock) + 1 : 0;
    add_values<Cache, H, C, true>(acc, group, block, job, d, from, all_from, ahead, lines);
    add_values<Cache, H, C, false>(acc, group, block, job, d, all_from, all_to, ahead, lines);
    add_values<Cache, H, C, true>(acc, group, block, job, d, all_to, to, ahead, lines);
  }
#pragma GCC unroll 6
  for (int h = 0; h < H; ++h)
#pragma GCC unroll 4
    for (int i = 0; i < C; ++i) _mm512_storeu_ps(group.query[h].acc + d + 16 * i, acc[h][i]);
}

template <class Cache, int H>
void take_group(Group* group, const AttendJob& job, bool fetch) {
  for (size_t b = group->from / kKvBlock; b * kKvBlock < group->to; ++b)
    Cache::template scores<H>(group, b * kKvBlock, job.blocks[b], job.head_dim);
  for (size_t h = 0; h < H; ++h) soften<Cache>(group, h, job);
  if constexpr (Cache::kScales != 0) Cache::template spread<H>(group, job);
  size_t d = 0;
  for (; d + 64 <= job.head_dim; d += 64) sum_values<Cache, H, 4>(*group, job, d, fetch && d == 0);
  constexpr int kLeft = Cache::kScales != 0 ? 2 : 1;
  for (; d < job.head_dim; d += 16 * kLeft) sum_values<Cache, H, kLeft>(*group, job, d, fetch && d == 0);
}

// Query number i of the job.
template <class Cache>
Query query_of(const AttendJob& job, size_t i) {
  const size_t row = i / job.heads, h = i % job.heads;
  const size_t at = row * job.ldq + h * job.head_dim, end = job.position + row + 1;
  const size_t split_start = job.kv_split * kKvChunk;
  const size_t first = job.window != 0 && end > job.window ? end - job.window : 0;
  Query query{};
  if constexpr (Cache::kQuantized) {
    query.q8 = job.q8 + at;
    Cache::start(&query, job.head_dim, job.q_sum[row * job.lds + h]);
    query.scale = job.q_scale[row * job.lds + h];
  } else {
    query.q = job.q + at;
    query.scale = job.scale;
  }
  query.from = first > split_start ? first - split_start : 0;
  query.to = end < split_start + kKvChunk ? end - split_start : size_t{kKvChunk};
  query.m = job.m + row * job.ldm + h;
  query.l = job.l + row * job.ldm + h;
  query.acc = job.acc + row * job.lda + h * job.head_dim;
  query.merge = job.fold && first < split_start;
  return query;
}

// Queries i .. i + count - 1. Those that are merged have their sums computed beside.
template <class Cache>
void attend_group(const AttendJob& job, size_t i, size_t count) {
  const bool fetch = i == 0 && job.ahead != nullptr;
  Group group;
  float sums[kMost][kMaxHeadDim];
  group.spread = job.room;
  group.from = group.all_to = kKvChunk;
  group.to = group.all_from = 0;
  float* result[kMost];
  for (size_t h = 0; h < count; ++h) {
    Query& query = group.query[h] = query_of<Cache>(job, i + h);
    if (query.from < group.from) group.from = query.from;
    if (query.from > group.all_from) group.all_from = query.from;
    if (query.to > group.to) group.to = query.to;
    if (query.to < group.all_to) group.all_to = query.to;
    result[h] = query.acc;
    if (query.merge) query.acc = sums[h];
  }
  if (group.all_from > group.all_to) group.all_from = group.all_to = group.to;
  switch (count) {
    case 1: take_group<Cache, 1>(&group, job, fetch); break;
    case 2: take_group<Cache, 2>(&group, job, fetch); break;
    case 3: take_group<Cache, 3>(&group, job, fetch); break;
    case 4: take_group<Cache, 4>(&group, job, fetch); break;
    case 5: take_group<Cache, 5>(&group, job, fetch); break;
    default: take_group<Cache, 6>(&group, job, fetch); break;
  }
  for (size_t h = 0; h < count; ++h) {
    const Query& query = group.query[h];
    if (query.merge) {
      attend_merge(query.m, query.l, result[h], &group.m[h], &group.l[h], sums[h], 1, job.head_dim);
    } else {
      *query.m = group.m[h];
      *query.l = group.l[h];
    }
  }
}

template <class Cache>
void attend(const AttendJob& job) {
  const size_t queries = job.rows * job.heads;
  for (size_t i = 0; i < queries; i += kMost)
    attend_group<Cache>(job, i, queries - i < kMost ? queries - i : size_t{kMost});
}

}  // namespace

void attend_8(const AttendJob* job) { attend<Cache8>(*job); }

void attend_16(const AttendJob* job) { attend<Cache16>(*job); }

void attend_4(const AttendJob* job) { attend<Cache4>(*job); }

void attend_merge(float* M, float* L, float* A, const float* m, const float* l, const float* acc, size_t heads,
                  size_t head_dim) {
  for (size_t h = 0; h < heads; ++h) {
    const float now = m[h] > M[h] ? m[h] : M[h];
    const __m512 x = exp16(_mm512_set1_ps(M[h] - now));
    const __m512 y = exp16(_mm512_set1_ps(m[h] - now));
    M[h] = now;
    L[h] = fmaf(L[h], _mm512_cvtss_f32(x), l[h] * _mm512_cvtss_f32(y));
    for (size_t d = h * head_dim; d < (h + 1) * head_dim; d += 16) {
      const __m512 part = _mm512_mul_ps(_mm512_loadu_ps(acc + d), y);
      _mm512_storeu_ps(A + d, _mm512_fmadd_ps(_mm512_loadu_ps(A + d), x, part));
    }
  }
}

void attend_finish(float* A, const float* L, size_t heads, size_t head_dim) {
  for (size_t h = 0; h < heads; ++h)
    for (size_t d = h * head_dim; d < (h + 1) * head_dim; d += 16)
      _mm512_storeu_ps(A + d, _mm512_div_ps(_mm512_loadu_ps(A + d), _mm512_set1_ps(L[h])));
}

}  // namespace avx512
