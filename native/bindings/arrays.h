// numpy arrays at the door: exactly this type and shape, C order, on the CPU, never converted in silence.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace nb = nanobind;

// IEEE half precision, as numpy's float16.
struct Half {
  uint16_t bits;
};

namespace nanobind::detail {
template <>
struct dtype_traits<Half> {
  static constexpr dlpack::dtype value{static_cast<uint8_t>(dlpack::dtype_code::Float), 16, 1};
  static constexpr auto name = const_name("float16");
};
}  // namespace nanobind::detail

template <class T>
using Vector = nb::ndarray<T, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Matrix = nb::ndarray<T, nb::numpy, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using Cube = nb::ndarray<T, nb::numpy, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

template <class T>
std::vector<T> to_vector(const Vector<const T>& array) {
  return std::vector<T>(array.data(), array.data() + array.shape(0));
}

// None is an empty vector.
template <class T>
std::vector<T> to_vector(const std::optional<Vector<const T>>& array) {
  return array ? to_vector(*array) : std::vector<T>();
}
