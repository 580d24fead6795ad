// From the CPU's panels (kernels/block.h) to the card's tiles (args.h), word by word: no value changes.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/pool.h"
#include "core/weight.h"

namespace cuda {

struct PackedSizes {
  size_t values = 0, scales = 0;  // bytes
};

PackedSizes packed_sizes(const WeightShape& shape);
size_t tile_bytes(WeightKind kind);

// Writes packed_sizes(weight.shape) bytes each, on all of `threads`.
void repack(const Weight& weight, size_t threads, uint8_t* values, uint8_t* scales);

}  // namespace cuda
