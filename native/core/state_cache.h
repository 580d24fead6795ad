// What sequences keep of recurrent operations, beside keys and values: a slot a sequence, a place a snapshot. Which slot
// is whose is decided above.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/memory.h"

class StateCache {
 public:
  // Floats of one operation: its state, and what it keeps of a drafted row until it is known to be right.
  struct Layer {
    size_t state;
    size_t row;
  };

  StateCache() = default;
  // Places [0, slots) run; they keep up to `drafts` drafted rows. The `snapshots` after them hold states only. Throws
  // OutOfMemory.
  StateCache(size_t slots, size_t snapshots, size_t drafts, const std::vector<Layer>& layers);

  size_t slots() const { return slots_.size(); }
  size_t locations() const { return slots() + snapshots_; }
  size_t drafts() const { return drafts_; }
  size_t bytes() const { return memory_.size(); }
  // Bytes of one state, all operations together: what a snapshot takes.
  size_t state_bytes() const;
  // The state of operation `layer` in a place; in a slot its drafted rows follow.
  float* at(size_t layer, size_t location) const;
  // One state, operation by operation, out of its place and into it; and from one place to another.
  void read(size_t location, uint8_t* out) const;
  void write(size_t location, const uint8_t* in);
  void copy(size_t from, size_t to);

  struct Slot {
    int64_t position = 0;  // of the next row; -1: a step was left, and the state is of no use
    int64_t firm = 0;      // in a step: the position of its first drafted row
    size_t kept = 0;       // drafted rows that can still be taken over
  };
  Slot& slot(size_t i) { return slots_[i]; }
  const Slot& slot(size_t i) const { return slots_[i]; }

 private:
  Memory memory_;
  std::vector<Layer> layers_;
  std::vector<size_t> starts_;  // of each operation, in floats; first the slots', then the snapshots'
  std::vector<Slot> slots_;
  size_t snapshots_ = 0, drafts_ = 0;
};
