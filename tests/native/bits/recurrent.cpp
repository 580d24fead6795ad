// A head's state of delta nets and of Mamba-2, against the scalar kernels.
#include <vector>

#include "bits.h"

namespace {

struct Sizes {
  size_t key, value;
};

// Some rows walked through one state, which each row changes; then the last one again from what it left behind.
void compare_walk(const KernelTable& table, const KernelTable& scalar, Sizes size, bool odd) {
  constexpr size_t kRows = 5;
  Random random(size.key * 1000 + size.value + odd);
  const size_t n = size.key * size.value;
  const auto make = [&](size_t count) { return odd ? strange(random, count) : some(random, count, 1.0f); };
  const Floats start = make(n), q = make(kRows * size.key), k = make(kRows * size.key), v = make(kRows * size.value);
  Output<float> states[2] = {{1, n}, {1, n}}, again[2] = {{1, n}, {1, n}}, scanned[2] = {{1, n}, {1, n}};
  Output<float> out[2] = {{kRows, size.value}, {kRows, size.value}}, read[2] = {{1, size.value}, {1, size.value}};
  Output<float> delta[2] = {{kRows, size.value}, {kRows, size.value}};
  for (size_t i = 0; i < 2; ++i) {
    const KernelTable& t = i == 0 ? table : scalar;
    const float* from = start.data();
    for (size_t m = 0; m < kRows; ++m) {
      const float decay = 0.9f - 0.1f * static_cast<float>(m), beta = 0.3f + 0.3f * static_cast<float>(m);
      const float *qm = q.data() + m * size.key, *km = k.data() + m * size.key, *dm = delta[i].row(m);
      if (m + 1 == kRows) {
        std::memcpy(again[i].data(), from, n * sizeof(float));
        std::memcpy(scanned[i].data(), from, n * sizeof(float));
      }
      t.delta_rule(states[i].data(), from, out[i].data() + m * out[i].ld(), delta[i].data() + m * delta[i].ld(), qm, km,
                   v.data() + m * size.value, decay, beta, size.key, size.value);
      from = states[i].data();
      if (m + 1 < kRows) continue;
      t.delta_replay(again[i].data(), again[i].data(), km, dm, decay, size.key, size.value);
      t.delta_scan(scanned[i].data(), scanned[i].data(), read[i].data(), dm, qm, km, decay, size.key, size.value);
    }
  }
  bool ok = same(states[0].row(0), states[1].row(0), n);
  for (size_t m = 0; m < kRows; ++m)
    ok = ok && same(out[0].row(m), out[1].row(m), size.value) && same(delta[0].row(m), delta[1].row(m), size.value);
  for (size_t i = 0; i < 2; ++i) {
    ok = ok && same(again[i].row(0), states[i].row(0), n) && same(scanned[i].row(0), states[i].row(0), n);
    ok = ok && same(read[i].row(0), out[i].row(kRows - 1), size.value);
    for (const Output<float>* one : {&states[i], &again[i], &scanned[i], &out[i], &read[i], &delta[i]})
      ok = ok && one->kept_to_itself();
  }
  expect(ok, table.isa, "delta " + std::to_string(size.key) + " " + std::to_string(size.value) + (odd ? " odd" : ""));
}

}  // namespace

void compare_recurrent(const KernelTable& table, const KernelTable& scalar) {
  for (const Sizes size : {Sizes{16, 16}, Sizes{16, 48}, Sizes{48, 16}, Sizes{96, 80}, Sizes{128, 128}, Sizes{32, 512}})
    for (const bool odd : {false, true}) compare_walk(table, scalar, size, odd);
}
