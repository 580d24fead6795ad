#include "core/kv_cache.h"

#include "core/error.h"
#include "kernels/block.h"

namespace {

size_t bytes_of(size_t bits, size_t head_dim) {
  const size_t values = 2 * kKvBlock * head_dim;  // keys and values
  return bits == 8 ? values + 2 * kKvBlock * sizeof(float) : 2 * values;
}

}  // namespace

KvCache::KvCache(size_t blocks, size_t bits, const std::vector<Layer>& layers) : blocks_(blocks), bits_(bits) {
  REQUIRE(bits == 8 || bits == 16, "kv_bits is %zu, but must be 8 or 16", bits);
  REQUIRE(blocks > 0 && blocks <= size_t{1} << 31, "the KV cache cannot have %zu blocks", blocks);
  size_t total = 0;
  for (const Layer& layer : layers) {
    const size_t block = layer.kv_heads * bytes_of(bits, layer.head_dim);
    size_t bytes = 0;
    if (__builtin_mul_overflow(block, blocks, &bytes) || __builtin_add_overflow(total, bytes, &total))
      throw OutOfMemory(SIZE_MAX, "the KV cache");
  }
  memory_ = Memory(total, "the KV cache");
  uint8_t* start = memory_.data();
  for (const Layer& layer : layers) {
    places_.push_back({start, layer.kv_heads, bytes_of(bits, layer.head_dim)});
    start += blocks * layer.kv_heads * bytes_of(bits, layer.head_dim);
  }
}
