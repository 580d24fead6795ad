// Kernels without a bug: right under every schedule, and the sanitizers have nothing to say. `clean <schedule>` prints a
// line a kernel.
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "cuda/dev.cuh"

LI_DEVICE int warp_sum(int v) {
  for (int step = 16; step != 0; step /= 2) v += li::shfl_xor(v, step);
  return v;
}

// Warps sum by shuffles, the block through shared memory; used twice, with the barrier that reuse needs.
LI_KERNEL(128, 1) block_sums(const int* in, int* out) {
  LI_SHARED(int, partial, 4);
  const unsigned i = threadIdx.x;
  for (unsigned round = 0; round < 2; ++round) {
    const int mine = warp_sum(in[(blockIdx.x * 2 + round) * 128 + i]);
    if (i % 32 == 0) partial[i / 32] = mine;
    li::sync_block();
    if (i == 0) out[blockIdx.x * 2 + round] = partial[0] + partial[1] + partial[2] + partial[3];
    li::sync_block();
  }
}

// Two stages of asynchronous copies in flight while the one before is summed.
LI_KERNEL(64, 2) pipeline(const uint4* in, unsigned* out, int stages) {
  LI_SHARED(uint4, tile, 3 * 64);
  const unsigned i = threadIdx.x;
  unsigned sum = 0;
  for (int stage = 0; stage < stages + 2; ++stage) {
    if (stage < stages) li::copy_async16(&tile[stage % 3 * 64 + i], in + stage * 64 + i);
    li::copy_commit();
    if (stage < 2) continue;
    li::copy_wait<2>();
    li::sync_block();
    sum += tile[(stage - 2) % 3 * 64 + (63 - i)].y;
    li::sync_block();
  }
  out[i] = sum;
}

// The tensor cores' product of 16 x 64 and 64 x 8, every lane loading its own fragments.
LI_KERNEL(32, 1) product(const int8_t* a, const int8_t* b, int* d) {
  const unsigned lane = threadIdx.x, row = lane / 4, word = lane % 4;
  int sum[4] = {};
  for (unsigned k = 0; k < 64; k += 32) {
    const int8_t* x = a + row * 64 + k + 4 * word;
    const int8_t* y = b + row * 64 + k + 4 * word;
    const unsigned from_a[4] = {li::load4(x), li::load4(x + 8 * 64), li::load4(x + 16), li::load4(x + 8 * 64 + 16)};
    const unsigned from_b[2] = {li::load4(y), li::load4(y + 16)};
    li::mma_s8(sum, from_a, from_b);
  }
  for (unsigned i = 0; i < 4; ++i) d[(row + 8 * (i / 2)) * 8 + 2 * word + i % 2] = sum[i];
}

// Threads that leave before a barrier count no more; a three-dimensional block numbers its threads x first.
LI_KERNEL(96, 1) leavers(int* out) {
  LI_SHARED(int, s, 96);
  const unsigned i = threadIdx.x + 4 * (threadIdx.y + 3 * threadIdx.z);
  if (i >= 64) return;
  s[i] = int(i);
  li::sync_block();
  out[i] = s[63 - i] + (li::ballot(i % 3 == 0) >> (i % 32) & 1 ? 1000 : 0);
}

// A warp hands values round through shared memory, with the sync_warp that it takes.
LI_KERNEL(64, 1) hand_round(int* out) {
  LI_DYNAMIC_SHARED(int, s);
  const unsigned i = threadIdx.x, warp = i & ~31u;
  int v = int(i);
  for (int round = 0; round < 8; ++round) {
    s[i] = v;
    li::sync_warp();
    v = s[warp + (i + 1) % 32];
    li::sync_warp();
  }
  out[i] = li::shfl(v, 31) + v;
}

static uint32_t schedule;
static int wrong_in_all;

static void report(const char* name, int wrong) {
  std::printf("%s: %d wrong\n", name, wrong);
  wrong_in_all += wrong;
}

static int numbered(size_t i) { return int(i * 2654435761u >> 20) - 2048; }

static void check_sums() {
  std::vector<int> in(3 * 256), out(6);
  for (size_t i = 0; i < in.size(); ++i) in[i] = numbered(i);
  emu::launch(3, 128, 0, [&] { block_sums(in.data(), out.data()); }, schedule);
  int wrong = 0;
  for (size_t i = 0; i < 6; ++i) {
    int sum = 0;
    for (size_t k = 0; k < 128; ++k) sum += in[i * 128 + k];
    wrong += out[i] != sum;
  }
  report("block_sums", wrong);
}

static void check_pipeline() {
  std::vector<uint4> in(5 * 64);
  std::vector<unsigned> out(64);
  for (size_t i = 0; i < in.size(); ++i) in[i].y = unsigned(numbered(i));
  emu::watch(in.data(), in.size() * sizeof(uint4));
  emu::launch(1, 64, 0, [&] { pipeline(in.data(), out.data(), 5); }, schedule);
  const emu::Watch& seen = emu::counters.watches.begin()->second;
  int wrong = seen.fewest() != 1 || seen.most() != 1 || seen.bytes != in.size() * sizeof(uint4);
  emu::unwatch();
  for (size_t i = 0; i < 64; ++i) {
    unsigned sum = 0;
    for (size_t stage = 0; stage < 5; ++stage) sum += in[stage * 64 + 63 - i].y;
    wrong += out[i] != sum;
  }
  report("pipeline", wrong);
}

static void check_product() {
  std::vector<int8_t> a(16 * 64), b(8 * 64);
  std::vector<int> d(16 * 8);
  for (size_t i = 0; i < a.size(); ++i) a[i] = int8_t(numbered(i));
  for (size_t i = 0; i < b.size(); ++i) b[i] = int8_t(numbered(i + 77777));
  emu::launch(1, 32, 0, [&] { product(a.data(), b.data(), d.data()); }, schedule);
  int wrong = 0;
  for (size_t i = 0; i < 128; ++i) {
    int sum = 0;
    for (size_t k = 0; k < 64; ++k) sum += a[i / 8 * 64 + k] * b[i % 8 * 64 + k];
    wrong += d[i] != sum;
  }
  report("product", wrong);
}

static void check_small() {
  std::vector<int> out(64);
  emu::launch(2, dim3(4, 3, 8), 0, [&] { leavers(out.data()); }, schedule);
  int wrong = 0;
  for (int i = 0; i < 64; ++i) wrong += out[size_t(i)] != 63 - i + (i % 3 == 0 ? 1000 : 0);
  report("leavers", wrong);
  emu::launch(2, 64, 256, [&] { hand_round(out.data()); }, schedule);
  wrong = 0;
  for (int i = 0; i < 64; ++i) wrong += out[size_t(i)] != (i & 32) * 2 + (i + 8) % 32 + 7;
  report("hand_round", wrong);
}

int main(int, char** arguments) {
  schedule = uint32_t(std::atoi(arguments[1]));
  check_sums();
  check_pipeline();
  check_product();
  check_small();
  return wrong_in_all != 0;
}
