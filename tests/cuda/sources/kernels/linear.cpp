// The matrix kernels and embed.
#include "quantized.h"
#include "weights.h"

using namespace check;

namespace {

struct Kernel {
  const char* name;
  void (*run)(li::LinearArgs);
  WeightKind kind;
  size_t planes, at_once;
};

#define KERNELS(name, kind, planes)                                                                        \
  {#name "_1", linear_##name##_1, kind, planes, 1}, {#name "_2", linear_##name##_2, kind, planes, 2},      \
      {#name "_4", linear_##name##_4, kind, planes, 4}, {#name "_8", linear_##name##_8, kind, planes, 8},  \
      {#name "_16", linear_##name##_16, kind, planes, 16}, {#name "_32", linear_##name##_32, kind, planes, 32}
const Kernel kIntegerKernels[] = {KERNELS(i4, kInt4, 1), KERNELS(i3, kInt3, 1), KERNELS(i8, kInt8, 1),
                                  KERNELS(i8x16, kInt8, 2)};
#undef KERNELS
const Kernel kFloatKernels[] = {{"bf16_1", linear_bf16_1, kBf16, 0, 1},
                                {"bf16_4", linear_bf16_4, kBf16, 0, 4},
                                {"bf16_16", linear_bf16_16, kBf16, 0, 16}};

struct Launch {
  dim3 grid;
  unsigned threads;
};

// As cuda/launches.cpp does it, but for rows that do not fit at once.
Launch launch_of(const Kernel& kernel, size_t panels, size_t rows) {
  const unsigned down = grid_of(rows, kernel.at_once), across = static_cast<unsigned>(panels);
  if (kernel.kind == kBf16 || kernel.at_once == 32) return {dim3(grid_of(panels, 4), down), 128};
  if (kernel.at_once > 4) return {dim3(across, down), 64};
  return {dim3(4 * across, 1), 128};
}

// What a kernel takes: integers of all sizes, the extremes in the first two rows; scales of all sorts.
Rows integer_rows(size_t rows, const WeightShape& shape) {
  Random random(rows + shape.cols);
  const size_t planes = shape.planes();
  Rows a(rows, shape.cols, shape.group, planes, Array<int>::kUnset);
  std::vector<int8_t> natural(planes * shape.cols);
  for (size_t m = 0; m < rows; ++m) {
    for (int8_t& q : natural) {
      const int value = as_int(random.below(255)) - 127;
      q = static_cast<int8_t>(rows > 2 && m == 0 ? 127 : rows > 2 && m == 1 ? -127 : value);
    }
    a.put(m, natural.data(), shape.cols);
    for (size_t g = 0; g < a.groups; ++g) {
      int sum = 0;
      for (size_t c = g * shape.group; c < (g + 1) * shape.group; ++c)
        sum += planes == 2 ? 255 * natural[c] + natural[shape.cols + c] : natural[c];
      a.sum[m * a.s_ld + g] = sum;
      a.scale[m * a.s_ld + g] = number(random, kSorts[m % std::size(kSorts)], g + 4, 127);
    }
  }
  return a;
}

// The same rows as the scalar kernels take them.
struct NaturalRows {
  std::vector<int8_t> q;
  ActRows rows{};

  explicit NaturalRows(const Rows& a) : q(a.rows * a.planes * a.columns) {
    for (size_t i = 0; i < q.size(); ++i) q[i] = a.q[i / a.columns * a.q_ld + place_of(i % a.columns)];
    rows = {q.data(), a.scale.data(), a.sum.data(), a.columns, a.s_ld, {}};
  }
};

void expect_products(const Kernel& kernel, const li::LinearArgs& args, const Array<float>& expected) {
  const Launch launch = launch_of(kernel, static_cast<size_t>(args.weight.panels), static_cast<size_t>(args.rows));
  under_each_schedule(
      [&] { return results<float>(expected.size()); }, launch.grid, launch.threads, 0,
      [&](const Array<float>& out) {
        li::LinearArgs own = args;
        own.out = out.data();
        kernel.run(own);
      },
      [&](const Array<float>& out) { expect("out", out, expected); });
}

void check_integers(const Kernel& kernel, const Card& card, size_t rows) {
  const WeightShape& shape = card.cpu->shape;
  name_case("linear_%s, %zu rows of %zu columns, groups of %zu", kernel.name, rows, shape.cols, shape.group);
  const Rows a = integer_rows(rows, shape);
  const NaturalRows natural(a);
  const size_t out_ld = card.cpu->panels * 32 + 8;
  const Array<float> expected = results<float>(reach(rows, out_ld, card.cpu->panels * 32));
  const auto linear = kernel.planes == 2 ? scalar::linear_i8_16
                      : shape.kind == kInt8 ? scalar::linear_i8
                      : shape.kind == kInt4 ? scalar::linear_i4
                                            : scalar::linear_i3;
  for (size_t p = 0; p < card.cpu->panels; ++p)
    linear(expected.data() + 32 * p, out_ld, card.cpu->panel(p), shape.cols, shape.group, &natural.rows, rows);
  li::LinearArgs args{};
  args.weight = card.args();
  args.a = a.args();
  args.rows = as_int(rows);
  args.out_ld = as_int(out_ld);
  expect_products(kernel, args, expected);
}

void check_floats(const Kernel& kernel, const Card& card, size_t rows) {
  const size_t cols = card.cpu->shape.cols, x_ld = cols + 3, out_ld = card.cpu->panels * 32 + 8;
  name_case("linear_%s, %zu rows of %zu columns", kernel.name, rows, cols);
  Random random(rows + cols);
  const Array<float> x(reach(rows, x_ld, cols));
  for (size_t m = 0; m < rows; ++m) fill(x.data() + m * x_ld, cols, random, kSorts[m % std::size(kSorts)]);
  const Array<float> expected = results<float>(reach(rows, out_ld, card.cpu->panels * 32));
  for (size_t p = 0; p < card.cpu->panels; ++p)
    scalar::linear_bf16(expected.data() + 32 * p, out_ld, card.cpu->panel(p), cols, x.data(), x_ld, rows);
  li::LinearArgs args{};
  args.weight = card.args();
  args.x = x.data();
  args.x_ld = as_int(x_ld);
  args.rows = as_int(rows);
  args.out_ld = as_int(out_ld);
  expect_products(kernel, args, expected);
}

// The first of them must do where time is short: not as many as there is room for.
std::vector<size_t> rows_for(size_t at_once) {
  switch (at_once) {
    case 1: return {1};
    case 2: return {2, 1};
    case 4: return {3, 1, 4};
    case 8: return {5, 8, 13};
    case 16: return {13, 16, 33};
    default: return {5, 16, 33};
  }
}

// Five panels: the last block of four has room for three that are not there. The widest shape is more than two stages
// of those kernels that have stages.
void check_linear() {
  const std::pair<size_t, size_t> shapes[] = {{96, 32}, {160, 32}, {576, 64}, {384, 128}, {4224, 64}};
  for (const auto& [cols, group] : shapes)
    for (const Kernel& kernel : kIntegerKernels) {
      if (cols > 4096 && kernel.at_once > 4) continue;
      const size_t rows = kernel.at_once == 32 ? 5 * 32 - 7 : 40;
      const Card card = card_weight(kernel.kind, cols, group, rows, kernel.planes);
      for (const size_t n : rows_for(kernel.at_once))
        if (!kFewShapes || n == rows_for(kernel.at_once).front()) check_integers(kernel, card, n);
    }
  for (const size_t cols : {size_t{90}, size_t{96}, size_t{161}}) {
    const Card card = card_weight(kBf16, cols, 0, 5 * 32 - 7, 1);
    for (const Kernel& kernel : kFloatKernels)
      for (const size_t n : {1, 4, 5, 16, 33})
        if (n <= 2 * kernel.at_once + 1) check_floats(kernel, card, n);
  }
}

void check_embed_of(WeightKind kind, size_t cols, size_t group, float scale) {
  name_case("embed of %s, %zu columns, groups of %zu, scale %g", kind_name(kind), cols, group,
            static_cast<double>(scale));
  const Card card = card_weight(kind, cols, group, 75, 1);
  Array<int> tokens(9);
  std::copy_n(std::initializer_list<int>{0, 74, 1, 33, 7, 1, 64, 42, 31}.begin(), tokens.size(), tokens.data());
  const size_t x_ld = cols + 5;
  const auto fresh = [&] { return results<float>(reach(tokens.size(), x_ld, cols)); };
  const Array<float> expected = fresh();
  for (size_t m = 0; m < tokens.size(); ++m) {
    float* row = expected.data() + m * x_ld;
    card.cpu->row(static_cast<size_t>(tokens[m]), row);
    for (size_t c = 0; c < cols && scale != 1.0f; ++c) row[c] *= scale;
  }
  under_each_schedule(
      fresh, static_cast<unsigned>(tokens.size()), 128, 0,
      [&](const Array<float>& x) { embed({card.args(), kind, tokens.data(), scale, x.data(), as_int(x_ld)}); },
      [&](const Array<float>& x) { expect("x", x, expected); });
}

void check_embed() {
  const std::pair<size_t, size_t> shapes[] = {{96, 32}, {160, 32}, {576, 64}, {384, 128}};
  for (const auto& [cols, group] : shapes)
    for (const WeightKind kind : {kInt4, kInt3, kInt8}) check_embed_of(kind, cols, group, group == 32 ? 1.0f : 9.75f);
  check_embed_of(kBf16, 90, 0, 1.0f);
  check_embed_of(kBf16, 576, 0, 0.3f);
}

void check_all() {
  check_linear();
  check_embed();
}

}  // namespace

int main(int count, char** arguments) { return finish(count, arguments, check_all); }
