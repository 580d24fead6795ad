// One function an area: each adds its classes and functions to the module.
#pragma once
#include <nanobind/nanobind.h>

void bind_cuda(nanobind::module_& m);
void bind_experts(nanobind::module_& m);
void bind_kernels(nanobind::module_& m);
void bind_machine(nanobind::module_& m);
void bind_program(nanobind::module_& m);
void bind_rounding(nanobind::module_& m);
void bind_sampling(nanobind::module_& m);
void bind_weight(nanobind::module_& m);
