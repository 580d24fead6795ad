// Runs CUDA kernel source on the host, to find out whether it is right where there is no GPU. Strict on purpose:
//  * each CUDA thread is a fiber; the lanes of a warp meet in one exchange that checks mask, operation and source line;
//  * a deadlock is reported, not waited for; threads run forward, in reverse, or shuffled by a seed;
//  * shared memory holds 0xFF at the start of a block; asynchronous copies land at copy_wait and not before;
//  * under ASan it finds wrong addresses, under TSan races between the threads of a block.
// An error prints one line, `EMU ERROR block(x,y,z) thread n line l: ...`, and ends the process with code 86.
// It does not see: races between blocks (they run one after another), a spin on a value that no one will write, weak
// memory order. Build with -ffp-contract=off, or the host fuses what the device keeps apart, and -fno-strict-aliasing,
// which is how CUDA compilers read a kernel.
#pragma once
#include "launch.h"

#define threadIdx (emu::thread().index)
#define blockIdx (emu::running->index)
#define blockDim (emu::running->threads)
#define gridDim (emu::running->grid)

#define LI_KERNEL(threads, min_blocks) extern "C" inline void
#define LI_DEVICE static inline
#define LI_SHARED(T, name, N) T(&name)[N] = emu::shared_array<T, (N)>([] {})
#define LI_DYNAMIC_SHARED(T, name) T* name = emu::dynamic_shared<T>()

namespace li {

inline void sync_block(LI_LINE) { emu::sync_block(line); }
inline void sync_warp(LI_LINE) { emu::sync_warp(line); }

template <class T>
T shfl(T value, int lane, LI_LINE) {
  return emu::shuffle(value, unsigned(lane), line);
}
template <class T>
T shfl_xor(T value, int mask, LI_LINE) {
  return emu::shuffle(value, emu::thread().lane ^ unsigned(mask), line);
}
inline unsigned ballot(bool predicate, LI_LINE) { return emu::ballot(predicate, line); }

inline int dp4a(int a, int b, int c) { return emu::dp4a(a, b, c); }
inline float half_to_float(unsigned short half) { return emu::half_to_float(half); }
inline unsigned short float_to_half(float value) { return emu::float_to_half(value); }

// d (16 x 8) += a (16 x k, rows) * b (k x 8, columns); k is 32 bytes: 32 s8, 16 halves, 16 bfloat16.
inline void mma_s8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], LI_LINE) {
  emu::mma_s8(d, a, b, line);
}
inline void mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], LI_LINE) {
  emu::mma_16_bit<emu::half_to_float>(emu::Op::mma_f16, d, a, b, line);
}
inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], LI_LINE) {
  emu::mma_16_bit<emu::bfloat_to_float>(emu::Op::mma_bf16, d, a, b, line);
}

inline unsigned load4(const void* p, LI_LINE) { return emu::load<unsigned>(p, line); }
inline uint2 load8(const void* p, LI_LINE) { return emu::load<uint2>(p, line); }
inline uint4 load16(const void* p, LI_LINE) { return emu::load<uint4>(p, line); }

inline void copy_async16(void* shared, const void* global, LI_LINE) { emu::copy_async16(shared, global, line); }
inline void copy_commit() { emu::copy_commit(); }
template <int N>
void copy_wait() {
  emu::copy_wait(N);
}

}  // namespace li
