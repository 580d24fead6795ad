#include "bindings/bindings.h"

NB_MODULE(_native, m) {
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
