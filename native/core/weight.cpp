#include "core/weight.h"

#include <cstring>
#include <limits>
#include <numeric>

#include "core/error.h"

namespace {

constexpr size_t kMaxSide = size_t{1} << 28;  // far above any model; keeps every product below 2^64

size_t panels_for(size_t rows) { return (rows + kPanelRows - 1) / kPanelRows; }

float bf16_to_float(uint16_t value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

uint16_t read_u16(const uint8_t* at) {
  uint16_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// The stored value, without its offset, of row `r` of the panel, `k` columns into the tile at `tile`.
int tile_value(WeightKind kind, const uint8_t* tile, size_t r, size_t k) {
  const size_t block = r / 16, lane = (r % 16) * 4;
  const uint8_t* data = tile + (kind == kMxfp4 ? 0 : 2 * kPanelRows);
  if (kind == kInt8) return data[(k / 8 * 4 + block * 2 + k / 4 % 2) * 64 + lane + k % 4] - 128;
  if (bits_of(kind) == 4) {
    const uint8_t pair = data[(k / 8 * 2 + block) * 64 + lane + k % 4];
    const int code = k % 8 < 4 ? pair & 15 : pair >> 4;
    constexpr int twice[] = {0, 1, 2, 3, 4, 6, 8, 12};
    if (kind == kMxfp4) return code < 8 ? twice[code] : -twice[code - 8];
    return code - (kind == kInt4 ? 8 : 0);
  }
  if (bits_of(kind) == 5) {
    const uint8_t* run = data + (k / 32 * 2 + block) * 320 + lane + k % 4;
    const int x = run[k % 32 / 8 * 64], h = run[256] >> k % 32 / 8;
    const int code = k % 8 < 4 ? (x & 15) | (h & 16) : (x >> 3 & 30) | (h & 1);
    return code - (kind == kInt5 ? 16 : 0);
  }
  const uint8_t* plane = data + (k / 32 * 2 + block) * 192 + lane + k % 4;
  const int l0 = plane[0], l1 = plane[64], h = plane[128];
  switch (k % 32 / 4) {
    case 0: return ((l0 & 3) | ((h >> 2 & 1) << 2)) - 4;
    case 1: return ((l0 >> 4 & 3) | ((h >> 6 & 1) << 2)) - 4;
    case 2: return ((h >> 1 & 1) | ((l0 >> 2 & 3) << 1)) - 4;
    case 3: return ((h >> 5 & 1) | ((l0 >> 6 & 3) << 1)) - 4;
    case 4: return ((l1 & 3) | ((h >> 3 & 1) << 2)) - 4;
    case 5: return ((l1 >> 4 & 3) | ((h >> 7 & 1) << 2)) - 4;
    case 6: return ((h & 1) | ((l1 >> 2 & 3) << 1)) - 4;
    default: return ((h >> 4 & 1) | ((l1 >> 6 & 3) << 1)) - 4;
  }
}

}  // namespace

const char* kind_name(WeightKind kind) {
  switch (kind) {
    case kInt4: return "int4";
    case kInt3: return "int3";
    case kInt8: return "int8";
    case kInt5: return "int5";
    case kAffine4: return "affine4";
    case kAffine5: return "affine5";
    case kMxfp4: return "mxfp4";
    default: return "bf16";
  }
}

size_t bits_of(WeightKind kind) {
  switch (kind) {
    case kInt4:
    case kAffine4:
    case kMxfp4: return 4;
    case kInt3: return 3;
    case kInt5:
    case kAffine5: return 5;
    case kInt8: return 8;
    default: return 16;
  }
}

WeightKind kind_of(size_t bits, bool affine) {
  REQUIRE(!affine || bits == 4 || bits == 5, "affine weights have 4 or 5 bits, not %zu", bits);
  switch (bits) {
    case 3: return kInt3;
    case 4: return affine ? kAffine4 : kInt4;
    case 5: return affine ? kAffine5 : kInt5;
    case 8: return kInt8;
    case 16: return kBf16;
    default: REQUIRE(false, "bits is %zu, but must be 3, 4, 5, 8 or 16", bits);
  }
  return kBf16;
}

bool is_affine(WeightKind kind) { return kind == kAffine4 || kind == kAffine5; }

float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = half >> 10 & 31, fraction = half & 0x3ff;
  float result;
  if (exponent == 0) {  // zero and subnormals: a whole number of 2^-24
    result = static_cast<float>(fraction) * 0x1p-24f;
    return sign != 0 ? -result : result;
  }
  const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

size_t WeightShape::rows() const { return std::accumulate(parts.begin(), parts.end(), size_t{0}); }

size_t WeightShape::panels() const {
  size_t n = 0;
  for (const size_t rows : parts) n += panels_for(rows);
  return n;
}

size_t WeightShape::panel_bytes() const {
  if (kind == kBf16) return cols * 2 * kPanelRows;
  return lines_bytes() + cols / group * tile_bytes();
}

size_t WeightShape::lines_bytes() const {
  if (kind == kMxfp4) return (cols / group + 1) / 2 * 2 * kPanelRows;
  return is_affine(kind) ? cols / wide * 4 * kPanelRows : 0;
}

size_t WeightShape::tile_bytes() const {
  return (kind == kMxfp4 ? 0 : 2 * kPanelRows) + kPanelRows * group * bits_of(kind) / 8;
}

size_t WeightShape::panel_of(size_t part, size_t i) const {
  if (interleaved) return 2 * i + part;
  for (size_t p = 0; p < part; ++p) i += panels_for(parts[p]);
  return i;
}

size_t row_bytes(const WeightShape& shape) {
  return shape.kind == kBf16 ? shape.cols * 2 : shape.cols * bits_of(shape.kind) / 32 * 4;
}

void check_shape(const WeightShape& shape) {
  REQUIRE(!shape.parts.empty(), "a weight needs at least one part");
  REQUIRE(shape.cols > 0 && shape.cols <= kMaxSide, "a weight has %zu columns", shape.cols);
  for (const size_t rows : shape.parts) REQUIRE(rows > 0 && rows <= kMaxSide, "a part of a weight has %zu rows", rows);
  REQUIRE(shape.parts.size() <= 64, "a weight has %zu parts, 64 is the limit", shape.parts.size());
  if (shape.kind != kBf16) {
    REQUIRE(shape.group == 32 || shape.group == 64 || shape.group == 128, "group is %zu, but must be 32, 64 or 128",
            shape.group);
    REQUIRE(shape.cols % shape.group == 0, "%zu columns are not whole groups of %zu", shape.cols, shape.group);
  }
  if (shape.kind == kMxfp4) REQUIRE(shape.group == 32, "group is %zu, but that of MXFP4 is 32", shape.group);
  if (is_affine(shape.kind))
    REQUIRE(shape.wide >= shape.group && shape.wide <= 8 * shape.group && shape.wide % shape.group == 0 &&
                (shape.wide & (shape.wide - 1)) == 0 && shape.cols % shape.wide == 0,
            "%zu columns share a scale, but must be the group of %zu times 1, 2, 4 or 8, and divide %zu", shape.wide,
            shape.group, shape.cols);
  if (shape.kind != kBf16)
    REQUIRE(shape.activation_bits == 8 || (shape.activation_bits == 16 && shape.kind == kInt8),
            "activation_bits is %zu, but must be 8, or 16 for int8 weights; these are %s", shape.activation_bits,
            kind_name(shape.kind));
  if (shape.interleaved)
    REQUIRE(shape.parts.size() == 2 && shape.parts[0] == shape.parts[1],
            "interleaving needs two parts of the same number of rows");
}

std::shared_ptr<Weight> without_values(const Weight& weight) {
  auto bare = std::make_shared<Weight>();
  bare->shape = weight.shape;
  bare->panels = weight.panels;
  bare->panel_bytes = weight.panel_bytes;
  return bare;
}

void Weight::row(size_t row, float* out) const {
  REQUIRE(memory.data != nullptr, "a row of a weight that has no values here");
  REQUIRE(row < shape.rows(), "row %zu of a weight of %zu rows", row, shape.rows());
  size_t part = 0;
  for (; row >= shape.parts[part]; ++part) row -= shape.parts[part];
  const uint8_t* at = panel(shape.panel_of(part, row / kPanelRows));
  const size_t r = row % kPanelRows;
  if (shape.kind == kBf16) {
    for (size_t k = 0; k < shape.cols; ++k) out[k] = bf16_to_float(read_u16(at + 2 * (k * kPanelRows + r)));
    return;
  }
  const uint8_t* lines = at;
  at += shape.lines_bytes();
  for (size_t k = 0; k < shape.cols; k += shape.group, at += shape.tile_bytes()) {
    float scale = half_to_float(read_u16(at + 2 * r)), minimum = 0;
    if (shape.kind == kMxfp4) {
      const uint32_t bits = static_cast<uint32_t>(lines[k / shape.group * kPanelRows + r]) << 23;
      std::memcpy(&scale, &bits, sizeof scale);
    } else if (is_affine(shape.kind)) {
      const uint8_t* line = lines + k / shape.wide * 4 * kPanelRows + 2 * r;
      scale = half_to_float(read_u16(line)) * static_cast<float>(at[r]);
      minimum = half_to_float(read_u16(line + 2 * kPanelRows)) * static_cast<float>(at[kPanelRows + r]);
    }
    for (size_t i = 0; i < shape.group; ++i) {
      const float value = static_cast<float>(tile_value(shape.kind, at, r, i)) * scale;
      out[k + i] = is_affine(shape.kind) ? value + minimum : value;
    }
  }
}
