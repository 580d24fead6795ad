#include "cuda/repack.h"

#include <cstring>

#include "cuda/args.h"

namespace cuda {
namespace {

constexpr size_t kBlockColumns = 32, kBlocks = li::kTileColumns / kBlockColumns, kFours = kBlockColumns / 4;

uint32_t word_at(const uint8_t* at) {
  uint32_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

// Stored values of 32 columns of panel row r, from column k of the group's tile on: word i has columns 4i .. 4i + 3.
void take_columns(WeightKind kind, const uint8_t* tile, size_t r, size_t k, uint32_t (&v)[kFours]) {
  const uint8_t* data = tile + 2 * kPanelRows + r % 16 * 4;
  const size_t block = r / 16;
  if (kind == kInt8) {
    for (size_t i = 0; i < kFours; ++i) v[i] = word_at(data + (k / 8 * 4 + i / 2 * 4 + block * 2 + i % 2) * 64);
    return;
  }
  if (kind == kInt4) {
    for (size_t i = 0; i < kFours; ++i)
      v[i] = word_at(data + (k / 8 * 2 + i / 2 * 2 + block) * 64) >> (i % 2 * 4) & 0x0f0f0f0fu;
    return;
  }
  const uint8_t* planes = data + (k / 32 * 2 + block) * 192;
  const uint32_t l0 = word_at(planes), l1 = word_at(planes + 64), h = word_at(planes + 128);
  const auto bit = [](uint32_t word, int from) { return word >> from & 0x01010101u; };
  const auto two = [](uint32_t word, int from) { return word >> from & 0x03030303u; };
  v[0] = two(l0, 0) | bit(h, 2) << 2;
  v[1] = two(l0, 4) | bit(h, 6) << 2;
  v[2] = two(l0, 2) << 1 | bit(h, 1);
  v[3] = two(l0, 6) << 1 | bit(h, 5);
  v[4] = two(l1, 0) | bit(h, 3) << 2;
  v[5] = two(l1, 4) | bit(h, 7) << 2;
  v[6] = two(l1, 2) << 1 | bit(h, 0);
  v[7] = two(l1, 6) << 1 | bit(h, 4);
}

// The same columns as block j of the card's tile, row g of its tile row.
void put_columns(WeightKind kind, uint8_t* tile, size_t g, size_t j, const uint32_t (&v)[kFours]) {
  for (size_t t = 0; t < 4; ++t) {
    const size_t lane = 4 * g + t;
    const uint32_t low = v[t], high = v[4 + t];
    auto* words = reinterpret_cast<uint32_t*>(tile);
    if (kind == kInt4) {
      words[4 * lane + j] = low | high << 4;
    } else if (kind == kInt8) {
      words[4 * lane + j] = low ^ 0x80808080u;
      words[128 + 4 * lane + j] = high ^ 0x80808080u;
    } else {
      words[2 * lane + j / 2] |= (low & 0x03030303u) << (j % 2 * 4) | (high & 0x03030303u) << (j % 2 * 4 + 2);
      words[64 + lane] |= (low >> 2 & 0x01010101u) << 2 * j | (high >> 2 & 0x01010101u) << (2 * j + 1);
    }
  }
}

void repack_panel(const Weight& weight, size_t panel, uint8_t* values, uint8_t* scales) {
  const WeightShape& shape = weight.shape;
  const size_t tiles = (shape.cols + li::kTileColumns - 1) / li::kTileColumns, size = tile_bytes(shape.kind);
  const size_t group_bytes = weight.panel_bytes / (shape.cols / shape.group), per_tile = li::kTileColumns / shape.group;
  const uint8_t* from = weight.panel(panel);
  for (size_t r = 0; r < kPanelRows; ++r) {
    const size_t tile_row = panel * li::kTilesOfPanel + r / li::kTileRows, g = r % li::kTileRows;
    for (size_t k = 0; k < shape.cols; k += kBlockColumns) {
      const size_t tile = tile_row * tiles + k / li::kTileColumns;
      const uint8_t* group = from + k / shape.group * group_bytes;
      uint32_t v[kFours];
      take_columns(shape.kind, group, r, k % shape.group, v);
      put_columns(shape.kind, values + tile * size, g, k / kBlockColumns % kBlocks, v);
      if (k % shape.group == 0)
        std::memcpy(scales + 2 * ((tile * li::kTileRows + g) * per_tile + k / shape.group % per_tile), group + 2 * r, 2);
    }
  }
}

void repack_panel_bf16(const Weight& weight, size_t panel, uint8_t* values) {
  const size_t cols = weight.shape.cols, eights = (cols + 7) / 8;
  const uint8_t* from = weight.panel(panel);
  for (size_t k = 0; k < cols; ++k)
    for (size_t r = 0; r < kPanelRows; ++r)
      std::memcpy(values + (((panel * eights + k / 8) * kPanelRows + r) * 8 + k % 8) * 2, from + (k * kPanelRows + r) * 2,
                  2);
}

}  // namespace

size_t tile_bytes(WeightKind kind) {
  return static_cast<size_t>(li::kTileRows) * li::kTileColumns * bits_of(kind) / 8;
}

PackedSizes packed_sizes(const WeightShape& shape) {
  if (shape.kind == kBf16) return {shape.panels() * ((shape.cols + 7) / 8) * kPanelRows * 16, 0};
  const size_t tiles = shape.panels() * li::kTilesOfPanel * ((shape.cols + li::kTileColumns - 1) / li::kTileColumns);
  return {tiles * tile_bytes(shape.kind), tiles * li::kTileRows * (li::kTileColumns / shape.group) * 2};
}

void repack(const Weight& weight, size_t threads, uint8_t* values, uint8_t* scales) {
  const PackedSizes sizes = packed_sizes(weight.shape);
  std::memset(values, 0, sizes.values);  // columns past the last, and what is put together bit by bit
  std::memset(scales, 0, sizes.scales);
  parallel_for(weight.panels, threads, [&](size_t panel) {
    if (weight.shape.kind == kBf16)
      repack_panel_bf16(weight, panel, values);
    else
      repack_panel(weight, panel, values, scales);
  });
}

}  // namespace cuda
