// attend, with KV splits and without, and merge.
#include "cache.h"
#include "quantized.h"

using namespace check;

namespace {

struct AttendCase {
  size_t heads, kv_heads, head_dim, bits, window;
  bool split;
  Sort queries, keys;
};

// What attend leaves for merge.
struct Partials {
  Array<float> m, l, acc;
};

struct Attend {
  AttendCase c;
  Places at;
  Random random{5};
  size_t shared = c.heads / c.kv_heads, width = c.heads * c.head_dim, q_ld = width + 12, slots;
  float scale = 0.125f;
  float softcap() const { return c.window != 0 ? 2.5f : 0.0f; }  // with windows, so that both are run
  Cache cache;
  Array<float> q, q_scale;
  Array<int8_t> q8;

  Attend(const AttendCase& given, const std::vector<std::pair<size_t, size_t>>& rows)
      : c(given),
        at(rows),
        slots(1),
        cache({c.kv_heads, c.head_dim, c.bits}, at.blocks, Array<int>::kUnset),
        q(c.bits == 16 ? reach(at.rows(), q_ld, width) : 0),
        q_scale(c.bits == 16 ? 0 : at.rows() * c.heads),
        q8(c.bits == 16 ? 0 : at.rows() * width) {
    for (size_t row = 0; row < at.rows() && c.split; ++row)
      while (slots <= at.position(row) / 256) slots *= 2;
    for (size_t row = 0; row < at.rows(); ++row) {
      fill_cache(row);
      fill_queries(row);
    }
  }

  size_t first_of(size_t row) const {
    return c.window != 0 && at.position(row) + 1 > c.window ? at.position(row) + 1 - c.window : 0;
  }

  // Tokens that the row sees; a slot that no row sees is NaN. Every now and then a key is much like all queries.
  void fill_cache(size_t row) {
    std::vector<float> k(c.head_dim), v(c.head_dim);
    for (size_t t = first_of(row); t <= at.position(row); ++t)
      for (size_t h = 0; h < c.kv_heads; ++h) {
        fill(k.data(), c.head_dim, random, t % 9 == 4 ? c.keys : Sort::plain);
        fill(v.data(), c.head_dim, random, t % 9 == 7 ? c.keys : Sort::plain);
        if (t % 16 == 11) std::fill(k.begin(), k.end(), 2.0f);
        if (c.bits != 16) scalar::rotate(k.data(), c.head_dim);
        cache.put(at.block_of(row, t), h, t % 32, k.data(), v.data());
      }
  }

  void fill_queries(size_t row) {
    std::vector<float> x(c.head_dim);
    for (size_t h = 0; h < c.heads; ++h) {
      fill(x.data(), c.head_dim, random, (row + h) % 3 == 1 ? c.queries : Sort::plain);
      if (h % 2 == 0) x[0] += 8.0f;
      if (c.bits == 16) {
        std::copy_n(x.data(), c.head_dim, q.data() + row * q_ld + h * c.head_dim);
        continue;
      }
      const size_t one = row * c.heads + h;
      int sum = 0;
      scalar::rotate(x.data(), c.head_dim);
      scalar::quantize(q8.data() + one * c.head_dim, q_scale.data() + one, &sum, x.data(), c.head_dim, c.head_dim);
      q_scale[one] *= scale / static_cast<float>(c.head_dim & -c.head_dim);
    }
  }

  // The scalar kernel for one row, KV head and split; what it gives goes to slot `slot` of `to`.
  void run_scalar(const Partials& to, size_t row, size_t h, size_t split, size_t slot, bool fold) const {
    const uint8_t* blocks[8] = {};
    const size_t from = std::max(first_of(row), 256 * split), last = std::min(at.position(row), 256 * split + 255);
    for (size_t i = from / 32; i <= last / 32; ++i) blocks[i % 8] = cache.block(at.block_of(row, 32 * i), h);
    AttendJob job{};
    job.blocks = blocks;
    job.kv_split = split;
    job.position = at.position(row);
    job.window = c.window;
    job.rows = 1;
    job.heads = 1;
    job.head_dim = c.head_dim;
    job.scale = scale;
    job.softcap = softcap();
    job.fold = fold;
    for (size_t i = h * shared; i < (h + 1) * shared; ++i) {
      const size_t one = row * c.heads + i, place = one * slots + slot;
      if (c.bits == 16) job.q = q.data() + row * q_ld + i * c.head_dim;
      if (c.bits != 16) job.q8 = q8.data() + one * c.head_dim;
      if (c.bits != 16) job.q_scale = q_scale.data() + one;
      job.m = to.m.data() + place;
      job.l = to.l.data() + place;
      job.acc = to.acc.data() + place * c.head_dim;
      (c.bits == 4 ? scalar::attend_4 : c.bits == 8 ? scalar::attend_8 : scalar::attend_16)(&job);
    }
  }

  Partials partials(int byte) const {
    const size_t n = at.rows() * c.heads * slots;
    return {Array<float>(n, byte), Array<float>(n, byte), Array<float>(n * c.head_dim, byte)};
  }

  Partials expected(int byte) const {
    Partials to = partials(byte);
    for (size_t row = 0; row < at.rows(); ++row)
      for (size_t h = 0; h < c.kv_heads; ++h)
        for (size_t split = first_of(row) / 256; split <= at.position(row) / 256; ++split)
          run_scalar(to, row, h, split, c.split ? split : 0, !c.split);
    return to;
  }

  li::AttendArgs args(const Partials& to) const {
    li::AttendArgs a{};
    a.q = c.bits == 16 ? q.data() : nullptr;
    a.q_ld = as_int(q_ld);
    a.q8 = c.bits != 16 ? q8.data() : nullptr;
    a.q_scale = c.bits != 16 ? q_scale.data() : nullptr;
    a.scale = scale;
    a.softcap = softcap();
    a.heads = as_int(c.heads);
    a.kv_heads = as_int(c.kv_heads);
    a.head_dim = as_int(c.head_dim);
    a.window = as_int(c.window);
    a.kv = cache.args();
    a.at = at.args();
    a.m = to.m.data();
    a.l = to.l.data();
    a.acc = to.acc.data();
    a.slots = as_int(slots);
    a.split = c.split;
    return a;
  }

  void check_attend() const {
    const Partials right = expected(Array<int>::kUntouched);
    const unsigned threads = 32 * static_cast<unsigned>(std::min<size_t>(shared, 4));
    const dim3 grid(static_cast<unsigned>(slots), static_cast<unsigned>(c.kv_heads), static_cast<unsigned>(at.rows()));
    under_each_schedule(
        [&] { return partials(Array<int>::kUntouched); }, grid, threads, 0,
        [&](const Partials& to) { (c.bits == 4 ? attend_4 : c.bits == 8 ? attend_8 : attend_16)(args(to)); },
        [&](const Partials& to) {
          expect("m", to.m, right.m);
          expect("l", to.l, right.l);
          expect("acc", to.acc, right.acc);
        });
  }

  // From what attend gives; slots without a split are NaN.
  void check_merge(size_t group, size_t planes) const {
    const Partials from = expected(Array<int>::kUnset);
    const auto fresh = [&] { return Target(at.rows(), width, group, planes); };
    const Target right = fresh();
    for (size_t row = 0; row < at.rows(); ++row) right.put(row, merged(from, row).data());
    li::MergeArgs a{from.m.data(), from.l.data(), from.acc.data(), as_int(slots), c.split, as_int(c.heads),
                    as_int(c.head_dim), as_int(c.window), at.positions.data(), {}, nullptr, as_int(right.out_ld)};
    under_each_schedule(
        fresh, dim3(grid_of(width, 512), static_cast<unsigned>(at.rows())), 128, 0,
        [&](const Target& to) {
          li::MergeArgs own = a;
          own.to = to.to();
          own.out = to.floats();
          merge(own);
        },
        [&](const Target& to) { to.expect_same(right); });
  }

  std::vector<float> merged(const Partials& from, size_t row) const {
    std::vector<float> all(width);
    for (size_t h = 0; h < c.heads; ++h) {
      const size_t one = (row * c.heads + h) * slots, first = c.split ? first_of(row) / 256 : 0;
      float m = from.m[one + first], l = from.l[one + first];
      float* acc = all.data() + h * c.head_dim;
      std::copy_n(from.acc.data() + (one + first) * c.head_dim, c.head_dim, acc);
      for (size_t split = first + 1; c.split && split <= at.position(row) / 256; ++split) {
        const size_t place = one + split;
        scalar::attend_merge(&m, &l, acc, &from.m[place], &from.l[place], &from.acc[place * c.head_dim], 1, c.head_dim);
      }
      scalar::attend_finish(acc, &l, 1, c.head_dim);
    }
    return all;
  }
};

const std::vector<std::pair<size_t, size_t>> kShort = {{0, 0}, {1, 31}, {2, 32}, {3, 45}, {3, 46}};
const std::vector<std::pair<size_t, size_t>> kSplitCases = {{4, 255}, {1, 256}, {0, 257}, {2, 600}, {3, 3}};
const std::vector<std::pair<size_t, size_t>> kLong = {{0, 600}, {1, 770}};

void check_case(const AttendCase& c, const std::vector<std::pair<size_t, size_t>>& rows) {
  Attend attend(c, rows);
  const size_t last = attend.at.position(rows.size() - 1);
  name_case("attend_%zu of %zu and %zu heads of %zu, window %zu, %s, to %zu", c.bits, c.heads, c.kv_heads, c.head_dim,
            c.window, c.split ? "split" : "folded", last);
  attend.check_attend();
  current = "merge after " + current;
  const size_t width = c.heads * c.head_dim;
  attend.check_merge(width, 0);
  attend.check_merge(32, 1);
  if (width % 64 == 0) attend.check_merge(64, 2);
}

void check_all() {
  const Sort plain = Sort::plain, sizes = Sort::sizes;
  for (const size_t bits : {4, 8, 16}) {
    check_case({4, 2, 64, bits, 0, false, sizes, plain}, kShort);
    check_case({3, 1, 96, bits, 40, true, plain, sizes}, kShort);
    check_case({4, 4, 32, bits, 0, true, Sort::nan, Sort::infinite}, kShort);
    check_case({4, 2, 32, bits, 0, true, plain, Sort::zeros}, kSplitCases);
    check_case({2, 1, 64, bits, 0, false, Sort::infinite, plain}, kSplitCases);
    check_case({6, 1, 32, bits, 100, false, Sort::tiny, Sort::tiny}, kSplitCases);
    check_case({2, 2, 32, bits, 1, true, plain, plain}, kSplitCases);
    if (kFewShapes) continue;
    check_case({1, 1, 128, bits, 256, true, plain, plain}, kLong);
    check_case({2, 1, 160, bits, 257, false, plain, Sort::nan}, kLong);
  }
}

}  // namespace

int main(int count, char** arguments) { return finish(count, arguments, check_all); }
