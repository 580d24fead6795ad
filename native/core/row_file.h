// A matrix that stays in its file: a row is read when it is asked for, and none is kept here. Read, not mapped: a file
// that is cut short under a map would end the process.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "core/weight.h"

// A row could not be had; the message says of which file.
class FileDamaged : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class RowFile {
 public:
  // bf16, or integers as `pack` takes them, of one part; both files stay open. Throws std::invalid_argument for a shape
  // that cannot be read, FileDamaged where a file does not reach so far. `name` is for people.
  RowFile(const WeightShape& shape, int values, uint64_t values_at, int scales, uint64_t scales_at, std::string name);
  ~RowFile();
  RowFile(const RowFile&) = delete;
  RowFile& operator=(const RowFile&) = delete;

  const WeightShape& shape() const { return shape_; }
  size_t row_bytes() const { return value_bytes_ + scale_bytes_; }
  size_t bytes() const { return shape_.rows() * row_bytes(); }

  // As Weight::row, the same bits. `room` has row_bytes(), on a border of 8. What cannot be read, or is not finite, is
  // kept in mind and becomes zeros.
  void row(size_t row, float* out, uint8_t* room) const;
  // Throws FileDamaged if that has happened since the last time.
  void require_whole() const;

 private:
  enum Damage { kNone, kCutShort, kNotFinite };

  const WeightShape shape_;
  const size_t value_bytes_, scale_bytes_;
  const uint64_t values_at_, scales_at_;
  const std::string name_;
  int values_ = -1, scales_ = -1;
  mutable std::atomic<Damage> damage_{kNone};
};
