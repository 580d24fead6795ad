// A KV cache of scattered blocks, for the card's kernels and for the scalar ones.
#pragma once
#include "check.h"
#include "kernels/block.h"

namespace check {

struct CacheShape {
  size_t kv_heads, head_dim, bits;
  size_t block_bytes() const {
    const size_t values = 2 * 32 * head_dim;
    return bits == 16 ? 2 * values : bits == 8 ? values + 256 : values / 2 + values / 32 * 2;
  }
};

struct Cache {
  CacheShape shape;
  Array<uint8_t> bytes;

  Cache(const CacheShape& of, size_t blocks, int byte)
      : shape(of), bytes(blocks * of.kv_heads * of.block_bytes(), byte) {}

  li::KvLayer args() const {
    return {bytes.data(), static_cast<li::Index>(shape.block_bytes()), as_int(shape.bits)};
  }
  uint8_t* block(size_t id, size_t h) const { return bytes.data() + (id * shape.kv_heads + h) * shape.block_bytes(); }
  void put(size_t id, size_t h, size_t token, const float* k, const float* v) const {
    const auto put = shape.bits == 4 ? scalar::kv_put_4 : shape.bits == 8 ? scalar::kv_put_8 : scalar::kv_put_16;
    put(block(id, h), token, k, v, shape.head_dim);
  }
};

template <class T>
void expect_as(const char* what, const uint8_t* found, const uint8_t* expected, size_t bytes) {
  expect(what, reinterpret_cast<const T*>(found), reinterpret_cast<const T*>(expected), bytes / sizeof(T));
}

// Part by part: bytes are bytes, but of scales, and of halves, any NaN is like any other.
inline void expect_cache(const Cache& found, const Cache& expected) {
  const CacheShape& shape = found.shape;
  const size_t size = shape.block_bytes(), values = shape.bits == 16 ? 0 : 64 * shape.head_dim * shape.bits / 8;
  for (size_t i = 0; i < found.bytes.size(); i += size) {
    const uint8_t *a = found.bytes.data() + i, *b = expected.bytes.data() + i;
    expect("bytes of a block", a, b, values);
    if (shape.bits == 8)
      expect_as<float>("scales of a block", a + values, b + values, size - values);
    else
      expect_as<Half>("halves of a block", a + values, b + values, size - values);
  }
}

// Rows at their positions. A sequence's blocks lie anywhere; entries of the table that no token is in are far outside.
struct Places {
  size_t width, blocks;
  Array<int> positions, sequences, tables;

  // Row i is the token at at[i].second of sequence at[i].first.
  explicit Places(const std::vector<std::pair<size_t, size_t>>& at)
      : width(0), blocks(0), positions(at.size()), sequences(at.size()) {
    size_t n = 0;
    for (size_t i = 0; i < at.size(); ++i) {
      sequences[i] = as_int(at[i].first);
      positions[i] = as_int(at[i].second);
      width = std::max(width, at[i].second / 32 + 1);
      n = std::max(n, at[i].first + 1);
    }
    tables = Array<int>(n * width);
    for (int& entry : tables) entry = 1 << 28;
    for (const auto& [sequence, position] : at)
      for (size_t i = 0; i <= position / 32; ++i) {
        int& entry = tables[sequence * width + i];
        if (entry == 1 << 28) entry = as_int(blocks++);
      }
    for (int& entry : tables)
      if (entry != 1 << 28) entry = as_int((static_cast<size_t>(entry) * stride() + 1) % blocks);
  }

  size_t rows() const { return positions.size(); }
  size_t position(size_t row) const { return static_cast<size_t>(positions[row]); }
  size_t block_of(size_t row, size_t token) const {
    return static_cast<size_t>(tables[static_cast<size_t>(sequences[row]) * width + token / 32]);
  }
  li::RowSlots args() const { return {positions.data(), sequences.data(), tables.data(), as_int(width)}; }

 private:
  size_t stride() const { return blocks % 7 != 0 ? 7 : blocks % 5 != 0 ? 5 : 11; }
};

}  // namespace check
