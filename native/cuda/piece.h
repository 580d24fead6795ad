// What the parts of a device hand each other while a step runs.
#pragma once
#include "core/program.h"
#include "cuda/args.h"

namespace cuda {

inline size_t tiles_of(size_t columns) { return (columns + li::kTileColumns - 1) / li::kTileColumns; }
inline int narrow(size_t n) { return static_cast<int>(n); }

// What is added to the stream before it is read next.
struct Pending {
  bool any = false;
  const float *bias = nullptr, *post_norm = nullptr;
  float eps = 0;
  const float *aside = nullptr, *aside_bias = nullptr;
  float scale = 1;  // of the stream after that
};

// Rows of a step that run together.
struct Piece {
  const StepInput& input;
  size_t first, rows;
  size_t begin, end;  // of the program's ops
  size_t out_begin, outs;
  size_t columns;     // of inputs, 0: none
  size_t table_ints;  // of the block tables of all KV groups
  size_t kv_splits = 0, slots = 0;
  const int32_t* out_rows() const { return input.out_rows + out_begin; }
};

}  // namespace cuda
