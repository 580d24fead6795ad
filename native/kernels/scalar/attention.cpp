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

void rotate(float* x, size_t head_dim) {
  const size_t n = head_dim & (~head_dim + 1);
  for (size_t h = 1; h < n; h *= 2)
    for (size_t i = 0; i < head_dim; ++i) {
      if ((i & h) != 0) continue;
      const float a = x[i], b = x[i + h];
      x[i] = a + b;
      x[i + h] = a - b;
    }
}

// 32 columns to q + 8; returns the scale.
static uint16_t to_nibbles(uint8_t* q, const float* x) {
  const float absmax = largest_magnitude(x, 32);
  const float inverse = 7.0f / absmax;
  const bool usable = inverse > 0.0f && inverse < HUGE_VALF;
  for (size_t i = 0; i < 32; ++i)
    q[i] = static_cast<uint8_t>((usable ? (x[i] * inverse + kRound) - kRound : 0.0f) + 8.0f);
  return to_f16(absmax / 7.0f);
}

void kv_put_4(uint8_t* block, size_t token, const float* k, const float* v, size_t head_dim) {
  const size_t groups = head_dim / 32;
  uint8_t* values = block + kKvBlock * head_dim / 2 + token * head_dim / 2;
  uint8_t* scales = block + kKvBlock * head_dim;
  uint8_t q[32];
  for (size_t g = 0; g < groups; ++g) {
    const uint16_t k_scale = to_nibbles(q, k + 32 * g);
    for (size_t i = 0; i < 32; i += i % 8 == 3 ? 5 : 1)
      block[(4 * g + i / 8) * (4 * kKvBlock) + token * 4 + i % 8] = static_cast<uint8_t>(q[i] | q[i + 4] << 4);
    memcpy(scales + 2 * (g * kKvBlock + token), &k_scale, sizeof k_scale);
    const uint16_t v_scale = to_nibbles(q, v + 32 * g);
    for (size_t i = 0; i < 16; ++i) values[16 * g + i] = static_cast<uint8_t>(q[i] | q[i + 16] << 4);
    memcpy(scales + 2 * (groups * (kKvBlock + token) + g), &v_scale, sizeof v_scale);
  }
}

namespace {

// One query head. 8 and 4 bit: q8 and its scale, which includes the score's; 16 bit: q and the score's scale.
struct Query {
  const float* q;
  const int8_t* q8;
  float scale;
  size_t head_dim;
  float softcap;
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

float score_4(const Query& query, const uint8_t* block, size_t t) {
  const uint8_t* k_scale = block + kKvBlock * query.head_dim;
  float acc = 0.0f;
  for (size_t g = 0; g < query.head_dim / 32; ++g) {
    int32_t dot = 0;
    for (size_t d = 32 * g; d < 32 * (g + 1); ++d) {
      const int byte = block[(d / 8) * (4 * kKvBlock) + t * 4 + d % 4];
      dot += query.q8[d] * ((d % 8 < 4 ? byte & 15 : byte >> 4) - 8);
    }
    acc = fmaf(static_cast<float>(dot), get_f16(k_scale + 2 * (g * kKvBlock + t)), acc);
  }
  return acc * query.scale;
}

void add_value_4(Partial* part, const uint8_t* block, size_t t, float p, size_t head_dim) {
  const uint8_t* v = block + (kKvBlock + t) * head_dim / 2;
  const uint8_t* v_scale = block + kKvBlock * head_dim + 2 * (kKvBlock + t) * (head_dim / 32);
  for (size_t d = 0; d < head_dim; ++d) {
    const int byte = v[d / 32 * 16 + d % 16];
    const float weight = p * get_f16(v_scale + 2 * (d / 32));
    part->acc[d] = fmaf(weight, static_cast<float>((d % 32 < 16 ? byte & 15 : byte >> 4) - 8), part->acc[d]);
  }
}

void add_value_16(Partial* part, const uint8_t* block, size_t t, float p, size_t head_dim) {
  const uint8_t* v = block + 2 * kKvBlock * head_dim + 2 * t * head_dim;
  for (size_t d = 0; d < head_dim; ++d) part->acc[d] = fmaf(p, get_f16(v + 2 * d), part->acc[d]);
}

// What the three kinds of cache do not share.
struct Kind {
  bool quantized;
  float (*score)(const Query& query, const uint8_t* block, size_t t);
  void (*add_value)(Partial* part, const uint8_t* block, size_t t, float p, size_t head_dim);
};
const Kind kCache8 = {true, score_8, add_value_8};
const Kind kCache16 = {false, score_16, add_value_16};
const Kind kCache4 = {true, score_4, add_value_4};

// Takes slots [from, to) of one block into `part`.
void take_block(Partial* part, const Query& query, const uint8_t* block, size_t from, size_t to,
                const Kind& kind) {
  float s[kKvBlock];
  float largest = part->m;
  for (size_t t = from; t < to; ++t) {
    s[t] = kind.score(query, block, t);
    if (query.softcap > 0.0f) s[t] = cap_softly(s[t], query.softcap);
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
  for (size_t t = from; t < to; ++t) kind.add_value(part, block, t, p[t], query.head_dim);
}

// Tokens [first, end) of the KV split that `blocks` are of; both count from its beginning.
void take_split(Partial* part, const Query& query, const uint8_t* const* blocks, size_t first, size_t end,
              const Kind& kind) {
  part->m = -HUGE_VALF;
  part->l = 0.0f;
  memset(part->acc, 0, sizeof part->acc);
  for (size_t t = first; t < end; t = (t / kKvBlock + 1) * kKvBlock) {
    const size_t base = t / kKvBlock * kKvBlock;
    const size_t block_end = base + kKvBlock < end ? base + kKvBlock : end;
    take_block(part, query, blocks[t / kKvBlock], t - base, block_end - base, kind);
  }
}

void attend(const AttendJob& job, const Kind& kind) {
  const size_t split_start = job.kv_split * kKvChunk;
  for (size_t i = 0; i < job.rows * job.heads; ++i) {
    const size_t m = i / job.heads, h = i % job.heads;
    const size_t end = job.position + m + 1;
    const size_t to = end < split_start + kKvChunk ? end : split_start + kKvChunk;
    const size_t first = job.window != 0 && end > job.window ? end - job.window : 0;
    const size_t at = m * job.ldq + h * job.head_dim, one = m * job.ldm + h;
    const Query query = {kind.quantized ? nullptr : job.q + at, kind.quantized ? job.q8 + at : nullptr,
                         kind.quantized ? job.q_scale[m * job.lds + h] : job.scale, job.head_dim, job.softcap};
    Partial part;
    take_split(&part, query, job.blocks, first > split_start ? first - split_start : 0, to - split_start, kind);
    float* acc = job.acc + m * job.lda + h * job.head_dim;
    if (job.fold && first < split_start) {
      attend_merge(job.m + one, job.l + one, acc, &part.m, &part.l, part.acc, 1, job.head_dim);
      continue;
    }
    job.m[one] = part.m;
    job.l[one] = part.l;
    memcpy(acc, part.acc, job.head_dim * sizeof *acc);
  }
}

}  // namespace

void attend_8(const AttendJob* job) { attend(*job, kCache8); }

void attend_16(const AttendJob* job) { attend(*job, kCache16); }

void attend_4(const AttendJob* job) { attend(*job, kCache4); }

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
