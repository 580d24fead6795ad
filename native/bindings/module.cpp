#include "bindings/bindings.h"

NB_MODULE(_native, m) {
  // A program that ends while a thread still computes leaves objects behind: that is no news for a person.
  nanobind::set_leak_warnings(false);
  m.doc() = "The native engine: packed weights, the program that runs them, sampling, and what this machine can do.";
  bind_weight(m);
  bind_experts(m);
  bind_program(m);
  bind_sampling(m);
  bind_cuda(m);
  bind_machine(m);
  bind_kernels(m);
  bind_rounding(m);
}
