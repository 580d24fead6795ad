// Experts that do not all fit into memory: packed, they lie in a file, and are read into slots when a step wants them.
// Read, not mapped, as in row_file.h: a file that is cut short is an error of a step, and what is held is counted.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/memory.h"

class ExpertPool {
 public:
  // Experts of one operation, one after the other: the first begins at byte `at`, each takes `bytes`.
  struct Layer {
    uint64_t at;
    size_t experts, bytes;
  };
  static constexpr size_t kParts = 4;  // that an expert is read in, by different threads

  // As many slots as `bytes` has room for, but enough for all experts of any layer. The file stays open. Throws
  // std::invalid_argument, OutOfMemory, and FileDamaged where it does not reach so far. `name` is for people.
  ExpertPool(int file, std::string name, const std::vector<Layer>& layers, size_t bytes);
  ~ExpertPool();
  ExpertPool(const ExpertPool&) = delete;
  ExpertPool& operator=(const ExpertPool&) = delete;

  const std::vector<Layer>& layers() const { return layers_; }

  // In a step, one layer after the other. `want`, by one thread: these experts of a layer get slots. Then `read` for each
  // i below kParts * count, by any threads; when all are back, `data` is where an expert lies.
  void want(size_t layer, const size_t* experts, size_t count);
  void read(size_t i);
  const uint8_t* data(size_t layer, size_t expert) const { return slot(slot_of_[first_[layer] + expert]); }
  // After a step: what was not read to its end is forgotten. Throws FileDamaged if the file is why.
  void settle();

  struct Counts {
    size_t experts, held;          // of all layers; of these in memory
    uint64_t bytes, held_bytes;    // the same in bytes
    uint64_t wanted, read;         // by steps so far: experts, and those of them that were not held
    uint64_t read_bytes;
  };
  Counts counts() const;
  size_t slots() const { return slots_.size(); }
  size_t bytes() const { return memory_.size(); }

 private:
  static constexpr int32_t kNone = -1;
  struct Slot {
    int32_t expert = kNone;  // of all layers
    uint32_t layer = 0;
    uint64_t used = 0;  // the visit of its layer that used it last
  };
  struct Missing {
    size_t layer, expert;
  };

  uint8_t* slot(int32_t i) const { return memory_.data() + static_cast<size_t>(i) * slot_bytes_; }
  int32_t take_slot(size_t layer);
  void forget(size_t expert);
  void forget_unread();

  const std::string name_;
  const std::vector<Layer> layers_;
  std::vector<size_t> first_;  // of each layer's experts among all
  size_t slot_bytes_ = 0;
  Memory memory_;
  std::vector<Slot> slots_;
  std::vector<int32_t> slot_of_;  // of each expert, or kNone
  std::vector<uint64_t> visits_;  // of each layer
  std::vector<Missing> missing_;  // of the layer that is under way
  std::atomic<size_t> done_{0};   // parts of them that were read
  std::atomic<bool> damaged_{false};
  std::atomic<size_t> held_{0};
  std::atomic<uint64_t> held_bytes_{0}, wanted_{0}, read_{0}, read_bytes_{0};
  int file_ = -1;
};
