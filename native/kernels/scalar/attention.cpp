// KV blocks (block.h): writing a token, and softmax attention over the visible tokens.
#include "kernels.h"
#include "math.h"

namespace scalar {

enum { kMaxHeadDim = 512 };

static float get_f32(const uint8_t* at) {
  float x;
  memcpy(&x, at, sizeof x);
  return x;
}

static float get_f16(const uint8_t* at) {
  uint16_t h;
  memcpy(&h, at, sizeof h);
  return from_f16(h);
}

void kv_put_8(uint8_t* block, size_t token, const float* k, const float* v, size_t head_dim) {
  int8_t q[kMaxHeadDim];
  float scale;
  int32_t sum;
  uint8_t* scales = block + 2 * kKvBlock * head_dim;
  quantize(q, &scale, &sum, k, head_dim, head_dim);
  for (size_t d = 0; d < head_dim; ++d)
    block[(d / 4) * (4 * kKvBlock) + token * 4 + d % 4] = static_cast<uint8_t>(q[d] + 128);
  memcpy(scales + 4 * token, &scale, sizeof scale);
  quantize(q, &scale, &sum, v, head_dim, head_dim);
  memcpy(block + kKvBlock * head_dim + token * head_dim, q, head_dim);
  memcpy(scales + 4 * (kKvBlock + token), &scale, sizeof scale);
}

void kv_put_16(uint8_t* block, size_t token, const float* k, const float* v, size_t head_dim) {
  uint8_t* values = block + 2 * kKvBlock * head_dim;
  for (size_t d = 0; d < head_dim; ++d) {
    const uint16_t key = to_f16(k[d]);
    const uint16_t value = to_f16(v[d]);
    memcpy(block + 2 * (d * kKvBlock + token), &key, sizeof key);
    memcpy(values + 2 * (token * head_dim + d), &value, sizeof value);
  }
}

namespace {

// One query head; q8 is used by the 8-bit cache only.
struct Query {
  const float* q;
  int8_t q8[kMaxHeadDim];
  float q_scale;  // includes the score scale
  float scale;
  size_t head_dim;
};

// m: largest score so far, l: sum of weights, acc: weighted sum of values.
struct Partial {
  float m, l;
  float acc[kMaxHeadDim];
};

float score_8(const Query& query, const uint8_t* block, size_t t) {
  int32_t dot = 0;
  for (size_t d = 0; d < query.head_dim; ++d)
    dot += query.q8[d] * (block[(d / 4) * (4 * kKvBlock) + t * 4 + d % 4] - 128);
  const float k_scale = get_f32(block + 2 * kKvBlock * query.head_dim + 4 * t);
  return static_cast<float>(dot) * (query.q_scale * k_scale);
}

float score_16(const Query& query, const uint8_t* block, size_t t) {
  float dot = 0.0f;
  for (size_t d = 0; d < query.head_dim; ++d)
    dot = fmaf(query.q[d], get_f16(block + 2 * (d * kKvBlock + t)), dot);
  return query.scale * dot;
}

void add_value_8(Partial* part, const uint8_t* block, size_t t, float p, size_t head_dim) {
  const float weight = p * get_f32(block + 2 * kKvBlock * head_dim + 4 * (kKvBlock + t));
  const int8_t* v = reinterpret_cast<const int8_t*>(block + kKvBlock * head_dim + t * head_dim);
  for (size_t d = 0; d < head_dim; ++d) part->acc[d] = fmaf(weight, static_cast<float>(v[d]), part->acc[d]);
}

void add_value_16(Partial* part, const uint8_t* block, size_t t, float p, size_t head_dim) {
  const uint8_t* v = block + 2 * kKvBlock * head_dim + 2 * t * head_dim;
  for (size_t d = 0; d < head_dim; ++d) part->acc[d] = fmaf(p, get_f16(v + 2 * d), part->acc[d]);
}

// Takes slots [from, to) of one block into `part`.
void take_block(Partial* part, const Query& query, const uint8_t* block, size_t from, size_t to, bool wide) {
  float s[kKvBlock];
  float largest = part->m;
  for (size_t t = from; t < to; ++t) {
    s[t] = wide ? score_16(query, block, t) : score_8(query, block, t);
    largest = s[t] > largest ? s[t] : largest;
  }
  const float c = exp1(part->m - largest);
  float p[kKvBlock] = {};
  float lanes[16] = {};
  for (size_t t = from; t < to; ++t) p[t] = exp1(s[t] - largest);
  for (size_t t = 0; t < kKvBlock; ++t) lanes[t % 16] += p[t];
  part->l = fmaf(part->l, c, add_lanes(lanes));
  part->m = largest;
  for (size_t d = 0; d < query.head_dim; ++d) part->acc[d] *= c;
  for (size_t t = from; t < to; ++t)
    if (wide)
      add_value_16(part, block, t, p[t], query.head_dim);
    else
      add_value_8(part, block, t, p[t], query.head_dim);
}

void merge(Partial* whole, const Partial& part, size_t head_dim) {
  const float largest = part.m > whole->m ? part.m : whole->m;
  const float x = exp1(whole->m - largest);
  const float y = exp1(part.m - largest);
  whole->m = largest;
  whole->l = fmaf(whole->l, x, part.l * y);
  for (size_t d = 0; d < head_dim; ++d) whole->acc[d] = fmaf(whole->acc[d], x, part.acc[d] * y);
}

void attend_head(float* out, const Query& query, const AttendJob& job, bool wide) {
  Partial whole = {};
  bool any = false;
  for (size_t cut = job.first; cut < job.end;) {
    const size_t boundary = (cut / kKvChunk + 1) * kKvChunk;
    const size_t cut_end = boundary < job.end ? boundary : job.end;
    Partial part;
    part.m = -HUGE_VALF;
    part.l = 0.0f;
    memset(part.acc, 0, sizeof part.acc);
    for (size_t t = cut; t < cut_end; t = (t / kKvBlock + 1) * kKvBlock) {
      const size_t base = t / kKvBlock * kKvBlock;
      const size_t block_end = base + kKvBlock < cut_end ? base + kKvBlock : cut_end;
      take_block(&part, query, job.blocks[t / kKvBlock], t - base, block_end - base, wide);
    }
    if (any)
      merge(&whole, part, query.head_dim);
    else
      whole = part;  // the first cut is taken as it is
    any = true;
    cut = cut_end;
  }
  for (size_t d = 0; d < query.head_dim; ++d) out[d] = whole.acc[d] / whole.l;
}

void attend(const AttendJob& job, bool wide) {
  for (size_t h = 0; h < job.heads; ++h) {
    Query query;
    query.q = job.q + h * job.ldq;
    query.head_dim = job.head_dim;
    query.scale = job.scale;
    if (!wide) {
      int32_t sum;
      quantize(query.q8, &query.q_scale, &sum, query.q, job.head_dim, job.head_dim);
      query.q_scale *= job.scale;
    }
    attend_head(job.out + h * job.ldo, query, job, wide);
  }
}

}  // namespace

void attend_8(const AttendJob* job) { attend(*job, false); }

void attend_16(const AttendJob* job) { attend(*job, true); }

}  // namespace scalar
