// The CPU's arithmetic (kernels/scalar/math.h), step by step: the same bits. Built without contraction, with IEEE
// division and square root.
#pragma once

namespace li {

LI_DEVICE u32 bits_of(float x) {
  union { float f; u32 u; } v;
  v.f = x;
  return v.u;
}

LI_DEVICE float float_of(u32 u) {
  union { u32 u; float f; } v;
  v.u = u;
  return v.f;
}

LI_DEVICE float infinity() { return float_of(0x7f800000u); }

// Adding 1.5 * 2^23 leaves the nearest integer, ties to even, in the low bits.
LI_DEVICE float round_magic() { return 12582912.0f; }

LI_DEVICE float exp1(float x) {
  if (x < -87.3f) return 0.0f;
  if (x > 88.7f) return infinity();
  if (x != x) return x;
  const float t = fmaf(x, 0x1.715476p+0f, round_magic());
  const float n = t - round_magic();
  float r = fmaf(n, -0x1.62e4p-1f, x);
  r = fmaf(n, -0x1.7f7d1cp-20f, r);
  float p = fmaf(0x1.6a2352p-10f, r, 0x1.123a6cp-7f);
  p = fmaf(p, r, 0x1.5558f4p-5f);
  p = fmaf(p, r, 0x1.55549p-3f);
  p = fmaf(p, r, 0x1.fffffcp-2f);
  p = fmaf(p, r, 1.0f);
  p = fmaf(p, r, 1.0f);
  return float_of(bits_of(p) + (bits_of(t) << 23));
}

LI_DEVICE float silu(float x) { return x / (1.0f + exp1(-x)); }

LI_DEVICE float gelu_tanh(float x) {
  const float square = x * x;
  const float u = fmaf(square * 0.044715f, x, x);
  return x / (1.0f + exp1(u * -1.5957691216057308f));
}

// x * Phi(x), the normal distribution's.
LI_DEVICE float gelu(float x) {
  const float size = fabsf(x);
  const float t = 1.0f / fmaf(size, 0x1.666666p-2f, 1.0f);
  float p = fmaf(-0x1.dd05aap-6f, t, 0x1.268a88p-3f);
  p = fmaf(p, t, -0x1.05857ap-2f);
  p = fmaf(p, t, 0x1.4537b2p-3f);
  p = fmaf(p, t, -0x1.76473cp-6f);
  p = fmaf(p, t, 0x1.afaff8p-4f);
  p = fmaf(p, t, 0x1.eaf57ep-4f);
  p = fmaf(p, t, 0x1.1e6da6p-3f);
  p = fmaf(p, t, 0x1.1df1f6p-3f);
  const float tail = (p * t) * exp1((size * -0.5f) * size);
  return x * (x < 0.0f ? tail : 1.0f - tail);
}

// cap * tanh(x / cap).
LI_DEVICE float cap_softly(float x, float cap) {
  const float e = exp1(-2.0f * fabsf(x / cap));
  const float size = cap * ((1.0f - e) / (1.0f + e));
  return float_of((bits_of(size) & 0x7fffffffu) | (bits_of(x) & 0x80000000u));
}

LI_DEVICE float bf16_to_float(u32 h) { return float_of(h << 16); }

// Of 16 partial lanes (both halves of the warp bring one each): the fixed tree.
LI_DEVICE float add_16_lanes(float v) {
  v += shfl_xor(v, 8);
  v += shfl_xor(v, 4);
  v += shfl_xor(v, 2);
  return v + shfl_xor(v, 1);
}

// 1 / rms of n values, by one warp.
LI_DEVICE float rms_inverse(const float* x, int n, float eps) {
  float sum = 0.0f;
  for (int i = threadIdx.x & 15; i < n; i += 16) sum = fmaf(x[i], x[i], sum);
  return 1.0f / sqrtf(add_16_lanes(sum) / static_cast<float>(n) + eps);
}

// The mean of n values, by one warp.
LI_DEVICE float mean_of(const float* x, int n) {
  float sum = 0.0f;
  for (int i = threadIdx.x & 15; i < n; i += 16) sum += x[i];
  return add_16_lanes(sum) / static_cast<float>(n);
}

// The largest magnitude over lanes that differ in the bits below `lanes`; NaN is above infinity.
LI_DEVICE u32 largest_of(u32 magnitude, int lanes) {
  for (int bit = 1; bit < lanes; bit *= 2) {
    const u32 other = shfl_xor(magnitude, bit);
    magnitude = other > magnitude ? other : magnitude;
  }
  return magnitude;
}

LI_DEVICE int sum_of(int v, int lanes) {
  for (int bit = 1; bit < lanes; bit *= 2) v += shfl_xor(v, bit);
  return v;
}

// x * inverse to the nearest integer; 0 where the inverse is no positive finite number.
LI_DEVICE float rounded(float x, float inverse) {
  const bool usable = inverse > 0.0f && inverse < infinity();
  return usable ? (x * inverse + round_magic()) - round_magic() : 0.0f;
}

LI_DEVICE u32 word_of(uint4 v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

}  // namespace li
