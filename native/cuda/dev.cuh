// The one header that kernels include. The same source runs under the emulator (LI_EMULATE), and compiles with NVRTC
// and with nvcc; no NVIDIA header is needed. native/emu/emu.hpp has the same names for the host.
#pragma once
#if defined(LI_EMULATE)
#include "../emu/emu.hpp"
#else

#if defined(__CUDACC_RTC__)
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
typedef decltype(sizeof(0)) size_t;
typedef decltype(sizeof(0)) uintptr_t;
#else
#include <stddef.h>
#include <stdint.h>
#endif

// At most so many threads a block; so many blocks should fit on a multiprocessor, which bounds the registers.
#define LI_KERNEL(threads, min_blocks) extern "C" __global__ void __launch_bounds__(threads, min_blocks)
#define LI_DEVICE static __device__ __forceinline__
#define LI_SHARED(T, name, N) __shared__ __align__(16) T name[N]
#define LI_DYNAMIC_SHARED(T, name)                                   \
  extern __shared__ __align__(16) unsigned char li_dynamic_shared[]; \
  T* name = reinterpret_cast<T*>(li_dynamic_shared)

// sm_80 brought cp.async and the wide tensor core products; sm_75 makes them of what it has.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define LI_SM_80 1
#endif

namespace li {

LI_DEVICE void sync_block() { __syncthreads(); }
LI_DEVICE void sync_warp() { __syncwarp(); }

// Of the whole warp: all 32 lanes must call.
template <class T>
LI_DEVICE T shfl(T value, int lane) {
  static_assert(sizeof(T) == 4, "a shuffle moves 4 bytes");
  return __shfl_sync(0xffffffffu, value, lane);
}
template <class T>
LI_DEVICE T shfl_xor(T value, int mask) {
  static_assert(sizeof(T) == 4, "a shuffle moves 4 bytes");
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
LI_DEVICE unsigned ballot(bool predicate) { return __ballot_sync(0xffffffffu, predicate); }

LI_DEVICE int dp4a(int a, int b, int c) { return __dp4a(a, b, c); }

LI_DEVICE float half_to_float(unsigned short half) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
}
LI_DEVICE unsigned short float_to_half(float value) {
  unsigned short half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
}

// Through the read-only path (ld.global.nc): of global memory that nothing writes while the kernel runs.
LI_DEVICE unsigned load4(const void* p) { return __ldg(static_cast<const unsigned*>(p)); }
LI_DEVICE uint2 load8(const void* p) { return __ldg(static_cast<const uint2*>(p)); }
LI_DEVICE uint4 load16(const void* p) { return __ldg(static_cast<const uint4*>(p)); }

// d (16 x 8) += a (16 x k, rows) * b (k x 8, columns), k being 32 bytes: 32 s8, 16 halves, 16 bfloat16.
// Fragments are those of PTX m16n8k32 and m16n8k16, in words of 4 bytes: row r of a, word w of its 8: lane
// 4*(r % 8) + w % 4, register r / 8 + 2*(w / 4); column c of b, word w: lane 4*c + w % 4, register w / 4;
// element i of d in lane l: row l / 4 + 8*(i / 2), column 2*(l % 4) + i % 2.
#if defined(LI_SM_80)

LI_DEVICE void mma_s8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
LI_DEVICE void mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
LI_DEVICE void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// 16 bytes from global to shared memory, both aligned; they are there after copy_wait, for other threads after a
// barrier too. Groups complete in order: copy_wait<N> leaves at most the N youngest under way.
LI_DEVICE void copy_async16(void* shared, const void* global) {
  const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}
LI_DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
LI_DEVICE void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

#else

LI_DEVICE void mma_s8_half(int& d0, int& d1, unsigned a, unsigned b) {
  asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
               : "+r"(d0), "+r"(d1)
               : "r"(a), "r"(b));
}
LI_DEVICE void mma_s8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_s8_half(d[0], d[1], a[0], b[0]);
  mma_s8_half(d[0], d[1], a[2], b[1]);
  mma_s8_half(d[2], d[3], a[1], b[0]);
  mma_s8_half(d[2], d[3], a[3], b[1]);
}
LI_DEVICE void mma_f16_half(float (&d)[4], unsigned a0, unsigned a1, unsigned b) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a0), "r"(a1), "r"(b));
}
LI_DEVICE void mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_f16_half(d, a[0], a[1], b[0]);
  mma_f16_half(d, a[2], a[3], b[1]);
}

// sm_75 has no product of bfloat16: the words are fetched from their lanes and multiplied one by one. Slow, and right.
LI_DEVICE float bfloat_dot(unsigned x, unsigned y, float sum) {
  sum = fmaf(__uint_as_float(x << 16), __uint_as_float(y << 16), sum);
  return fmaf(__uint_as_float(x & 0xffff0000u), __uint_as_float(y & 0xffff0000u), sum);
}
LI_DEVICE void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  const int lane = (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
  for (int word = 0; word < 8; ++word) {
    const int high = word / 4, row_lane = lane / 4 * 4 + word % 4, column_lane = lane % 4 * 8 + word % 4;
    const unsigned top = shfl(high ? a[2] : a[0], row_lane), bottom = shfl(high ? a[3] : a[1], row_lane);
    const unsigned left = shfl(b[high], column_lane), right = shfl(b[high], column_lane + 4);
    d[0] = bfloat_dot(top, left, d[0]);
    d[1] = bfloat_dot(top, right, d[1]);
    d[2] = bfloat_dot(bottom, left, d[2]);
    d[3] = bfloat_dot(bottom, right, d[3]);
  }
}

LI_DEVICE void copy_async16(void* shared, const void* global) {
  *static_cast<uint4*>(shared) = *static_cast<const uint4*>(global);
}
LI_DEVICE void copy_commit() {}
template <int N>
LI_DEVICE void copy_wait() {}

#endif

}  // namespace li
#endif
