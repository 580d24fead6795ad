// From what lies on disk to panels.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/weight.h"

// One matrix of compressed-tensors `pack-quantized`: value + 2^(bits-1), `bits` wide, a little-endian bit stream along
// the row inside 32-bit words; scales are float16, one a group.
struct IntPart {
  const uint32_t* words;
  size_t words_per_row;
  const uint16_t* scales;
};

struct Bf16Part {
  const uint16_t* values;
};

// Part p has shape.parts[p] rows; arrays are row-major and as long as the shape says (the caller has checked).
// Packs on `threads` threads; 0 means one a physical core. Throws OutOfMemory, std::invalid_argument.
std::shared_ptr<Weight> pack_int(const WeightShape& shape, const std::vector<IntPart>& parts, size_t threads);
std::shared_ptr<Weight> pack_bf16(const WeightShape& shape, const std::vector<Bf16Part>& parts, size_t threads);
