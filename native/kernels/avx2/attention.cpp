// KV blocks: writing a token, and attention. Lanes are tokens for the scores (four vectors of eight) and dimensions
// for the values; two heads share every key and value that is loaded.
#include "kernels.h"
#include "math.h"

namespace avx2 {

enum { kMaxHeadDim = 512, kHeadsAtOnce = 8 };

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
  for (size_t d = 0; d < head_dim; d += 8) {
    uint16_t keys[8];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(keys), _mm256_cvtps_ph(_mm256_loadu_ps(k + d), 0));
    for (size_t i = 0; i < 8; ++i)
      __builtin_memcpy(block + 2 * ((d + i) * kKvBlock + token), keys + i, sizeof keys[i]);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(values + 2 * d), _mm256_cvtps_ph(_mm256_loadu_ps(v + d), 0));
  }
}

namespace {

// Up to kHeadsAtOnce heads in work.
struct Heads {
  const float* q[kHeadsAtOnce];
  const int8_t* q8[kHeadsAtOnce];
  float q_scale[kHeadsAtOnce];  // includes the score scale
  float m[kHeadsAtOnce], l[kHeadsAtOnce];
  float acc[kHeadsAtOnce][kMaxHeadDim];
};

// Slots [from, to) of one block are visible.
struct Visible {
  size_t from, to;
  __m256 mask[4];
};

struct Cache8 {
  static __m256 value(const uint8_t* block, size_t head_dim, size_t t, size_t d) {
    const uint8_t* at = block + (kKvBlock + t) * head_dim + d;
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at))));
  }

  // The sign of the key moves to the query, as in linear_int.cpp: 16-bit sums cannot saturate.
  template <int H>
  static void scores(__m256 s[H][4], const Heads& heads, size_t h0, const uint8_t* block, const AttendJob& job) {
    __m256i dot[H][4];
    for (int h = 0; h < H; ++h)
      for (int i = 0; i < 4; ++i) dot[h][i] = _mm256_setzero_si256();
    for (size_t d = 0; d < job.head_dim; d += 4) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const __m256i stored = _mm256_load_si256(reinterpret_cast<const __m256i*>(block + d * kKvBlock) + i);
        const __m256i k = _mm256_xor_si256(stored, _mm256_set1_epi8(-128));
        const __m256i size = _mm256_abs_epi8(k);
#pragma GCC unroll 2
        for (int h = 0; h < H; ++h) {
          int32_t word;
          __builtin_memcpy(&word, heads.q8[h0 + h] + d, sizeof word);
          const __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(_mm256_set1_epi32(word), k));
          dot[h][i] = _mm256_add_epi32(dot[h][i], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        }
      }
    }
    const float* k_scale = reinterpret_cast<const float*>(block + 2 * kKvBlock * job.head_dim);
    for (int h = 0; h < H; ++h)
      for (int i = 0; i < 4; ++i) {
        const __m256 scale = _mm256_mul_ps(_mm256_set1_ps(heads.q_scale[h0 + h]), _mm256_load_ps(k_scale + 8 * i));
        s[h][i] = _mm256_mul_ps(_mm256_cvtepi32_ps(dot[h][i]), scale);
      }
  }

  static __m256 weight(__m256 p, const uint8_t* block, size_t head_dim, int i) {
    const float* v_scale = reinterpret_cast<const float*>(block + 2 * kKvBlock * head_dim) + kKvBlock;
    return _mm256_mul_ps(p, _mm256_load_ps(v_scale + 8 * i));
  }
};

struct Cache16 {
  static __m256 value(const uint8_t* block, size_t head_dim, size_t t, size_t d) {
    const uint8_t* at = block + 2 * ((kKvBlock + t) * head_dim + d);
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(at)));
  }

  template <int H>
  static void scores(__m256 s[H][4], const Heads& heads, size_t h0, const uint8_t* block, const AttendJob& job) {
    for (int h = 0; h < H; ++h)
      for (int i = 0; i < 4; ++i) s[h][i] = _mm256_setzero_ps();
    for (size_t d = 0; d < job.head_dim; ++d) {
      const __m128i* line = reinterpret_cast<const __m128i*>(block + 2 * d * kKvBlock);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const __m256 k = _mm256_cvtph_ps(_mm_load_si128(line + i));
#pragma GCC unroll 2
        for (int h = 0; h < H; ++h) s[h][i] = _mm256_fmadd_ps(_mm256_set1_ps(heads.q[h0 + h][d]), k, s[h][i]);
      }
    }
    for (int h = 0; h < H; ++h)
      for (int i = 0; i < 4; ++i) s[h][i] = _mm256_mul_ps(_mm256_set1_ps(job.scale), s[h][i]);
  }

  static __m256 weight(__m256 p, const uint8_t*, size_t, int) { return p; }
};

// acc = acc * c, then += weight[t] * value[t] for t ascending; C vectors of dimensions from d on, H heads.
template <class Cache, int H, int C>
void add_values(Heads* heads, size_t h0, const float* c, const float (*weight)[kKvBlock], const uint8_t* block,
                size_t head_dim, size_t d, const Visible& visible) {
  __m256 acc[H][C];
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h)
#pragma GCC unroll 4
    for (int i = 0; i < C; ++i)
      acc[h][i] = _mm256_mul_ps(_mm256_loadu_ps(heads->acc[h0 + h] + d + 8 * i), _mm256_set1_ps(c[h]));
  for (size_t t = visible.from; t < visible.to; ++t) {
#pragma GCC unroll 4
    for (int i = 0; i < C; ++i) {
      const __m256 v = Cache::value(block, head_dim, t, d + 8 * i);
#pragma GCC unroll 4
      for (int h = 0; h < H; ++h) acc[h][i] = _mm256_fmadd_ps(_mm256_set1_ps(weight[h][t]), v, acc[h][i]);
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h)
#pragma GCC unroll 4
    for (int i = 0; i < C; ++i) _mm256_storeu_ps(heads->acc[h0 + h] + d + 8 * i, acc[h][i]);
}

// Online softmax of one head over the scores of one block: weights of the visible tokens, and the factor c for what
// was summed before.
template <class Cache>
float soften(Heads* heads, size_t h, float* weight, const __m256 s[4], const uint8_t* block, size_t head_dim,
             const Visible& visible) {
  const float before = heads->m[h];
  __m256 largest = _mm256_set1_ps(before);  // max(s, largest) keeps `largest` where s is NaN
  for (int i = 0; i < 4; ++i)
    largest = _mm256_blendv_ps(largest, _mm256_max_ps(s[i], largest), visible.mask[i]);
  const float now = max_lane(largest);
  __m256 p[4];
  for (int i = 0; i < 4; ++i) {
    p[i] = _mm256_and_ps(exp8(_mm256_sub_ps(s[i], _mm256_set1_ps(now))), visible.mask[i]);
    _mm256_storeu_ps(weight + 8 * i, Cache::weight(p[i], block, head_dim, i));
  }
  const float c = _mm256_cvtss_f32(exp8(_mm256_set1_ps(before - now)));
  heads->l[h] = fmaf(heads->l[h], c, add_lanes(_mm256_add_ps(p[0], p[2]), _mm256_add_ps(p[1], p[3])));
  heads->m[h] = now;
  return c;
}

// One block for heads h0 .. h0 + H - 1.
template <class Cache, int H>
void take_block(Heads* heads, size_t h0, const uint8_t* block, const AttendJob& job, const Visible& visible) {
  __m256 s[H][4];
  float c[H];
  float weight[H][kKvBlock];
  Cache::template scores<H>(s, *heads, h0, block, job);
  for (size_t h = 0; h < H; ++h)
    c[h] = soften<Cache>(heads, h0 + h, weight[h], s[h], block, job.head_dim, visible);
  size_t d = 0;
  for (; d + 32 <= job.head_dim; d += 32)
    add_values<Cache, H, 4>(heads, h0, c, weight, block, job.head_dim, d, visible);
  for (; d < job.head_dim; d += 8)
    add_values<Cache, H, 1>(heads, h0, c, weight, block, job.head_dim, d, visible);
}

Visible visible_slots(size_t from, size_t to) {
  Visible visible;
  visible.from = from;
  visible.to = to;
  for (size_t i = 0; i < 4; ++i) {
    const __m256i below = first_lanes(to > 8 * i ? to - 8 * i : 0);
    const __m256i early = first_lanes(from > 8 * i ? from - 8 * i : 0);
    visible.mask[i] = _mm256_castsi256_ps(_mm256_andnot_si256(early, below));
  }
  return visible;
}

// The visible tokens [from, to) of one cut.
template <class Cache>
void take_cut(Heads* heads, size_t count, const AttendJob& job, size_t from, size_t to) {
  for (size_t h = 0; h < count; ++h) {
    heads->m[h] = -HUGE_VALF;
    heads->l[h] = 0.0f;
    for (size_t d = 0; d < job.head_dim; d += 8) _mm256_storeu_ps(heads->acc[h] + d, _mm256_setzero_ps());
  }
  for (size_t t = from; t < to; t = (t / kKvBlock + 1) * kKvBlock) {
    const size_t base = t / kKvBlock * kKvBlock;
    const Visible visible = visible_slots(t - base, to - base < 32 ? to - base : 32);
    const uint8_t* block = job.blocks[t / kKvBlock];
    size_t h = 0;
    for (; h + 2 <= count; h += 2) take_block<Cache, 2>(heads, h, block, job, visible);
    if (h < count) take_block<Cache, 1>(heads, h, block, job, visible);
  }
}

// Heads h0 .. h0 + count - 1 of row m: the cut is computed, and stored or merged.
template <class Cache, bool quantized>
void attend_heads(const AttendJob& job, size_t m, size_t h0, size_t count) {
  const size_t cut = job.cut * kKvChunk, end = job.position + m + 1;
  const size_t to = end < cut + kKvChunk ? end : cut + kKvChunk;
  const size_t first = job.window != 0 && end > job.window ? end - job.window : 0;
  const size_t one = m * job.ldm + h0, ready = m * job.lds + h0, at = m * job.ldq + h0 * job.head_dim;
  Heads heads;
  for (size_t i = 0; i < count; ++i) {
    if (quantized) {
      heads.q8[i] = job.q8 + at + i * job.head_dim;
      heads.q_scale[i] = job.q_scale[ready + i];
    } else {
      heads.q[i] = job.q + at + i * job.head_dim;
    }
  }
  take_cut<Cache>(&heads, count, job, first > cut ? first - cut : 0, to - cut);
  for (size_t i = 0; i < count; ++i) {
    float* acc = job.acc + m * job.lda + (h0 + i) * job.head_dim;
    if (job.fold && first < cut) {
      attend_merge(job.m + one + i, job.l + one + i, acc, &heads.m[i], &heads.l[i], heads.acc[i], 1, job.head_dim);
      continue;
    }
    job.m[one + i] = heads.m[i];
    job.l[one + i] = heads.l[i];
    for (size_t d = 0; d < job.head_dim; d += 8) _mm256_storeu_ps(acc + d, _mm256_loadu_ps(heads.acc[i] + d));
  }
}

template <class Cache, bool quantized>
void attend(const AttendJob& job) {
  for (size_t m = 0; m < job.rows; ++m)
    for (size_t h = 0; h < job.heads; h += kHeadsAtOnce)
      attend_heads<Cache, quantized>(job, m, h, h + kHeadsAtOnce < job.heads ? size_t{kHeadsAtOnce} : job.heads - h);
}

}  // namespace

void attend_8(const AttendJob* job) { attend<Cache8, true>(*job); }

void attend_16(const AttendJob* job) { attend<Cache16, false>(*job); }

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
