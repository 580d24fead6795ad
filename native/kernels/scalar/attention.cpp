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

// One query head. 8 bit: q8 and its scale, which includes the score's; 16 bit: q and the score's scale.
struct Query {
  const float* q;
  const int8_t* q8;
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
  return static_cast<float>(dot) * (query.scale * k_scale);
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

// Tokens [first, end) of the cut that `blocks` are of; both count from its beginning.
void take_cut(Partial* part, const Query& query, const uint8_t* const* blocks, size_t first, size_t end, bool wide) {
  part->m = -HUGE_VALF;
  part->l = 0.0f;
  memset(part->acc, 0, sizeof part->acc);
  for (size_t t = first; t < end; t = (t / kKvBlock + 1) * kKvBlock) {
    const size_t base = t / kKvBlock * kKvBlock;
    const size_t block_end = base + kKvBlock < end ? base + kKvBlock : end;
    take_block(part, query, blocks[t / kKvBlock], t - base, block_end - base, wide);
  }
}

void attend(const AttendJob& job, bool wide) {
  const size_t cut = job.cut * kKvChunk;
  for (size_t i = 0; i < job.rows * job.heads; ++i) {
    const size_t m = i / job.heads, h = i % job.heads;
    const size_t end = job.position + m + 1;
    const size_t to = end < cut + kKvChunk ? end : cut + kKvChunk;
    const size_t first = job.window != 0 && end > job.window ? end - job.window : 0;
    const size_t at = m * job.ldq + h * job.head_dim, one = m * job.ldm + h;
    const Query query = {wide ? job.q + at : nullptr, wide ? nullptr : job.q8 + at,
                         wide ? job.scale : job.q_scale[m * job.lds + h], job.head_dim};
    Partial part;
    take_cut(&part, query, job.blocks, first > cut ? first - cut : 0, to - cut, wide);
    float* acc = job.acc + m * job.lda + h * job.head_dim;
    if (job.fold && first < cut) {
      attend_merge(job.m + one, job.l + one, acc, &part.m, &part.l, part.acc, 1, job.head_dim);
      continue;
    }
    job.m[one] = part.m;
    job.l[one] = part.l;
    memcpy(acc, part.acc, job.head_dim * sizeof *acc);
  }
}

}  // namespace

void attend_8(const AttendJob* job) { attend(*job, false); }

void attend_16(const AttendJob* job) { attend(*job, true); }

void attend_merge(float* M, float* L, float* A, const float* m, const float* l, const float* acc, size_t heads,
                  size_t head_dim) {
  for (size_t h = 0; h < heads; ++h) {
    const float largest = m[h] > M[h] ? m[h] : M[h];
    const float x = exp1(M[h] - largest);
    const float y = exp1(m[h] - largest);
    M[h] = largest;
    L[h] = fmaf(L[h], x, l[h] * y);
    for (size_t d = h * head_dim; d < (h + 1) * head_dim; ++d) A[d] = fmaf(A[d], x, acc[d] * y);
  }
}

void attend_finish(float* A, const float* L, size_t heads, size_t head_dim) {
  for (size_t h = 0; h < heads; ++h)
    for (size_t d = h * head_dim; d < (h + 1) * head_dim; ++d) A[d] = A[d] / L[h];
}

}  // namespace scalar
