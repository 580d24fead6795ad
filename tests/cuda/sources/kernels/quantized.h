// Rows of integers as the scalar kernels make them, and as they lie on the card (native/cuda/args.h).
#pragma once
#include "check.h"

namespace check {

// Where column c of a row is on the card: tiles of 128 columns, each [t][half][j] words of 4.
inline size_t place_of(size_t c) {
  const size_t tile = c / 128, j = c % 128 / 32, half = c % 32 / 16, t = c % 16 / 4;
  return tile * 128 + ((t * 2 + half) * 4 + j) * 4 + c % 4;
}

// Strides are longer than rows, and what lies between rows is nobody's.
struct Rows {
  size_t rows, columns, group, planes;
  size_t groups = columns / group, tiles = (columns + 127) / 128, q_ld = tiles * 128 + 128, s_ld = groups + 3;
  Array<int8_t> q;
  Array<float> scale;
  Array<int> sum;

  Rows(size_t n, size_t width, size_t of_group, size_t n_planes, int byte)
      : rows(n),
        columns(width),
        group(of_group),
        planes(n_planes),
        q(reach(rows * planes, q_ld, tiles * 128), byte),
        scale(reach(rows, s_ld, groups), byte),
        sum(reach(rows, s_ld, groups), byte) {}

  li::QuantizedRows args() const {
    return {q.data(),     scale.data(),  sum.data(),     as_int(planes), as_int(q_ld),
            as_int(s_ld), as_int(group), as_int(groups), as_int(tiles)};
  }

  // Row m of the card from the rows of q of the scalar kernels, `from_ld` apart.
  void put(size_t m, const int8_t* from, size_t from_ld) const {
    for (size_t p = 0; p < planes; ++p) {
      int8_t* to = q.data() + (m * planes + p) * q_ld;
      std::fill_n(to, tiles * 128, int8_t{0});
      for (size_t c = 0; c < columns; ++c) to[place_of(c)] = from[p * from_ld + c];
    }
  }

  // Quantizes x as row m.
  void put(size_t m, const float* x) const {
    std::vector<int8_t> natural(planes * columns);
    float* s = scale.data() + m * s_ld;
    int* n = sum.data() + m * s_ld;
    if (planes == 2)
      scalar::quantize_16(natural.data(), natural.data() + columns, s, n, x, columns, group);
    else
      scalar::quantize(natural.data(), s, n, x, columns, group);
    put(m, natural.data(), columns);
  }
};

inline void expect_rows(const Rows& found, const Rows& expected) {
  expect("q", found.q, expected.q);
  expect("scale", found.scale, expected.scale);
  expect("sum", found.sum, expected.sum);
}

// Where a kernel puts rows: quantized, or, with planes 0, as floats.
struct Target {
  size_t rows, columns, planes, out_ld;
  Rows quantized;
  Array<float> out;

  Target(size_t n, size_t width, size_t group, size_t n_planes)
      : rows(n),
        columns(width),
        planes(n_planes),
        out_ld(width + 5),
        quantized(n, width, planes != 0 ? group : width, std::max<size_t>(planes, 1), Array<int>::kUntouched),
        out(results<float>(planes != 0 ? 0 : reach(n, out_ld, width))) {}

  li::QuantizedRows to() const { return planes != 0 ? quantized.args() : li::QuantizedRows{}; }
  float* floats() const { return planes != 0 ? nullptr : out.data(); }
  void put(size_t m, const float* x) const {
    if (planes != 0)
      quantized.put(m, x);
    else
      std::copy_n(x, columns, out.data() + m * out_ld);
  }
  void expect_same(const Target& expected) const {
    if (planes != 0)
      expect_rows(quantized, expected.quantized);
    else
      expect("out", out, expected.out);
  }
};

}  // namespace check
