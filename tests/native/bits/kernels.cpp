// Vectors and linear kernels against the scalar ones.
#include <cmath>

#include "bits.h"

namespace {

std::string named(const char* kernel, size_t a, size_t b = 0, size_t c = 0) {
  return std::string(kernel) + " " + std::to_string(a) + " " + std::to_string(b) + " " + std::to_string(c);
}

// fn(table, out): writes n floats.
template <class F>
void compare_row(const KernelTable& table, const KernelTable& scalar, size_t n, const char* kernel, const F& fn) {
  Output<float> seen(1, n), meant(1, n);
  fn(table, seen.data());
  fn(scalar, meant.data());
  expect(same(seen.row(0), meant.row(0), n) && seen.kept_to_itself(), table.isa, named(kernel, n));
}

void compare_rows(const KernelTable& table, const KernelTable& scalar, size_t n, const Floats& x, const Floats& y) {
  const auto compare = [&](const char* kernel, const auto& fn) { compare_row(table, scalar, n, kernel, fn); };
  compare("rms_norm", [&](const KernelTable& k, float* out) { k.rms_norm(out, x.data(), y.data(), n, 1e-5f); });
  compare("add", [&](const KernelTable& k, float* out) { k.add(out, x.data(), y.data(), n); });
  compare("exp", [&](const KernelTable& k, float* out) { k.exp(out, x.data(), n); });
  compare("silu", [&](const KernelTable& k, float* out) { k.gated(out, x.data(), y.data(), n, kSilu); });
  compare("gelu", [&](const KernelTable& k, float* out) { k.gated(out, x.data(), y.data(), n, kGelu); });
  compare("gelu_tanh", [&](const KernelTable& k, float* out) { k.gated(out, x.data(), y.data(), n, kGeluTanh); });
  if (n % 2 == 0)
    compare("rope", [&](const KernelTable& k, float* out) {
      std::memcpy(out, x.data(), n * sizeof(float));
      k.rope(out, y.data(), y.data() + n / 2, n);
    });
  expect(table.argmax(x.data(), n) == scalar.argmax(x.data(), n), table.isa, named("argmax", n));
}

void compare_quantize(const KernelTable& table, const KernelTable& scalar, const Floats& x, size_t group) {
  const size_t n = x.size() / group * group, groups = n / group;
  Output<int8_t> q[2] = {{2, n}, {2, n}};
  Output<float> scale[2] = {{1, groups}, {1, groups}};
  Output<int32_t> sum[2] = {{1, groups}, {1, groups}};
  const auto check = [&](const char* kernel, size_t planes) {
    bool ok = same(scale[0].row(0), scale[1].row(0), groups);
    ok = ok && std::memcmp(sum[0].row(0), sum[1].row(0), groups * sizeof(int32_t)) == 0;
    for (size_t m = 0; m < planes; ++m) ok = ok && std::memcmp(q[0].row(m), q[1].row(m), n) == 0;
    ok = ok && q[0].kept_to_itself() && scale[0].kept_to_itself() && sum[0].kept_to_itself();
    expect(ok, table.isa, named(kernel, n, group));
  };
  for (size_t i = 0; i < 2; ++i)
    (i == 0 ? table : scalar).quantize(q[i].data(), scale[i].data(), sum[i].data(), x.data(), n, group);
  check("quantize", 1);
  for (size_t i = 0; i < 2; ++i) {
    int8_t* high = q[i].data();
    const KernelTable& k = i == 0 ? table : scalar;
    k.quantize_16(high, high + q[i].ld(), scale[i].data(), sum[i].data(), x.data(), n, group);
  }
  check("quantize_16", 2);
}

// Any bytes are weights. Scales are halves of about 2^-6, now and then one of the strange ones.
void fill_panel(Random& random, uint8_t* panel, size_t groups, size_t tile_bytes) {
  const uint16_t odd[] = {0x0000, 0x8000, 0x0001, 0x03ff, 0x7bff, 0x7c00, 0xfc00, 0x7e00};
  for (size_t g = 0; g < groups; ++g, panel += tile_bytes) {
    for (size_t i = 64; i < tile_bytes; ++i) panel[i] = static_cast<uint8_t>(random.bits());
    for (size_t r = 0; r < kPanelRows; ++r) {
      const size_t kind = random.below(100);
      const auto usual = static_cast<uint16_t>(0x2400 | (random.bits() & 0x83ff));
      const uint16_t scale = kind < std::size(odd) ? odd[kind] : usual;
      std::memcpy(panel + 2 * r, &scale, sizeof scale);
    }
  }
}

using LinearInt = void (*)(float*, size_t, const uint8_t*, size_t, size_t, const ActRows*, size_t);

constexpr size_t kMostRows = 33;
constexpr size_t kRowCounts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 33};

struct Kind {
  const char* name;
  LinearInt KernelTable::* kernel;
  size_t bits, planes;
};
constexpr Kind kKinds[] = {{"linear_i4", &KernelTable::linear_i4, 4, 1},
                           {"linear_i3", &KernelTable::linear_i3, 3, 1},
                           {"linear_i5", &KernelTable::linear_i5, 5, 1},
                           {"linear_i8", &KernelTable::linear_i8, 8, 1},
                           {"linear_i8_16", &KernelTable::linear_i8_16, 8, 2}};

// With `extreme`, all weights and activations lie at an end of their range.
void compare_int(const KernelTable& table, const KernelTable& scalar, const Kind& kind, size_t group, size_t groups,
                 int extreme) {
  Random random(group * 1000 + groups);
  const size_t k = group * groups, tile_bytes = 64 + 4 * group * kind.bits;
  Aligned panel(groups * tile_bytes);
  fill_panel(random, panel.data(), groups, tile_bytes);
  if (extreme != 0)
    for (size_t g = 0; g < groups; ++g)
      std::memset(panel.data() + g * tile_bytes + 64, extreme > 0 ? 0xff : 0, tile_bytes - 64);
  std::vector<int8_t> q(kMostRows * kind.planes * k);
  for (int8_t& v : q)
    v = static_cast<int8_t>(extreme != 0 ? extreme * 127 : static_cast<int>(random.below(255)) - 127);
  std::vector<int32_t> sum(kMostRows * groups);
  for (size_t m = 0; m < kMostRows; ++m)
    for (size_t i = 0; i < k; ++i) {
      const int8_t* at = q.data() + m * kind.planes * k + i;
      sum[m * groups + i / group] += kind.planes == 2 ? 255 * at[0] + at[k] : at[0];
    }
  const Floats scale = extreme != 0 ? some(random, sum.size(), 1.0f) : strange(random, sum.size());
  const ActRows a{q.data(), scale.data(), sum.data(), k, groups, 0};
  Output<float> meant(kMostRows, kPanelRows);
  (scalar.*kind.kernel)(meant.data(), meant.ld(), panel.data(), k, group, &a, kMostRows);
  for (const size_t rows : kRowCounts) {
    Output<float> seen(rows, kPanelRows);
    (table.*kind.kernel)(seen.data(), seen.ld(), panel.data(), k, group, &a, rows);
    bool ok = seen.kept_to_itself();
    for (size_t m = 0; m < rows; ++m) ok = ok && same(seen.row(m), meant.row(m), kPanelRows);
    expect(ok, table.isa, named(kind.name, group, groups, rows));
  }
}

// Affine weights, `per` groups of which share a line.
void compare_affine(const KernelTable& table, const KernelTable& scalar, size_t bits, size_t group, size_t groups,
                    size_t per, int extreme) {
  const auto kernel = bits == 5 ? &KernelTable::linear_a5 : &KernelTable::linear_a4;
  Random random(group * 1000 + groups * 10 + per);
  const size_t k = group * groups, tile_bytes = 64 + 4 * bits * group, lines = groups / per;
  Aligned panel(lines * 128 + groups * tile_bytes);
  fill_panel(random, panel.data(), 2 * lines, 64);
  uint8_t* tiles = panel.data() + lines * 128;
  for (size_t i = 0; i < groups * tile_bytes; ++i)
    tiles[i] = static_cast<uint8_t>(extreme != 0 ? 0xff : random.bits());
  std::vector<int8_t> q(kMostRows * k);
  for (int8_t& v : q)
    v = static_cast<int8_t>(extreme != 0 ? extreme * 127 : static_cast<int>(random.below(255)) - 127);
  std::vector<int32_t> sum(kMostRows * groups);
  for (size_t i = 0; i < q.size(); ++i) sum[i / group] += q[i];
  const Floats scale = extreme != 0 ? some(random, sum.size(), 1.0f) : strange(random, sum.size());
  const ActRows a{q.data(), scale.data(), sum.data(), k, groups, 0};
  Output<float> meant(kMostRows, kPanelRows);
  (scalar.*kernel)(meant.data(), meant.ld(), panel.data(), k, group, per * group, &a, kMostRows);
  for (const size_t rows : kRowCounts) {
    Output<float> seen(rows, kPanelRows);
    (table.*kernel)(seen.data(), seen.ld(), panel.data(), k, group, per * group, &a, rows);
    bool ok = seen.kept_to_itself();
    for (size_t m = 0; m < rows; ++m) ok = ok && same(seen.row(m), meant.row(m), kPanelRows);
    expect(ok, table.isa, named(bits == 5 ? "linear_a5" : "linear_a4", group, groups, rows));
  }
}

// MXFP4: extremes are codes 7 and 15, the numbers 12 and -12.
void compare_mxfp4(const KernelTable& table, const KernelTable& scalar, size_t groups, int extreme) {
  Random random(groups);
  const size_t k = 32 * groups, lines = (groups + 1) / 2 * 64;
  Aligned panel(lines + groups * 512);
  for (size_t i = 0; i < lines; ++i) panel.data()[i] = static_cast<uint8_t>(extreme != 0 ? 127 : random.bits());
  for (size_t i = 0; i < groups * 512; ++i)
    panel.data()[lines + i] = static_cast<uint8_t>(extreme > 0 ? 0x77 : extreme < 0 ? 0xff : random.bits());
  std::vector<int8_t> q(kMostRows * k);
  for (int8_t& v : q) v = static_cast<int8_t>(extreme != 0 ? 127 : static_cast<int>(random.below(255)) - 127);
  std::vector<int32_t> sum(kMostRows * groups);
  for (size_t i = 0; i < q.size(); ++i) sum[i / 32] += q[i];
  const Floats scale = extreme != 0 ? some(random, sum.size(), 1.0f) : strange(random, sum.size());
  const ActRows a{q.data(), scale.data(), sum.data(), k, groups, 0};
  Output<float> meant(kMostRows, kPanelRows);
  scalar.linear_mx4(meant.data(), meant.ld(), panel.data(), k, 32, &a, kMostRows);
  for (const size_t rows : kRowCounts) {
    Output<float> seen(rows, kPanelRows);
    table.linear_mx4(seen.data(), seen.ld(), panel.data(), k, 32, &a, rows);
    bool ok = seen.kept_to_itself();
    for (size_t m = 0; m < rows; ++m) ok = ok && same(seen.row(m), meant.row(m), kPanelRows);
    expect(ok, table.isa, named("linear_mx4", groups, rows));
  }
}

void compare_bf16(const KernelTable& table, const KernelTable& scalar, size_t k) {
  Random random(k);
  Aligned panel(64 * k);
  for (size_t i = 0; i < kPanelRows * k; ++i) {
    const float w = random.value();
    std::memcpy(panel.data() + 2 * i, reinterpret_cast<const uint8_t*>(&w) + 2, 2);
  }
  const Floats x = k % 2 == 0 ? some(random, kMostRows * k, 3.0f) : strange(random, kMostRows * k);
  Output<float> meant(kMostRows, kPanelRows);
  scalar.linear_bf16(meant.data(), meant.ld(), panel.data(), k, x.data(), k, kMostRows);
  for (const size_t rows : kRowCounts) {
    Output<float> seen(rows, kPanelRows);
    table.linear_bf16(seen.data(), seen.ld(), panel.data(), k, x.data(), k, rows);
    bool ok = seen.kept_to_itself();
    for (size_t m = 0; m < rows; ++m) ok = ok && same(seen.row(m), meant.row(m), kPanelRows);
    expect(ok, table.isa, named("linear_bf16", k, rows));
  }
}

}  // namespace

void compare_vectors(const KernelTable& table, const KernelTable& scalar) {
  for (size_t n = 1; n <= 130; n += n < 40 ? 1 : 9)
    for (uint64_t seed = 0; seed < 6; ++seed) {
      Random random(n * 10 + seed);
      const auto make = [&] { return seed % 2 == 0 ? some(random, n, 10.0f) : strange(random, n); };
      const Floats x = make(), y = make();
      compare_rows(table, scalar, n, x, y);
      compare_quantize(table, scalar, x, n);
    }
  for (const size_t group : {32u, 64u, 128u}) {
    Random random(group);
    for (const float size : {1.0f, 1e-30f, 1e-38f, 1e30f}) {
      Floats x = some(random, 9 * group, size);
      for (size_t i = 0; i < group; ++i) x[i] = 0;  // a group of zeros
      for (size_t i = 0; i < group; ++i) x[group + i] = static_cast<float>(static_cast<int>(i) - 60) + 0.5f;  // ties
      x[group] = 127.0f;
      compare_quantize(table, scalar, x, group);
      x[3 * group + 5] = -HUGE_VALF;
      x[4 * group + 7] = NAN;
      compare_quantize(table, scalar, x, group);
    }
  }
}

void compare_linear(const KernelTable& table, const KernelTable& scalar) {
  for (const Kind& kind : kKinds) {
    for (const size_t group : {32u, 64u, 128u}) {
      for (const size_t groups : {1u, 3u}) compare_int(table, scalar, kind, group, groups, 0);
      compare_int(table, scalar, kind, group, 576 / group + 1, 0);
      compare_int(table, scalar, kind, group, 2, 1);
      compare_int(table, scalar, kind, group, 2, -1);
    }
  }
  for (const size_t groups : {1u, 3u, 19u}) compare_mxfp4(table, scalar, groups, 0);
  for (const int extreme : {1, -1}) compare_mxfp4(table, scalar, 4, extreme);
  for (const size_t group : {32u, 64u, 128u})
    for (const size_t per : {1u, 2u, 8u}) {
      for (const size_t bits : {4u, 5u}) {
        compare_affine(table, scalar, bits, group, 3 * per, per, 0);
        compare_affine(table, scalar, bits, group, (576 / group / per + 1) * per, per, 0);
        for (const int extreme : {1, -1}) compare_affine(table, scalar, bits, group, 2 * per, per, extreme);
      }
    }
  for (const size_t k : {1u, 7u, 32u, 200u}) compare_bf16(table, scalar, k);
}
