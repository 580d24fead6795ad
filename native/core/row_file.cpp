#include "core/row_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/pack.h"

namespace {

size_t bytes_of_scales(const WeightShape& shape) { return shape.kind == kBf16 ? 0 : shape.cols / shape.group * 2; }

bool reaches(int file, uint64_t at, uint64_t bytes) {
  struct stat status {};
  if (fstat(file, &status) != 0 || status.st_size < 0) return false;
  const auto size = static_cast<uint64_t>(status.st_size);
  return at <= size && bytes <= size - at;
}

// Integers of a row, `bits` wide, a bit stream in little-endian words, less what was added to them.
int integer_at(const uint8_t* values, size_t bits, size_t k) {
  if (bits == 8) return values[k] - 128;
  if (bits == 4) return (values[k / 2] >> (k % 2 * 4) & 15) - 8;
  const size_t bit = bits * k;
  int found = values[bit / 8] >> (bit % 8);
  if (bit % 8 + bits > 8) found |= values[bit / 8 + 1] << (8 - bit % 8);
  return (found & ((1 << bits) - 1)) - (1 << (bits - 1));
}

}  // namespace

RowFile::RowFile(const WeightShape& shape, int values, uint64_t values_at, int scales, uint64_t scales_at,
                 std::string name)
    : shape_(shape),
      value_bytes_(::row_bytes(shape)),
      scale_bytes_(bytes_of_scales(shape)),
      values_at_(values_at),
      scales_at_(scales_at),
      name_(std::move(name)) {
  check_shape(shape);
  REQUIRE(shape.parts.size() == 1 && (shape.kind <= kBf16 || shape.kind == kInt5),
          "rows in a file are bf16 or integers, in one part");
  const uint64_t rows = shape.rows();
  if (!reaches(values, values_at, rows * value_bytes_) || !reaches(scales, scales_at, rows * scale_bytes_))
    throw FileDamaged(name_ + " is shorter than its header says");
  values_ = dup(values);
  scales_ = dup(scales);
  if (values_ >= 0 && scales_ >= 0) return;
  if (values_ >= 0) close(values_);
  throw FileDamaged(name_ + " cannot be kept open");
}

RowFile::~RowFile() {
  close(values_);
  close(scales_);
}

void RowFile::row(size_t row, float* out, uint8_t* room) const {
  REQUIRE(row < shape_.rows(), "row %zu of a matrix of %zu rows", row, shape_.rows());
  uint8_t* scales = room + value_bytes_;
  const bool whole = read_all(room, value_bytes_, values_, values_at_ + row * value_bytes_) &&
                     read_all(scales, scale_bytes_, scales_, scales_at_ + row * scale_bytes_);
  const bool bf16 = shape_.kind == kBf16;
  const bool finite =
      whole && (bf16 ? all_finite(room, shape_.cols, 0x7f80) : all_finite(scales, scale_bytes_ / 2, 0x7c00));
  if (!finite) {
    damage_ = whole ? kNotFinite : kCutShort;
    std::fill_n(out, shape_.cols, 0.0f);
    return;
  }
  if (bf16) {
    for (size_t k = 0; k < shape_.cols; ++k) {
      uint16_t half;
      std::memcpy(&half, room + 2 * k, sizeof half);
      const uint32_t bits = static_cast<uint32_t>(half) << 16;
      std::memcpy(out + k, &bits, sizeof bits);
    }
    return;
  }
  const size_t bits = bits_of(shape_.kind);
  for (size_t k = 0; k < shape_.cols; k += shape_.group) {
    uint16_t half;
    std::memcpy(&half, scales + k / shape_.group * 2, sizeof half);
    const float scale = half_to_float(half);
    for (size_t i = k; i < k + shape_.group; ++i) out[i] = static_cast<float>(integer_at(room, bits, i)) * scale;
  }
}

void RowFile::require_whole() const {
  const Damage damage = damage_.exchange(kNone);
  if (damage == kCutShort) throw FileDamaged(name_ + " was cut short, or cannot be read any more, while it was in use");
  if (damage == kNotFinite) throw FileDamaged(name_ + " holds NaN or infinity");
}
