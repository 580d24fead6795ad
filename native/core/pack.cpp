#include "core/pack.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace {

constexpr size_t kBlock = 16;  // rows of a row block: a vector holds 4 bytes of each

// `count` words of up to 16 rows, `ld` apart, as lines of 16 words: word j of row r at to[16 * j + r].
void gather(uint32_t* to, const uint32_t* from, size_t ld, size_t count, size_t rows) {
  for (size_t j = 0; j < count; ++j)
    for (size_t r = 0; r < rows; ++r) to[kBlock * j + r] = from[r * ld + j];
}

// Nibbles 0..7 of a word, columns 0..7 -> four bytes: column t low, column 4+t high. A perfect shuffle, in two swaps.
void interleave_nibbles(uint32_t* words, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    uint32_t x = words[i];
    uint32_t swap = (x ^ x >> 8) & 0x0000ff00u;
    x ^= swap ^ swap << 8;
    swap = (x ^ x >> 4) & 0x00f000f0u;
    words[i] = x ^ swap ^ swap << 4;
  }
}

using Four = uint32_t __attribute__((vector_size(16)));

// The same of four words at once.
Four interleaved(Four x) {
  Four swap = (x ^ x >> 8) & 0x0000ff00u;
  x ^= swap ^ swap << 8;
  swap = (x ^ x >> 4) & 0x00f000f0u;
  return x ^ swap ^ swap << 4;
}

// Four words of 16 rows, `ld` apart, as the lines to[0] .. to[3] of 16 words; of 4 bits each, their nibbles interleaved.
template <bool nibbles>
void gather_four(uint32_t* const (&to)[4], const uint32_t* from, size_t ld) {
  for (size_t r = 0; r < kBlock; r += 4) {
    Four rows[4];
    for (size_t i = 0; i < 4; ++i) {
      std::memcpy(&rows[i], from + (r + i) * ld, sizeof(Four));
      if (nibbles) rows[i] = interleaved(rows[i]);
    }
    const Four low = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5);
    const Four high = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
    const Four next_low = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
    const Four next_high = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
    const Four lines[4] = {
        __builtin_shufflevector(low, next_low, 0, 1, 4, 5), __builtin_shufflevector(low, next_low, 2, 3, 6, 7),
        __builtin_shufflevector(high, next_high, 0, 1, 4, 5), __builtin_shufflevector(high, next_high, 2, 3, 6, 7)};
    for (size_t i = 0; i < 4; ++i) std::memcpy(to[i] + r, &lines[i], sizeof(Four));
  }
}

// A group of a whole panel, of 4 or 8 bits: `words` words of a row, a multiple of 4, in runs of `run`.
template <bool nibbles>
void pack_group(uint32_t* lines, const uint32_t* values, size_t ld, size_t words) {
  constexpr size_t run = nibbles ? 1 : 2;
  for (size_t j = 0; j < words; j += 4)
    for (size_t half = 0; half < kPanelRows / kBlock; ++half) {
      const auto line = [&](size_t word) { return lines + ((word / run * 2 + half) * run + word % run) * kBlock; };
      uint32_t* const to[4] = {line(j), line(j + 1), line(j + 2), line(j + 3)};
      gather_four<nibbles>(to, values + half * kBlock * ld + j, ld);
    }
}

// Eight 3-bit values -> one a byte.
uint64_t spread_triples(uint64_t x) {
  x = (x & 0xfff) | (x & 0xfff000) << 20;
  x = (x & 0x0000003f0000003f) | (x & 0x00000fc000000fc0) << 10;
  return (x & 0x0007000700070007) | (x & 0x0038003800380038) << 5;
}

// 32 columns are three words. A pair holds v[2i] (columns 8i .. 8i+3, one a byte) low and v[2i+1] high; the planes are
// those of block.h, whose upper halves hold the odd v as the lower ones hold the even. In place on three lines of 16.
void spread_planes(uint32_t* words) {
  constexpr uint64_t one = 0x0101010101010101, two = 0x0303030303030303;
  for (size_t r = 0; r < kBlock; ++r) {
    uint32_t* w = words + r;
    const uint64_t low = w[0] | static_cast<uint64_t>(w[kBlock]) << 32;
    const uint64_t high = w[kBlock] >> 16 | static_cast<uint64_t>(w[2 * kBlock]) << 16;
    const uint64_t v01 = spread_triples(low & 0xffffff), v23 = spread_triples(low >> 24 & 0xffffff);
    const uint64_t v45 = spread_triples(high & 0xffffff), v67 = spread_triples(high >> 24);
    const uint64_t planes[3] = {
        (v01 & two) | (v23 >> 1 & two) << 2,
        (v45 & two) | (v67 >> 1 & two) << 2,
        (v67 & one) | (v23 & one) << 1 | (v01 >> 2 & one) << 2 | (v45 >> 2 & one) << 3,
    };
    for (size_t i = 0; i < 3; ++i) w[i * kBlock] = static_cast<uint32_t>(planes[i] | planes[i] >> 28);
  }
}

// Four 5-bit values -> one a byte.
uint32_t spread_fives(uint32_t x) {
  x = (x & 0x3ff) | (x & 0xffc00) << 6;
  return (x & 0x001f001f) | (x & 0x03e003e0) << 3;
}

// 32 columns are five words: eight times four values, v0 .. v7 of block.h. In place on five lines of 16.
void spread_fives(uint32_t* words) {
  constexpr uint32_t one = 0x01010101;
  for (size_t r = 0; r < kBlock; ++r) {
    uint32_t* w = words + r;
    uint32_t plane = 0, lines[4];
    for (size_t j = 0; j < 4; ++j) {
      uint32_t v[2];
      for (size_t half = 0; half < 2; ++half) {
        const size_t bit = 20 * (2 * j + half), word = bit / 32, shift = bit % 32;
        const uint64_t both = w[word * kBlock] | static_cast<uint64_t>(w[std::min<size_t>(word + 1, 4) * kBlock]) << 32;
        v[half] = spread_fives(static_cast<uint32_t>(both >> shift) & 0xfffff);
      }
      lines[j] = (v[0] & 15 * one) | (v[1] >> 1 & 15 * one) << 4;
      plane |= ((v[1] & one) | (v[0] >> 4 & one) << 4) << j;
    }
    for (size_t j = 0; j < 4; ++j) w[j * kBlock] = lines[j];
    w[4 * kBlock] = plane;
  }
}

// The rows of one panel, as they are stored.
struct PanelRows {
  const uint8_t* values;
  const uint8_t* scales;
  const uint8_t* minima;   // affine: both
  const uint8_t* factors;
  size_t count;  // up to 32; rows past it are zero already, which is what padding needs: its scale is 0
};

// What affine weights have before their tiles.
void pack_lines(uint8_t* panel, const WeightShape& shape, const PanelRows& rows) {
  const size_t count = shape.cols / shape.wide;
  const auto* scales = reinterpret_cast<const uint16_t*>(rows.scales);
  const auto* minima = reinterpret_cast<const uint16_t*>(rows.minima);
  auto* to = reinterpret_cast<uint16_t*>(panel);
  for (size_t i = 0; i < count; ++i, to += 2 * kPanelRows)
    for (size_t r = 0; r < rows.count; ++r) {
      to[r] = scales[r * count + i];
      to[kPanelRows + r] = minima[r * count + i];
    }
}

// The same of MXFP4.
void pack_exponents(uint8_t* panel, const WeightShape& shape, const PanelRows& rows) {
  const size_t groups = shape.cols / shape.group;
  for (size_t g = 0; g < groups; ++g, panel += kPanelRows)
    for (size_t r = 0; r < rows.count; ++r) panel[r] = rows.scales[r * groups + g];
}

void pack_panel_int(uint8_t* panel, const WeightShape& shape, const PanelRows& rows) {
  const bool affine = is_affine(shape.kind), integers = !affine && shape.kind != kMxfp4;
  if (affine) pack_lines(panel, shape, rows);
  if (shape.kind == kMxfp4) pack_exponents(panel, shape, rows);
  const size_t group = shape.group, groups = shape.cols / group;
  const size_t bits = bits_of(shape.kind), run = bits == 4 ? 1 : bits == 8 ? 2 : bits;  // words of a row in a run
  const size_t words = group * bits / 32, ld = row_bytes(shape) / 4;  // of a row and group, of a row
  const auto* values = reinterpret_cast<const uint32_t*>(rows.values);
  const auto* scales = reinterpret_cast<const uint16_t*>(rows.scales);
  auto* lines = reinterpret_cast<uint32_t*>(panel + shape.lines_bytes());
  for (size_t g = 0; g < groups; ++g) {
    auto* to = reinterpret_cast<uint16_t*>(lines);
    auto* bytes = reinterpret_cast<uint8_t*>(lines);
    for (size_t r = 0; r < rows.count && affine; ++r) {
      bytes[r] = rows.factors[(r * groups + g) * 2];
      bytes[kPanelRows + r] = rows.factors[(r * groups + g) * 2 + 1];
    }
    for (size_t r = 0; r < rows.count && integers; ++r) to[r] = scales[r * groups + g];
    if (shape.kind != kMxfp4) lines += kBlock;
    if (rows.count == kPanelRows && run <= 2) {
      (shape.kind == kInt8 ? pack_group<false> : pack_group<true>)(lines, values + g * words, ld, words);
      lines += words * kPanelRows;
      continue;
    }
    for (size_t j = 0; j < words; j += run)
      for (size_t start = 0; start < kPanelRows; start += kBlock, lines += kBlock * run) {
        if (start >= rows.count) continue;
        gather(lines, values + start * ld + g * words + j, ld, run, std::min(kBlock, rows.count - start));
        if (bits == 4) interleave_nibbles(lines, kBlock);
        if (bits == 3) spread_planes(lines);
        if (bits == 5) spread_fives(lines);
      }
  }
}

// A transpose, a square at a time so that both sides stay in the nearest cache.
void pack_panel_bf16(uint8_t* panel, const WeightShape& shape, const PanelRows& rows) {
  const auto* from = reinterpret_cast<const uint16_t*>(rows.values);
  auto* to = reinterpret_cast<uint16_t*>(panel);
  for (size_t start = 0; start < shape.cols; start += 32) {
    const size_t end = std::min(start + 32, shape.cols);
    for (size_t r = 0; r < rows.count; ++r)
      for (size_t k = start; k < end; ++k) to[k * kPanelRows + r] = from[r * shape.cols + k];
  }
}

// `count` rows of `size` bytes from row `first` on: where they lie, or read into `buffer`. Null: they cannot be had.
const uint8_t* take_rows(const StoredRows& rows, size_t size, size_t first, size_t count, uint8_t* buffer,
                         uint16_t infinity) {
  if (rows.memory != nullptr) return rows.memory + first * size;
  if (!read_all(buffer, count * size, rows.file, rows.offset + first * size)) return nullptr;
  return infinity == 0 || all_finite(buffer, count * size / 2, infinity) ? buffer : nullptr;
}

struct Packer {
  const WeightShape& shape;
  const std::vector<StoredPart>& parts;
  Weight& weight;
  size_t value_bytes = row_bytes(shape);
  size_t scale_bytes = bytes_of_scales();

  size_t bytes_of_scales() const {
    if (shape.kind == kBf16) return 0;
    if (shape.kind == kMxfp4) return shape.cols / shape.group;
    return shape.cols / (is_affine(shape.kind) ? shape.wide : shape.group) * 2;
  }

  size_t buffer_bytes() const { return kPanelRows * (value_bytes + scale_bytes); }

  // Panel i of part p. False: its file cannot be read, or is not finite.
  bool pack_panel(size_t p, size_t i, uint8_t* buffer) const {
    const size_t first = i * kPanelRows;
    PanelRows rows{};
    rows.count = std::min<size_t>(kPanelRows, shape.parts[p] - first);
    rows.values = take_rows(parts[p].values, value_bytes, first, rows.count, buffer, shape.kind == kBf16 ? 0x7f80 : 0);
    if (rows.values == nullptr) return false;
    uint8_t* panel = weight.memory.data + shape.panel_of(p, i) * weight.panel_bytes;
    if (shape.kind == kBf16) {
      pack_panel_bf16(panel, shape, rows);
      return true;
    }
    buffer += kPanelRows * value_bytes;
    rows.scales = take_rows(parts[p].scales, scale_bytes, first, rows.count, buffer, 0x7c00);
    if (rows.scales == nullptr) return false;
    if (is_affine(shape.kind)) {
      rows.minima = parts[p].minima.memory + first * scale_bytes;
      rows.factors = parts[p].factors.memory + first * (shape.cols / shape.group * 2);
    }
    pack_panel_int(panel, shape, rows);
    return true;
  }

  // The same, by its number among all panels.
  bool pack_panel(size_t panel, uint8_t* buffer) const {
    if (shape.interleaved) return pack_panel(panel % 2, panel / 2, buffer);
    size_t p = 0;
    for (; p + 1 < parts.size() && panel >= shape.panel_of(p + 1, 0); ++p) {
    }
    return pack_panel(p, panel - shape.panel_of(p, 0), buffer);
  }
};

struct alignas(64) Cursor {
  std::atomic<size_t> next{0};
  size_t end = 0;
};

// f(i, thread) for each i < n. Each thread begins with the part of the panels that a step gives it, then helps others.
template <class F>
void for_each_panel(Pool& pool, size_t n, const F& f) {
  const size_t threads = pool.threads();
  std::vector<Cursor> cursors(threads);
  for (size_t id = 0; id < threads; ++id) {
    cursors[id].next = n * id / threads;
    cursors[id].end = n * (id + 1) / threads;
  }
  pool.each([&](size_t id) {
    for (size_t k = 0; k < threads; ++k) {
      Cursor& cursor = cursors[(id + k) % threads];
      for (size_t i; (i = cursor.next.fetch_add(1, std::memory_order_relaxed)) < cursor.end;) f(i, id);
    }
  });
}

}  // namespace

bool all_finite(const uint8_t* bytes, size_t count, uint16_t infinity) {
  const auto* values = reinterpret_cast<const uint16_t*>(bytes);
  bool found = false;
  for (size_t i = 0; i < count; ++i) found |= (values[i] & infinity) == infinity;
  return !found;
}

bool read_all(uint8_t* to, size_t size, int file, uint64_t offset) {
  while (size > 0) {
    const ssize_t got = pread(file, to, size, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    to += got;
    size -= static_cast<size_t>(got);
    offset += static_cast<uint64_t>(got);
  }
  return true;
}

std::shared_ptr<Weight> pack(const WeightShape& shape, const std::vector<StoredPart>& parts, Pool& pool) {
  check_shape(shape);
  REQUIRE(parts.size() == shape.parts.size(), "%zu parts, but %zu row counts", parts.size(), shape.parts.size());
  auto weight = std::make_shared<Weight>();
  weight->shape = shape;
  weight->panels = shape.panels();
  weight->panel_bytes = shape.panel_bytes();
  weight->memory = take_piece(weight->bytes(), "weights");
  const Packer packer{shape, parts, *weight};
  std::atomic<bool> intact{true};
  constexpr size_t worth_a_thread = size_t{128} << 10;
  const size_t threads = weight->bytes() < worth_a_thread ? 1 : pool.threads();
  std::vector<Memory> buffers;
  for (size_t id = 0; id < threads; ++id) buffers.emplace_back(packer.buffer_bytes(), "reading weights");
  const auto pack_one = [&](size_t i, size_t id) {
    if (intact.load(std::memory_order_relaxed) && !packer.pack_panel(i, buffers[id].data())) intact = false;
  };
  if (threads == 1)
    for (size_t i = 0; i < weight->panels; ++i) pack_one(i, 0);
  else
    for_each_panel(pool, weight->panels, pack_one);
  return intact ? weight : nullptr;
}
