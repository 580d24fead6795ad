// Every function of dev.cuh once: compiled for every architecture.
#include "dev.cuh"

LI_DEVICE float warp_sum(float v) {
  for (int step = 16; step != 0; step /= 2) v += li::shfl_xor(v, step);
  return v;
}

LI_DEVICE float products(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  float f[4] = {1, 2, 3, 4}, g[4] = {1, 2, 3, 4};
  li::mma_s8(d, a, b);
  li::mma_f16(f, a, b);
  li::mma_bf16(g, a, b);
  return f[0] + f[1] + f[2] + f[3] + fmaf(g[0], g[1], g[2]) / g[3];
}

LI_KERNEL(128, 4) smoke(const uint4* in, const uint16_t* halves, float* out, int* counts, uint16_t* half_out) {
  LI_SHARED(uint4, tile, 128);
  LI_DYNAMIC_SHARED(float, row);
  const unsigned i = threadIdx.x, at = blockIdx.x * blockDim.x + i;
  li::copy_async16(&tile[i], in + at);
  li::copy_commit();
  li::copy_wait<0>();
  li::sync_block();
  const uint4 v = tile[127 - i], w = li::load16(in + at);
  const uint2 x = li::load8(in + at);
  const unsigned a[4] = {v.x, v.y, v.z, v.w}, b[2] = {w.x + x.x, li::load4(in + at)};
  int d[4] = {};
  row[i] = li::half_to_float(halves[at]) + products(d, a, b);
  li::sync_warp();
#pragma unroll
  for (int k = 0; k < 4; ++k) d[0] = li::dp4a(d[k], int(a[k]), d[0]);
  out[at] = warp_sum(sqrtf(fabsf(row[i ^ 1])));
  half_out[at] = li::float_to_half(row[i]);
  counts[at] = int(li::ballot(d[0] > 0)) + li::shfl(d[1], 3) + int(gridDim.x);
}
