// The KV cache of a program: made, and its blocks copied out and back. What a step does with it is in attend.cpp.
#include <algorithm>

#include "core/error.h"
#include "core/program.h"
#include "core/step.h"

std::vector<KvCache::Layer> Program::layers_of(const std::vector<size_t>& bits) const {
  REQUIRE(bits.size() == layers_.size(), "kv_bits of %zu layers, but there are %zu", bits.size(), layers_.size());
  std::vector<KvCache::Layer> layers = layers_;
  for (size_t i = 0; i < layers.size(); ++i) layers[i].bits = bits[i];
  return layers;
}

std::vector<size_t> Program::kv_bits() const {
  std::vector<size_t> bits;
  for (size_t i = 0; i < kv_.layers(); ++i) bits.push_back(kv_.bits(i));
  return bits;
}

void Program::make_kv(const std::vector<size_t>& blocks, const std::vector<size_t>& bits) {
  const Hold hold(busy_);  // a step, or a block that is read, is in the cache that goes
  REQUIRE(head_.weight != nullptr, "make_kv before head");
  REQUIRE(lender_ == nullptr, "make_kv of a program that reads another one's cache");
  REQUIRE(blocks.size() == kv_groups(), "blocks of %zu KV groups, but there are %zu", blocks.size(), kv_groups());
  kv_ = KvCache();  // the old one goes first: both at once may not fit
  if (device_ != nullptr) {
    KvCache layout = KvCache::layout(blocks, layers_of(bits));
    device_->make_kv(layout);
    kv_ = std::move(layout);
  } else {
    kv_ = KvCache(blocks, layers_of(bits));
  }
  writer_.clear();
  for (const size_t count : blocks) writer_.emplace_back(count, -1);
  if (scratch_.memory.size() == 0) lay_out_scratch();
}

void Program::borrow_kv(Program& lender) {
  const Hold hold(busy_);
  REQUIRE(mix_.weight != nullptr && ops_.empty(), "borrow_kv must follow mix, before any layer");
  REQUIRE(&lender != this && lender.lender_ == nullptr, "the cache of a program that has none of its own");
  REQUIRE(lender.device_ == nullptr, "the cache of a program that is on a device");
  REQUIRE(lender.head_.weight != nullptr, "the cache of a program before its head");
  lender_ = &lender;
  layers_ = lender.layers_;
  windows_ = lender.windows_;
}

void Program::require_block(size_t block, size_t bytes, size_t group) const {
  const bool all = group == KvCache::kAllGroups;
  REQUIRE(all || group < kv_groups(), "KV group %zu, but there are %zu", group, kv_groups());
  REQUIRE(bytes == kv_.block_bytes(group), "%zu bytes, but a block has %zu", bytes, kv_.block_bytes(group));
  const std::vector<size_t>& blocks = kv_.blocks();
  const size_t count = blocks.empty() ? 0 : all ? *std::min_element(blocks.begin(), blocks.end()) : blocks[group];
  REQUIRE(block < count, "block %zu, but the KV cache has %zu", block, count);
}

void Program::read_kv(size_t block, uint8_t* out, size_t bytes, size_t group) {
  const Hold hold(busy_);
  require_block(block, bytes, group);
  if (device_ != nullptr) return device_->read_kv(block, out, group);
  kv_.read(block, out, group);
}

void Program::write_kv(size_t block, const uint8_t* in, size_t bytes, size_t group) {
  const Hold hold(busy_);
  require_block(block, bytes, group);
  if (device_ != nullptr) return device_->write_kv(block, in, group);
  kv_.write(block, in, group);
}
