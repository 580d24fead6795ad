// NVIDIA cards, and programs that move to one.
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "core/program.h"
#include "cuda/compile.h"
#include "cuda/device.h"

using namespace nb::literals;

namespace {

nb::dict card_facts(const cuda::Card& card) {
  nb::dict facts;
  facts["name"] = card.name;
  facts["uuid"] = card.uuid;
  facts["sm"] = card.sm;
  facts["multiprocessors"] = card.multiprocessors;
  facts["total_bytes"] = card.total_bytes;
  facts["peak_gb_s"] = card.peak_gb_s;
  return facts;
}

nb::dict cards() {
  const auto driver = cuda::Driver::load();
  nb::list found;
  for (const cuda::Card& card : cuda::cards(*driver)) found.append(card_facts(card));
  nb::dict all;
  all["library"] = driver->library;
  all["version"] = driver->version;
  all["cards"] = found;
  return all;
}

std::string use_cuda(Program& program, int number, const std::string& keep, const std::vector<std::string>& libraries,
                     bool graphs) {
  const nb::gil_scoped_release unlocked;
  const auto driver = cuda::Driver::load();
  const cuda::Card card = cuda::card(*driver, number);
  const cuda::Compiled compiled = cuda::compile({card.sm, keep, libraries, driver->version});
  const auto session = std::make_shared<const cuda::Session>(driver, card);
  program.move_to(
      std::make_unique<cuda::CudaDevice>(session, program, compiled.image.c_str(), graphs, program.threads()));
  return compiled.note;
}

std::tuple<std::string, std::vector<std::string>> cuda_compiler(const std::vector<std::string>& libraries, int version) {
  const cuda::Found found = cuda::find_compiler({0, "", libraries, version});
  return {found.compiler, found.paths};
}

nb::dict cuda_facts(const Program& program) {
  nb::dict facts;
  if (const auto* device = dynamic_cast<const cuda::CudaDevice*>(program.device()); device != nullptr) {
    facts["launches"] = device->launches();
    facts["graphs"] = device->graphs();
    facts["free_bytes"] = device->free_bytes();
    nb::list ranges;
    for (const cuda::Model::Range& range : device->model().ranges()) ranges.append(nb::make_tuple(range.start, range.bytes));
    facts["weights"] = ranges;
  }
  return facts;
}

// What happens on a card at any time, whoever has called, as the program's own errors for people.
void raise_ours(const std::exception_ptr& caught, void* /*unused*/) {
  const auto raise = [](const char* name, const std::string& what, const char* hint) {
    const nb::object type = nb::module_::import_("localinfer.errors").attr(name);
    PyErr_SetObject(type.ptr(), type(what, "hint"_a = hint).ptr());
  };
  try {
    std::rethrow_exception(caught);
  } catch (const cuda::Full& error) {
    raise("DoesNotFit", std::string("not enough memory on the NVIDIA card: ") + error.what(),
          "lower `-c`, use a smaller model, or `--backend cpu`");
  } catch (const cuda::Failed& error) {
    raise("NotSupported", std::string("the NVIDIA card failed: ") + error.what(),
          "run on the processor with `--backend cpu`");
  }
}

}  // namespace

void bind_cuda(nb::module_& m) {
  nb::exception<cuda::Unusable>(m, "CudaUnusable");
  nb::register_exception_translator(&raise_ours);
  m.def("cuda_cards", &cards, nb::sig("def cuda_cards() -> dict[str, typing.Any]"),
        "What the NVIDIA driver says: its `library`, the newest CUDA `version` it knows (1000 * major + 10 * minor), and\n"
        "its `cards`, each with name, uuid, sm (10 * compute capability), multiprocessors, total_bytes and peak_gb_s.\n\n"
        "Raises CudaUnusable; its message is the reason and, on the next line, what to do.");
  m.def("cuda_compiler", &cuda_compiler, "libraries"_a, "driver_version"_a,
        "The NVRTC that is found in `libraries` or where the system looks, with its version, and all places in order.\n\n"
        "Raises CudaUnusable without one that this driver can follow.");
  m.def("cuda_sources_hash", &cuda::sources_hash, "Hash of the kernels' sources and of how they are compiled.");
  m.def("use_cuda", &use_cuda, "program"_a, "card"_a, "keep"_a, "libraries"_a, "graphs"_a = true,
        "Move a program, complete but for `make_kv`, to NVIDIA card number `card`: its steps give the same bits there.\n\n"
        "Kernels are compiled for this card, by the NVRTC found in `libraries` or where the system looks, and kept in the\n"
        "directory `keep` (\"\": nowhere). Without `graphs` every step is launched kernel by kernel. Returns what a\n"
        "person should know of it, or nothing. Raises CudaUnusable as above. What a card fails in, here or in a step, is\n"
        "NotSupported, and DoesNotFit where its memory is full.");
  m.def("cuda_facts", &cuda_facts, "program"_a, nb::sig("def cuda_facts(program: Program) -> dict[str, typing.Any]"),
        "Of a program on a card: `launches` so far, without those that graphs repeat, `graphs` kept, `free_bytes` of the\n"
        "card, and of each matrix the address and bytes of its `weights`. Else empty.");
}
