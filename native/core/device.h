// Where a program can run instead of on the CPU's threads. A device has its own copies of the weights and its own KV
// cache, whose blocks look as the CPU's do; it computes the same bits.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "core/kv_cache.h"

struct StepInput;

class Device {
 public:
  virtual ~Device() = default;
  // An empty cache, laid out as `layout`, which holds no memory itself. Throws OutOfMemory.
  virtual void make_kv(const KvCache& layout) = 0;
  // One block of all layers of a KV group, or of all, in KvCache::read's order.
  virtual void read_kv(size_t block, uint8_t* out, size_t group) = 0;
  virtual void write_kv(size_t block, const uint8_t* in, size_t group) = 0;
  // At most max_rows rows of a checked step: `count` of `input`, from row `first` on.
  virtual void run(const StepInput& input, size_t first, size_t count) = 0;
  virtual size_t weight_bytes() const = 0;
  virtual std::string kernels() const = 0;  // what is named where the CPU names its instruction set
};
