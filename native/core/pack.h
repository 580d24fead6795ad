// From what lies on disk to panels.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/pool.h"
#include "core/weight.h"

// Rows of bytes, one after the other: in memory, or in an open file from byte `offset` on.
struct StoredRows {
  const uint8_t* memory = nullptr;  // null: in the file
  int file = -1;
  uint64_t offset = 0;
};

// One matrix, as long as the shape says (the caller has checked). bf16: its values. Integers as in compressed-tensors
// `pack-quantized`: value + 2^(bits-1), `bits` wide, a little-endian bit stream along the row inside 32-bit words; the
// scales are float16, one a group. Affine: the scales are [columns / wide], the minima float16 as they, and the factors
// bytes [groups][2], the scale's first; MXFP4: the scales are bytes [groups], e of block.h. Both only from memory.
struct StoredPart {
  StoredRows values;
  StoredRows scales{};
  StoredRows minima{}, factors{};
};

// `size` bytes of an open file. False: it ends before, or cannot be read.
bool read_all(uint8_t* to, size_t size, int file, uint64_t offset);

// All of them have a part of the exponent that is zero: `infinity` is 0x7f80 of bf16, 0x7c00 of float16.
bool all_finite(const uint8_t* bytes, size_t count, uint16_t infinity);

// Packs shape.parts.size() parts on the threads of `pool`. Each thread takes first the panels that it will compute
// with, so that they lie in memory near it. What comes from a file is read panel by panel, past no other copy, and
// checked: null when a file is cut short, cannot be read, or holds NaN or infinity. Throws OutOfMemory,
// std::invalid_argument.
std::shared_ptr<Weight> pack(const WeightShape& shape, const std::vector<StoredPart>& parts, Pool& pool);
