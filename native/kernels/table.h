// One pointer a kernel, with its contract. scalar/ is the meaning; every other ISA gives the same bits
// (docs: the arithmetic contract). No alignment is asked of float arrays; panels and KV blocks are 64-byte aligned.
// float32 throughout unless said; fma is the IEEE fused one; division and square root are the IEEE ones.
//
// REDUCTIONS use 16 partial lanes: lane i takes elements i, i+16, i+32, … in order; the tail uses the first lanes.
// Then the fixed tree: t8[i] = l[i] + l[i+8] (i < 8); t4[i] = t8[i] + t8[i+4]; t2[i] = t4[i] + t4[i+2]; t2[0] + t2[1].
// Same bits: any NaN equals any NaN. A maximum leaves NaN out.
// EXP is one polynomial, written down in scalar/math.h; SiLU and GELU are built on it.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "block.h"

// Quantized activation rows: q[m*ldq + k] in [-127, 127]; scale and sum of group g at [m*lds + g].
// sum is the sum of the group's q. Rows of 16 bits are two rows of q each: high at 2*m*ldq, low at (2*m + 1)*ldq; their
// value is 255 * high + low, and sum is that of the values.
struct ActRows {
  const int8_t* q;
  const float* scale;
  const int32_t* sum;
  size_t ldq;
  size_t lds;
  // A hint, for one row: how many bytes ahead of its use a weight is asked for; 0: not at all.
  size_t prefetch = 0;
  // For one row: how many bytes behind the panel a second one lies, whose 32 rows go to out + 32; 0: there is none. Only
  // kernel sets with `takes_second` are given one.
  size_t second = 0;
};

// For 128 values of each token of a KV split, or for 16 groups of columns of it and six queries.
enum { kAttendRoom = kKvChunk * 128 };

// Attention of rows at consecutive positions of one sequence, times the query heads that share one KV head, over one
// KV split s: tokens 256 s .. 256 s + 255. Row m stands at position + m; it sees the tokens up to its own, the last
// `window` of them (0: all). Every row sees at least one token of the KV split.
struct AttendJob {
  const uint8_t* const* blocks;  // blocks[i] holds tokens 256 s + 32i and on; only those that a row sees are read
  const uint8_t* const* ahead;   // the blocks of the next KV split, each may be null; or null: a hint
  size_t kv_split;
  size_t position;
  size_t window;
  size_t rows;       // any number above 0
  size_t heads;      // 1 .. 64
  size_t head_dim;   // 16 .. 512, a multiple of 16; 4 bit: of 32
  // Query (m, h): head_dim values at [m*ldq + h*head_dim], RoPE applied.
  const float* q;    // 16 bit
  const int8_t* q8;  // 8 and 4 bit: as `quantize` makes them of rotated queries, head_dim being one group
  size_t ldq;
  // 8 and 4 bit, of query (m, h) at [m*lds + h]: the scale of q8 times `scale`, divided by the n of `rotate`, and the sum
  // of q8.
  const float* q_scale;
  const int32_t* q_sum;
  size_t lds;
  float scale;  // 16 bit: score = scale * (q . k)
  float softcap;  // 0: none
  float* room;  // kAttendRoom floats, 64-byte aligned, that nobody else uses meanwhile
  // The result: m and l of query (m, h) at [m*ldm + h], acc at [m*lda + h*head_dim].
  float* m;
  float* l;
  float* acc;
  size_t ldm;
  size_t lda;
  // 0: the result is this KV split's. 1: it is merged into what m, l and acc hold, for the rows that see a token before
  // this split; the other rows are set.
  int fold;
};

enum { kLongestGroup = 128 };

// n columns of one group of weights to be rounded: w[j*ldw + i] for row j < group (at most kLongestGroup), column i.
// Integers lie in [-half, half - 1], half being a power of two up to 128; a scale of 0 gives integers of 0. NaN counts as
// very small.
struct RoundJob {
  const float* w;
  size_t ldw;
  size_t n;
  size_t group;
  float half;
};

struct KernelTable {
  const char* isa;

  // The `prefetch` that suits one row where nothing was measured; no bit depends on it.
  size_t prefetch;
  bool takes_prefetch;  // the integer kernels heed it
  bool takes_second;    // they take a second panel

  // One row to int8 by group: scale = absmax/127, q = round-to-nearest-even(x * (127/absmax)); a zero group has
  // scale 0 and q 0. group divides k. NaN is above infinity in absmax. Where 127/absmax is not a positive finite number
  // (a group of zeros, below 4e-37, with infinity or NaN) q is 0; an infinite or NaN scale makes the product NaN.
  void (*quantize)(int8_t* q, float* scale, int32_t* sum, const float* x, size_t k, size_t group);

  // The same in 16 bits, as two planes: scale = absmax/32512, value = round-to-nearest-even(x * (32512/absmax)), which
  // lies in [-32512, 32512]; high is the integer nearest to value / 255 (never a tie), low = value - 255 * high; both
  // lie in [-127, 127]. sum is the sum of the values. Zero, tiny (here below 1e-34), infinite and NaN groups as above.
  void (*quantize_16)(int8_t* high, int8_t* low, float* scale, int32_t* sum, const float* x, size_t k, size_t group);

  // out[m*ldo + r] for the 32 rows r of one panel and m < rows (any number). Per output, groups ascending:
  // acc = fma(float(dot), w_scale * a_scale, acc), dot exact in int32. acc starts at 0.
  void (*linear_i4)(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows);
  void (*linear_i3)(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows);
  void (*linear_i5)(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows);
  void (*linear_i8)(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows);
  // Rows of 16 bits: dot = 255 * dot(w, high) + dot(w, low), at most 128 * 128 * 32512 < 2^29; float(dot) is rounded.
  void (*linear_i8_16)(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a,
                       size_t rows);
  // Affine weights: with s = scale * factor and t = minimum * factor of a group, both exact,
  // acc = fma(float(dot), s * a_scale, acc), then acc = fma(float(sum), t * a_scale, acc).
  void (*linear_a4)(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, size_t wide, const ActRows* a,
                    size_t rows);
  void (*linear_a5)(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, size_t wide, const ActRows* a,
                    size_t rows);
  // MXFP4: dot is that of t(c), the scale of a weight 2^(e - 127), or 0 where e is 0; k is whole groups of 32.
  void (*linear_mx4)(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows);
  // Float activations x[m*ldx + k]; per output, k ascending: acc = fma(x, w, acc).
  void (*linear_bf16)(float* out, size_t ldo, const uint8_t* panel, size_t k, const float* x, size_t ldx, size_t rows);

  // The most this instruction set does: int8 products with their sums, on registers alone. Returns how many; that of a
  // round is the same each time. For measuring only.
  size_t (*int8_peak)(size_t rounds);

  // out[i] = (x[i] * inv) * w[i], inv = 1 / sqrt(sum(x*x) / n + eps); the sum by fma in 16 lanes. out may be x.
  void (*rms_norm)(float* out, const float* x, const float* w, size_t n, float eps);
  // Rotate-half RoPE in place on one head: a = x[i], b = x[i + d/2]:
  // x[i] = fma(a, cos[i], -(b * sin[i])); x[i + d/2] = fma(b, cos[i], a * sin[i]); d even.
  void (*rope)(float* x, const float* cos, const float* sin, size_t d);
  // out[i] = act(gate[i]) * up[i]. out may be gate or up.
  void (*gated)(float* out, const float* gate, const float* up, size_t n, int activation);
  // out[i] = a[i] + b[i]. out may be a or b.
  void (*add)(float* out, const float* a, const float* b, size_t n);
  // Lowest index of the largest value; NaN counts as the smallest. n > 0.
  size_t (*argmax)(const float* x, size_t n);
  // out[i] = exp(x[i]), for tests and softmax. Below -87.3 the result is 0; above 88.7 it is +inf.
  void (*exp)(float* out, const float* x, size_t n);

  // Write one token's key and value (head_dim values each) into slot `token` (0..31) of a KV block. 8 bit, k being
  // rotated already: one scale a token, absmax/127, rounding as in quantize.
  void (*kv_put_8)(uint8_t* block, size_t token, const float* k, const float* v, size_t head_dim);
  void (*kv_put_16)(uint8_t* block, size_t token, const float* k, const float* v, size_t head_dim);

  // Spreads a large column over the others, so that few bits serve all of them: a Walsh-Hadamard transform in place of
  // each run of n values, n being the largest power of two that divides head_dim. For h = 1, 2, 4, ... n/2, the values a
  // and b that lie h apart (a's index in the run has no bit h) become a + b and a - b. Not scaled: a product of two
  // rotated vectors is n times that of the vectors.
  void (*rotate)(float* x, size_t head_dim);
  // kv_put in 4 bits, k being rotated already. For each 32 columns of k and of v: scale = f16(absmax/7), q =
  // round-to-nearest-even(x * (7/absmax)); zero, tiny, infinite and NaN groups as in quantize. head_dim: a multiple of 32.
  void (*kv_put_4)(uint8_t* block, size_t token, const float* k, const float* v, size_t head_dim);

  // Softmax attention. Visible tokens are split at fixed multiples of 256; each KV split is computed alone, and partial
  // results (m, l, acc) are merged in ascending order. Inside a split, blocks of 32 ascending, online softmax, from
  // m = -inf, l = 0, acc = 0, over the blocks in which the row sees a token:
  //   score s[t]: 8 bit: float(dot(q8, k8)) * (q_scale * k_scale[t]);
  //               16 bit: scale * (fma over d ascending);
  //               4 bit: acc * q_scale, where over the groups g of 32 columns ascending, from 0:
  //               acc = fma(float(dot_g(q8, k)), float(k_scale[g][t]), acc).  Tokens that are not visible have weight 0.
  //   With `softcap` C it becomes C * ((1 - e) / (1 + e)), e = exp(-2 |s / C|), with the sign of s, and 0 for -0.
  //   m' = max(m, max s); c = exp(m - m'); p[t] = exp(s[t] - m'); l = fma(l, c, sum p) (sum in 16 lanes, fixed tree);
  //   acc[d] = acc[d] * c, then for t ascending over the slots from the first to the last visible one:
  //   acc[d] = fma(p[t] * v_scale[t], v[t][d], acc[d])   (16 bit: fma(p[t], v, acc);
  //   4 bit: v_scale[t][d/32] for v_scale[t]).
  // Slots that a row does not see leave its sums alone, whatever they hold.
  void (*attend_8)(const AttendJob* job);
  void (*attend_16)(const AttendJob* job);
  void (*attend_4)(const AttendJob* job);
  // Merge (m, l, acc) of a later split into (M, L, A), for `heads` heads in a row; acc is [heads][head_dim]:
  // m' = max(M, m); x = exp(M-m'), y = exp(m-m'); L = fma(L, x, l*y); A[d] = fma(A[d], x, a[d]*y); M = m'.
  void (*attend_merge)(float* M, float* L, float* A, const float* m, const float* l, const float* acc, size_t heads,
                       size_t head_dim);
  // After the last split: A[d] = A[d] / L.
  void (*attend_finish)(float* A, const float* L, size_t heads, size_t head_dim);

  // The gated delta rule on one head's state [key_dim][value_dim], both multiples of 16. Of each column j, i ascending:
  // sum = fma(from[i][j], k[i], sum) from 0; delta[j] = beta * fma(-decay, sum, v[j]);
  // to[i][j] = fma(decay, from[i][j], k[i] * delta[j]); out[j] = fma(to[i][j], q[i], out[j]) from 0. to may be from.
  void (*delta_rule)(float* to, const float* from, float* out, float* delta, const float* q, const float* k,
                     const float* v, float decay, float beta, size_t key_dim, size_t value_dim);
  // `to` and `out` of that from its q, k, delta and decay: the same bits.
  void (*delta_scan)(float* to, const float* from, float* out, const float* delta, const float* q, const float* k,
                     float decay, size_t key_dim, size_t value_dim);
  // `to` alone.
  void (*delta_replay)(float* to, const float* from, const float* k, const float* delta, float decay, size_t key_dim,
                       size_t value_dim);

  // The best signed scale of each column, row j weighing p = share[j*lds + i], or share[j] where lds is 0. No fma; sums
  // over j ascending, from 0. For each trial t ascending, inverse = (half / absmax) * t; of either sign, + first:
  // q = round-to-nearest-even(w * inverse), held in [-half, half - 1] or [1 - half, half]; product = sum((w * p) * q),
  // square = sum((q * q) * p), ratio = product / max(square, 1e-12), gain = product * ratio. The first of the largest
  // gains wins with its ratio, of - negated; 0 where absmax is below 1e-12. The result is ratio once more, of the
  // integers of w / that, or that where all of them are 0.
  void (*group_scales)(float* scale, const RoundJob* job, const float* share, size_t lds, const float* trials,
                       size_t count);
  // Rows j ascending: q = round-to-nearest-even(w[j] / scale), off[j] -= q * scale, and w[k] += left[j*group + k] * off[j]
  // for k > j; w itself stays. No fma.
  void (*round_forward)(float* q, size_t ldq, float* off, size_t ldo, const RoundJob* job, const float* scale,
                        const float* left);
  // Rows j ascending, w being slopes: the integer becomes that nearest to w[j] / (scale * inner[j*group + j]) + q, and
  // w[k] -= inner[j*group + k] * (its change * scale) for k > j; w itself stays. No fma.
  void (*round_again)(float* q, size_t ldq, const RoundJob* job, const float* scale, const float* inner);
};

// Each overwrites what it does better. fill_scalar fills everything.
void fill_scalar(KernelTable* table);
void fill_avx2(KernelTable* table);
void fill_avxvnni(KernelTable* table);
void fill_avxvnni_evex(KernelTable* table);
void fill_avx512(KernelTable* table);
void fill_neon(KernelTable* table);
void fill_neon_i8mm(KernelTable* table);
