#include "dispatch.h"

#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace {

#if defined(__x86_64__)

// What the operating system saves on a context switch (XCR0). CPUID alone is not enough: without this, a register
// that the CPU has may lose its upper half.
uint64_t saved_registers() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

CpuFeatures detect() {
  CpuFeatures cpu;
  unsigned a = 0, b = 0, c = 0, d = 0;
  const auto bit = [](unsigned word, int n) { return ((word >> n) & 1u) != 0; };
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return cpu;
  cpu.fma = bit(c, 12);
  cpu.f16c = bit(c, 29);
  if (bit(c, 27)) {  // OSXSAVE: XGETBV may be asked
    const uint64_t saved = saved_registers();
    cpu.os_saves_ymm = (saved & 0x06) == 0x06;
    cpu.os_saves_zmm = (saved & 0xe6) == 0xe6;
  }
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return cpu;
  const unsigned subleaves = a;
  cpu.avx2 = bit(b, 5);
  cpu.avx512f = bit(b, 16);
  cpu.avx512dq = bit(b, 17);
  cpu.avx512bw = bit(b, 30);
  cpu.avx512vl = bit(b, 31);
  cpu.avx512_vnni = bit(c, 11);
  if (subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0) cpu.avx_vnni = bit(a, 4);
  return cpu;
}

#elif defined(__aarch64__) && defined(__linux__)

CpuFeatures detect() {
  CpuFeatures cpu;
  cpu.dotprod = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
  cpu.i8mm = (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
  return cpu;
}

#elif defined(__aarch64__) && defined(__APPLE__)

bool told(const char* name) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}

CpuFeatures detect() {
  CpuFeatures cpu;
  cpu.dotprod = told("hw.optional.arm.FEAT_DotProd");
  cpu.i8mm = told("hw.optional.arm.FEAT_I8MM");
  return cpu;
}

#else

CpuFeatures detect() { return {}; }

#endif

#if defined(__x86_64__)

bool has_avx2(const CpuFeatures& c) { return c.avx2 && c.fma && c.f16c && c.os_saves_ymm; }

bool has_vnni_evex(const CpuFeatures& c) { return c.avx512f && c.avx512vl && c.avx512_vnni && c.os_saves_zmm; }

void fill_256(KernelTable* table) {
  if (cpu_features().avx_vnni)
    fill_avxvnni(table);
  else
    fill_avxvnni_evex(table);
}

bool has_avx512(const CpuFeatures& c) {
  return has_avx2(c) && c.avx512f && c.avx512bw && c.avx512vl && c.avx512dq && c.avx512_vnni && c.os_saves_zmm;
}

#endif

struct Isa {
  const char* name;
  bool (*supported)(const CpuFeatures&);
  void (*fill)(KernelTable*);
};

// Slowest first; each later one overwrites what it does better.
constexpr Isa kIsas[] = {
    {"scalar", [](const CpuFeatures&) { return true; }, fill_scalar},
#if defined(__x86_64__)
    {"avx2", has_avx2, fill_avx2},
    {"avxvnni", [](const CpuFeatures& c) { return has_avx2(c) && (c.avx_vnni || has_vnni_evex(c)); }, fill_256},
    {"avx512", has_avx512, fill_avx512},
#elif defined(__aarch64__)
    {"neon", [](const CpuFeatures& c) { return c.dotprod; }, fill_neon},
    {"neon_i8mm", [](const CpuFeatures& c) { return c.dotprod && c.i8mm; }, fill_neon_i8mm},
#endif
};

std::vector<KernelTable> build_tables() {
  std::vector<KernelTable> tables;
  KernelTable table{};
  for (const Isa& isa : kIsas) {
    if (!isa.supported(cpu_features())) continue;
    isa.fill(&table);
    table.isa = isa.name;
    tables.push_back(table);
  }
  return tables;
}

// One table a supported ISA, slowest first. Built once; never changes.
const std::vector<KernelTable>& tables() {
  static const std::vector<KernelTable> built = build_tables();
  return built;
}

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (const KernelTable& table : tables()) names.emplace_back(table.isa);
  return names;
}

const KernelTable& kernels_for(std::string_view isa) {
  if (isa.empty()) return tables().back();
  for (const KernelTable& table : tables())
    if (isa == table.isa) return table;
  std::string message = "kernel set '" + std::string(isa) + "' is not supported here; this machine runs:";
  for (const KernelTable& table : tables()) message += std::string(" ") + table.isa;
  throw std::invalid_argument(message);
}
