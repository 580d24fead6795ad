// KV blocks: writing a token, and attention. Lanes are tokens for the scores and dimensions for the values; up to four
// queries that see the same tokens of a block share every key and value that is loaded.
#include "kernels.h"
#include "math.h"

namespace neon {

enum { kMaxHeadDim = 512, kQueries = 8, kTogether = 4 };

void kv_put_8(uint8_t* block, size_t token, const float* k, const float* v, size_t head_dim) {
  int8_t q[kMaxHeadDim];
  float scale;
  int32_t sum;
  uint8_t* scales = block + 2 * kKvBlock * head_dim;
  quantize(q, &scale, &sum, k, head_dim, head_dim);
  for (size_t d = 0; d < head_dim; d += 4) {
    uint32_t word;
    __builtin_memcpy(&word, q + d, sizeof word);
    word ^= 0x80808080u;  // q + 128
    __builtin_memcpy(block + d * kKvBlock + token * 4, &word, sizeof word);
  }
  __builtin_memcpy(scales + 4 * token, &scale, sizeof scale);
  quantize(reinterpret_cast<int8_t*>(block + kKvBlock * head_dim + token * head_dim), &scale, &sum, v, head_dim,
           head_dim);
  __builtin_memcpy(scales + 4 * (kKvBlock + token), &scale, sizeof scale);
}

void kv_put_16(uint8_t* block, size_t token, const float* k, const float* v, size_t head_dim) {
  uint8_t* values = block + 2 * (kKvBlock + token) * head_dim;
  for (size_t d = 0; d < head_dim; d += 4) {
    uint16_t keys[4];
    vst1_u16(keys, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(k + d))));
    for (size_t i = 0; i < 4; ++i) __builtin_memcpy(block + 2 * ((d + i) * kKvBlock + token), keys + i, sizeof keys[i]);
    vst1_u16(reinterpret_cast<uint16_t*>(values + 2 * d), vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(v + d))));
  }
}

namespace {

float32x4_t widen(const uint8_t* at) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(at))));
}

// One query in work: a head of a row, which sees tokens [from, to) of the KV split.
struct Query {
  const float* q;
  const int8_t* q8;
  float scale;  // 8 bit: that of q8, which includes the score's
  float softcap;
  size_t from, to;
  float m, l;
  float* acc;
};

struct Cache8 {
  static Query query(const AttendJob& job, size_t m, size_t h) {
    return {nullptr, job.q8 + m * job.ldq + h * job.head_dim, job.q_scale[m * job.lds + h],
            job.softcap, 0, 0, 0, 0, nullptr};
  }

  // Scores of 16 tokens, of Q queries.
  template <int Q>
  static void scores(float s[Q][kKvBlock], const Query* queries, const uint8_t* block, size_t t0, size_t head_dim) {
    int32x4_t dot[Q][4];
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) dot[q][v] = vdupq_n_s32(0);
    const uint8_t* at = block + 4 * t0;
    for (size_t d = 0; d < head_dim; d += 16, at += 16 * kKvBlock) {
      int8x16_t a[Q];
#pragma GCC unroll 4
      for (int q = 0; q < Q; ++q) a[q] = vld1q_s8(queries[q].q8 + d);
      four_dimensions<0, Q>(dot, at, a);
      four_dimensions<1, Q>(dot, at, a);
      four_dimensions<2, Q>(dot, at, a);
      four_dimensions<3, Q>(dot, at, a);
    }
    const float* k_scale = reinterpret_cast<const float*>(block + 2 * kKvBlock * head_dim) + t0;
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const float32x4_t scale = vmulq_n_f32(vld1q_f32(k_scale + 4 * v), queries[q].scale);
        vst1q_f32(s[q] + t0 + 4 * v, vmulq_f32(vcvtq_f32_s32(dot[q][v]), scale));
      }
  }

  template <int j, int Q>
  static inline __attribute__((always_inline)) void four_dimensions(int32x4_t dot[Q][4], const uint8_t* at,
                                                                    const int8x16_t a[Q]) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const uint8x16_t stored = vld1q_u8(at + 4 * j * kKvBlock + 16 * v);
      const int8x16_t k = vreinterpretq_s8_u8(veorq_u8(stored, vdupq_n_u8(128)));
#pragma GCC unroll 4
      for (int q = 0; q < Q; ++q) dot[q][v] = vdotq_laneq_s32(dot[q][v], k, a[q], j);
    }
  }

  // Sixteen dimensions of a token's value.
  static void values(float32x4_t v[4], const uint8_t* block, size_t head_dim, size_t t, size_t d) {
    const int8x16_t bytes = vld1q_s8(reinterpret_cast<const int8_t*>(block + (kKvBlock + t) * head_dim + d));
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
    v[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(low)));
    v[1] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(low)));
    v[2] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(high)));
    v[3] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)));
  }

  static float32x4_t weight(float32x4_t p, const uint8_t* block, size_t head_dim, size_t t) {
    return vmulq_f32(p, vld1q_f32(reinterpret_cast<const float*>(block + 2 * kKvBlock * head_dim) + kKvBlock + t));
  }
};

struct Cache16 {
  static Query query(const AttendJob& job, size_t m, size_t h) {
    return {job.q + m * job.ldq + h * job.head_dim, nullptr, job.scale, job.softcap, 0, 0, 0, 0, nullptr};
  }

  template <int Q>
  static void scores(float s[Q][kKvBlock], const Query* queries, const uint8_t* block, size_t t0, size_t head_dim) {
    float32x4_t dot[Q][4];
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) dot[q][v] = vdupq_n_f32(0.0f);
    for (size_t d = 0; d < head_dim; ++d) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const float32x4_t k = widen(block + 2 * (d * kKvBlock + t0 + 4 * v));
#pragma GCC unroll 4
        for (int q = 0; q < Q; ++q) dot[q][v] = vfmaq_n_f32(dot[q][v], k, queries[q].q[d]);
      }
    }
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) vst1q_f32(s[q] + t0 + 4 * v, vmulq_n_f32(dot[q][v], queries[q].scale));
  }

  static void values(float32x4_t v[4], const uint8_t* block, size_t head_dim, size_t t, size_t d) {
    for (size_t i = 0; i < 4; ++i) v[i] = widen(block + 2 * ((kKvBlock + t) * head_dim + d + 4 * i));
  }

  static float32x4_t weight(float32x4_t p, const uint8_t*, size_t, size_t) { return p; }
};

// Online softmax of one query over slots [from, to) of a block: their scores become weights, those of all other slots
// 0; returns the factor c for what was summed before.
template <class Cache>
float soften(Query* query, float s[kKvBlock], const uint8_t* block, size_t head_dim, size_t from, size_t to) {
  if (query->softcap > 0.0f) cap_softly(s, kKvBlock, query->softcap);
  const uint32_t numbers[4] = {0, 1, 2, 3};
  const uint32x4_t number = vld1q_u32(numbers);
  const uint32x4_t first = vdupq_n_u32(static_cast<uint32_t>(from)), end = vdupq_n_u32(static_cast<uint32_t>(to));
  uint32x4_t visible[8];
  float32x4_t largest = vdupq_n_f32(query->m);
  for (uint32_t v = 0; v < 8; ++v) {
    const uint32x4_t t = vaddq_u32(number, vdupq_n_u32(4 * v));
    visible[v] = vandq_u32(vcgeq_u32(t, first), vcltq_u32(t, end));
    largest = vbslq_f32(visible[v], larger(vld1q_f32(s + 4 * v), largest), largest);
  }
  const float now = vmaxvq_f32(largest);
  float32x4_t p[8];
  for (size_t v = 0; v < 8; ++v) {
    const float32x4_t e = exp4(vsubq_f32(vld1q_f32(s + 4 * v), vdupq_n_f32(now)));
    p[v] = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(e), visible[v]));
    vst1q_f32(s + 4 * v, Cache::weight(p[v], block, head_dim, 4 * v));
  }
  const float c = vgetq_lane_f32(exp4(vdupq_n_f32(query->m - now)), 0);
  const float sum = add_lanes(vaddq_f32(p[0], p[4]), vaddq_f32(p[1], p[5]), vaddq_f32(p[2], p[6]),
                              vaddq_f32(p[3], p[7]));
  query->l = fmaf(query->l, c, sum);
  query->m = now;
  return c;
}

// acc = acc * c, then += weight[t] * value[t] for t ascending; 16 dimensions from d on.
template <class Cache, int Q>
void add_values(Query* queries, const float c[Q], const float weight[Q][kKvBlock], const uint8_t* block,
                size_t head_dim, size_t d, size_t from, size_t to) {
  float32x4_t acc[Q][4];
#pragma GCC unroll 4
  for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) acc[q][i] = vmulq_n_f32(vld1q_f32(queries[q].acc + d + 4 * i), c[q]);
  for (size_t t = from; t < to; ++t) {
    float32x4_t v[4];
    Cache::values(v, block, head_dim, t, d);
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) acc[q][i] = vfmaq_n_f32(acc[q][i], v[i], weight[q][t]);
  }
#pragma GCC unroll 4
  for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) vst1q_f32(queries[q].acc + d + 4 * i, acc[q][i]);
}

// One block, for Q queries that see the same slots of it.
template <class Cache, int Q>
void take_block(Query* queries, const uint8_t* block, size_t head_dim, size_t from, size_t to) {
  float s[Q][kKvBlock];
  float c[Q];
  for (size_t t = 0; t < kKvBlock; t += 16) Cache::template scores<Q>(s, queries, block, t, head_dim);
  for (size_t q = 0; q < Q; ++q) c[q] = soften<Cache>(queries + q, s[q], block, head_dim, from, to);
  for (size_t d = 0; d < head_dim; d += 16)
    add_values<Cache, Q>(queries, c, s, block, head_dim, d, from, to);
}

// Block number b of the KV split, for all queries: neighbours that see the same slots together.
template <class Cache>
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
    switch (n) {
      case 1: take_block<Cache, 1>(queries + i, block, head_dim, from(i), to(i)); break;
      case 2: take_block<Cache, 2>(queries + i, block, head_dim, from(i), to(i)); break;
      case 3: take_block<Cache, 3>(queries + i, block, head_dim, from(i), to(i)); break;
      default: take_block<Cache, 4>(queries + i, block, head_dim, from(i), to(i)); break;
    }
  }
}

// Queries i0 .. i0 + count - 1, counted over rows and their heads: the KV split is computed, and stored or merged.
template <class Cache>
void attend_queries(const AttendJob& job, size_t i0, size_t count) {
  const size_t split_start = job.kv_split * kKvChunk;
  float acc[kQueries][kMaxHeadDim];
  Query queries[kQueries];
  for (size_t i = 0; i < count; ++i) {
    const size_t m = (i0 + i) / job.heads, end = job.position + m + 1;
    const size_t first = job.window != 0 && end > job.window ? end - job.window : 0;
    Query& query = queries[i] = Cache::query(job, m, (i0 + i) % job.heads);
    query.from = first > split_start ? first - split_start : 0;
    query.to = (end < split_start + kKvChunk ? end : split_start + kKvChunk) - split_start;
    query.m = -HUGE_VALF;
    query.l = 0.0f;
    query.acc = acc[i];
    for (size_t d = 0; d < job.head_dim; d += 4) vst1q_f32(acc[i] + d, vdupq_n_f32(0.0f));
  }
  // Later rows begin and end later: the first query sees the earliest token, the last one the latest.
  for (size_t b = queries[0].from / kKvBlock; b * kKvBlock < queries[count - 1].to; ++b)
    take_queries<Cache>(queries, count, job.blocks[b], job.head_dim, b);
  for (size_t i = 0; i < count; ++i) {
    const size_t m = (i0 + i) / job.heads, h = (i0 + i) % job.heads, end = job.position + m + 1;
    const bool seen_before = split_start > 0 && (job.window == 0 || end < job.window + split_start);
    float* to = job.acc + m * job.lda + h * job.head_dim;
    float* largest = job.m + m * job.ldm + h;
    float* sum = job.l + m * job.ldm + h;
    if (job.fold && seen_before) {
      attend_merge(largest, sum, to, &queries[i].m, &queries[i].l, acc[i], 1, job.head_dim);
      continue;
    }
    *largest = queries[i].m;
    *sum = queries[i].l;
    __builtin_memcpy(to, acc[i], job.head_dim * sizeof(float));
  }
}

template <class Cache>
void attend(const AttendJob& job) {
  const size_t all = job.rows * job.heads;
  for (size_t i = 0; i < all; i += kQueries)
    attend_queries<Cache>(job, i, i + kQueries < all ? size_t{kQueries} : all - i);
}

}  // namespace

void attend_8(const AttendJob* job) { attend<Cache8>(*job); }

void attend_16(const AttendJob* job) { attend<Cache16>(*job); }

void attend_merge(float* M, float* L, float* A, const float* m, const float* l, const float* acc, size_t heads,
                  size_t head_dim) {
  for (size_t h = 0; h < heads; ++h) {
    const float now = m[h] > M[h] ? m[h] : M[h];
    const float x = vgetq_lane_f32(exp4(vdupq_n_f32(M[h] - now)), 0);
    const float y = vgetq_lane_f32(exp4(vdupq_n_f32(m[h] - now)), 0);
    M[h] = now;
    L[h] = fmaf(L[h], x, l[h] * y);
    for (size_t d = h * head_dim; d < (h + 1) * head_dim; d += 4)
      vst1q_f32(A + d, vfmaq_n_f32(vmulq_n_f32(vld1q_f32(acc + d), y), vld1q_f32(A + d), x));
  }
}

void attend_finish(float* A, const float* L, size_t heads, size_t head_dim) {
  for (size_t h = 0; h < heads; ++h)
    for (size_t d = h * head_dim; d < (h + 1) * head_dim; d += 4)
      vst1q_f32(A + d, vdivq_f32(vld1q_f32(A + d), vdupq_n_f32(L[h])));
}

}  // namespace neon
