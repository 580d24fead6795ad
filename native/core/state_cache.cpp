#include "core/state_cache.h"

#include <algorithm>
#include <cstring>

StateCache::StateCache(size_t slots, size_t snapshots, size_t drafts, const std::vector<Layer>& layers)
    : layers_(layers), slots_(slots), snapshots_(snapshots), drafts_(drafts) {
  size_t floats = 0;
  for (const Layer& layer : layers) {
    starts_.push_back(floats);
    floats += slots * (layer.state + drafts * layer.row) + snapshots * layer.state;
  }
  if (floats > 0) memory_ = Memory(floats * sizeof(float), "the states of sequences");
}

size_t StateCache::state_bytes() const {
  size_t floats = 0;
  for (const Layer& layer : layers_) floats += layer.state;
  return floats * sizeof(float);
}

float* StateCache::at(size_t layer, size_t location) const {
  const auto [state, row] = layers_[layer];
  const size_t running = std::min(location, slots()), stored = location - running;
  const size_t offset = starts_[layer] + running * (state + drafts_ * row) + stored * state;
  return reinterpret_cast<float*>(memory_.data()) + offset;
}

void StateCache::read(size_t location, uint8_t* out) const {
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    const size_t bytes = layers_[layer].state * sizeof(float);
    std::memcpy(out, at(layer, location), bytes);
    out += bytes;
  }
}

void StateCache::write(size_t location, const uint8_t* in) {
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    const size_t bytes = layers_[layer].state * sizeof(float);
    std::memcpy(at(layer, location), in, bytes);
    in += bytes;
  }
}

void StateCache::copy(size_t from, size_t to) {
  for (size_t layer = 0; layer < layers_.size(); ++layer)
    std::copy_n(at(layer, from), layers_[layer].state, at(layer, to));
}
