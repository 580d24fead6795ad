// One deliberate fault a name: a sanitizer that is on must object, in the kernels of the best instruction set too.
#include <climits>
#include <cstdlib>

#include "bits.h"
#include "core/pool.h"
#include "kernels/dispatch.h"

namespace {

constexpr size_t kColumns = 64;

// A panel of bf16 zeros, a row less than what is asked of it.
void read_outside() {
  const KernelTable& k = kernels_for("");
  Aligned panel(64 * kColumns - 64);
  const Floats x(kColumns, 1.0f);
  Output<float> out(1, kPanelRows);
  k.linear_bf16(out.data(), out.ld(), panel.data(), kColumns, x.data(), kColumns, 1);
}

void write_outside() {
  const KernelTable& k = kernels_for("");
  const Floats x(kColumns, 1.0f);
  std::vector<int8_t> q(kColumns - 1);
  float scale = 0;
  int32_t sum = 0;
  k.quantize(q.data(), &scale, &sum, x.data(), kColumns, kColumns);
}

// Panels are aligned to 64 bytes, and this one is not.
void misaligned() {
  const KernelTable& k = kernels_for("");
  Aligned panel(64 * kColumns + 64);
  const Floats x(kColumns, 1.0f);
  Output<float> out(1, kPanelRows);
  k.linear_bf16(out.data(), out.ld(), panel.data() + 2, kColumns, x.data(), kColumns, 1);
}

void overflow() {
  volatile int most = INT_MAX;
  volatile int more = most + 1;
  std::printf("%d\n", more);
}

// All threads write the same row.
void race() {
  const KernelTable& k = kernels_for("");
  const Floats a(kColumns, 1.0f);
  Floats out(kColumns);
  Pool pool(4);
  for (size_t turn = 0; turn < 100; ++turn)
    pool.each([&](size_t) { k.add(out.data(), a.data(), a.data(), kColumns); });
}

}  // namespace

void make_fault(const std::string& name) {
  const struct {
    const char* name;
    void (*run)();
  } faults[] = {{"read outside", read_outside},
                {"write outside", write_outside},
                {"misaligned", misaligned},
                {"overflow", overflow},
                {"race", race}};
  for (const auto& fault : faults)
    if (name == fault.name) return fault.run();
  std::printf("no fault '%s'\n", name.c_str());
  std::exit(2);
}
