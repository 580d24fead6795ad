// The KV cache and attention against the scalar ones.
#include <cmath>

#include "bits.h"

namespace {

constexpr size_t kSplitBlocks = kKvChunk / kKvBlock;

size_t block_bytes(size_t bits, size_t head_dim) {
  if (bits == 4) return 36 * head_dim;
  return bits == 8 ? 2 * kKvBlock * head_dim + 2 * kKvBlock * sizeof(float) : 4 * kKvBlock * head_dim;
}

auto put_of(const KernelTable& k, size_t bits) { return bits == 4 ? k.kv_put_4 : bits == 8 ? k.kv_put_8 : k.kv_put_16; }

auto attend_of(const KernelTable& k, size_t bits) { return bits == 4 ? k.attend_4 : bits == 8 ? k.attend_8 : k.attend_16; }

struct Shape {
  size_t bits, head_dim, heads, rows, split, position, window;
  int fold;
  bool odd;  // strange keys, values and queries
  std::string text() const {
    char all[160];
    std::snprintf(all, sizeof all, "attend_%zu head_dim %zu heads %zu rows %zu split %zu position %zu window %zu fold %d %s",
                  bits, head_dim, heads, rows, split, position, window, fold, odd ? "odd" : "");
    return all;
  }
};

// What a job reads, and one set of results.
struct Case {
  Shape shape;
  Aligned cache;
  const uint8_t* blocks[kSplitBlocks];
  Floats q;
  std::vector<int8_t> q8;
  Floats scale;
  std::vector<int32_t> sum;

  Case(const KernelTable& k, const Shape& s, Random& random)
      : shape(s), cache(kSplitBlocks * block_bytes(s.bits, s.head_dim)), q(some(random, s.rows * s.heads * s.head_dim, 2)),
        q8(q.size()), scale(s.rows * s.heads), sum(scale.size()) {
    const size_t one = block_bytes(s.bits, s.head_dim), d = s.head_dim;
    for (size_t i = 0; i < kSplitBlocks * one; ++i) cache.data()[i] = 0xff;  // unwritten slots hold NaN
    for (size_t b = 0; b < kSplitBlocks; ++b) blocks[b] = cache.data() + b * one;
    const size_t last = s.position + s.rows;  // tokens that the last row sees
    for (size_t t = s.split * kKvChunk; t < last && t < (s.split + 1) * kKvChunk; ++t) {
      const bool strange_one = s.odd && random.below(20) == 0;
      const Floats key = strange_one ? strange(random, d) : some(random, d, 2);
      const Floats value = strange_one ? strange(random, d) : some(random, d, 2);
      uint8_t* block = cache.data() + t % kKvChunk / kKvBlock * one;
      put_of(k, s.bits)(block, t % kKvBlock, key.data(), value.data(), d);
    }
    if (s.odd) q[5] = NAN;
    for (size_t i = 0; i < scale.size(); ++i) {
      k.quantize(q8.data() + i * d, &scale[i], &sum[i], q.data() + i * d, d, d);
      scale[i] *= 0.125f;
    }
  }

  void run(const KernelTable& k, float* m, float* l, float* acc, size_t ldm, size_t lda) const {
    Aligned room(kAttendRoom * sizeof(float));
    AttendJob job{};
    job.room = reinterpret_cast<float*>(room.data());
    job.blocks = blocks;
    job.kv_split = shape.split;
    job.position = shape.position;
    job.window = shape.window;
    job.rows = shape.rows;
    job.heads = shape.heads;
    job.head_dim = shape.head_dim;
    job.q = q.data();
    job.q8 = q8.data();
    job.ldq = shape.heads * shape.head_dim;
    job.q_scale = scale.data();
    job.q_sum = sum.data();
    job.lds = shape.heads;
    job.scale = 0.125f;
    job.m = m;
    job.l = l;
    job.acc = acc;
    job.ldm = ldm;
    job.lda = lda;
    job.fold = shape.fold;
    attend_of(k, shape.bits)(&job);
    k.attend_finish(acc, l, shape.heads, shape.head_dim);
  }
};

void compare_job(const KernelTable& table, const KernelTable& scalar, const Shape& shape) {
  Random random(shape.head_dim * 100 + shape.position);
  const Case one(scalar, shape, random);
  const size_t width = shape.heads * shape.head_dim;
  using Result = Output<float>;
  Result m[2] = {{shape.rows, shape.heads}, {shape.rows, shape.heads}}, l[2] = {m[0], m[1]};
  Result acc[2] = {{shape.rows, width}, {shape.rows, width}};
  for (size_t row = 0; row < shape.rows; ++row)  // what a fold merges into
    for (size_t i = 0; i < 2; ++i) {
      for (size_t h = 0; h < shape.heads; ++h) m[i].data()[row * m[i].ld() + h] = 1.5f;
      for (size_t h = 0; h < shape.heads; ++h) l[i].data()[row * l[i].ld() + h] = 2.5f;
      for (size_t d = 0; d < width; ++d) acc[i].data()[row * acc[i].ld() + d] = static_cast<float>(d) - 9.5f;
    }
  for (size_t i = 0; i < 2; ++i)
    one.run(i == 0 ? table : scalar, m[i].data(), l[i].data(), acc[i].data(), m[i].ld(), acc[i].ld());
  bool ok = m[0].kept_to_itself() && l[0].kept_to_itself() && acc[0].kept_to_itself();
  for (size_t row = 0; row < shape.rows; ++row) {
    ok = ok && same(l[0].row(row), l[1].row(row), shape.heads) && same(acc[0].row(row), acc[1].row(row), width);
    // The sign of a zero is left open: it changes no sum.
    for (size_t h = 0; h < shape.heads; ++h) ok = ok && m[0].row(row)[h] == m[1].row(row)[h];
  }
  expect(ok, table.isa, shape.text());
}

void compare_put(const KernelTable& table, const KernelTable& scalar, size_t head_dim) {
  Random random(head_dim);
  for (const size_t bits : {4u, 8u, 16u}) {
    if (bits == 4 && head_dim % 32 != 0) continue;
    const size_t bytes = block_bytes(bits, head_dim);
    Aligned seen(bytes), meant(bytes);
    for (size_t t = 0; t < kKvBlock; ++t) {
      const bool odd = bits == 16 && t % 4 == 0;  // the bits of a NaN scale are left open
      const Floats key = odd ? strange(random, head_dim) : some(random, head_dim, 9);
      const Floats value = odd ? strange(random, head_dim) : some(random, head_dim, 1e-6f);
      put_of(table, bits)(seen.data(), t, key.data(), value.data(), head_dim);
      put_of(scalar, bits)(meant.data(), t, key.data(), value.data(), head_dim);
    }
    expect(std::memcmp(seen.data(), meant.data(), bytes) == 0, table.isa, "kv_put_" + std::to_string(bits));
  }
}

void compare_rotate(const KernelTable& table, const KernelTable& scalar, size_t head_dim) {
  Random random(head_dim);
  Floats seen = some(random, head_dim, 3), meant = seen;
  table.rotate(seen.data(), head_dim);
  scalar.rotate(meant.data(), head_dim);
  expect(same(seen.data(), meant.data(), head_dim), table.isa, "rotate " + std::to_string(head_dim));
}

}  // namespace

void compare_attention(const KernelTable& table, const KernelTable& scalar) {
  for (const size_t head_dim : {16u, 64u, 80u, 512u}) compare_put(table, scalar, head_dim);
  for (const size_t head_dim : {16u, 64u, 80u, 96u, 512u}) compare_rotate(table, scalar, head_dim);
  for (const size_t bits : {4u, 8u, 16u})
    for (const bool odd : {false, true})
      for (const int fold : {0, 1}) {
        for (const size_t position : {0u, 1u, 15u, 16u, 31u, 32u, 33u, 100u, 254u, 255u})
          compare_job(table, scalar, {bits, 32, 3, 1, 0, position, 0, fold, odd});
        compare_job(table, scalar, {bits, 64, 1, 40, 0, 20, 0, fold, odd});     // rows that end at many places
        compare_job(table, scalar, {bits, 64, 2, 9, 0, 90, 50, fold, odd});     // a window
        compare_job(table, scalar, {bits, 32, 4, 9, 1, 260, 0, fold, odd});     // the second split
        compare_job(table, scalar, {bits, bits == 4 ? 96u : 48u, 5, 20, 1, 300, 60, fold, odd});  // a window that leaves the first split
        compare_job(table, scalar, {bits, bits == 4 ? 32u : 16u, 9, 3, 1, 600, 0, fold, odd});    // all of a split, many heads
        compare_job(table, scalar, {bits, 512, 2, 2, 0, 40, 0, fold, odd});
      }
}
