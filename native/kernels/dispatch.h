// Which kernel set runs: the best the CPU and the operating system support, or one asked for by name.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "table.h"

struct CpuFeatures {
  bool avx2 = false, fma = false, f16c = false, avx_vnni = false;
  bool avx512f = false, avx512bw = false, avx512vl = false, avx512dq = false, avx512_vnni = false;
  bool os_saves_ymm = false, os_saves_zmm = false;  // XGETBV: the operating system saves these registers
  bool dotprod = false, i8mm = false;               // ARM
};

const CpuFeatures& cpu_features();
// Kernel sets this machine can run, slowest first; never empty ("scalar" is always there).
std::vector<std::string> supported_isas();
// "" means the best one. Throws std::invalid_argument on an unknown or unsupported name, naming those supported.
const KernelTable& kernels_for(std::string_view isa);
