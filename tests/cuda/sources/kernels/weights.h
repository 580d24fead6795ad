// Weights of random bits, packed for the CPU and repacked for the card.
#pragma once
#include "check.h"
#include "core/pack.h"
#include "cuda/repack.h"

namespace check {

struct Card {
  std::shared_ptr<Weight> cpu;
  Array<uint8_t> values;
  Array<uint16_t> scales;

  li::CardWeight args() const {
    const WeightShape& shape = cpu->shape;
    li::CardWeight card{};
    card.values = values.data();
    card.scales = shape.group != 0 ? scales.data() : nullptr;
    card.panels = as_int(cpu->panels);
    card.cols = as_int(shape.cols);
    card.tiles = as_int((shape.cols + 127) / 128);
    card.group = as_int(shape.group);
    card.groups = shape.group != 0 ? as_int(shape.cols / shape.group) : 0;
    return card;
  }
};

// Halves of all sorts: zeros of both signs, what is below the smallest normal one, the largest, infinity and NaN.
inline uint16_t half(Random& random, bool wild) {
  static constexpr uint16_t rare[] = {0, 0x8000, 1, 0x83ff, 0x0400, 0x7bff, 0x7c00, 0xfc00, 0x7e01};
  if (wild && random.below(12) == 0) return rare[random.below(std::size(rare))];
  return static_cast<uint16_t>((random.bits() & 0x83ff) | (10 + random.below(8)) << 10);
}

// Row 0 has the smallest integers only, row 1 the largest; every fifth row has rare scales, or for bf16 rare values.
inline Card card_weight(WeightKind kind, size_t cols, size_t group, size_t rows, size_t planes) {
  Random random(cols * 8 + group + static_cast<size_t>(kind));
  WeightShape shape;
  shape.kind = kind;
  shape.cols = cols;
  shape.group = group;
  shape.parts = {rows};
  shape.activation_bits = kind == kBf16 ? 0 : 8 * planes;
  const size_t bytes = row_bytes(shape), groups = group != 0 ? cols / group : 0;
  std::vector<uint32_t> values(rows * bytes / 4 + 1);
  std::vector<uint16_t> scales(rows * groups);
  auto* stored = reinterpret_cast<uint8_t*>(values.data());
  for (size_t r = 0; r < rows; ++r) {
    for (size_t i = 0; i < bytes; ++i) stored[r * bytes + i] = static_cast<uint8_t>(random.bits());
    if (kind == kBf16 && r % 5 != 2)  // of a size near 1
      for (size_t i = 1; i < bytes; i += 2) stored[r * bytes + i] = static_cast<uint8_t>(0x3f | (random.bits() & 0x80));
    if (kind != kBf16 && r < 2) std::memset(stored + r * bytes, r == 0 ? 0 : 0xff, bytes);
    for (size_t g = 0; g < groups; ++g) scales[r * groups + g] = half(random, r % 5 == 2);
  }
  Pool pool(1);
  Card card;
  card.cpu = pack(shape, {{{stored}, {reinterpret_cast<const uint8_t*>(scales.data())}}}, pool);
  const cuda::PackedSizes sizes = cuda::packed_sizes(shape);
  card.values = Array<uint8_t>(sizes.values);
  card.scales = Array<uint16_t>(sizes.scales / 2);
  cuda::repack(*card.cpu, 1, card.values.data(), reinterpret_cast<uint8_t*>(card.scales.data()));
  return card;
}

}  // namespace check
