// Attention. Lanes are tokens for the scores (four vectors of eight) and dimensions
// for the values; up to four queries share every key and value that is loaded.
// Long because three kinds of cache are read, and the sweeps are templates over them.
#include "kernels.h"
#include "math.h"

namespace avx2 {

enum { kMaxHeadDim = 512, kMost = 4, kBlocks = kKvChunk / kKvBlock };
enum { kWideDim = 128, kWideQueries = 8 };  // the largest head whose values are widened, and from how many queries on
enum { kColumns = 32, kMaxGroups = kMaxHeadDim / kColumns };  // 4 bit: that share a scale, and how many do

static_assert(int{kAttendRoom} >= int{kKvChunk} * int{kWideDim}, "the room of a job");

namespace {

// One query of a group, and what it sees: tokens [from, to) of the KV split.
struct Query {
  const float* q;
  const int8_t* q8;
  int32_t start[kMaxGroups];  // 4 bit: -8 * (sum of each group of q8): takes the offset of the stored keys off
  float scale;    // 8 and 4 bit: of q8 and the score; 16 bit: of the score
  size_t from, to;
  float *m, *l, *acc;
  bool merge;  // into what is there
};

// A group in work. weight holds the scores first.
struct Group {
  Query query[kMost];
  size_t from, to;            // tokens that some query sees
  size_t all_from, all_to;    // tokens that all see; empty when all_from >= all_to
  float m[kMost], l[kMost];
  alignas(32) float weight[kMost][kKvChunk];
  alignas(32) float acc[kMost][kMaxHeadDim];
  alignas(32) float spread[kMost][size_t{kKvBlock} * kMaxGroups];  // 4 bit: weight times scale, [token][head_dim/32]
  float c[kMost][kBlocks];  // what the sums so far are multiplied by when a block begins
};

struct Cache8 {
  static const bool kQuantized = true;
  static const bool kSpread = false;

  static size_t bytes(size_t head_dim) { return 2 * kKvBlock * (head_dim + sizeof(float)); }

  static const uint8_t* values(const AttendJob& job, size_t b) { return job.blocks[b]; }

  static __m256 value(const uint8_t* block, size_t head_dim, size_t t, size_t d, int) {
    const uint8_t* at = block + (kKvBlock + t) * head_dim + d;
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at))));
  }

  // 16 tokens at a time. The sign of the key moves to the query, as in linear_int.cpp: 16-bit sums cannot saturate.
  template <int H>
  static void scores(Group* group, size_t at, const uint8_t* block, size_t head_dim) {
    const float* k_scale = reinterpret_cast<const float*>(block + 2 * kKvBlock * head_dim);
    for (size_t half = 0; half < kKvBlock; half += 16) {
      __m256i dot[H][2];
      for (int h = 0; h < H; ++h) dot[h][0] = dot[h][1] = _mm256_setzero_si256();
      for (size_t d = 0; d < head_dim; d += 4) {
        __m256i k[2], size[2];
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
          const auto* from = reinterpret_cast<const __m256i*>(block + d * kKvBlock + 4 * half) + i;
          k[i] = _mm256_xor_si256(_mm256_load_si256(from), _mm256_set1_epi8(-128));
          size[i] = _mm256_abs_epi8(k[i]);
        }
#pragma GCC unroll 4
        for (int h = 0; h < H; ++h) {
          int32_t word;
          __builtin_memcpy(&word, group->query[h].q8 + d, sizeof word);
          const __m256i q = _mm256_set1_epi32(word);
#pragma GCC unroll 2
          for (int i = 0; i < 2; ++i) {
            const __m256i pairs = _mm256_maddubs_epi16(size[i], _mm256_sign_epi8(q, k[i]));
            dot[h][i] = _mm256_add_epi32(dot[h][i], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
          }
        }
      }
      for (int h = 0; h < H; ++h)
        for (size_t i = 0; i < 2; ++i) {
          const __m256 scales = _mm256_load_ps(k_scale + half + 8 * i);
          const __m256 scale = _mm256_mul_ps(_mm256_set1_ps(group->query[h].scale), scales);
          _mm256_store_ps(group->weight[h] + at + half + 8 * i, _mm256_mul_ps(_mm256_cvtepi32_ps(dot[h][i]), scale));
        }
    }
  }

  static __m256 weight(__m256 p, const uint8_t* block, size_t head_dim, size_t i) {
    const float* v_scale = reinterpret_cast<const float*>(block + 2 * kKvBlock * head_dim) + kKvBlock;
    return _mm256_mul_ps(p, _mm256_load_ps(v_scale + 8 * i));
  }
};

struct Cache16 {
  static const bool kQuantized = false;
  static const bool kSpread = false;

  static size_t bytes(size_t head_dim) { return 4 * kKvBlock * head_dim; }

  static const uint8_t* values(const AttendJob& job, size_t b) { return job.blocks[b]; }

  static __m256 value(const uint8_t* block, size_t head_dim, size_t t, size_t d, int) {
    const uint8_t* at = block + 2 * ((kKvBlock + t) * head_dim + d);
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(at)));
  }

  template <int H>
  static void scores(Group* group, size_t at, const uint8_t* block, size_t head_dim) {
    for (size_t half = 0; half < kKvBlock; half += 16) {
      __m256 s[H][2];
      for (int h = 0; h < H; ++h) s[h][0] = s[h][1] = _mm256_setzero_ps();
      for (size_t d = 0; d < head_dim; ++d) {
        const __m128i* line = reinterpret_cast<const __m128i*>(block + 2 * (d * kKvBlock + half));
        const __m256 k0 = _mm256_cvtph_ps(_mm_load_si128(line)), k1 = _mm256_cvtph_ps(_mm_load_si128(line + 1));
#pragma GCC unroll 4
        for (int h = 0; h < H; ++h) {
          const __m256 q = _mm256_set1_ps(group->query[h].q[d]);
          s[h][0] = _mm256_fmadd_ps(q, k0, s[h][0]);
          s[h][1] = _mm256_fmadd_ps(q, k1, s[h][1]);
        }
      }
      for (int h = 0; h < H; ++h)
        for (size_t i = 0; i < 2; ++i)
          _mm256_store_ps(group->weight[h] + at + half + 8 * i,
                          _mm256_mul_ps(_mm256_set1_ps(group->query[h].scale), s[h][i]));
    }
  }

  static __m256 weight(__m256 p, const uint8_t*, size_t, size_t) { return p; }
};

struct Cache4 {
  static const bool kQuantized = true;
  static const bool kSpread = true;

  static size_t bytes(size_t head_dim) { return 36 * head_dim; }

  static void start(Query* query, size_t head_dim) {
    for (size_t g = 0; g < head_dim / kColumns; ++g) {
      int32_t sum = 0;
      for (size_t i = 0; i < kColumns; ++i) sum += query->q8[g * kColumns + i];
      query->start[g] = -8 * sum;
    }
  }

  static const uint8_t* values(const AttendJob& job, size_t b) { return job.blocks[b]; }

  // The first half of 32 columns are low nibbles, the second one high ones.
  static __m256 value(const uint8_t* block, size_t head_dim, size_t t, size_t d, int half) {
    const uint8_t* at = block + (kKvBlock + t) * head_dim / 2 + d / kColumns * 16 + d % 16;
    const __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at)));
    const __m256i q = _mm256_and_si256(_mm256_srli_epi32(x, 4 * half), _mm256_set1_epi32(15));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(q, _mm256_set1_epi32(8)));
  }

  // 8 tokens at a time. A group's sum of pairs fits 16 bits: 16 * 15 * 127 < 2^15.
  template <int H>
  static void scores(Group* group, size_t at, const uint8_t* block, size_t head_dim) {
    const __m256i nibble = _mm256_set1_epi8(15);
    for (size_t part = 0; part < kKvBlock; part += 8) {
      __m256 s[H];
      for (int h = 0; h < H; ++h) s[h] = _mm256_setzero_ps();
      for (size_t g = 0; g < head_dim / kColumns; ++g) {
        __m256i pairs[H];
#pragma GCC unroll 4
        for (int h = 0; h < H; ++h) pairs[h] = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (size_t d = 0; d < kColumns; d += 8) {
          const uint8_t* line = block + (g * kColumns + d) * (kKvBlock / 2) + 4 * part;
          const __m256i k = _mm256_load_si256(reinterpret_cast<const __m256i*>(line));
          const __m256i low = _mm256_and_si256(k, nibble), high = _mm256_and_si256(_mm256_srli_epi16(k, 4), nibble);
#pragma GCC unroll 4
          for (int h = 0; h < H; ++h) {
            int32_t words[2];
            __builtin_memcpy(words, group->query[h].q8 + g * kColumns + d, sizeof words);
            pairs[h] = _mm256_add_epi16(pairs[h], _mm256_maddubs_epi16(low, _mm256_set1_epi32(words[0])));
            pairs[h] = _mm256_add_epi16(pairs[h], _mm256_maddubs_epi16(high, _mm256_set1_epi32(words[1])));
          }
        }
        const uint8_t* k_scale = block + kKvBlock * head_dim + 2 * (g * kKvBlock + part);
        const __m256 scale = _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(k_scale)));
#pragma GCC unroll 4
        for (int h = 0; h < H; ++h) {
          const __m256i dot = _mm256_madd_epi16(pairs[h], _mm256_set1_epi16(1));
          const __m256i q = _mm256_add_epi32(dot, _mm256_set1_epi32(group->query[h].start[g]));
          s[h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(q), scale, s[h]);
        }
      }
      for (int h = 0; h < H; ++h)
        _mm256_store_ps(group->weight[h] + at + part, _mm256_mul_ps(s[h], _mm256_set1_ps(group->query[h].scale)));
    }
  }

  static __m256 weight(__m256 p, const uint8_t*, size_t, size_t) { return p; }

  // 8 tokens are `groups` vectors of scales, and lane i of vector e belongs to token (8e + i) / groups of them.
  static void spread(Group* group, size_t queries, const uint8_t* block, size_t head_dim, size_t b) {
    const size_t groups = head_dim / kColumns;
    const auto* v_scale = reinterpret_cast<const __m128i*>(block + kKvBlock * (head_dim + 2 * groups));
    const __m256 lane = _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7);
    for (size_t e = 0; e < groups; ++e) {
      const __m256 number = _mm256_add_ps(lane, _mm256_set1_ps(static_cast<float>(8 * e) + 0.5f));
      const __m256i token = _mm256_cvttps_epi32(_mm256_div_ps(number, _mm256_set1_ps(static_cast<float>(groups))));
      for (size_t t = 0; t < 4; ++t) {
        const __m256 scale = _mm256_cvtph_ps(_mm_load_si128(v_scale + t * groups + e));
        for (size_t h = 0; h < queries; ++h) {
          const __m256 p = _mm256_load_ps(group->weight[h] + b * kKvBlock + 8 * t);
          const __m256 w = _mm256_mul_ps(_mm256_permutevar8x32_ps(p, token), scale);
          _mm256_store_ps(group->spread[h] + 8 * (t * groups + e), w);
        }
      }
    }
  }
};

// A cache whose values lie as floats in the job's room, [token][head_dim]: converting takes a third of the time that
// adding them up for one group of queries does.
template <class Cache>
struct Wide : Cache {
  static __m256 value(const uint8_t* values, size_t head_dim, size_t t, size_t d, int) {
    return _mm256_load_ps(reinterpret_cast<const float*>(values) + t * head_dim + d);
  }
  static const uint8_t* values(const AttendJob& job, size_t b) {
    return reinterpret_cast<const uint8_t*>(job.room + b * kKvBlock * job.head_dim);
  }
};

template <class Cache>
void widen(const AttendJob& job, size_t from, size_t to) {
  for (size_t b = from / kKvBlock; b * kKvBlock < to; ++b) {
    float* at = job.room + b * kKvBlock * job.head_dim;
    for (size_t t = 0; t < kKvBlock; ++t)
      for (size_t d = 0; d < job.head_dim; d += 8, at += 8)
        _mm256_store_ps(at, Cache::value(job.blocks[b], job.head_dim, t, d, (d & 16) != 0));
  }
}

// The lanes of quarter i of block b that the query sees.
__m256 lanes_seen(const Query& query, size_t b, size_t i) {
  const size_t at = b * kKvBlock + 8 * i;
  const auto below = [&](size_t t) { return first_lanes(t > at ? t - at : 0); };
  return _mm256_castsi256_ps(_mm256_andnot_si256(below(query.from), below(query.to)));
}

// The softmax of query h over block b: scores become weights.
template <class Cache>
void soften(Group* group, size_t h, const AttendJob& job, size_t b) {
  const Query& query = group->query[h];
  if (query.to <= b * kKvBlock || query.from >= (b + 1) * kKvBlock) {
    group->c[h][b] = 1.0f;
    return;
  }
  const bool all = query.from <= b * kKvBlock && query.to >= (b + 1) * kKvBlock;
  const float before = group->m[h];
  float* at = group->weight[h] + b * kKvBlock;
  if (job.softcap > 0.0f) cap_softly(at, kKvBlock, job.softcap);
  __m256 seen[4], s[4], p[4];
  __m256 largest = _mm256_set1_ps(before);  // max(s, largest) keeps `largest` where s is NaN
  for (size_t i = 0; i < 4; ++i) {
    s[i] = _mm256_load_ps(at + 8 * i);
    const __m256 larger = _mm256_max_ps(s[i], largest);
    if (!all) seen[i] = lanes_seen(query, b, i);
    largest = all ? larger : _mm256_blendv_ps(largest, larger, seen[i]);
  }
  const float now = max_lane(largest);
  for (size_t i = 0; i < 4; ++i) {
    p[i] = exp8(_mm256_sub_ps(s[i], _mm256_set1_ps(now)));
    if (!all) p[i] = _mm256_and_ps(p[i], seen[i]);
    _mm256_store_ps(at + 8 * i, Cache::weight(p[i], job.blocks[b], job.head_dim, i));
  }
  const float down = before - now;  // NaN where both are infinite
  const float c = down == 0.0f ? 1.0f : _mm256_cvtss_f32(exp8(_mm256_set1_ps(down)));
  group->l[h] = fmaf(group->l[h], c, add_lanes(_mm256_add_ps(p[0], p[2]), _mm256_add_ps(p[1], p[3])));
  group->c[h][b] = c;
  group->m[h] = now;
}

// acc += weight[t] * value[t] for t in [from, to), C vectors of dimensions from d on. `edge`: not all see all of these.
// Meanwhile, if there is anything `ahead`, it is fetched, `lines` lines a token.
template <class Cache, int H, int C, bool edge>
inline __attribute__((always_inline)) void add_values(__m256 acc[H][C], const Group& group, const uint8_t* block,
                                                      size_t head_dim, size_t d, size_t from, size_t to,
                                                      const uint8_t* ahead, size_t lines) {
  for (size_t t = from; t < to; ++t) {
    for (size_t i = 0; i < lines; ++i)
      _mm_prefetch(reinterpret_cast<const char*>(ahead + (t % kKvBlock * lines + i) * 64), _MM_HINT_T1);
    const size_t part = t % kKvBlock * (head_dim / kColumns) + d / kColumns;
    __m256 w[H];
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h) w[h] = _mm256_set1_ps(Cache::kSpread ? group.spread[h][part] : group.weight[h][t]);
#pragma GCC unroll 4
    for (int i = 0; i < C; ++i) {
      const int half = C == 4 ? i / 2 : (d & 16) != 0;  // of 32 columns
      const __m256 v = Cache::value(block, head_dim, t % kKvBlock, d + 8 * i, half);
#pragma GCC unroll 4
      for (int h = 0; h < H; ++h)
        if (!edge || (t >= group.query[h].from && t < group.query[h].to))
          acc[h][i] = _mm256_fmadd_ps(w[h], v, acc[h][i]);
    }
  }
}

// Adds block b to the sums of dimensions d .. d + 8 C - 1.
template <class Cache, int H, int C>
void sum_values(Group* group, const AttendJob& job, size_t b, size_t d, const uint8_t* ahead) {
  __m256 acc[H][C];
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h)
#pragma GCC unroll 4
    for (int i = 0; i < C; ++i)
      acc[h][i] = _mm256_mul_ps(_mm256_load_ps(group->acc[h] + d + 8 * i), _mm256_set1_ps(group->c[h][b]));
  const auto inside = [&](size_t t) {
    return t < b * kKvBlock ? b * kKvBlock : t > (b + 1) * kKvBlock ? (b + 1) * kKvBlock : t;
  };
  const size_t from = inside(group->from), to = inside(group->to);
  const size_t all_from = inside(group->all_from), all_to = inside(group->all_to);
  const uint8_t* block = Cache::values(job, b);
  const size_t lines = ahead != nullptr ? Cache::bytes(job.head_dim) / (64 * kKvBlock) + 1 : 0;
  add_values<Cache, H, C, true>(acc, *group, block, job.head_dim, d, from, all_from, ahead, lines);
  add_values<Cache, H, C, false>(acc, *group, block, job.head_dim, d, all_from, all_to, ahead, lines);
  add_values<Cache, H, C, true>(acc, *group, block, job.head_dim, d, all_to, to, ahead, lines);
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h)
#pragma GCC unroll 4
    for (int i = 0; i < C; ++i) _mm256_store_ps(group->acc[h] + d + 8 * i, acc[h][i]);
}

template <class Cache, int H>
void take_group(Group* group, const AttendJob& job, bool fetch) {
  constexpr int kVectors = H == 4 ? 2 : 4;  // at most 12 sums, and 16 registers
  for (size_t h = 0; h < H; ++h)
    for (size_t d = 0; d < job.head_dim; d += 8) _mm256_store_ps(group->acc[h] + d, _mm256_setzero_ps());
  for (size_t b = group->from / kKvBlock; b * kKvBlock < group->to; ++b) {
    Cache::template scores<H>(group, b * kKvBlock, job.blocks[b], job.head_dim);
    for (size_t h = 0; h < H; ++h) soften<Cache>(group, h, job, b);
    if constexpr (Cache::kSpread) Cache::spread(group, H, job.blocks[b], job.head_dim, b);
    const uint8_t* ahead = fetch ? job.ahead[b] : nullptr;
    size_t d = 0;
    for (; d + 8 * kVectors <= job.head_dim; d += 8 * kVectors)
      sum_values<Cache, H, kVectors>(group, job, b, d, d == 0 ? ahead : nullptr);
    for (; d < job.head_dim; d += 8) sum_values<Cache, H, 1>(group, job, b, d, d == 0 ? ahead : nullptr);
  }
}

// Query number i of the job.
template <class Cache>
Query query_of(const AttendJob& job, size_t i) {
  const size_t row = i / job.heads, h = i % job.heads;
  const size_t at = row * job.ldq + h * job.head_dim, end = job.position + row + 1;
  const size_t split_start = job.kv_split * kKvChunk;
  const size_t first = job.window != 0 && end > job.window ? end - job.window : 0;
  Query query{};
  if (Cache::kQuantized) {
    query.q8 = job.q8 + at;
    query.scale = job.q_scale[row * job.lds + h];
    if constexpr (Cache::kSpread) Cache::start(&query, job.head_dim);
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

// Queries i .. i + count - 1.
template <class Cache>
void attend_group(const AttendJob& job, size_t i, size_t count) {
  const bool fetch = i == 0 && job.ahead != nullptr;
  Group group;
  group.from = group.all_to = kKvChunk;
  group.to = group.all_from = 0;
  for (size_t h = 0; h < count; ++h) {
    Query& query = group.query[h] = query_of<Cache>(job, i + h);
    if (query.from < group.from) group.from = query.from;
    if (query.from > group.all_from) group.all_from = query.from;
    if (query.to > group.to) group.to = query.to;
    if (query.to < group.all_to) group.all_to = query.to;
    group.m[h] = -HUGE_VALF;
    group.l[h] = 0.0f;
  }
  if (group.all_from > group.all_to) group.all_from = group.all_to = group.to;
  switch (count) {
    case 1: take_group<Cache, 1>(&group, job, fetch); break;
    case 2: take_group<Cache, 2>(&group, job, fetch); break;
    case 3: take_group<Cache, 3>(&group, job, fetch); break;
    default: take_group<Cache, 4>(&group, job, fetch); break;
  }
  for (size_t h = 0; h < count; ++h) {
    const Query& query = group.query[h];
    if (query.merge) {
      attend_merge(query.m, query.l, query.acc, &group.m[h], &group.l[h], group.acc[h], 1, job.head_dim);
    } else {
      __builtin_memcpy(query.acc, group.acc[h], job.head_dim * sizeof(float));
      *query.m = group.m[h];
      *query.l = group.l[h];
    }
  }
}

template <class Cache>
void attend_all(const AttendJob& job) {
  const size_t queries = job.rows * job.heads;
  for (size_t i = 0; i < queries;) {
    const size_t left = queries - i;
    const size_t taken = left == 5 || left == 6 ? 3 : left < kMost ? left : size_t{kMost};
    attend_group<Cache>(job, i, taken);
    i += taken;
  }
}

template <class Cache>
void attend(const AttendJob& job) {
  if (job.rows * job.heads < kWideQueries || job.head_dim > kWideDim) return attend_all<Cache>(job);
  widen<Cache>(job, query_of<Cache>(job, 0).from, query_of<Cache>(job, (job.rows - 1) * job.heads).to);
  attend_all<Wide<Cache>>(job);
}

}  // namespace

void attend_8(const AttendJob* job) { attend<Cache8>(*job); }

void attend_16(const AttendJob* job) { attend<Cache16>(*job); }

void attend_4(const AttendJob* job) { attend<Cache4>(*job); }

void attend_merge(float* M, float* L, float* A, const float* m, const float* l, const float* acc, size_t heads,
                  size_t head_dim) {
  for (size_t h = 0; h < heads; ++h) {
    const float now = m[h] > M[h] ? m[h] : M[h];
    const __m256 x = exp8(_mm256_set1_ps(M[h] - now));
    const __m256 y = exp8(_mm256_set1_ps(m[h] - now));
    M[h] = now;
    L[h] = fmaf(L[h], _mm256_cvtss_f32(x), l[h] * _mm256_cvtss_f32(y));
    for (size_t d = h * head_dim; d < (h + 1) * head_dim; d += 8) {
      const __m256 part = _mm256_mul_ps(_mm256_loadu_ps(acc + d), y);
      _mm256_storeu_ps(A + d, _mm256_fmadd_ps(_mm256_loadu_ps(A + d), x, part));
    }
  }
}

void attend_finish(float* A, const float* L, size_t heads, size_t head_dim) {
  for (size_t h = 0; h < heads; ++h)
    for (size_t d = h * head_dim; d < (h + 1) * head_dim; d += 8)
      _mm256_storeu_ps(A + d, _mm256_div_ps(_mm256_loadu_ps(A + d), _mm256_set1_ps(L[h])));
}

}  // namespace avx2
