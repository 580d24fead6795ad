#include "core/pack.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/pool.h"
#include "core/probe.h"

namespace {

constexpr size_t kLane = 64;  // bytes of one vector: 16 rows of 4

// Eight nibbles, columns 0..7 of one row -> four bytes: column t low, column 4+t high.
uint32_t spread_nibbles(uint32_t four) {
  four = (four | four << 8) & 0x00ff00ffu;
  return (four | four << 4) & 0x0f0f0f0fu;
}

// Eight 3-bit values -> one a byte.
uint64_t spread_triples(uint64_t x) {
  x = (x & 0xfff) | (x & 0xfff000) << 20;
  x = (x & 0x0000003f0000003f) | (x & 0x00000fc000000fc0) << 10;
  return (x & 0x0007000700070007) | (x & 0x0038003800380038) << 5;
}

// One row of one group. `to` is the row's first lane in its row block, `step` bytes apart from vector to vector.
void pack_row_int8(uint8_t* to, const uint32_t* words, size_t group) {
  for (size_t j = 0; j < group / 4; ++j) std::memcpy(to + j * kLane, words + j, 4);
}

void pack_row_int4(uint8_t* to, const uint32_t* words, size_t group) {
  for (size_t j = 0; j < group / 8; ++j) {
    const uint32_t bytes = spread_nibbles(words[j] & 0xffffu) | spread_nibbles(words[j] >> 16) << 4;
    std::memcpy(to + j * kLane, &bytes, 4);
  }
}

// 32 columns are three words. A pair holds v[2i] (columns 8i .. 8i+3, one a byte) low and v[2i+1] high; the planes are
// those of block.h, whose upper halves hold the odd v as the lower ones hold the even.
void pack_row_int3(uint8_t* to, const uint32_t* words, size_t group) {
  constexpr uint64_t one = 0x0101010101010101, two = 0x0303030303030303;
  for (size_t s = 0; s < group / 32; ++s, words += 3, to += 3 * kLane) {
    const uint64_t low = words[0] | static_cast<uint64_t>(words[1]) << 32;
    const uint64_t high = words[1] >> 16 | static_cast<uint64_t>(words[2]) << 16;
    const uint64_t v01 = spread_triples(low & 0xffffff), v23 = spread_triples(low >> 24 & 0xffffff);
    const uint64_t v45 = spread_triples(high & 0xffffff), v67 = spread_triples(high >> 24);
    const uint64_t planes[3] = {
        (v01 & two) | (v23 >> 1 & two) << 2,
        (v45 & two) | (v67 >> 1 & two) << 2,
        (v67 & one) | (v23 & one) << 1 | (v01 >> 2 & one) << 2 | (v45 >> 2 & one) << 3,
    };
    for (size_t i = 0; i < 3; ++i) {
      const auto bytes = static_cast<uint32_t>(planes[i] | planes[i] >> 28);
      std::memcpy(to + i * kLane, &bytes, 4);
    }
  }
}

// Rows [32*i, 32*i+32) of one part. The memory is zero already, which is what padded rows need: their scale is 0.
void pack_panel_int(uint8_t* panel, const WeightShape& shape, const IntPart& part, size_t i, size_t rows) {
  const size_t group = shape.group, groups = shape.cols / group, bits = bits_of(shape.kind);
  const size_t block_bytes = 16 * group * bits / 8, group_words = group * bits / 32;
  const size_t count = std::min<size_t>(kPanelRows, rows - i * kPanelRows);
  const auto pack_row = shape.kind == kInt8 ? pack_row_int8 : shape.kind == kInt4 ? pack_row_int4 : pack_row_int3;
  for (size_t g = 0; g < groups; ++g, panel += 2 * kPanelRows + 2 * block_bytes)
    for (size_t r = 0; r < count; ++r) {
      const size_t row = i * kPanelRows + r;
      std::memcpy(panel + 2 * r, part.scales + row * groups + g, 2);
      pack_row(panel + 2 * kPanelRows + r / 16 * block_bytes + r % 16 * 4,
               part.words + row * part.words_per_row + g * group_words, group);
    }
}

// A transpose, a square at a time so that both sides stay in the nearest cache.
void pack_panel_bf16(uint8_t* panel, const WeightShape& shape, const Bf16Part& part, size_t i, size_t rows) {
  const size_t count = std::min<size_t>(kPanelRows, rows - i * kPanelRows);
  const uint16_t* from = part.values + i * kPanelRows * shape.cols;
  for (size_t start = 0; start < shape.cols; start += 32) {
    const size_t end = std::min(start + 32, shape.cols);
    for (size_t r = 0; r < count; ++r)
      for (size_t k = start; k < end; ++k) std::memcpy(panel + 2 * (k * kPanelRows + r), from + r * shape.cols + k, 2);
  }
}

template <class Part, class PackPanel>
std::shared_ptr<Weight> pack(const WeightShape& shape, const std::vector<Part>& parts, size_t threads,
                             PackPanel pack_panel) {
  check_shape(shape);
  REQUIRE(parts.size() == shape.parts.size(), "%zu parts, but %zu row counts", parts.size(), shape.parts.size());
  auto weight = std::make_shared<Weight>();
  weight->shape = shape;
  weight->panels = shape.panels();
  weight->panel_bytes = shape.panel_bytes();
  weight->memory = take_piece(weight->bytes(), "weights");
  if (threads == 0) threads = physical_cores();
  constexpr size_t worth_a_thread = size_t{256} << 10;
  threads = std::min(threads, 1 + weight->bytes() / worth_a_thread);
  for (size_t p = 0; p < parts.size(); ++p) {
    const size_t rows = shape.parts[p];
    parallel_for((rows + kPanelRows - 1) / kPanelRows, threads, [&](size_t i) {
      uint8_t* panel = weight->memory.data + shape.panel_of(p, i) * weight->panel_bytes;
      pack_panel(panel, shape, parts[p], i, rows);
    });
  }
  return weight;
}

}  // namespace

std::shared_ptr<Weight> pack_int(const WeightShape& shape, const std::vector<IntPart>& parts, size_t threads) {
  return pack(shape, parts, threads, pack_panel_int);
}

std::shared_ptr<Weight> pack_bf16(const WeightShape& shape, const std::vector<Bf16Part>& parts, size_t threads) {
  return pack(shape, parts, threads, pack_panel_bf16);
}
