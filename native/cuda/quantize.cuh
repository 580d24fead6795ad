// Rows to int8, in the order in which the matrix kernels read them.
#pragma once

namespace li {

// Four columns of a row a lane, 128 a warp: columns 128 * tile + 4 * lane and on. Columns past the last are 0.
LI_DEVICE void quantize_tile(const QuantizedRows& to, int row, int tile, const float (&v)[4]) {
  const int lane = threadIdx.x & 31, lanes = to.group / 4;
  u32 magnitude = 0;
  for (int i = 0; i < 4; ++i) {
    const u32 one = bits_of(v[i]) & 0x7fffffffu;
    magnitude = one > magnitude ? one : magnitude;
  }
  const float absmax = float_of(largest_of(magnitude, lanes)), most = to.planes == 2 ? 32512.0f : 127.0f;
  const float inverse = most / absmax;
  u32 high = 0, low = 0;
  int sum = 0;
  for (int i = 0; i < 4; ++i) {
    const int value = static_cast<int>(rounded(v[i], inverse));
    sum += value;
    // 255 is odd, so there are no ties; the dividend is positive, so division is floor.
    const int nearest = to.planes == 2 ? (value + 127 + 255 * 128) / 255 - 128 : value;
    high |= (static_cast<u32>(nearest) & 255u) << 8 * i;
    low |= (static_cast<u32>(value - 255 * nearest) & 255u) << 8 * i;
  }
  sum = sum_of(sum, lanes);
  const int block = lane / 8, half = lane % 8 / 4, t = lane % 4;
  const int column = tile * kTileColumns + t * 32 + half * 16 + block * 4;
  i8* q = to.q + static_cast<Index>(row) * to.planes * to.q_ld + column;
  *reinterpret_cast<u32*>(q) = high;
  if (to.planes == 2) *reinterpret_cast<u32*>(q + to.q_ld) = low;
  const int group = (tile * kTileColumns + 4 * lane) / to.group;
  if (4 * lane % to.group != 0 || group >= to.groups) return;
  to.scale[static_cast<Index>(row) * to.s_ld + group] = absmax / most;
  to.sum[static_cast<Index>(row) * to.s_ld + group] = sum;
}

// The same four columns, quantized or as they are.
LI_DEVICE void put_columns(const QuantizedRows& to, float* out, int out_ld, int row, int tile, int columns,
                           const float (&v)[4]) {
  if (to.q != nullptr) {
    quantize_tile(to, row, tile, v);
    return;
  }
  const int first = tile * kTileColumns + 4 * (threadIdx.x & 31);
  for (int i = 0; i < 4; ++i)
    if (first + i < columns) out[static_cast<Index>(row) * out_ld + first + i] = v[i];
}

}  // namespace li
