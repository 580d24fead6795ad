// How weights and the KV cache lie in memory. One layout for every ISA. Plain C types only: this header is
// included by files built with different -m flags and must not hold inline code.
//
// WEIGHT PANEL: 32 output rows, all K columns, contiguous, 64-byte aligned.
//   Integer kinds: K / group tiles in ascending K, each
//     [32 x f16 scale] = 64 bytes, then the values of row blocks rb = 0, 1 (16 rows each), which take turns run by run:
//     run 0 of block 0, run 0 of block 1, run 1 of block 0, … so that a kernel that works on both reads straight on,
//     as the processor's prefetcher wants it. A run is
//       int4: a vector of 64 bytes, 8 columns; byte r*4+t of run j holds column 8j+t (low nibble) and 8j+4+t (high
//             nibble) of row rb*16+r; stored q+8, q in [-8, 7].
//       int3: 32 columns, three 64-byte planes L0, L1, H (research: "field select"); stored v = q+4,
//             q in [-4, 3]; with v0..v7 the values of columns 4i+t, i = 0..7, at byte r*4+t:
//               L0 = (v0&3) | (v2>>1)<<2 | (v1&3)<<4 | (v3>>1)<<6
//               L1 = (v4&3) | (v6>>1)<<2 | (v5&3)<<4 | (v7>>1)<<6
//               H  = (v6&1) | (v2&1)<<1 | (v0>>2)<<2 | (v4>>2)<<3 | (v7&1)<<4 | (v3&1)<<5 | (v1>>2)<<6 | (v5>>2)<<7
//       int5: 32 columns, four vectors of 64 bytes and a plane H; stored v = q+16, q in [-16, 15]; with v0..v7 as above,
//             at byte r*4+t: vector j = (v[2j]&15) | (v[2j+1]>>1)<<4; H has bit j of v[2j+1]&1, bit 4+j of v[2j]>>4.
//       int8: two vectors of 64 bytes, 8 columns; byte r*4+t of vector v of run j holds column 8j+4v+t; stored q+128,
//             q in [-128, 127].
//   group is 32, 64 or 128 and divides K. Rows past N have scale 0.
//   affine4: before the tiles, for each `wide` columns (group times 1, 2, 4 or 8, a divisor of K), a line of
//     [32 x f16 scale][32 x f16 minimum]. A tile is that of int4, but begins with [32 x u8 factor of the scale]
//     [32 x u8 factor of the minimum]; stored q, in [0, 15]. A weight is scale * factor * q + minimum * factor.
//   affine5: the same with the values of int5; stored q, in [0, 31].
//   mxfp4: before the tiles, for each group of 32 columns, [32 x u8 e], their bytes rounded up to 64. A tile is the
//     values of int4's; a nibble c stands for t(c) = 0, 1, 2, 3, 4, 6, 8, 12, then the same negative. A weight is
//     t(c) * 2^(e - 127), and 0 where e is 0.
//   bf16: K lines of 64 bytes; line k holds column k of the 32 rows. Any K.
//
// KV BLOCK: 32 tokens of one layer and one KV head; head_dim is a multiple of 16. 64-byte aligned. Keys of 8 and 4 bits
// are rotated (table.h). In this order:
//   8 bit:  K u8 (+128) [head_dim/4][32 tokens][4]; V s8 [32 tokens][head_dim]; K scale f32[32]; V scale f32[32]
//   16 bit: K f16 [head_dim][32 tokens];            V f16 [32 tokens][head_dim]
//   4 bit, where head_dim is a multiple of 32; stored q+8, q in [-7, 7]:
//     K u4 [head_dim/8][32 tokens][4]: byte t of a token in group j holds column 8j+t (low nibble) and 8j+4+t (high)
//     V u4 [32 tokens][head_dim/2]: byte i of the 16 of columns 32g and on holds column 32g+i (low) and 32g+16+i (high)
//     K scale f16 [head_dim/32][32 tokens]; V scale f16 [32 tokens][head_dim/32]
#pragma once

enum { kPanelRows = 32, kKvBlock = 32, kKvChunk = 256 };

// Cards, and rows in a file, know the kinds up to kBf16.
enum WeightKind { kInt4 = 0, kInt3 = 1, kInt8 = 2, kBf16 = 3, kAffine4 = 4, kMxfp4 = 5, kInt5 = 6, kAffine5 = 7 };

enum Activation { kSilu = 0, kGeluTanh = 1, kGelu = 2 };
