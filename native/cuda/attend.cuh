// Softmax attention over the paged cache, in the CPU's order (kernels/table.h): KV splits of 256 tokens, in them blocks
// of 32, online; then splits are merged, ascending. One warp takes one query head through a split: a lane is a token
// while scores are made, and four columns of the head while values are added.
#pragma once

namespace li {

LI_DEVICE int first_seen(int position, int window) {
  return window != 0 && position + 1 > window ? position + 1 - window : 0;
}

// Columns 4 * lane + 128 * i and on of a head, i < kOfLane.
enum { kOfLane = kMaxHeadDim / 128 };
struct Partial {
  float m, l;
  float acc[kOfLane][4];
};

// Bytes as they are, to floats: 2^23 + byte has the byte in its low bits.
LI_DEVICE float byte_to_float(u32 word, int i) { return float_of(0x4b000000u | (word >> 8 * i & 255u)) - 8388608.0f; }

// A head's query as the scores need it. 8 and 4 bit: int8 words in shared memory, and the scale; 16 bit: floats.
struct Query {
  const u32* words;
  const float* values;
  float scale;
  int head_dim;
  float softcap;
};

template <int BITS>
LI_DEVICE float score_of(const Query& query, const u8* block, int t) {
  if constexpr (BITS == 8) {
    int dot = 0;
    for (int j = 0; j < query.head_dim / 4; ++j) {
      const u32 key = load4(block + j * 4 * kBlockTokens + 4 * t) ^ 0x80808080u;  // + 128 taken off
      dot = dp4a(static_cast<int>(query.words[j]), static_cast<int>(key), dot);
    }
    const float k_scale = float_of(load4(block + 2 * kBlockTokens * query.head_dim + 4 * t));
    return static_cast<float>(dot) * (query.scale * k_scale);
  } else if constexpr (BITS == 16) {
    const u16* keys = reinterpret_cast<const u16*>(block);
    float dot = 0.0f;
    for (int d = 0; d < query.head_dim; ++d)
      dot = fmaf(query.values[d], half_to_float(keys[d * kBlockTokens + t]), dot);
    return query.scale * dot;
  } else {
    const u16* k_scale = reinterpret_cast<const u16*>(block + kBlockTokens * query.head_dim);
    float acc = 0.0f;
    for (int g = 0; g < query.head_dim / 32; ++g) {
      int dot = 0, sum = 0;
      for (int j = 4 * g; j < 4 * g + 4; ++j) {
        const u32 pair = load4(block + j * 4 * kBlockTokens + 4 * t);
        const int q_low = static_cast<int>(query.words[2 * j]), q_high = static_cast<int>(query.words[2 * j + 1]);
        dot = dp4a(q_low, static_cast<int>(pair & 0x0f0f0f0fu), dot);
        dot = dp4a(q_high, static_cast<int>(pair >> 4 & 0x0f0f0f0fu), dot);
        sum = dp4a(q_high, 0x01010101, dp4a(q_low, 0x01010101, sum));
      }
      acc = fmaf(static_cast<float>(dot - 8 * sum), half_to_float(k_scale[g * kBlockTokens + t]), acc);
    }
    return acc * query.scale;
  }
}

// What a token's probability is multiplied with before it meets this lane's columns; 4 bit: it depends on the columns.
template <int BITS>
LI_DEVICE float value_scale(const u8* block, int t, int head_dim) {
  if constexpr (BITS == 8) return float_of(load4(block + 2 * kBlockTokens * head_dim + 4 * (kBlockTokens + t)));
  return 1.0f;
}

// Four columns, from d on, of token t's value, and for 4 bit their scale.
template <int BITS>
LI_DEVICE void values_of(float (&v)[4], float& scale, const u8* block, int t, int d, int head_dim) {
  if constexpr (BITS == 8) {
    const u32 word = load4(block + (kBlockTokens + t) * head_dim + d) ^ 0x80808080u;
    for (int i = 0; i < 4; ++i) v[i] = byte_to_float(word, i) - 128.0f;
  } else if constexpr (BITS == 16) {
    const uint2 words = load8(block + 2 * ((kBlockTokens + t) * head_dim + d));
    for (int i = 0; i < 4; ++i)
      v[i] = half_to_float(static_cast<u16>((i < 2 ? words.x : words.y) >> 16 * (i & 1) & 0xffffu));
  } else {
    const u32 pair = load4(block + (kBlockTokens + t) * (head_dim / 2) + d / 32 * 16 + d % 16);
    for (int i = 0; i < 4; ++i) v[i] = byte_to_float(pair >> (d % 32 < 16 ? 0 : 4) & 0x0f0f0f0fu, i) - 8.0f;
    const u16* scales = reinterpret_cast<const u16*>(block + kBlockTokens * head_dim);
    scale = half_to_float(scales[(kBlockTokens + t) * (head_dim / 32) + d / 32]);
  }
}

// Tokens [from, to) of one block.
template <int BITS>
LI_DEVICE void take_block(Partial& part, const Query& query, const u8* block, int from, int to) {
  const int lane = threadIdx.x & 31, head_dim = query.head_dim;
  const bool seen = lane >= from && lane < to;
  float score = seen ? score_of<BITS>(query, block, lane) : 0.0f;
  if (query.softcap > 0.0f) score = cap_softly(score, query.softcap) + 0.0f;  // never -0
  float largest = seen && score > part.m ? score : part.m;  // NaN is left out
  for (int bit = 16; bit > 0; bit /= 2) {
    const float other = shfl_xor(largest, bit);
    largest = other > largest ? other : largest;
  }
  const float c = exp1(part.m - largest), p = seen ? exp1(score - largest) : 0.0f;
  part.l = fmaf(part.l, c, add_16_lanes(p + shfl_xor(p, 16)));
  part.m = largest;
  const float weight = seen ? p * value_scale<BITS>(block, lane, head_dim) : 0.0f;
#pragma unroll
  for (int n = 0; n < kOfLane; ++n)
    for (int i = 0; i < 4; ++i) part.acc[n][i] *= c;
  for (int t = from; t < to; ++t) {
    const float one = shfl(weight, t);
#pragma unroll
    for (int n = 0; n < kOfLane; ++n) {
      const int d = 128 * n + 4 * lane;
      if (d >= head_dim) break;
      float v[4], scale = 1.0f;
      values_of<BITS>(v, scale, block, t, d, head_dim);
      for (int i = 0; i < 4; ++i)
        part.acc[n][i] = fmaf(BITS == 4 ? one * scale : one, v[i], part.acc[n][i]);
    }
  }
}

// (m, l, acc) of a later split into `to`.
LI_DEVICE void merge_into(Partial& to, const Partial& part) {
  const float largest = part.m > to.m ? part.m : to.m;
  const float x = exp1(to.m - largest), y = exp1(part.m - largest);
  to.m = largest;
  to.l = fmaf(to.l, x, part.l * y);
#pragma unroll
  for (int n = 0; n < kOfLane; ++n)
    for (int i = 0; i < 4; ++i) to.acc[n][i] = fmaf(to.acc[n][i], x, part.acc[n][i] * y);
}

template <int BITS>
LI_DEVICE void take_split(Partial& part, const AttendArgs& a, const Query& query, int row, int h, int from, int to) {
  part.m = -infinity();
  part.l = 0.0f;
#pragma unroll
  for (int n = 0; n < kOfLane; ++n)
    for (int i = 0; i < 4; ++i) part.acc[n][i] = 0.0f;
  for (int t = from; t < to; t = (t / kBlockTokens + 1) * kBlockTokens) {
    const int base = t / kBlockTokens * kBlockTokens, end = base + kBlockTokens < to ? base + kBlockTokens : to;
    take_block<BITS>(part, query, block_of(a.kv, a.at, row, a.kv_heads, t / kBlockTokens, h), t - base, end - base);
  }
}

LI_DEVICE void store_partial(const AttendArgs& a, const Partial& part, Index one, int head_dim) {
  const int lane = threadIdx.x & 31;
  if (lane == 0) {
    a.m[one] = part.m;
    a.l[one] = part.l;
  }
#pragma unroll
  for (int n = 0; n < kOfLane; ++n)
    for (int i = 0; i < 4; ++i) {
      const int d = 128 * n + 4 * lane + i;
      if (d < head_dim) a.acc[one * head_dim + d] = part.acc[n][i];
    }
}

// Grid: (splits, or 1 when not split; KV heads; rows). The block's warps share the query heads of one KV head.
template <int BITS>
LI_DEVICE void attend(const AttendArgs& a) {
  LI_SHARED(u32, shared, 4 * kMaxHeadDim);
  const int warp = threadIdx.x / 32, lane = threadIdx.x & 31, h = blockIdx.y, row = blockIdx.z;
  const int heads = a.heads / a.kv_heads, position = a.at.positions[row];
  const int first = first_seen(position, a.window);
  const int first_split = first / kSplitTokens, end_split = position / kSplitTokens + 1;
  const int from_split = a.split ? static_cast<int>(blockIdx.x) : first_split;
  const int to_split = a.split ? from_split + 1 : end_split;
  if (from_split < first_split || to_split > end_split) return;
  u32* words = shared + warp * kMaxHeadDim;
  for (int i = warp; i < heads; i += blockDim.x / 32) {
    const int head = h * heads + i;
    const Index one = static_cast<Index>(row) * a.heads + head;
    Query query = {words, nullptr, a.scale, a.head_dim, a.softcap};
    sync_warp();
    if (BITS == 16) {
      query.values = a.q + static_cast<Index>(row) * a.q_ld + head * a.head_dim;
    } else {
      for (int j = lane; j < a.head_dim / 4; j += 32) words[j] = load4(a.q8 + one * a.head_dim + 4 * j);
      query.scale = a.q_scale[one];
    }
    sync_warp();
    Partial all = {}, part;
    for (int kv_split = from_split; kv_split < to_split; ++kv_split) {
      const int start = kv_split * kSplitTokens, next = start + kSplitTokens;
      const int from = first > start ? first : start, to = position + 1 < next ? position + 1 : next;
      take_split<BITS>(part, a, query, row, h, from, to);
      if (kv_split == from_split)
        all = part;
      else
        merge_into(all, part);
    }
    store_partial(a, all, one * a.slots + (a.split ? from_split : 0), a.head_dim);
  }
}

}  // namespace li

LI_KERNEL(128, 4) attend_4(li::AttendArgs a) { li::attend<4>(a); }
LI_KERNEL(128, 4) attend_8(li::AttendArgs a) { li::attend<8>(a); }
LI_KERNEL(128, 4) attend_16(li::AttendArgs a) { li::attend<16>(a); }

// Splits merged, ascending, and divided by the sum of weights; then ready for the matrix o. Grid: (tiles / 4, rows).
LI_KERNEL(128, 8) merge(li::MergeArgs a) {
  using namespace li;
  const int tile = blockIdx.x * 4 + threadIdx.x / 32, row = blockIdx.y, columns = a.heads * a.head_dim;
  if (tile * kTileColumns >= columns) return;
  const int c = tile * kTileColumns + 4 * (threadIdx.x & 31), position = a.positions[row];
  const int first = a.split ? first_seen(position, a.window) / kSplitTokens : 0;
  const int last = a.split ? position / kSplitTokens : 0;
  float v[4] = {};
  if (c < columns) {  // four columns are of one head
    const int head = c / a.head_dim, d = c % a.head_dim;
    const Index one = (static_cast<Index>(row) * a.heads + head) * a.slots;
    float m = a.m[one + first], l = a.l[one + first];
    for (int i = 0; i < 4; ++i) v[i] = a.acc[(one + first) * a.head_dim + d + i];
    for (int kv_split = first + 1; kv_split <= last; ++kv_split) {
      const float other = a.m[one + kv_split], largest = other > m ? other : m;
      const float x = exp1(m - largest), y = exp1(other - largest);
      m = largest;
      l = fmaf(l, x, a.l[one + kv_split] * y);
      for (int i = 0; i < 4; ++i) v[i] = fmaf(v[i], x, a.acc[(one + kv_split) * a.head_dim + d + i] * y);
    }
    for (int i = 0; i < 4; ++i) v[i] = v[i] / l;
  }
  put_columns(a.to, a.out, a.out_ld, row, tile, columns, v);
}
