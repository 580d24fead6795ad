// Keys and values of all layers, in blocks of 32 tokens (kernels/block.h). Layers of one group share the numbers of their
// blocks; each group has as many as it needs. Who owns which block is decided above.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/memory.h"

class KvCache {
 public:
  struct Layer {
    size_t kv_heads;
    size_t head_dim;
    size_t bits;
    size_t group = 0;
  };
  static constexpr size_t kAllGroups = SIZE_MAX;

  // Bytes of one block of all KV heads of a layer. Throws std::invalid_argument for bits that there are not.
  static size_t block_bytes(const Layer& layer);

  KvCache() = default;
  // `blocks` of each group's layers; bits are 4, 8 or 16. Pages appear when first written. Throws OutOfMemory.
  KvCache(const std::vector<size_t>& blocks, const std::vector<Layer>& layers) : KvCache(blocks, layers, true) {}
  // The same locations without memory, for a cache that lies elsewhere.
  static KvCache layout(const std::vector<size_t>& blocks, const std::vector<Layer>& layers) {
    return {blocks, layers, false};
  }

  const std::vector<size_t>& blocks() const { return blocks_; }  // of each group; empty: there is no cache
  size_t bits(size_t layer) const { return locations_[layer].bits; }
  size_t layers() const { return locations_.size(); }
  size_t bytes() const { return bytes_; }
  // Bytes of one block of all layers of a group, or of all groups.
  size_t block_bytes(size_t group = kAllGroups) const;
  // One block of these layers, layer by layer, out of the cache and into it; `id` is below the blocks of each.
  void read(size_t id, uint8_t* out, size_t group) const;
  void write(size_t id, const uint8_t* in, size_t group);
  uint8_t* block(size_t layer, size_t id, size_t kv_head) const {
    const Location& at = locations_[layer];
    return memory_.data() + at.start + (id * at.kv_heads + kv_head) * at.block_bytes;
  }

  // Where a layer lies: block `id` of a KV head is at start + (id * kv_heads + kv_head) * block_bytes.
  struct Location {
    size_t start;
    size_t kv_heads;
    size_t block_bytes;
    size_t bits;
    size_t group;
    bool is_in(size_t other) const { return other == kAllGroups || other == group; }
  };
  const Location& location(size_t layer) const { return locations_[layer]; }

 private:
  KvCache(const std::vector<size_t>& blocks, const std::vector<Layer>& layers, bool memory);

  Memory memory_;
  std::vector<Location> locations_;
  std::vector<size_t> blocks_;
  size_t bytes_ = 0;
};
