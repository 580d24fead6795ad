// How numbers lie on the card, and what kernels are told. Host code, kernels and tests include this: plain types only.
//
// WEIGHT, INTEGER KINDS. A panel is the CPU's: 32 output rows. It is four tile rows of 8 rows; a tile is 8 rows by 128
// columns, the last one padded with zeros. In a tile, lane (g, t) = (lane / 4, lane % 4) owns row g and, of each block j
// of 32 columns, the columns 32j + 4t + i (low) and 32j + 16 + 4t + i (high), i = 0..3: what one lane of an m16n8k32
// matrix instruction holds, so that decode and prefill read the same bytes in the same way, 16 at a time.
//   int4: [lane][j] words; byte i: low column in the low nibble, high column in the high one; q + 8
//   int3: [lane] two words: byte i of word w has the two low bits of (j, low), (j, high), (j + 1, low), (j + 1, high) of
//         j = 2w, from the lowest bits on; then [lane] a word: byte i has bit 2j for (j, low), 2j + 1 for (j, high); q + 4
//   int8: [half][lane][j] words, half 0 low and 1 high; byte i; q
// Tiles of a tile row follow each other, then tile rows. Scales: [tile row][tile][row g][128 / group] f16.
//
// WEIGHT, BF16. [panel][column / 8][32 rows][8], padded with zeros.
//
// ACTIVATIONS, QUANTIZED. A row is `planes` rows of q_ld bytes, each in tiles of 128 columns: [t][half][j] words, so that
// lane (g, t) reads what it multiplies in two pieces of 16 bytes. Columns past the last are zero.
//
// KV CACHE. As on the CPU (kernels/block.h), so that blocks can be kept and brought back by either.
#pragma once

namespace li {

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef signed char i8;
typedef long long Index;

enum { kTileColumns = 128, kTileRows = 8, kPanel = 32, kTilesOfPanel = 4, kBlockTokens = 32, kSplitTokens = 256 };

struct CardWeight {
  const u8* values;
  const u16* scales;  // null for bf16
  int panels, cols, tiles, groups, group;
};

struct QuantizedRows {
  i8* q;         // [rows][planes][q_ld], or null: not quantized
  float* scale;  // [rows][s_ld]
  int* sum;      // [rows][s_ld]
  int planes, q_ld, s_ld;
  int group, groups, tiles;  // of the weight they are for
};

struct LinearArgs {
  CardWeight weight;
  QuantizedRows a;  // or, for bf16:
  const float* x;   // [rows][x_ld]
  int x_ld;
  int rows;
  float* out;  // [rows][out_ld], panels next to each other
  int out_ld;
};

struct EmbedArgs {
  CardWeight weight;
  int kind;  // WeightKind of kernels/block.h
  const int* tokens;
  float scale;
  float* x;
  int x_ld;
};

// x += [post_norm](y + bias); or x += aside + aside_bias, then += y + bias; then x *= scale. Then [norm], then quantized
// or as floats.
struct ReadyArgs {
  float* x;  // [rows][x_ld]
  int x_ld, columns;
  const int* pick;      // or null: row m is row pick[m] of x
  const float* y;       // or null: nothing to add
  int y_ld;
  const float *aside, *aside_bias;  // or null; [rows][y_ld]
  const float* bias;    // or null
  const float* post_norm;  // or null
  float post_eps;
  float scale;
  const float* norm;  // or null
  const float* norm_bias;  // or null
  int centered;            // the norm takes the mean off first
  float eps;
  QuantizedRows to;
  float* out;  // or null
  int out_ld;
};

// act(gate) * up, their panels alternating in `in`, or, not `both`, act(up), or act(up) * given; then as above.
struct GatedArgs {
  const float* in;
  int in_ld, columns, activation, both;
  const float *gate_bias, *up_bias;  // or null
  QuantizedRows to;
  float* out;
  int out_ld;
  const float* given;  // or null; [rows][given_ld]
  int given_ld;
};

// Of each part of `size` values of a row: its norm, plus `token`, what the row's token brings.
struct LayerInputsArgs {
  float* inputs;  // [rows][ld]
  const float* token;
  int ld, parts, size;
  const float* norm;
  float eps;
};

struct KvLayer {
  u8* start;  // block b of KV head h is at start + (b * kv_heads + h) * block_bytes
  Index block_bytes;
  int bits;
};

struct RowSlots {
  const int* positions;  // [rows]
  const int* sequences;
  const int* block_tables;  // [sequence][width]
  int width;
};

struct SoftcapArgs {
  float* x;
  int ld, columns;
  float cap;
};

// Bias and norm of all query heads of a row at once, and of all its key heads.
struct NormAllArgs {
  float* qkv;
  int qkv_ld, q_columns, k_start, k_columns;
  const float *bias, *q_norm, *k_norm;  // bias: q | k, or null
  float eps;
};

// Bias, norm and RoPE of every head; keys and values into the cache, unless there are no `kv_heads`; queries in place, or
// quantized.
struct RopeArgs {
  float* qkv;
  int qkv_ld, k_start, v_start;
  int v_bias;  // where the values' bias begins, in heads
  const float *bias, *q_norm, *k_norm, *v_norm;  // or null
  int ready;       // bias and norm of queries and keys are done
  int norm_after;  // RoPE
  float eps;
  const float *table, *query_table;  // of a position: cos[half], sin[half]
  int half, query_half;              // of the first values of a head
  int heads, kv_heads, head_dim;
  float score_scale;
  KvLayer kv;
  RowSlots at;
  i8* q8;  // [rows][heads * head_dim]
  float* q_scale;  // [rows][heads]
};

// One result a KV split: m and l at [row][head][slot], acc at [row][head][slot][head_dim]. Split: slot is the KV split.
// Otherwise there is one slot, which holds all splits merged.
struct AttendArgs {
  const float* q;  // 16 bit: row's queries at row * q_ld
  int q_ld;
  const i8* q8;
  const float* q_scale;
  float scale;  // 16 bit
  float softcap;  // of scores; 0: none
  int heads, kv_heads, head_dim, window;
  KvLayer kv;
  RowSlots at;
  float *m, *l, *acc;
  int slots, split;
};

struct MergeArgs {
  const float *m, *l, *acc;
  int slots, split;
  int heads, head_dim, window;
  const int* positions;
  QuantizedRows to;
  float* out;
  int out_ld;
};

}  // namespace li
