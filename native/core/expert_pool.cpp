#include "core/expert_pool.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/pack.h"
#include "core/row_file.h"

namespace {

constexpr size_t kMostLayers = 4096, kMostExperts = 4096, kMostBytes = size_t{1} << 32;

uint64_t size_of(int file) {
  struct stat status {};
  return fstat(file, &status) == 0 && status.st_size > 0 ? static_cast<uint64_t>(status.st_size) : 0;
}

}  // namespace

ExpertPool::ExpertPool(int file, std::string name, const std::vector<Layer>& layers, size_t bytes)
    : name_(std::move(name)), layers_(layers), visits_(layers.size(), 0) {
  REQUIRE(!layers.empty() && layers.size() <= kMostLayers, "%zu layers with experts", layers.size());
  const uint64_t end = size_of(file);
  size_t most = 0, all = 0;
  for (const Layer& layer : layers) {
    REQUIRE(layer.experts > 0 && layer.experts <= kMostExperts, "%zu experts in a layer", layer.experts);
    REQUIRE(layer.bytes > 0 && layer.bytes <= kMostBytes && layer.bytes % kLine == 0, "an expert of %zu bytes",
            layer.bytes);
    const uint64_t size = uint64_t{layer.bytes} * layer.experts;
    if (layer.at > end || size > end - layer.at) throw FileDamaged(name_ + " is shorter than its layers need");
    first_.push_back(all);
    all += layer.experts;
    most = std::max(most, layer.experts);
    slot_bytes_ = std::max(slot_bytes_, layer.bytes);
  }
  const size_t count = std::min(std::max(bytes / slot_bytes_, most), all);
  memory_ = Memory(count * slot_bytes_, "experts");
  slots_.resize(count);
  slot_of_.assign(all, kNone);
  file_ = dup(file);
  if (file_ < 0) throw FileDamaged(name_ + " cannot be kept open");
#if defined(POSIX_FADV_RANDOM)
  (void)posix_fadvise(file_, 0, 0, POSIX_FADV_RANDOM);  // experts are far apart: nothing behind one is wanted next
#endif
}

ExpertPool::~ExpertPool() {
  if (file_ >= 0) close(file_);
}

void ExpertPool::want(size_t layer, const size_t* experts, size_t count) {
  forget_unread();
  const uint64_t visit = ++visits_[layer];
  for (size_t i = 0; i < count; ++i) {
    const int32_t held = slot_of_[first_[layer] + experts[i]];
    if (held == kNone)
      missing_.push_back({layer, experts[i]});
    else
      slots_[static_cast<size_t>(held)].used = visit;
  }
  wanted_ += count;
  read_ += missing_.size();
  for (const Missing& one : missing_) {
    const size_t expert = first_[layer] + one.expert;
    const int32_t found = take_slot(layer);
    slots_[static_cast<size_t>(found)] = {static_cast<int32_t>(expert), static_cast<uint32_t>(layer), visit};
    slot_of_[expert] = found;
    ++held_;
    held_bytes_ += layers_[layer].bytes;
#if defined(POSIX_FADV_WILLNEED)
    // All at once, so that the disk has more to do than there are threads that wait for it.
    const Layer& from = layers_[layer];
    (void)posix_fadvise(file_, static_cast<off_t>(from.at + one.expert * from.bytes), static_cast<off_t>(from.bytes),
                        POSIX_FADV_WILLNEED);
#endif
  }
}

// A slot for an expert of `layer`. It holds nothing, or what has been passed over by the most visits of its layer; of
// equals, that whose layer is the last to come again: where all experts are wanted in turn, some of them then stay.
int32_t ExpertPool::take_slot(size_t layer) {
  size_t best = slots_.size();
  uint64_t most = 0;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot& one = slots_[i];
    if (one.expert == kNone) return static_cast<int32_t>(i);
    const uint64_t passed = visits_[one.layer] - one.used;
    if (one.layer == layer && passed == 0) continue;  // wanted now
    const size_t ahead = (one.layer + layers_.size() - layer - 1) % layers_.size();
    const uint64_t worth = passed * layers_.size() + ahead + 1;
    if (worth > most) most = worth, best = i;
  }
  forget(static_cast<size_t>(slots_[best].expert));  // there is one: a layer has no more experts than there are slots
  return static_cast<int32_t>(best);
}

void ExpertPool::read(size_t i) {
  const size_t number = i / kParts, part = i % kParts;
  if (number >= missing_.size()) return;
  const auto [layer, expert] = missing_[number];
  const size_t bytes = layers_[layer].bytes;
  const size_t begin = bytes / kLine * part / kParts * kLine, end = bytes / kLine * (part + 1) / kParts * kLine;
  const uint64_t at = layers_[layer].at + expert * uint64_t{bytes} + begin;
  uint8_t* to = slot(slot_of_[first_[layer] + expert]) + begin;
  if (!read_all(to, end - begin, file_, at)) {
    damaged_ = true;
    std::fill_n(to, end - begin, uint8_t{0});
    return;
  }
  read_bytes_ += end - begin;
  ++done_;
}

void ExpertPool::forget(size_t expert) {
  const int32_t held = std::exchange(slot_of_[expert], kNone);
  if (held == kNone) return;
  Slot& one = slots_[static_cast<size_t>(held)];
  --held_;
  held_bytes_ -= layers_[one.layer].bytes;
  one = {};
}

// A step may end between `want` and `read`: what was not read to its end is not held.
void ExpertPool::forget_unread() {
  if (done_ != missing_.size() * kParts)
    for (const Missing& one : missing_) forget(first_[one.layer] + one.expert);
  missing_.clear();
  done_ = 0;
}

void ExpertPool::settle() {
  forget_unread();
  if (damaged_.exchange(false))
    throw FileDamaged(name_ + " was cut short, or cannot be read any more, while it was in use");
}

ExpertPool::Counts ExpertPool::counts() const {
  uint64_t all = 0;
  for (const Layer& layer : layers_) all += uint64_t{layer.bytes} * layer.experts;
  return {slot_of_.size(), held_, all, held_bytes_, wanted_, read_, read_bytes_};
}
