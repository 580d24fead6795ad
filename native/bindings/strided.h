// Arrays at the door of the kernels: rows of a matrix may lie further apart than they are long.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "core/error.h"

namespace nb = nanobind;

template <typename T>
using Vector = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Matrix = nb::ndarray<T, nb::ndim<2>, nb::device::cpu>;

// Distance between rows, in elements.
template <typename T>
size_t row_stride(const Matrix<T>& matrix, const char* name) {
  const auto columns = static_cast<int64_t>(matrix.shape(1));
  REQUIRE(columns <= 1 || matrix.stride(1) == 1, "%s: the values of a row must be contiguous", name);
  if (matrix.shape(0) <= 1) return matrix.shape(1);
  REQUIRE(matrix.stride(0) >= columns, "%s: rows overlap", name);
  return static_cast<size_t>(matrix.stride(0));
}
