// Compares every table of this machine with the scalar one, runs a small model through each of them, and the threads.
// Prints "isas ...", "wrong: ..." for what differs, and "model ... HASH" lines; leaves with 1 if anything differed.
// `bits isas` only names the tables; `bits threads` leaves out what has one thread or runs no vectors; `bits fault NAME`
// makes that fault (faults.cpp).
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "bits.h"
#include "core/probe.h"
#include "kernels/dispatch.h"

namespace {
size_t wrong = 0;
}  // namespace

Floats some(Random& random, size_t n, float size) {
  Floats values(n);
  for (float& v : values) v = random.value() * size;
  return values;
}

Floats strange(Random& random, size_t n) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const float odd[] = {0.0f, -0.0f, 1e-45f, -1e-40f, 3e38f, -3e38f, 1e-38f, -90.0f, 90.0f, infinity, -infinity, NAN};
  Floats values = some(random, n, 20.0f);
  for (float& v : values)
    if (random.below(8) == 0) v = odd[random.below(std::size(odd))];
  return values;
}

bool same(const float* a, const float* b, size_t n) {
  for (size_t i = 0; i < n; ++i)
    if (std::memcmp(a + i, b + i, sizeof(float)) != 0 && !(std::isnan(a[i]) && std::isnan(b[i]))) return false;
  return true;
}

void expect(bool ok, const char* isa, const std::string& what) {
  if (ok) return;
  if (++wrong <= 20) std::printf("wrong: %s %s\n", isa, what.c_str());
}

namespace {

void check_names() {
  const std::string path = "/tmp/localinfer-bits-" + std::to_string(getpid());
  std::ofstream(path) << "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n\nprocessor\t: 1\nCPU part\t: 0x1\n";
  const CpuName name = cpu_name(path.c_str());
  unlink(path.c_str());
  expect(name.vendor == "ARM" && name.model == "part 0xd0c", "any", "cpu_name: " + name.vendor + " " + name.model);
  expect(physical_cores() >= 1, "any", "physical_cores");
}

}  // namespace

int main(int arguments, char** words) {
  if (arguments > 2) {
    make_fault(words[2]);
    return 0;
  }
  std::printf("isas");
  for (const std::string& isa : supported_isas()) std::printf(" %s", isa.c_str());
  std::printf("\n");
  const bool compares = arguments == 1;
  if (!compares && std::strcmp(words[1], "threads") != 0) return 0;
  check_names();
  const KernelTable& scalar = kernels_for("scalar");
  for (const std::string& isa : supported_isas()) {
    const KernelTable& table = kernels_for(isa);
    if (!compares && &table == &scalar && supported_isas().size() > 1) continue;
    if (&table != &scalar && compares) {
      compare_vectors(table, scalar);
      compare_linear(table, scalar);
      compare_attention(table, scalar);
      compare_recurrent(table, scalar);
    }
    run_model(table.isa, 3, 4);
    run_model(table.isa, 2, 8);
    run_model(table.isa, 1, 16);
  }
  exercise_pool();
  std::printf("%zu differences\n", wrong);
  return wrong == 0 ? 0 : 1;
}
