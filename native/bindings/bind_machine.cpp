// What this machine is and what it can do.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
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
}
