#include "core/kv_cache.h"

#include <cstring>

#include "core/error.h"
#include "kernels/block.h"

namespace {

// Of one block: keys and values, and their scales.
size_t bytes_of(const KvCache::Layer& layer) {
  const size_t values = 2 * kKvBlock * layer.head_dim;
  if (layer.bits == 16) return 2 * values;
  return layer.bits == 8 ? values + 2 * kKvBlock * sizeof(float) : values / 2 + values / 32 * sizeof(uint16_t);
}

void check(const KvCache::Layer& layer) {
  REQUIRE(layer.bits == 4 || layer.bits == 8 || layer.bits == 16, "kv_bits is %zu, but must be 4, 8 or 16", layer.bits);
  REQUIRE(layer.bits != 4 || layer.head_dim % 32 == 0,
          "a 4-bit cache is for heads of a multiple of 32 values, and these have %zu", layer.head_dim);
}

}  // namespace

size_t KvCache::block_bytes(const Layer& layer) {
  check(layer);
  return layer.kv_heads * bytes_of(layer);
}

size_t KvCache::block_bytes(size_t group) const {
  size_t total = 0;
  for (const Location& at : locations_)
    if (at.is_in(group)) total += at.kv_heads * at.block_bytes;
  return total;
}

void KvCache::read(size_t id, uint8_t* out, size_t group) const {
  for (const Location& at : locations_) {
    if (!at.is_in(group)) continue;
    const size_t bytes = at.kv_heads * at.block_bytes;
    std::memcpy(out, memory_.data() + at.start + id * bytes, bytes);
    out += bytes;
  }
}

void KvCache::write(size_t id, const uint8_t* in, size_t group) {
  for (const Location& at : locations_) {
    if (!at.is_in(group)) continue;
    const size_t bytes = at.kv_heads * at.block_bytes;
    std::memcpy(memory_.data() + at.start + id * bytes, in, bytes);
    in += bytes;
  }
}

KvCache::KvCache(const std::vector<size_t>& blocks, const std::vector<Layer>& layers, bool memory) : blocks_(blocks) {
  for (const size_t count : blocks)
    REQUIRE(count > 0 && count <= size_t{1} << 31, "the KV cache cannot have %zu blocks", count);
  for (const Layer& layer : layers) {
    size_t bytes = 0;
    if (__builtin_mul_overflow(block_bytes(layer), blocks[layer.group], &bytes) || __builtin_add_overflow(bytes_, bytes, &bytes_))
      throw OutOfMemory(SIZE_MAX, "the KV cache");
  }
  if (memory) memory_ = Memory(bytes_, "the KV cache");
  size_t start = 0;
  for (const Layer& layer : layers) {
    locations_.push_back({start, layer.kv_heads, bytes_of(layer), layer.bits, layer.group});
    start += blocks[layer.group] * block_bytes(layer);
  }
}
