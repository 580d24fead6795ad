// Heads made ready, and keys and values put into the cache (kernels/block.h).
#pragma once

namespace li {

enum { kMaxHeadDim = 512 };

LI_DEVICE u8* block_of(const KvLayer& kv, const RowSlots& at, int row, int kv_heads, int index, int h) {
  const Index block = at.block_tables[static_cast<Index>(at.sequences[row]) * at.width + index];
  return kv.start + (block * kv_heads + h) * kv.block_bytes;
}

LI_DEVICE float absmax_of(const float* x, int n) {
  u32 magnitude = 0;
  for (int d = threadIdx.x & 31; d < n; d += 32) {
    const u32 one = bits_of(x[d]) & 0x7fffffffu;
    magnitude = one > magnitude ? one : magnitude;
  }
  return float_of(largest_of(magnitude, 32));
}

// RMSNorm of one head by one warp, in shared memory.
LI_DEVICE void norm_head(float* head, const float* norm, float eps, int head_dim) {
  const float inverse = rms_inverse(head, head_dim, eps);
  sync_warp();
  for (int d = threadIdx.x & 31; d < head_dim; d += 32) head[d] = (head[d] * inverse) * norm[d];
  sync_warp();
}

// One head by one warp, in shared memory: bias, norm and RoPE of its first 2 * half values.
LI_DEVICE void finish_head(float* head, const float* from, const float* bias, const float* norm, float eps,
                           bool norm_after, const float* table, int half, int head_dim) {
  const int lane = threadIdx.x & 31;
  for (int d = lane; d < head_dim; d += 32) head[d] = bias != nullptr ? from[d] + bias[d] : from[d];
  sync_warp();
  if (norm != nullptr && !norm_after) norm_head(head, norm, eps, head_dim);
  for (int d = lane; d < half; d += 32) {
    const float a = head[d], b = head[d + half];
    const float cos = table[d], sin = table[half + d];
    head[d] = fmaf(a, cos, -(b * sin));
    head[d + half] = fmaf(b, cos, a * sin);
  }
  sync_warp();
  if (norm != nullptr && norm_after) norm_head(head, norm, eps, head_dim);
}

// The Walsh-Hadamard transform of each run of n values, n the largest power of two in head_dim.
LI_DEVICE void rotate_head(float* head, int head_dim) {
  const int n = head_dim & -head_dim;
  for (int h = 1; h < n; h *= 2) {
    for (int pair = threadIdx.x & 31; pair < head_dim / 2; pair += 32) {
      const int i = pair / h * 2 * h + pair % h;
      const float a = head[i], b = head[i + h];
      head[i] = a + b;
      head[i + h] = a - b;
    }
    sync_warp();
  }
}

LI_DEVICE void put_8(u8* block, int token, const float* k, const float* v, int head_dim) {
  const int lane = threadIdx.x & 31;
  const float k_max = absmax_of(k, head_dim), v_max = absmax_of(v, head_dim);
  const float k_inverse = 127.0f / k_max, v_inverse = 127.0f / v_max;
  for (int d = lane; d < head_dim; d += 32) {
    block[d / 4 * 4 * kBlockTokens + token * 4 + d % 4] =
        static_cast<u8>(static_cast<int>(rounded(k[d], k_inverse)) + 128);
    block[kBlockTokens * head_dim + token * head_dim + d] =
        static_cast<u8>(static_cast<int>(rounded(v[d], v_inverse)) & 255);
  }
  if (lane != 0) return;
  float* scales = reinterpret_cast<float*>(block + 2 * kBlockTokens * head_dim);
  scales[token] = k_max / 127.0f;
  scales[kBlockTokens + token] = v_max / 127.0f;
}

LI_DEVICE void put_16(u8* block, int token, const float* k, const float* v, int head_dim) {
  u16* keys = reinterpret_cast<u16*>(block);
  for (int d = threadIdx.x & 31; d < head_dim; d += 32) {
    keys[d * kBlockTokens + token] = float_to_half(k[d]);
    keys[(kBlockTokens + token) * head_dim + d] = float_to_half(v[d]);
  }
}

// q + 8 of one of 32 columns, a lane each, and their scale.
LI_DEVICE u32 nibble_of(float x, u16& scale) {
  const float absmax = float_of(largest_of(bits_of(x) & 0x7fffffffu, 32));
  scale = float_to_half(absmax / 7.0f);
  return static_cast<u32>(rounded(x, 7.0f / absmax) + 8.0f);
}

LI_DEVICE void put_4(u8* block, int token, const float* k, const float* v, int head_dim) {
  const int lane = threadIdx.x & 31, groups = head_dim / 32;
  u8* values = block + kBlockTokens * head_dim / 2 + token * head_dim / 2;
  u16* scales = reinterpret_cast<u16*>(block + kBlockTokens * head_dim);
  for (int g = 0; g < groups; ++g) {
    u16 k_scale, v_scale;
    const u32 key = nibble_of(k[32 * g + lane], k_scale), value = nibble_of(v[32 * g + lane], v_scale);
    const u32 key_after = shfl_xor(key, 4), value_after = shfl_xor(value, 16);
    if (lane % 8 < 4)
      block[(4 * g + lane / 8) * 4 * kBlockTokens + token * 4 + lane % 8] = static_cast<u8>(key | key_after << 4);
    if (lane < 16) values[16 * g + lane] = static_cast<u8>(value | value_after << 4);
    if (lane == 0) {
      scales[g * kBlockTokens + token] = k_scale;
      scales[groups * (kBlockTokens + token) + g] = v_scale;
    }
  }
}

}  // namespace li

// Grid: (2, rows): queries, keys.
LI_KERNEL(256, 4) norm_all(li::NormAllArgs a) {
  using namespace li;
  const bool keys = blockIdx.x == 1;
  float* row = a.qkv + static_cast<Index>(blockIdx.y) * a.qkv_ld + (keys ? a.k_start : 0);
  const int columns = keys ? a.k_columns : a.q_columns, step = blockDim.x;
  const float* norm = keys ? a.k_norm : a.q_norm;
  if (a.bias != nullptr)
    for (int c = threadIdx.x; c < columns; c += step) row[c] = row[c] + a.bias[c + (keys ? a.q_columns : 0)];
  const float inverse = block_rms_inverse(row, columns, a.eps);
  for (int c = threadIdx.x; c < columns; c += step) row[c] = (row[c] * inverse) * norm[c];
}

// One warp a head: query heads, then KV heads. Grid: ((heads + kv_heads) / 4, rows).
LI_KERNEL(128, 4) rope_append(li::RopeArgs a) {
  using namespace li;
  LI_SHARED(float, shared, 4 * 2 * kMaxHeadDim);
  const int warp = threadIdx.x / 32, lane = threadIdx.x & 31, index = blockIdx.x * 4 + warp, row = blockIdx.y;
  if (index >= a.heads + a.kv_heads) return;
  float* head = shared + warp * 2 * kMaxHeadDim;
  const bool query = index < a.heads;
  const int position = a.at.positions[row], h = index - a.heads;
  float* from = a.qkv + static_cast<Index>(row) * a.qkv_ld + (query ? index * a.head_dim : a.k_start + h * a.head_dim);
  const float* bias = a.bias != nullptr && !a.ready ? a.bias + index * a.head_dim : nullptr;
  const float* norm = a.ready ? nullptr : query ? a.q_norm : a.k_norm;
  const int half = query ? a.query_half : a.half;
  const float* table = (query ? a.query_table : a.table) + static_cast<Index>(position) * 2 * half;
  finish_head(head, from, bias, norm, a.eps, a.norm_after, table, half, a.head_dim);
  if (a.kv.bits != 16) rotate_head(head, a.head_dim);
  if (!query) {
    float* value = head + kMaxHeadDim;
    const float* v = a.qkv + static_cast<Index>(row) * a.qkv_ld + a.v_start + h * a.head_dim;
    const float* v_bias = a.bias != nullptr ? a.bias + (a.v_bias + h) * a.head_dim : nullptr;
    for (int d = lane; d < a.head_dim; d += 32) value[d] = v_bias != nullptr ? v[d] + v_bias[d] : v[d];
    sync_warp();
    if (a.v_norm != nullptr) norm_head(value, a.v_norm, a.eps, a.head_dim);
    u8* block = block_of(a.kv, a.at, row, a.kv_heads, position / kBlockTokens, h);
    const int token = position % kBlockTokens;
    if (a.kv.bits == 4)
      put_4(block, token, head, value, a.head_dim);
    else if (a.kv.bits == 8)
      put_8(block, token, head, value, a.head_dim);
    else
      put_16(block, token, head, value, a.head_dim);
    return;
  }
  if (a.kv.bits == 16) {
    for (int d = lane; d < a.head_dim; d += 32) from[d] = head[d];
    return;
  }
  const float absmax = absmax_of(head, a.head_dim), inverse = 127.0f / absmax;
  i8* q8 = a.q8 + (static_cast<Index>(row) * a.heads + index) * a.head_dim;
  for (int d = lane; d < a.head_dim; d += 32) q8[d] = static_cast<i8>(static_cast<int>(rounded(head[d], inverse)));
  if (lane == 0) a.q_scale[static_cast<Index>(row) * a.heads + index] = (absmax / 127.0f) * a.score_scale;
}
