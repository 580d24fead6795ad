// A matrix in panels (kernels/block.h), ready for the kernels. Immutable once packed.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/memory.h"
#include "kernels/block.h"

// Where the rows of a weight lie. `parts` are matrices stacked by rows, each padded to whole panels, so that q, k and
// v start on panel borders; interleaved, panels alternate between the two parts (gate and up).
struct WeightShape {
  WeightKind kind = kBf16;
  size_t cols = 0;
  size_t group = 0;  // 0 for bf16
  std::vector<size_t> parts;
  bool interleaved = false;
  size_t wide = 0;  // affine only: columns that share what is multiplied by factors
  size_t activation_bits = 0;  // of the integers that activations become: 8; 16 (int8 only); 0 for bf16

  size_t rows() const;
  size_t panels() const;       // of all parts
  size_t panel_bytes() const;
  size_t lines_bytes() const;  // before the tiles of a panel: of affine weights and MXFP4
  size_t tile_bytes() const;   // of integers and MXFP4
  size_t bytes() const { return panels() * panel_bytes(); }  // packed
  size_t planes() const { return activation_bits == 16 ? 2 : 1; }  // rows of q that a row of activations takes
  // The panel that holds row 32*i of part `part`.
  size_t panel_of(size_t part, size_t i) const;
};

// Bytes of a row as it is stored: integers in whole 32-bit words.
size_t row_bytes(const WeightShape& shape);

// Throws std::invalid_argument unless the shape can be packed.
void check_shape(const WeightShape& shape);

struct Weight {
  WeightShape shape;
  size_t panels = 0;       // shape.panels()
  size_t panel_bytes = 0;  // shape.panel_bytes()
  Piece memory;

  size_t bytes() const { return panels * panel_bytes; }
  const uint8_t* panel(size_t i) const { return memory.data + i * panel_bytes; }
  // Writes row `row` (counted over the parts as they were given, unpadded) as float32: value times scale (+ minimum).
  void row(size_t row, float* out) const;
};

using WeightRef = std::shared_ptr<const Weight>;

// What a weight is, without its values.
std::shared_ptr<Weight> without_values(const Weight& weight);

const char* kind_name(WeightKind kind);
size_t bits_of(WeightKind kind);
WeightKind kind_of(size_t bits, bool affine = false);  // integers; bf16 for 16. Throws std::invalid_argument.
bool is_affine(WeightKind kind);
float half_to_float(uint16_t half);
