// Weights times rows. Every output is the CPU's number: inside a group an exact integer, across groups, ascending,
// acc = fma(float(dot), w_scale * a_scale, acc).
#pragma once

namespace li {

// What one lane holds of a tile (args.h): low(j) and high(j) are bytes to be multiplied.
struct Int4 {
  enum { kTileBytes = 512, kOffset = 8, kPlanes = 1 };
  uint4 words;
};
struct Int3 {
  enum { kTileBytes = 384, kOffset = 4, kPlanes = 1 };
  uint2 two;
  u32 one;
};
struct Int8 {
  enum { kTileBytes = 1024, kOffset = 0, kPlanes = 1 };
  uint4 lows, highs;
};
struct Int8x16 : Int8 {  // activations of 16 bits, as two planes
  enum { kPlanes = 2 };
};

LI_DEVICE void load_tile(Int4& w, const u8* tile, int lane) { w.words = load16(tile + 16 * lane); }
LI_DEVICE void load_tile(Int3& w, const u8* tile, int lane) {
  w.two = load8(tile + 8 * lane);
  w.one = load4(tile + 256 + 4 * lane);
}
LI_DEVICE void load_tile(Int8& w, const u8* tile, int lane) {
  w.lows = load16(tile + 16 * lane);
  w.highs = load16(tile + 512 + 16 * lane);
}

LI_DEVICE u32 low_of(const Int4& w, int j) { return word_of(w.words, j) & 0x0f0f0f0fu; }
LI_DEVICE u32 high_of(const Int4& w, int j) { return word_of(w.words, j) >> 4 & 0x0f0f0f0fu; }
LI_DEVICE u32 low_of(const Int3& w, int j) {
  const u32 two = (j < 2 ? w.two.x : w.two.y) >> 4 * (j & 1);
  return (two & 0x03030303u) | (w.one >> 2 * j & 0x01010101u) << 2;
}
LI_DEVICE u32 high_of(const Int3& w, int j) {
  const u32 two = (j < 2 ? w.two.x : w.two.y) >> (4 * (j & 1) + 2);
  return (two & 0x03030303u) | (w.one >> (2 * j + 1) & 0x01010101u) << 2;
}
LI_DEVICE u32 low_of(const Int8& w, int j) { return word_of(w.lows, j); }
LI_DEVICE u32 high_of(const Int8& w, int j) { return word_of(w.highs, j); }

LI_DEVICE float scale_at(const u16* scales, int tile, int per_tile, int i) {
  return half_to_float(scales[static_cast<Index>(tile) * kTileRows * per_tile + i]);
}

// Adds up over the four lanes of a row; with M = 2 and 4, lane t is left with row t % M of `dot`, with 1 all have it.
template <int M>
LI_DEVICE int share_dots(const int (&dot)[M], int t) {
  if constexpr (M == 1) {
    const int pair = dot[0] + shfl_xor(dot[0], 1);
    return pair + shfl_xor(pair, 2);
  } else if constexpr (M == 2) {
    const int mine = t & 1 ? dot[1] : dot[0], other = t & 1 ? dot[0] : dot[1];
    const int pair = mine + shfl_xor(other, 1);
    return pair + shfl_xor(pair, 2);
  } else {
    const int mine0 = t & 1 ? dot[1] : dot[0], other0 = t & 1 ? dot[0] : dot[1];
    const int mine1 = t & 1 ? dot[3] : dot[2], other1 = t & 1 ? dot[2] : dot[3];
    const int pair0 = mine0 + shfl_xor(other0, 1), pair1 = mine1 + shfl_xor(other1, 1);
    const int mine = t & 2 ? pair1 : pair0, other = t & 2 ? pair0 : pair1;
    return mine + shfl_xor(other, 2);
  }
}

enum { kRowWarps = 4, kStageTiles = 16, kStageGroups = kStageTiles * 4, kStagePad = kStageGroups + 1 };

// What the groups of a stage are multiplied with: w_scale * a_scale, of M rows by 8 weight rows.
template <int M>
LI_DEVICE void stage_scales(float* products, const LinearArgs& a, int first_tile) {
  const int per_tile = kTileColumns / a.weight.group, first = first_tile * per_tile;
  const int left = a.weight.groups - first, stage = kStageTiles * per_tile, count = left < stage ? left : stage;
  const u16* scales = a.weight.scales + static_cast<Index>(blockIdx.x) * a.weight.tiles * kTileRows * per_tile;
  for (int i = threadIdx.x; i < count * kTileRows; i += 32 * kRowWarps) {
    const int group = first + i / kTileRows, row = i % kTileRows;
    const float w = half_to_float(
        scales[(static_cast<Index>(group / per_tile) * kTileRows + row) * per_tile + group % per_tile]);
#pragma unroll
    for (int m = 0; m < M; ++m)
      if (m < a.rows)
        products[(m * kTileRows + row) * kStagePad + group - first] =
            w * a.a.scale[static_cast<Index>(m) * a.a.s_ld + group];
  }
}

// The exact dots of one tile, offset taken off, into the stage: lane (g, t) has part t of row g's.
template <class W, int M>
LI_DEVICE void tile_dots(int* dots, const LinearArgs& a, const W& w, int tile, int first_tile) {
  const int lane = threadIdx.x & 31, g = lane / 4, t = lane % 4, mine = M == 1 ? 0 : t % M;
  const int per_tile = kTileColumns / a.weight.group, blocks = 4 / per_tile;
  uint4 low[M * W::kPlanes], high[M * W::kPlanes];
#pragma unroll
  for (int m = 0; m < M * W::kPlanes; ++m) {
    const int from = m / W::kPlanes < a.rows ? m : (a.rows - 1) * W::kPlanes + m % W::kPlanes;
    const i8* q = a.a.q + static_cast<Index>(from) * a.a.q_ld + tile * kTileColumns + t * 32;
    low[m] = load16(q);
    high[m] = load16(q + 16);
  }
  int dot[M] = {};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int w_low = static_cast<int>(low_of(w, j)), w_high = static_cast<int>(high_of(w, j));
#pragma unroll
    for (int m = 0; m < M; ++m) {
      const int p = m * W::kPlanes;
      int one =
          dp4a(w_high, static_cast<int>(word_of(high[p], j)), dp4a(w_low, static_cast<int>(word_of(low[p], j)), 0));
      if (W::kPlanes == 2)
        one = dp4a(w_high, static_cast<int>(word_of(high[p + W::kPlanes - 1], j)),
                   dp4a(w_low, static_cast<int>(word_of(low[p + W::kPlanes - 1], j)), 255 * one));
      dot[m] += one;
    }
    const int group = tile * per_tile + j / blocks;
    if (((j + 1) & (blocks - 1)) != 0 || group >= a.weight.groups) continue;
    int total = share_dots(dot, t);
    if (t < M && mine < a.rows) {
      if (W::kOffset != 0) total -= W::kOffset * a.a.sum[static_cast<Index>(mine) * a.a.s_ld + group];
      dots[(mine * kTileRows + g) * kStagePad + group - first_tile * per_tile] = total;
    }
#pragma unroll
    for (int m = 0; m < M; ++m) dot[m] = 0;
  }
}

// One block a tile row, M rows of activations (a.rows of them real). Its warps share the tiles and leave exact dots in
// shared memory, a stage at a time; then one lane a result adds them up, groups ascending, while the others go on with
// the next stage: K is split, and the sum is still one chain. Weights are fetched kAhead tiles at a time.
template <class W, int M>
LI_DEVICE void linear_rows(const LinearArgs& a) {
  constexpr int kAhead = M * W::kPlanes < 8 ? 4 : 2, kResults = M * kTileRows, kBuffer = kResults * kStagePad;
  LI_SHARED(int, dots, 2 * kBuffer);
  LI_SHARED(float, products, 2 * kBuffer);
  const int result = threadIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x & 31, tiles = a.weight.tiles;
  const int per_tile = kTileColumns / a.weight.group;
  const u8* values = a.weight.values + static_cast<Index>(blockIdx.x) * tiles * W::kTileBytes;
  float acc = 0.0f;
  int buffer = 0;
  for (int stage = 0; stage < tiles; stage += kStageTiles, buffer ^= kBuffer) {
    const int end = stage + kStageTiles < tiles ? stage + kStageTiles : tiles;
    for (int first = stage + warp; first < end; first += kRowWarps * kAhead) {
      W w[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i)
        if (first + kRowWarps * i < end)
          load_tile(w[i], values + static_cast<Index>(first + kRowWarps * i) * W::kTileBytes, lane);
      if (first == stage + warp) stage_scales<M>(products + buffer, a, stage);
#pragma unroll
      for (int i = 0; i < kAhead; ++i)
        if (first + kRowWarps * i < end) tile_dots<W, M>(dots + buffer, a, w[i], first + kRowWarps * i, stage);
    }
    if (stage + warp >= end) stage_scales<M>(products + buffer, a, stage);  // a warp without tiles
    // The only barrier of a stage: who comes here has left the buffer that the next stage but one writes.
    sync_block();
    const int left = a.weight.groups - stage * per_tile, groups = (end - stage) * per_tile;
    if (result >= kResults || result >= a.rows * kTileRows) continue;
    const int* dot = dots + buffer + result * kStagePad;
    const float* product = products + buffer + result * kStagePad;
    for (int i = 0; i < (left < groups ? left : groups); ++i) acc = fmaf(static_cast<float>(dot[i]), product[i], acc);
  }
  if (result < kResults && result < a.rows * kTileRows)
    a.out[static_cast<Index>(result / kTileRows) * a.out_ld + blockIdx.x * kTileRows + result % kTileRows] = acc;
}

// One tile of weights times the rows q[FROM] to q[TO - 1] point to; this lane holds the results of rows
// first_row + 8 * n and the next.
template <class W, int R, int FROM, int TO, int NT>
LI_DEVICE void multiply_tile(const LinearArgs& a, const W (&w)[2 * R], int tile, const i8* const (&q)[NT],
                             const u16* scales, int first_row, float (&acc)[R][NT][4]) {
  const int per_tile = kTileColumns / a.weight.group, blocks = 4 / per_tile;
  uint4 low[TO - FROM][W::kPlanes], high[TO - FROM][W::kPlanes];
#pragma unroll
  for (int n = FROM; n < TO; ++n)
#pragma unroll
    for (int p = 0; p < W::kPlanes; ++p) {
      low[n - FROM][p] = load16(q[n] + p * a.a.q_ld + tile * kTileColumns);
      high[n - FROM][p] = load16(q[n] + p * a.a.q_ld + tile * kTileColumns + 16);
    }
  int dot[W::kPlanes][R][TO - FROM][4] = {};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const u32 left[4] = {low_of(w[2 * r], j), low_of(w[2 * r + 1], j), high_of(w[2 * r], j),
                           high_of(w[2 * r + 1], j)};
#pragma unroll
      for (int n = FROM; n < TO; ++n)
#pragma unroll
        for (int p = 0; p < W::kPlanes; ++p) {
          const u32 right[2] = {word_of(low[n - FROM][p], j), word_of(high[n - FROM][p], j)};
          mma_s8(dot[p][r][n - FROM], left, right);
        }
    }
    const int group = tile * per_tile + j / blocks;
    if (((j + 1) & (blocks - 1)) != 0 || group >= a.weight.groups) continue;
    float w_scale[2 * R];
#pragma unroll
    for (int r = 0; r < 2 * R; ++r)
      w_scale[r] = scale_at(scales, r * a.weight.tiles + tile, per_tile, j / blocks);
#pragma unroll
    for (int n = FROM; n < TO; ++n)
#pragma unroll
      for (int c = 0; c < 2; ++c) {  // the activation rows of this lane's results
        const int row = first_row + 8 * n + c;
        const Index at = static_cast<Index>(row < a.rows ? row : a.rows - 1) * a.a.s_ld + group;
        const float a_scale = a.a.scale[at];
        const int off = W::kOffset * a.a.sum[at];
#pragma unroll
        for (int r = 0; r < 2 * R; ++r) {
          const int i = (r & 1) * 2 + c;
          int total = dot[0][r / 2][n - FROM][i];
          if (W::kPlanes == 2) total = 255 * total + dot[W::kPlanes - 1][r / 2][n - FROM][i];
          float& sum = acc[r / 2][n][i];
          sum = fmaf(static_cast<float>(total - off), w_scale[r] * a_scale, sum);
#pragma unroll
          for (int p = 0; p < W::kPlanes; ++p) dot[p][r / 2][n - FROM][i] = 0;
        }
      }
  }
}

// Matrix instructions: a warp takes 16 * R weight rows and 8 * NT activation rows; AHEAD tiles are fetched at a time.
// Grid: (panels * 2 / R / warps of a block, rows / (8 * NT)).
template <class W, int R, int NT, int AHEAD>
LI_DEVICE void linear_tiles(const LinearArgs& a) {
  const int lane = threadIdx.x & 31, g = lane / 4, t = lane % 4, tiles = a.weight.tiles;
  const int strip = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;  // of 16 * R weight rows
  if (strip * R >= a.weight.panels * 2) return;
  const int first_row = blockIdx.y * 8 * NT, per_tile = kTileColumns / a.weight.group;
  const Index tile_row = static_cast<Index>(strip) * 2 * R;
  const u8* values = a.weight.values + tile_row * tiles * W::kTileBytes;
  const u16* scales = a.weight.scales + tile_row * tiles * kTileRows * per_tile + g * per_tile;
  const auto real = [&](int row) { return row < a.rows ? row : a.rows - 1; };
  const i8* q[NT];
#pragma unroll
  for (int n = 0; n < NT; ++n)
    q[n] = a.a.q + static_cast<Index>(real(first_row + 8 * n + g)) * W::kPlanes * a.a.q_ld + t * 32;
  float acc[R][NT][4] = {};
  for (int first = 0; first < tiles; first += AHEAD) {
    W ahead[AHEAD][2 * R];
#pragma unroll
    for (int i = 0; i < AHEAD; ++i)
#pragma unroll
      for (int r = 0; r < 2 * R; ++r)
        if (first + i < tiles)
          load_tile(ahead[i][r], values + (static_cast<Index>(r) * tiles + first + i) * W::kTileBytes, lane);
#pragma unroll
    for (int i = 0; i < AHEAD; ++i)
      if (first + i < tiles) {
        if constexpr (W::kPlanes * NT <= 4) {
          multiply_tile<W, R, 0, NT>(a, ahead[i], first + i, q, scales, first_row + 2 * t, acc);
        } else {  // in halves: there are no registers for all activations at once
          multiply_tile<W, R, 0, NT / 2>(a, ahead[i], first + i, q, scales, first_row + 2 * t, acc);
          multiply_tile<W, R, NT / 2, NT>(a, ahead[i], first + i, q, scales, first_row + 2 * t, acc);
        }
      }
  }
#pragma unroll
  for (int n = 0; n < NT; ++n)
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const int row = first_row + 8 * n + 2 * t + c;
      if (row >= a.rows) continue;
      float* out = a.out + static_cast<Index>(row) * a.out_ld + strip * 16 * R + g;
#pragma unroll
      for (int r = 0; r < 2 * R; ++r) out[r * kTileRows] = acc[r / 2][n][(r & 1) * 2 + c];
    }
}

// Float activations, columns ascending: one lane a weight row, one warp a panel. Grid: (panels / 4, rows / M).
template <int M>
LI_DEVICE void linear_bf16(const LinearArgs& a) {
  const int lane = threadIdx.x & 31, panel = blockIdx.x * 4 + threadIdx.x / 32, first_row = blockIdx.y * M;
  if (panel >= a.weight.panels) return;
  const int eights = (a.weight.cols + 7) / 8;
  const u8* values = a.weight.values + (static_cast<Index>(panel) * eights * kPanel + lane) * 16;
  const float* x[M];
#pragma unroll
  for (int m = 0; m < M; ++m)
    x[m] = a.x + static_cast<Index>(first_row + m < a.rows ? first_row + m : a.rows - 1) * a.x_ld;
  float acc[M] = {};
#pragma unroll 4
  for (int k = 0; k < eights; ++k) {
    const uint4 w = load16(values + static_cast<Index>(k) * kPanel * 16);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (8 * k + i >= a.weight.cols) break;
      const float one = bf16_to_float(word_of(w, i / 2) >> 16 * (i & 1) & 0xffffu);
#pragma unroll
      for (int m = 0; m < M; ++m) acc[m] = fmaf(x[m][8 * k + i], one, acc[m]);
    }
  }
#pragma unroll
  for (int m = 0; m < M; ++m)
    if (first_row + m < a.rows) a.out[static_cast<Index>(first_row + m) * a.out_ld + panel * kPanel + lane] = acc[m];
}

}  // namespace li

#define LI_LINEAR(name, W)                                                                  \
  LI_KERNEL(128, 4) linear_##name##_1(li::LinearArgs a) { li::linear_rows<li::W, 1>(a); }     \
  LI_KERNEL(128, 4) linear_##name##_2(li::LinearArgs a) { li::linear_rows<li::W, 2>(a); }     \
  LI_KERNEL(128, 4) linear_##name##_4(li::LinearArgs a) { li::linear_rows<li::W, 4>(a); }     \
  LI_KERNEL(128, 2) linear_##name##_8(li::LinearArgs a) { li::linear_tiles<li::W, 1, 1, 4>(a); } \
  LI_KERNEL(128, 2) linear_##name##_16(li::LinearArgs a) { li::linear_tiles<li::W, 1, 2, 4>(a); } \
  LI_KERNEL(128, 2) linear_##name##_32(li::LinearArgs a) { li::linear_tiles<li::W, 2, 4, 1>(a); }
LI_LINEAR(i4, Int4)
LI_LINEAR(i3, Int3)
LI_LINEAR(i8, Int8)
LI_LINEAR(i8x16, Int8x16)
LI_KERNEL(128, 4) linear_bf16_1(li::LinearArgs a) { li::linear_bf16<1>(a); }
LI_KERNEL(128, 4) linear_bf16_4(li::LinearArgs a) { li::linear_bf16<4>(a); }
LI_KERNEL(128, 4) linear_bf16_16(li::LinearArgs a) { li::linear_bf16<16>(a); }

// x = row(token) * scale. One block a row.
LI_KERNEL(128, 8) embed(li::EmbedArgs a) {
  using namespace li;
  const int token = a.tokens[blockIdx.x], panel = token / kPanel, r = token % kPanel;
  const CardWeight& w = a.weight;
  float* x = a.x + static_cast<Index>(blockIdx.x) * a.x_ld;
  for (int c = threadIdx.x; c < w.cols; c += blockDim.x) {
    float value;
    if (a.kind == 3) {
      const Index at = ((static_cast<Index>(panel) * ((w.cols + 7) / 8) + c / 8) * kPanel + r) * 8 + c % 8;
      value = bf16_to_float(reinterpret_cast<const u16*>(w.values)[at]);
    } else {
      const int tile = c / kTileColumns, j = c % kTileColumns / 32, half = c % 32 / 16, t = c % 16 / 4, i = c % 4;
      const int lane = r % kTileRows * 4 + t, per_tile = kTileColumns / w.group;
      const Index tile_row = static_cast<Index>(panel) * kTilesOfPanel + r / kTileRows, at = tile_row * w.tiles + tile;
      int q;
      if (a.kind == 0) {
        q = (w.values[at * Int4::kTileBytes + 16 * lane + 4 * j + i] >> 4 * half & 15) - 8;
      } else if (a.kind == 1) {
        const u8* base = w.values + at * Int3::kTileBytes;
        const int two = base[8 * lane + j / 2 * 4 + i] >> (4 * (j & 1) + 2 * half) & 3;
        q = (two | (base[256 + 4 * lane + i] >> (2 * j + half) & 1) << 2) - 4;
      } else {
        q = static_cast<i8>(w.values[at * Int8::kTileBytes + 512 * half + 16 * lane + 4 * j + i]);
      }
      const u16* scales = w.scales + (at * kTileRows + r % kTileRows) * per_tile;
      value = static_cast<float>(q) * half_to_float(scales[c % kTileColumns / w.group]);
    }
    x[c] = a.scale != 1.0f ? value * a.scale : value;
  }
}
