// One deliberate bug a case: `bugs <case> <schedule>`. The emulator or a sanitizer must object, or a value must be wrong:
// then the process ends with 1. Lines that a report must name are marked `// here: <case>`.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "cuda/dev.cuh"

using Kernel = void (*)(const int* in, int* out);  // 64 x 16 bytes of zeros; 64 ints

LI_KERNEL(64, 1) mask_never_arrives(const int*, int* out) {
  int v = int(threadIdx.x);
  if (threadIdx.x < 16) v = li::shfl_xor(v, 1);  // here: mask_never_arrives
  out[threadIdx.x] = v;
}
LI_KERNEL(64, 1) lane_outside(const int*, int* out) {
  if (threadIdx.x < 16) out[0] = emu::shuffle(1, 20, __LINE__, 0xffffu);  // here: lane_outside
}
LI_KERNEL(64, 1) not_in_own_mask(const int*, int*) {
  emu::sync_warp(__LINE__, 0xffffu);  // here: not_in_own_mask
}
LI_KERNEL(64, 1) lane_beyond(const int*, int* out) {
  out[threadIdx.x] = li::shfl(1, int(threadIdx.x) + 1);  // here: lane_beyond
}
LI_KERNEL(64, 1) two_collectives(const int*, int* out) {
  if (threadIdx.x % 2) {
    out[threadIdx.x] = int(li::ballot(true));  // here: two_collectives
  } else {
    out[threadIdx.x] = li::shfl(1, 0);
  }
}
LI_KERNEL(64, 1) divergent_barrier(const int*, int* out) {
  if (threadIdx.x < 32) {
    li::sync_block();
  } else {
    out[0] = 1;
    li::sync_block();
  }
}
LI_KERNEL(64, 1) deadlock(const int*, int*) {
  if (threadIdx.x == 5) {
    li::sync_block();
  } else {
    li::sync_warp();
  }
}
LI_KERNEL(64, 1) left_early(const int*, int* out) {
  if (threadIdx.x == 7) return;
  out[threadIdx.x] = li::shfl(1, 0);  // here: left_early
}

LI_KERNEL(64, 1) missing_sync_warp(const int*, int* out) {
  LI_SHARED(int, s, 64);
  const unsigned i = threadIdx.x;
  s[i] = int(i);
  out[i] = s[i ^ 31];  // here: missing_sync_warp
}
LI_KERNEL(64, 1) shuffle_is_no_barrier(const int*, int* out) {
  LI_SHARED(int, s, 64);
  const unsigned i = threadIdx.x;
  s[i] = li::shfl_xor(int(i), 0);
  const int zero = li::shfl_xor(0, 1);
  out[i] = s[i ^ 31] + zero;  // here: shuffle_is_no_barrier
}
LI_KERNEL(64, 1) missing_sync_block(const int*, int* out) {
  LI_SHARED(int, s, 64);
  const unsigned i = threadIdx.x;
  s[i] = int(i);
  li::sync_warp();
  out[i] = s[63 - i];  // here: missing_sync_block
}
// One barrier of two: the next round writes what others may still read.
LI_KERNEL(64, 1) missing_second_barrier(const int*, int* out) {
  LI_SHARED(int, s, 64);
  const unsigned i = threadIdx.x;
  int sum = 0;
  for (int round = 0; round < 2; ++round) {
    s[i] = round;  // here: missing_second_barrier
    li::sync_block();
    sum += s[63 - i];
  }
  out[i] = sum - 1 + int(i);
}
LI_KERNEL(64, 1) uninitialized(const int*, int* out) {
  LI_SHARED(int, s, 128);
  const unsigned i = threadIdx.x;
  s[i] = int(i);
  li::sync_block();
  out[i] = s[i + 64];
}
LI_KERNEL(64, 1) uninitialized_dynamic(const int*, int* out) {
  LI_DYNAMIC_SHARED(int, s);
  out[threadIdx.x] = s[threadIdx.x];
}

LI_KERNEL(64, 1) missing_wait(const int* in, int* out) {
  LI_SHARED(int4, s, 64);
  const unsigned i = threadIdx.x;
  li::copy_async16(&s[i], in + 4 * i);
  li::copy_commit();
  li::sync_block();
  out[i] = s[i].x + int(i);
  li::copy_wait<0>();
}
// Waits for the older of two groups, uses the younger.
LI_KERNEL(64, 1) wait_for_too_few(const int* in, int* out) {
  LI_SHARED(int4, s, 128);
  const unsigned i = threadIdx.x;
  for (unsigned stage = 0; stage < 2; ++stage) {
    li::copy_async16(&s[64 * stage + i], in + 4 * i);
    li::copy_commit();
  }
  li::copy_wait<1>();
  out[i] = s[64 + i].x + int(i);
  li::copy_wait<0>();
}
// The copy may land while the neighbour still reads.
LI_KERNEL(64, 1) copy_over_read(const int* in, int* out) {
  LI_SHARED(int4, s, 64);
  const unsigned i = threadIdx.x;
  s[i] = {int(i), 0, 0, 0};
  li::sync_block();
  out[i] = s[63 - i].x + 2 * int(i) - 63;
  li::copy_async16(&s[i], in + 4 * i);  // here: copy_over_read
  li::copy_commit();
  li::copy_wait<0>();
}
LI_KERNEL(64, 1) uncommitted(const int* in, int*) {
  LI_SHARED(int4, s, 64);
  li::copy_async16(&s[threadIdx.x], in);
}
LI_KERNEL(64, 1) never_waited(const int* in, int*) {
  LI_SHARED(int4, s, 64);
  li::copy_async16(&s[threadIdx.x], in);
  li::copy_commit();
}
LI_KERNEL(64, 1) copy_to_global(const int* in, int* out) {
  li::copy_async16(out, in);  // here: copy_to_global
}

LI_KERNEL(64, 1) misaligned_16(const int* in, int* out) {
  out[0] = int(li::load16(in + 2).x);  // here: misaligned_16
}
LI_KERNEL(64, 1) misaligned_8(const int* in, int* out) {
  out[0] = int(li::load8(in + 1).x);  // here: misaligned_8
}
LI_KERNEL(64, 1) misaligned_4(const int* in, int* out) {
  out[0] = int(li::load4(reinterpret_cast<const char*>(in) + 1));  // here: misaligned_4
}
LI_KERNEL(64, 1) misaligned_copy(const int* in, int*) {
  LI_SHARED(int4, s, 64);
  li::copy_async16(&s[0].y, in);  // here: misaligned_copy
}
LI_KERNEL(64, 1) load_from_shared(const int*, int* out) {
  LI_SHARED(int4, s, 64);
  s[threadIdx.x] = int4{};
  out[0] = int(li::load4(&s[threadIdx.x]));  // here: load_from_shared
}
LI_KERNEL(64, 1) no_dynamic_shared(const int*, int* out) {
  LI_DYNAMIC_SHARED(int, s);  // here: no_dynamic_shared
  out[0] = s[0];
}
LI_KERNEL(64, 1) too_much_shared(const int*, int* out) {
  LI_SHARED(int, a, 8 << 10);
  LI_SHARED(int, b, 8 << 10);  // here: too_much_shared
  out[0] = a[0] + b[0];
}

LI_KERNEL(64, 1) past_the_end(const int* in, int* out) {
  out[threadIdx.x] = in[4 * threadIdx.x + 4];  // here: past_the_end
}
LI_KERNEL(64, 1) past_the_end_load16(const int* in, int* out) {
  out[threadIdx.x] = int(li::load16(in + 4 * threadIdx.x + 4).x);  // here: past_the_end_load16
}
LI_KERNEL(64, 1) past_the_end_copy(const int* in, int*) {
  LI_SHARED(int4, s, 64);
  li::copy_async16(&s[threadIdx.x], in + 4 * threadIdx.x + 4);  // here: past_the_end_copy
  li::copy_commit();
  li::copy_wait<0>();
}
LI_KERNEL(64, 1) past_the_shared_end(const int*, int* out) {
  LI_SHARED(int, s, 64);
  int* p = s;
  p[threadIdx.x + 1] = out[0];  // here: past_the_shared_end
}
LI_KERNEL(64, 1) past_the_dynamic_end(const int*, int* out) {
  LI_DYNAMIC_SHARED(int, s);
  s[threadIdx.x + 1] = out[0];  // here: past_the_dynamic_end
}

struct Case {
  Kernel kernel;
  size_t dynamic_bytes = 0;
};
#define CASE(name, ...) {#name, {name, ##__VA_ARGS__}}
static const std::map<std::string, Case> kCases = {
    CASE(mask_never_arrives), CASE(lane_outside), CASE(not_in_own_mask), CASE(lane_beyond), CASE(two_collectives),
    CASE(divergent_barrier), CASE(deadlock), CASE(left_early), CASE(missing_sync_warp), CASE(shuffle_is_no_barrier),
    CASE(missing_sync_block), CASE(missing_second_barrier), CASE(uninitialized), CASE(uninitialized_dynamic, 256),
    CASE(missing_wait), CASE(wait_for_too_few), CASE(copy_over_read), CASE(uncommitted), CASE(never_waited),
    CASE(copy_to_global), CASE(misaligned_16), CASE(misaligned_8), CASE(misaligned_4), CASE(misaligned_copy),
    CASE(load_from_shared), CASE(no_dynamic_shared), CASE(too_much_shared), CASE(past_the_end),
    CASE(past_the_end_load16), CASE(past_the_end_copy), CASE(past_the_shared_end), CASE(past_the_dynamic_end, 256),
};

// What out[i] is where the bug does not bite.
static int right(const std::string& name, int i) {
  if (name == "missing_sync_warp" || name == "shuffle_is_no_barrier") return i ^ 31;
  return name == "missing_sync_block" ? 63 - i : i;
}

int main(int, char** arguments) {
  const std::string name = arguments[1];
  const Case& chosen = kCases.at(name);
  const std::vector<int4> in(64);
  std::vector<int> out(64, -2);
  emu::launch(1, 64, chosen.dynamic_bytes, [&] { chosen.kernel(&in[0].x, out.data()); },
              uint32_t(std::atoi(arguments[2])));
  int wrong = 0;
  for (int i = 0; i < 64; ++i) wrong += out[size_t(i)] != right(name, i);
  std::printf("%d wrong values\n", wrong);
  return wrong != 0;
}
