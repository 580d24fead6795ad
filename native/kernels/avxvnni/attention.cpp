// Attention over 8-bit keys and values. Lanes are tokens for the scores and dimensions for the values; up to four
// queries that see the same tokens of a block share every key and value that is loaded. Stored keys are unsigned and
// queries signed, as the dot product wants them; the keys' offset is taken off by the sum of the query.
#include "../avx2/math.h"
#include "dot.h"
#include "kernels.h"

namespace avxvnni {
namespace {

enum { kMaxHeadDim = 512, kQueries = 8, kTogether = 4 };

// One query in work: a head of a row, which sees tokens [from, to) of the KV split.
struct Query {
  const int8_t* q;
  float scale;  // includes the score's
  float softcap;
  int32_t sum;
  size_t from, to;
  float m, l;
  float* acc;
};

// Slots [from, to) of a block.
struct Visible {
  size_t from, to;
  __m256 mask[4];
  Visible(size_t first, size_t end) : from(first), to(end) {
    for (size_t i = 0; i < 4; ++i) {
      const __m256i below = avx2::first_lanes(to > 8 * i ? to - 8 * i : 0);
      const __m256i early = avx2::first_lanes(from > 8 * i ? from - 8 * i : 0);
      mask[i] = _mm256_castsi256_ps(_mm256_andnot_si256(early, below));
    }
  }
};

// Scores of the 16 tokens from t0 on, of Q queries.
template <int Q>
void scores(float (*s)[kKvBlock], const Query* queries, const uint8_t* block, size_t t0, size_t head_dim) {
  __m256i dot[Q][2];
#pragma GCC unroll 4
  for (int q = 0; q < Q; ++q) dot[q][0] = dot[q][1] = _mm256_set1_epi32(-128 * queries[q].sum);
  const uint8_t* at = block + 4 * t0;
  for (size_t d = 0; d < head_dim; d += 4, at += 4 * kKvBlock) {
    const __m256i k0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(at));
    const __m256i k1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(at) + 1);
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) {
      int32_t word;
      __builtin_memcpy(&word, queries[q].q + d, sizeof word);
      const __m256i a = _mm256_set1_epi32(word);
      dot[q][0] = add_dot(dot[q][0], k0, a);
      dot[q][1] = add_dot(dot[q][1], k1, a);
    }
  }
  const float* k_scale = reinterpret_cast<const float*>(block + 2 * kKvBlock * head_dim) + t0;
#pragma GCC unroll 4
  for (int q = 0; q < Q; ++q)
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const __m256 scale = _mm256_mul_ps(_mm256_set1_ps(queries[q].scale), _mm256_load_ps(k_scale + 8 * i));
      _mm256_storeu_ps(s[q] + t0 + 8 * i, _mm256_mul_ps(_mm256_cvtepi32_ps(dot[q][i]), scale));
    }
}

// Online softmax of one query over the visible slots of a block: their scores become weights, those of all other slots
// 0; returns the factor c for what was summed before.
float soften(Query* query, float* s, const uint8_t* block, size_t head_dim, const Visible& visible) {
  if (query->softcap > 0.0f) avx2::cap_softly(s, kKvBlock, query->softcap);
  __m256 largest = _mm256_set1_ps(query->m);  // max(s, largest) keeps `largest` where s is NaN
  for (int i = 0; i < 4; ++i)
    largest = _mm256_blendv_ps(largest, _mm256_max_ps(_mm256_loadu_ps(s + 8 * i), largest), visible.mask[i]);
  const float now = avx2::max_lane(largest);
  const float* v_scale = reinterpret_cast<const float*>(block + 2 * kKvBlock * head_dim) + kKvBlock;
  __m256 p[4];
  for (int i = 0; i < 4; ++i) {
    const __m256 e = avx2::exp8(_mm256_sub_ps(_mm256_loadu_ps(s + 8 * i), _mm256_set1_ps(now)));
    p[i] = _mm256_and_ps(e, visible.mask[i]);
    _mm256_storeu_ps(s + 8 * i, _mm256_mul_ps(p[i], _mm256_load_ps(v_scale + 8 * i)));
  }
  const float c = _mm256_cvtss_f32(avx2::exp8(_mm256_set1_ps(query->m - now)));
  query->l = fmaf(query->l, c, avx2::add_lanes(_mm256_add_ps(p[0], p[2]), _mm256_add_ps(p[1], p[3])));
  query->m = now;
  return c;
}

// acc = acc * c, then += weight[t] * value[t] for t ascending; 16 dimensions from d on.
template <int Q>
void add_values(Query* queries, const float* c, const float (*weight)[kKvBlock], const uint8_t* block, size_t head_dim,
                size_t d, const Visible& visible) {
  __m256 acc[Q][2];
#pragma GCC unroll 4
  for (int q = 0; q < Q; ++q)
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i)
      acc[q][i] = _mm256_mul_ps(_mm256_loadu_ps(queries[q].acc + d + 8 * i), _mm256_set1_ps(c[q]));
  for (size_t t = visible.from; t < visible.to; ++t) {
    const __m128i* at = reinterpret_cast<const __m128i*>(block + (kKvBlock + t) * head_dim + d);
    const __m256i words = _mm256_cvtepi8_epi16(_mm_load_si128(at));
    const __m256 v0 = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(words)));
    const __m256 v1 = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(words, 1)));
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) {
      const __m256 p = _mm256_set1_ps(weight[q][t]);
      acc[q][0] = _mm256_fmadd_ps(p, v0, acc[q][0]);
      acc[q][1] = _mm256_fmadd_ps(p, v1, acc[q][1]);
    }
  }
#pragma GCC unroll 4
  for (int q = 0; q < Q; ++q)
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) _mm256_storeu_ps(queries[q].acc + d + 8 * i, acc[q][i]);
}

// One block, for Q queries that see the same slots of it.
template <int Q>
void take_block(Query* queries, const uint8_t* block, size_t head_dim, const Visible& visible) {
  float s[Q][kKvBlock];
  float c[Q];
  for (size_t t = 0; t < kKvBlock; t += 16) scores<Q>(s, queries, block, t, head_dim);
  for (size_t q = 0; q < Q; ++q) c[q] = soften(queries + q, s[q], block, head_dim, visible);
  for (size_t d = 0; d < head_dim; d += 16) add_values<Q>(queries, c, s, block, head_dim, d, visible);
}

// Block number b of the KV split, for all queries: neighbours that see the same slots together.
void take_queries(Query* queries, size_t count, const uint8_t* block, size_t head_dim, size_t b) {
  const size_t base = b * kKvBlock;
  const auto from = [&](size_t i) { return queries[i].from > base ? queries[i].from - base : 0; };
  const auto to = [&](size_t i) {
    const size_t end = queries[i].to > base ? queries[i].to - base : 0;
    return end < kKvBlock ? end : size_t{kKvBlock};
  };
  for (size_t i = 0, n = 1; i < count; i += n) {
    n = 1;
    if (from(i) >= to(i)) continue;
    while (n < kTogether && i + n < count && from(i + n) == from(i) && to(i + n) == to(i)) ++n;
    const Visible visible(from(i), to(i));
    switch (n) {
      case 1: take_block<1>(queries + i, block, head_dim, visible); break;
      case 2: take_block<2>(queries + i, block, head_dim, visible); break;
      case 3: take_block<3>(queries + i, block, head_dim, visible); break;
      default: take_block<4>(queries + i, block, head_dim, visible); break;
    }
  }
}

// Queries i0 .. i0 + count - 1, counted over rows and their heads: the KV split is computed, and stored or merged.
void attend_queries(const AttendJob& job, size_t i0, size_t count) {
  const size_t split_start = job.kv_split * kKvChunk;
  float acc[kQueries][kMaxHeadDim];
  Query queries[kQueries];
  for (size_t i = 0; i < count; ++i) {
    const size_t m = (i0 + i) / job.heads, h = (i0 + i) % job.heads, end = job.position + m + 1;
    const size_t first = job.window != 0 && end > job.window ? end - job.window : 0;
    Query& query = queries[i];
    query.q = job.q8 + m * job.ldq + h * job.head_dim;
    query.scale = job.q_scale[m * job.lds + h];
    query.softcap = job.softcap;
    query.sum = job.q_sum[m * job.lds + h];
    query.from = first > split_start ? first - split_start : 0;
    query.to = (end < split_start + kKvChunk ? end : split_start + kKvChunk) - split_start;
    query.m = -HUGE_VALF;
    query.l = 0.0f;
    query.acc = acc[i];
    for (size_t d = 0; d < job.head_dim; d += 8) _mm256_storeu_ps(acc[i] + d, _mm256_setzero_ps());
  }
  // Later rows begin and end later: the first query sees the earliest token, the last one the latest.
  for (size_t b = queries[0].from / kKvBlock; b * kKvBlock < queries[count - 1].to; ++b)
    take_queries(queries, count, job.blocks[b], job.head_dim, b);
  for (size_t i = 0; i < count; ++i) {
    const size_t m = (i0 + i) / job.heads, h = (i0 + i) % job.heads, end = job.position + m + 1;
    const bool seen_before = split_start > 0 && (job.window == 0 || end < job.window + split_start);
    float* to = job.acc + m * job.lda + h * job.head_dim;
    float* largest = job.m + m * job.ldm + h;
    float* sum = job.l + m * job.ldm + h;
    if (job.fold && seen_before) {
      avx2::attend_merge(largest, sum, to, &queries[i].m, &queries[i].l, acc[i], 1, job.head_dim);
      continue;
    }
    *largest = queries[i].m;
    *sum = queries[i].l;
    __builtin_memcpy(to, acc[i], job.head_dim * sizeof(float));
  }
}

}  // namespace

void attend_8(const AttendJob* job) {
  const size_t all = job->rows * job->heads;
  for (size_t i = 0; i < all; i += kQueries)
    attend_queries(*job, i, i + kQueries < all ? size_t{kQueries} : all - i);
}

}  // namespace avxvnni
