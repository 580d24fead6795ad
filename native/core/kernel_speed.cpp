#include "core/kernel_speed.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "core/error.h"
#include "core/memory.h"
#include "core/pool.h"
#include "core/probe.h"

namespace {

constexpr uint8_t kByte = 0x3c;  // as a scale 1.06, as bfloat16 0.011: products of no special kind

// One thread's rows and results.
struct Rows {
  Rows(const LinearTest& test, size_t planes)
      : q(std::max<size_t>(test.rows, 1) * planes * test.cols, 3),
        scale(test.rows * std::max<size_t>(test.cols / std::max<size_t>(test.group, 1), 1), 0.01f),
        sum(scale.size(), 3 * static_cast<int32_t>(test.group)),
        x(test.kind == kBf16 ? test.rows * test.cols : 0, 0.5f),
        out(2 * test.rows * kPanelRows) {}
  std::vector<int8_t> q;
  std::vector<float> scale;
  std::vector<int32_t> sum;
  std::vector<float> x, out;
};

void multiply(const KernelTable& k, const LinearTest& test, const WeightShape& shape, const uint8_t* panel, Rows& rows,
              size_t second) {
  const size_t groups = test.group > 0 ? test.cols / test.group : 1;
  const ActRows a{rows.q.data(), rows.scale.data(), rows.sum.data(), test.cols, groups, k.prefetch, second};
  float* out = rows.out.data();
  switch (test.kind) {
    case kInt4: return k.linear_i4(out, kPanelRows, panel, test.cols, test.group, &a, test.rows);
    case kInt3: return k.linear_i3(out, kPanelRows, panel, test.cols, test.group, &a, test.rows);
    case kInt5: return k.linear_i5(out, kPanelRows, panel, test.cols, test.group, &a, test.rows);
    case kInt8:
      return (shape.planes() == 2 ? k.linear_i8_16 : k.linear_i8)(out, kPanelRows, panel, test.cols, test.group, &a,
                                                                  test.rows);
    case kAffine4: return k.linear_a4(out, kPanelRows, panel, test.cols, test.group, test.wide, &a, test.rows);
    case kAffine5: return k.linear_a5(out, kPanelRows, panel, test.cols, test.group, test.wide, &a, test.rows);
    case kMxfp4: return k.linear_mx4(out, kPanelRows, panel, test.cols, test.group, &a, test.rows);
    case kBf16: return k.linear_bf16(out, kPanelRows, panel, test.cols, rows.x.data(), test.cols, test.rows);
  }
}

}  // namespace

LinearTimes linear_times(const KernelTable& kernels, const LinearTest& test) {
  WeightShape shape;
  shape.kind = test.kind;
  shape.cols = test.cols;
  shape.group = test.kind == kBf16 ? 0 : test.group;
  shape.parts = {kPanelRows};
  shape.wide = test.wide;
  shape.activation_bits = test.kind == kBf16 ? 0 : test.activation_bits;
  check_shape(shape);
  REQUIRE(test.rows <= 4096 && test.repeats > 0 && test.passes > 0 && test.passes <= 1000, "%zu rows, %zu passes",
          test.rows, test.passes);
  Pool pool(test.threads != 0 ? test.threads : physical_cores());
  const size_t threads = pool.threads(), panel_bytes = shape.panel_bytes();
  const size_t panels = std::max((test.bytes + panel_bytes - 1) / panel_bytes, threads);
  const Memory memory(panels * panel_bytes, "the panels of a kernel test");
  const auto part = [&](size_t id) { return panels * id / threads; };
  std::vector<Rows> rows(threads, Rows(test, shape.planes()));
  const size_t at_once = test.rows == 1 && kernels.takes_second && test.kind != kBf16 ? 2 : 1;
  std::atomic<uint64_t> sink{0};
  pool.each([&](size_t id) {
    std::memset(memory.data() + part(id) * panel_bytes, kByte, (part(id + 1) - part(id)) * panel_bytes);
  });
  LinearTimes times;
  times.bytes = panels * panel_bytes * test.repeats;
  for (size_t pass = 0; pass < test.passes; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    pool.each([&](size_t id) {
      for (size_t i = 0; i < test.repeats; ++i)
        if (test.rows == 0)
          sink += sum_words(memory.data() + part(id) * panel_bytes, memory.data() + part(id + 1) * panel_bytes);
        else
          for (size_t p = part(id), count; p < part(id + 1); p += count) {
            count = std::min(at_once, part(id + 1) - p);
            multiply(kernels, test, shape, memory.data() + p * panel_bytes, rows[id], count == 2 ? panel_bytes : 0);
          }
    });
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    times.seconds.push_back(taken.count());
  }
  return times;
}
