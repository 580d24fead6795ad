// What this machine is and what it can do.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "core/error.h"
#include "core/kernel_speed.h"
#include "core/probe.h"
#include "kernels/dispatch.h"

using namespace nb::literals;

namespace {

std::vector<std::string> feature_names(const CpuFeatures& c) {
  const struct {
    bool there;
    const char* name;
  } all[] = {{c.avx2, "avx2"},         {c.fma, "fma"},           {c.f16c, "f16c"},         {c.avx_vnni, "avx_vnni"},
             {c.avx512f, "avx512f"},   {c.avx512bw, "avx512bw"}, {c.avx512vl, "avx512vl"}, {c.avx512dq, "avx512dq"},
             {c.avx512_vnni, "avx512_vnni"}, {c.dotprod, "dotprod"}, {c.i8mm, "i8mm"}};
  std::vector<std::string> names;
  for (const auto& feature : all)
    if (feature.there) names.emplace_back(feature.name);
  return names;
}

nb::dict cpu() {
  const CpuName name = cpu_name();
  nb::dict d;
  d["vendor"] = name.vendor;
  d["model"] = name.model;
  d["features"] = feature_names(cpu_features());
  d["isas"] = supported_isas();
  return d;
}

std::pair<size_t, std::vector<double>> linear_seconds(const std::string& isa, size_t bits, size_t activation_bits,
                                                       size_t cols, size_t group, size_t rows, size_t bytes,
                                                       size_t threads, size_t repeats, size_t passes, size_t wide,
                                                       bool mxfp4) {
  REQUIRE((bits >= 3 && bits <= 5) || bits == 8 || bits == 16, "weights of %zu bits", bits);
  REQUIRE(wide == 0 || bits == 4 || bits == 5, "affine weights of %zu bits", bits);
  REQUIRE(!mxfp4 || bits == 4, "MXFP4 of %zu bits", bits);
  const WeightKind kind = mxfp4 ? kMxfp4 : kind_of(bits, wide != 0);
  const KernelTable& kernels = kernels_for(isa);
  const nb::gil_scoped_release unlocked;
  LinearTimes times =
      linear_times(kernels, {kind, activation_bits, cols, group, rows, bytes, threads, repeats, passes, wide});
  return {times.bytes, std::move(times.seconds)};
}

}  // namespace

void bind_machine(nb::module_& m) {
  m.def("supported_isas", &supported_isas, "Kernel sets that this machine can run, slowest first.");
  m.def("cpu", &cpu, nb::sig("def cpu() -> dict[str, str | list[str]]"),
        "The processor: `vendor`, `model`, `features` the kernels ask for, `isas` that can run.");
  m.def("physical_cores", &physical_cores,
        "Cores this process may use: threads of one core count once, a container's CPU quota is kept.");
  m.def("read_bandwidth", &read_bandwidth, "bytes"_a, "threads"_a = 0, nb::call_guard<nb::gil_scoped_release>(),
        "Measure how many bytes a second `threads` threads read from a buffer of `bytes`; best of several passes.");
  m.def(
      "int8_peak", [](const std::string& isa, size_t threads) { return int8_peak(kernels_for(isa), threads); },
      "isa"_a = "", "threads"_a = 0, nb::call_guard<nb::gil_scoped_release>(),
      "Operations on int8 a second, a product with its sum counted as two, that `threads` threads of this kernel set do\n"
      "together on registers alone; takes some milliseconds.");
  m.def("linear_seconds", &linear_seconds, "isa"_a, "bits"_a, "activation_bits"_a, "cols"_a, "group"_a, "rows"_a,
        "bytes"_a, "threads"_a = 0, "repeats"_a = 1, "passes"_a = 5, "wide"_a = 0, "mxfp4"_a = false,
        "Multiply `rows` rows with panels of at least `bytes` bytes, each thread its own part, `repeats` times a pass:\n"
        "(bytes that a pass reads, seconds of each pass). With 0 rows the panels are only read, word by word.\n"
        "With `wide`, weights of 4 or 5 bits are affine, and so many columns share scale and minimum.\n\n"
        "Raises ValueError for shapes that no kernel takes, MemoryError with the size.");
}
