// Keys and values of all layers, in blocks of 32 tokens (kernels/block.h). Who owns which block is decided above.
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
  };

  // Bytes of one block of all KV heads of a layer. Throws std::invalid_argument for bits that there are not.
  static size_t block_bytes(const Layer& layer);

  KvCache() = default;
  // `blocks` blocks a layer; bits are 4, 8 or 16. Pages appear when first written. Throws OutOfMemory.
  KvCache(size_t blocks, const std::vector<Layer>& layers) : KvCache(blocks, layers, true) {}
  // The same locations without memory, for a cache that lies elsewhere.
  static KvCache layout(size_t blocks, const std::vector<Layer>& layers) { return {blocks, layers, false}; }

  size_t blocks() const { return blocks_; }
  size_t bits(size_t layer) const { return locations_[layer].bits; }
  size_t layers() const { return locations_.size(); }
  size_t bytes() const { return bytes_; }
  // Bytes of one block, all layers together.
  size_t block_bytes() const;
  // One block of all layers, layer by layer, out of the cache and into it; `id` is below blocks().
  void read(size_t id, uint8_t* out) const;
  void write(size_t id, const uint8_t* in);
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
  };
  const Location& location(size_t layer) const { return locations_[layer]; }

 private:
  KvCache(size_t blocks, const std::vector<Layer>& layers, bool memory);

  Memory memory_;
  std::vector<Location> locations_;
  size_t blocks_ = 0, bytes_ = 0;
};
