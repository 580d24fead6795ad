// KV blocks: writing a token, and attention. Lanes are tokens for the scores and dimensions for the values; up to four
// heads share every key and value that is loaded.
#include "kernels.h"
#include "math.h"

namespace avx512 {

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
  for (size_t d = 0; d < head_dim; d += 16) {
    uint16_t keys[16];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(keys), _mm512_cvtps_ph(_mm512_loadu_ps(k + d), 0));
    for (size_t i = 0; i < 16; ++i)
      __builtin_memcpy(block + 2 * ((d + i) * kKvBlock + token), keys + i, sizeof keys[i]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(values + 2 * d), _mm512_cvtps_ph(_mm512_loadu_ps(v + d), 0));
  }
}

namespace {

// Up to kHeadsAtOnce heads in work.
struct Heads {
  const float* q[kHeadsAtOnce];
  const int8_t* q8[kHeadsAtOnce];
  int32_t start[kHeadsAtOnce];  // -128 * (sum of q8): takes the offset of the stored keys off
  float q_scale[kHeadsAtOnce];  // includes the score scale
  float m[kHeadsAtOnce], l[kHeadsAtOnce];
  float acc[kHeadsAtOnce][kMaxHeadDim];
};

// Slots [from, to) of one block are visible.
struct Visible {
  size_t from, to;
  __mmask16 mask[2];
};

struct Cache8 {
  static __m512 value(const uint8_t* block, size_t head_dim, size_t t, size_t d) {
    const uint8_t* at = block + (kKvBlock + t) * head_dim + d;
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(at))));
  }

  template <int H>
  static void scores(__m512 s[H][2], const Heads& heads, size_t h0, const uint8_t* block, const AttendJob& job) {
    __m512i c[H][2];
    for (int h = 0; h < H; ++h) c[h][0] = c[h][1] = _mm512_set1_epi32(heads.start[h0 + h]);
    for (size_t d = 0; d < job.head_dim; d += 4) {
      const __m512i k0 = _mm512_load_si512(block + d * kKvBlock);
      const __m512i k1 = _mm512_load_si512(block + d * kKvBlock + 64);
#pragma GCC unroll 4
      for (int h = 0; h < H; ++h) {
        int32_t word;
        __builtin_memcpy(&word, heads.q8[h0 + h] + d, sizeof word);
        c[h][0] = _mm512_dpbusd_epi32(c[h][0], k0, _mm512_set1_epi32(word));
        c[h][1] = _mm512_dpbusd_epi32(c[h][1], k1, _mm512_set1_epi32(word));
      }
    }
    const float* k_scale = reinterpret_cast<const float*>(block + 2 * kKvBlock * job.head_dim);
    for (int h = 0; h < H; ++h)
      for (int i = 0; i < 2; ++i) {
        const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(heads.q_scale[h0 + h]), _mm512_load_ps(k_scale + 16 * i));
        s[h][i] = _mm512_mul_ps(_mm512_cvtepi32_ps(c[h][i]), scale);
      }
  }

  static __m512 weight(__m512 p, const uint8_t* block, size_t head_dim, int i) {
    const float* v_scale = reinterpret_cast<const float*>(block + 2 * kKvBlock * head_dim) + kKvBlock;
    return _mm512_mul_ps(p, _mm512_load_ps(v_scale + 16 * i));
  }
};

struct Cache16 {
  static __m512 value(const uint8_t* block, size_t head_dim, size_t t, size_t d) {
    const uint8_t* at = block + 2 * ((kKvBlock + t) * head_dim + d);
    return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(at)));
  }

  template <int H>
  static void scores(__m512 s[H][2], const Heads& heads, size_t h0, const uint8_t* block, const AttendJob& job) {
    for (int h = 0; h < H; ++h) s[h][0] = s[h][1] = _mm512_setzero_ps();
    for (size_t d = 0; d < job.head_dim; ++d) {
      const __m256i* line = reinterpret_cast<const __m256i*>(block + 2 * d * kKvBlock);
      const __m512 k0 = _mm512_cvtph_ps(_mm256_load_si256(line));
      const __m512 k1 = _mm512_cvtph_ps(_mm256_load_si256(line + 1));
#pragma GCC unroll 4
      for (int h = 0; h < H; ++h) {
        const __m512 q = _mm512_set1_ps(heads.q[h0 + h][d]);
        s[h][0] = _mm512_fmadd_ps(q, k0, s[h][0]);
        s[h][1] = _mm512_fmadd_ps(q, k1, s[h][1]);
      }
    }
    for (int h = 0; h < H; ++h)
      for (int i = 0; i < 2; ++i) s[h][i] = _mm512_mul_ps(_mm512_set1_ps(job.scale), s[h][i]);
  }

  static __m512 weight(__m512 p, const uint8_t*, size_t, int) { return p; }
};

// acc = acc * c, then += weight[t] * value[t] for t ascending; C vectors of dimensions from d on, H heads.
template <class Cache, int H, int C>
void add_values(Heads* heads, size_t h0, const float* c, const float (*weight)[kKvBlock], const uint8_t* block,
                size_t head_dim, size_t d, const Visible& visible) {
  __m512 acc[H][C];
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h)
#pragma GCC unroll 4
    for (int i = 0; i < C; ++i)
      acc[h][i] = _mm512_mul_ps(_mm512_loadu_ps(heads->acc[h0 + h] + d + 16 * i), _mm512_set1_ps(c[h]));
  for (size_t t = visible.from; t < visible.to; ++t) {
    __m512 v[C];
#pragma GCC unroll 4
    for (int i = 0; i < C; ++i) v[i] = Cache::value(block, head_dim, t, d + 16 * i);
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h) {
      const __m512 w = _mm512_set1_ps(weight[h][t]);
#pragma GCC unroll 4
      for (int i = 0; i < C; ++i) acc[h][i] = _mm512_fmadd_ps(w, v[i], acc[h][i]);
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h)
#pragma GCC unroll 4
    for (int i = 0; i < C; ++i) _mm512_storeu_ps(heads->acc[h0 + h] + d + 16 * i, acc[h][i]);
}

// One block for heads h0 .. h0 + H - 1.
template <class Cache, int H>
void take_block(Heads* heads, size_t h0, const uint8_t* block, const AttendJob& job, const Visible& visible) {
  __m512 s[H][2];
  float c[16] = {};  // one lane a head: exp(largest before - largest now)
  float weight[H][kKvBlock];
  Cache::template scores<H>(s, *heads, h0, block, job);
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h) {
    __m512 largest = _mm512_set1_ps(heads->m[h0 + h]);  // max(s, largest) keeps `largest` where s is NaN
    largest = _mm512_mask_max_ps(largest, visible.mask[0], s[h][0], largest);
    largest = _mm512_mask_max_ps(largest, visible.mask[1], s[h][1], largest);
    const float now = _mm512_reduce_max_ps(largest);
    c[h] = heads->m[h0 + h] - now;
    heads->m[h0 + h] = now;
  }
  _mm512_storeu_ps(c, exp16(_mm512_loadu_ps(c)));
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h) {
    const __m512 m = _mm512_set1_ps(heads->m[h0 + h]);
    const __m512 p0 = _mm512_maskz_mov_ps(visible.mask[0], exp16(_mm512_sub_ps(s[h][0], m)));
    const __m512 p1 = _mm512_maskz_mov_ps(visible.mask[1], exp16(_mm512_sub_ps(s[h][1], m)));
    heads->l[h0 + h] = fmaf(heads->l[h0 + h], c[h], add_lanes(_mm512_add_ps(p0, p1)));
    _mm512_storeu_ps(weight[h], Cache::weight(p0, block, job.head_dim, 0));
    _mm512_storeu_ps(weight[h] + 16, Cache::weight(p1, block, job.head_dim, 1));
  }
  size_t d = 0;
  for (; d + 64 <= job.head_dim; d += 64)
    add_values<Cache, H, 4>(heads, h0, c, weight, block, job.head_dim, d, visible);
  for (; d < job.head_dim; d += 16)
    add_values<Cache, H, 1>(heads, h0, c, weight, block, job.head_dim, d, visible);
}

// The visible tokens [from, to) of one cut.
template <class Cache>
void take_cut(Heads* heads, size_t count, const AttendJob& job, size_t from, size_t to) {
  for (size_t h = 0; h < count; ++h) {
    heads->m[h] = -HUGE_VALF;
    heads->l[h] = 0.0f;
    for (size_t d = 0; d < job.head_dim; d += 16) _mm512_storeu_ps(heads->acc[h] + d, _mm512_setzero_ps());
  }
  for (size_t t = from; t < to; t = (t / kKvBlock + 1) * kKvBlock) {
    const size_t base = t / kKvBlock * kKvBlock;
    Visible visible;
    visible.from = t - base;
    visible.to = to - base < 32 ? to - base : 32;
    const auto mask = static_cast<uint32_t>(((1ull << visible.to) - 1) & ~((1ull << visible.from) - 1));
    visible.mask[0] = static_cast<__mmask16>(mask & 0xffff);
    visible.mask[1] = static_cast<__mmask16>(mask >> 16);
    const uint8_t* block = job.blocks[t / kKvBlock];
    for (size_t h = 0; h < count;) {
      const size_t left = count - h;
      const size_t here = left > 4 ? (left == 5 || left == 6 ? 3 : 4) : left;
      switch (here) {
        case 1: take_block<Cache, 1>(heads, h, block, job, visible); break;
        case 2: take_block<Cache, 2>(heads, h, block, job, visible); break;
        case 3: take_block<Cache, 3>(heads, h, block, job, visible); break;
        default: take_block<Cache, 4>(heads, h, block, job, visible); break;
      }
      h += here;
    }
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
      heads.start[i] = -128 * job.q_sum[ready + i];
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
    for (size_t d = 0; d < job.head_dim; d += 16) _mm512_storeu_ps(acc + d, _mm512_loadu_ps(heads.acc[i] + d));
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
