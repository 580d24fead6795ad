// Weights of a panel (block.h) as signed bytes. Eight columns of four panel rows: the first four columns and the last
// four, a lane a row. `at` points to the four rows' bytes in the first vector of 32 columns; j says which eight of them.
// INT5, INT4 and INT3 keep their offset, which the caller takes off with the activations' sums.
#pragma once
#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>

namespace neon {

// Bytes of one row block before those of the other, by the weights' bits.
static inline constexpr size_t run_bytes(size_t bits) { return bits == 4 ? 64 : bits == 8 ? 128 : 64 * bits; }

struct Pair {
  int8x16_t low, high;
};

static inline Pair nibbles(uint8x16_t x, uint8_t mask) {
  const uint8x16_t m = vdupq_n_u8(mask);
  return {vreinterpretq_s8_u8(vandq_u8(x, m)), vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(x, 4), m))};
}

// Takes bits of `a` where the mask is set, of `b` elsewhere.
static inline uint8x16_t select(uint8_t mask, uint8x16_t a, uint8x16_t b) { return vbslq_u8(vdupq_n_u8(mask), a, b); }

static inline Pair pair_i4(const uint8_t* at, int j) { return nibbles(vld1q_u8(at + 128 * j), 15); }

// MXFP4: twice the values.
static inline Pair pair_mx4(const uint8_t* at, int j) {
  static const int8_t twice[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  const int8x16_t table = vld1q_s8(twice);
  const Pair codes = pair_i4(at, j);
  return {vqtbl1q_s8(table, vreinterpretq_u8_s8(codes.low)), vqtbl1q_s8(table, vreinterpretq_u8_s8(codes.high))};
}

static inline Pair pair_i3(const uint8_t* at, int j) {
  const uint8x16_t l0 = vld1q_u8(at);
  const uint8x16_t l1 = vld1q_u8(at + 64);
  const uint8x16_t h = vld1q_u8(at + 128);
  switch (j) {
    case 0: return nibbles(select(0x33, l0, h), 7);
    case 1: return nibbles(vshrq_n_u8(select(0xcc, l0, h), 1), 7);
    case 2: return nibbles(select(0x33, l1, vshrq_n_u8(h, 1)), 7);
    default: return nibbles(select(0x66, vshrq_n_u8(l1, 1), h), 7);
  }
}

static inline Pair pair_i5(const uint8_t* at, int j) {
  const uint8x16_t x = vld1q_u8(at + 64 * j);
  const uint8x16_t h = vshlq_u8(vld1q_u8(at + 256), vdupq_n_s8(static_cast<int8_t>(-j)));
  const uint8x16_t values = vdupq_n_u8(31);
  return {vreinterpretq_s8_u8(vandq_u8(select(15, x, h), values)),
          vreinterpretq_s8_u8(vandq_u8(select(30, vshrq_n_u8(x, 3), h), values))};
}

static inline int8x16_t made_signed(const uint8_t* at) {
  return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(at), vdupq_n_u8(128)));
}

static inline Pair pair_i8(const uint8_t* at, int j) {
  return {made_signed(at + 256 * j), made_signed(at + 256 * j + 64)};
}

static inline float32x4_t halves_at(const uint8_t* at) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(at))));
}

// Of four panel rows of affine weights: factors, and what they are factors of.
static inline float32x4_t factored(const uint8_t* factors, const uint8_t* halves) {
  uint32_t four;
  __builtin_memcpy(&four, factors, sizeof four);
  const uint16x4_t wide = vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four))));
  return vmulq_f32(halves_at(halves), vcvtq_f32_u32(vmovl_u16(wide)));
}

// Of four panel rows of MXFP4: their scales.
static inline float32x4_t powers_at(const uint8_t* exponents) {
  uint32_t four;
  __builtin_memcpy(&four, exponents, sizeof four);
  const uint16x4_t wide = vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four))));
  return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(wide), 23));
}

// Of the v-th four rows: their minimum in the group of the tile.
static inline float32x4_t minimum_of(const uint8_t* tile, const uint8_t* line, size_t v) {
  return factored(tile + 32 + 4 * v, line + 64 + 8 * v);
}

}  // namespace neon
