// Arguments of operations that several files read.
#pragma once
#include <optional>
#include <string>

#include "bindings/arrays.h"
#include "core/error.h"
#include "core/program.h"

// `Program.moe`, and what else it has of experts.
void bind_moe(nb::class_<Program>& program);

using Values = Vector<const float>;
using MaybeValues = std::optional<Values>;

// As they stand in Python: no weight, no norm; with a bias it is a LayerNorm, whose bias may be empty.
inline Norm make_norm(const MaybeValues& weight, float eps, const MaybeValues& bias = {}) {
  REQUIRE(eps >= 0 && eps <= 1, "the epsilon of a norm is %g", static_cast<double>(eps));
  REQUIRE(weight || !bias, "the bias of a norm without a weight");
  return {to_vector(weight), eps, bias.has_value(), to_vector(bias)};
}

inline Activation make_activation(const std::string& name) {
  if (name == "silu") return kSilu;
  if (name == "gelu") return kGelu;
  REQUIRE(name == "gelu_tanh", "activation is '%.40s', but must be silu, gelu or gelu_tanh", name.c_str());
  return kGeluTanh;
}
