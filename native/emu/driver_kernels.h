// The kernels of the stand-in driver, by name.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "cuda/kernels.cuh"
#include "driver_state.h"

namespace stand_in {

// Arguments are copied when the kernel is launched, each as the type that it has in the signature.
using Bind = std::function<Work(void**)>;

template <class... A, size_t... I>
Bind binder(void (*kernel)(A...), std::index_sequence<I...>) {
  return [kernel]([[maybe_unused]] void** values) -> Work {
    const std::tuple<A...> arguments{*static_cast<A*>(values[I])...};
    return [kernel, arguments] { std::apply(kernel, arguments); };
  };
}
template <class... A>
Bind binder(void (*kernel)(A...)) {
  return binder(kernel, std::index_sequence_for<A...>{});
}

struct Kernel {
  Bind bind;
  unsigned dynamic_limit = 48 << 10;
};

inline std::map<std::string, Kernel>& kernels() {
#define X(name) {#name, {binder(name)}},
  static std::map<std::string, Kernel> all = {
#include "cuda/kernels.def"
  };
#undef X
  return all;
}

}  // namespace stand_in
