// Between two matrices: what a row goes through, one block or warp a row or tile.
#pragma once

namespace li {

// The inverse rms of a row in shared memory, for the whole block. Begins and ends with a barrier.
LI_DEVICE float block_rms_inverse(const float* row, int n, float eps) {
  LI_SHARED(float, inverse, 1);
  sync_block();
  if (threadIdx.x < 32) {
    const float found = rms_inverse(row, n, eps);
    if (threadIdx.x == 0) inverse[0] = found;
  }
  sync_block();
  return inverse[0];
}

// The mean of a row in shared memory, for the whole block. Begins and ends with a barrier.
LI_DEVICE float block_mean(const float* row, int n) {
  LI_SHARED(float, mean, 1);
  sync_block();
  if (threadIdx.x < 32) {
    const float found = mean_of(row, n);
    if (threadIdx.x == 0) mean[0] = found;
  }
  sync_block();
  return mean[0];
}

}  // namespace li

// One block a row; dynamic shared memory holds the row, whole tiles of it.
LI_KERNEL(256, 2) ready(li::ReadyArgs a) {
  using namespace li;
  LI_DYNAMIC_SHARED(float, row);
  const int m = blockIdx.x, from = a.pick != nullptr ? a.pick[m] : m, step = blockDim.x;
  float* x = a.x + static_cast<Index>(from) * a.x_ld;
  const float* y = a.y != nullptr ? a.y + static_cast<Index>(from) * a.y_ld : nullptr;
  const float* aside = a.aside != nullptr ? a.aside + static_cast<Index>(from) * a.y_ld : nullptr;
  if (a.y != nullptr && a.post_norm != nullptr) {
    for (int c = threadIdx.x; c < a.columns; c += step) row[c] = a.bias != nullptr ? y[c] + a.bias[c] : y[c];
    const float inverse = block_rms_inverse(row, a.columns, a.post_eps);
    for (int c = threadIdx.x; c < a.columns; c += step) x[c] = row[c] = (x[c] + (row[c] * inverse) * a.post_norm[c]) * a.scale;
  } else if (a.y != nullptr) {
    for (int c = threadIdx.x; c < a.columns; c += step) {
      float sum = x[c];
      if (aside != nullptr) sum = sum + (a.aside_bias != nullptr ? aside[c] + a.aside_bias[c] : aside[c]);
      x[c] = row[c] = (sum + (a.bias != nullptr ? y[c] + a.bias[c] : y[c])) * a.scale;
    }
  } else {
    for (int c = threadIdx.x; c < a.columns; c += step) row[c] = x[c];
  }
  if (a.norm != nullptr) {
    if (a.centered) {
      const float mean = block_mean(row, a.columns);
      for (int c = threadIdx.x; c < a.columns; c += step) row[c] = row[c] - mean;
    }
    const float inverse = block_rms_inverse(row, a.columns, a.eps);
    for (int c = threadIdx.x; c < a.columns; c += step) row[c] = (row[c] * inverse) * a.norm[c];
    if (a.norm_bias != nullptr)
      for (int c = threadIdx.x; c < a.columns; c += step) row[c] = row[c] + a.norm_bias[c];
  }
  if (a.to.q == nullptr && a.out == nullptr) return;
  sync_block();
  const int tiles = (a.columns + kTileColumns - 1) / kTileColumns;
  for (int tile = threadIdx.x / 32; tile < tiles; tile += step / 32) {
    float v[4];
    for (int i = 0; i < 4; ++i) {
      const int c = tile * kTileColumns + 4 * (threadIdx.x & 31) + i;
      v[i] = c < a.columns ? row[c] : 0.0f;
    }
    put_columns(a.to, a.out, a.out_ld, m, tile, a.columns, v);
  }
}

// Grid: (tiles / 4, rows); one warp a tile.
LI_KERNEL(128, 8) gated(li::GatedArgs a) {
  using namespace li;
  const int tile = blockIdx.x * 4 + threadIdx.x / 32, m = blockIdx.y;
  if (tile * kTileColumns >= a.columns) return;
  const float* in = a.in + static_cast<Index>(m) * a.in_ld;
  float v[4];
  for (int i = 0; i < 4; ++i) {
    const int c = tile * kTileColumns + 4 * (threadIdx.x & 31) + i;
    v[i] = 0.0f;
    if (c >= a.columns) continue;
    const int first = a.both ? c / kPanel * 2 * kPanel + c % kPanel : c;
    const float* first_bias = a.both ? a.gate_bias : a.up_bias;
    const float x = first_bias != nullptr ? in[first] + first_bias[c] : in[first];
    v[i] = a.activation == 0 ? silu(x) : a.activation == 1 ? gelu_tanh(x) : gelu(x);
    if (a.given != nullptr) v[i] = v[i] * a.given[static_cast<Index>(m) * a.given_ld + c];
    if (a.both) v[i] = v[i] * (a.up_bias != nullptr ? in[first + kPanel] + a.up_bias[c] : in[first + kPanel]);
  }
  put_columns(a.to, a.out, a.out_ld, m, tile, a.columns, v);
}

// One warp a part. Grid: (parts / 4, rows).
LI_KERNEL(128, 8) layer_inputs(li::LayerInputsArgs a) {
  using namespace li;
  const int part = blockIdx.x * 4 + threadIdx.x / 32;
  if (part >= a.parts) return;
  const Index at = static_cast<Index>(blockIdx.y) * a.ld + part * a.size;
  float* x = a.inputs + at;
  const float* token = a.token + at;
  const float inverse = rms_inverse(x, a.size, a.eps);
  sync_warp();
  for (int c = threadIdx.x & 31; c < a.size; c += 32) x[c] = (x[c] * inverse) * a.norm[c] + token[c];
}

// logits = cap * tanh(logits / cap). Grid: (columns / 256, rows).
LI_KERNEL(256, 4) softcap(li::SoftcapArgs a) {
  using namespace li;
  const int c = blockIdx.x * 256 + threadIdx.x;
  if (c >= a.columns) return;
  float* at = a.x + static_cast<Index>(blockIdx.y) * a.ld + c;
  *at = cap_softly(*at, a.cap);
}
