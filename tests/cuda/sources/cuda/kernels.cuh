// Kernels for the tests of the stand-in driver: scalars and pointers as arguments, dynamic shared memory, counted loads.
#pragma once
#include "cuda/dev.cuh"

LI_KERNEL(64, 1) add(float* values, float what, int count) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) values[i] += what;
}

LI_KERNEL(1024, 1) reverse_rows(float* rows) {
  LI_DYNAMIC_SHARED(float, row);
  const unsigned i = threadIdx.x, n = blockDim.x;
  row[i] = rows[blockIdx.x * n + i];
  li::sync_block();
  rows[blockIdx.x * n + i] = row[n - 1 - i];
}

// Each thread sums its 16 bytes; with `twice` the first thread reads them again.
LI_KERNEL(32, 1) sum_words(const void* words, unsigned* sums, short twice) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  const char* mine = static_cast<const char*>(words) + 16 * i;
  const uint4 v = li::load16(mine);
  sums[i] = v.x + v.y + v.z + v.w + (twice && i == 0 ? li::load4(mine) : 0);
}
