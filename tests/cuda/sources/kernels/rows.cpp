// ready, gated, layer_inputs and softcap.
#include "quantized.h"

using namespace check;

namespace {

struct ReadyCase {
  size_t columns, group, planes;  // planes 0: floats; group 0: only the sum
  bool y, bias, post_norm, norm, pick;
  bool layer_norm = false, aside = false;  // the norm takes the mean off; y is added after another result
  float scale = 1;                         // of the stream, once all is added
};

// What a ready kernel gets, and what it changes.
struct ReadyState {
  Array<float> x;
  Target to;
};

struct Ready {
  ReadyCase c;
  Random random{7};
  size_t outs, rows, x_ld = c.columns + 7, y_ld = c.columns + 9;
  Array<float> x, y, bias, post_norm, norm, norm_bias, aside, aside_bias;
  Array<int> pick;

  explicit Ready(const ReadyCase& given)
      : c(given),
        outs(std::size(kSorts)),
        rows(c.pick ? outs + 2 : outs),
        x(reach(rows, x_ld, c.columns)),
        y(c.y ? reach(rows, y_ld, c.columns) : 0),
        bias(numbers(c.bias ? c.columns : 0, random)),
        post_norm(numbers(c.post_norm ? c.columns : 0, random)),
        norm(numbers(c.norm ? c.columns : 0, random)),
        norm_bias(numbers(c.layer_norm ? c.columns : 0, random)),
        aside(c.aside ? reach(rows, y_ld, c.columns) : 0),
        aside_bias(numbers(c.aside && c.bias ? c.columns : 0, random)),
        pick(c.pick ? outs : 0) {
    for (size_t m = 0; m < rows; ++m) {
      const Sort sort = kSorts[m % std::size(kSorts)];
      fill(x.data() + m * x_ld, c.columns, random, sort, c.planes == 2 ? 32512 : 127);
      if (c.y) fill(y.data() + m * y_ld, c.columns, random, m % 2 == 0 ? sort : Sort::plain);
      if (c.aside) fill(aside.data() + m * y_ld, c.columns, random, Sort::plain);
    }
    for (size_t m = 0; m < pick.size(); ++m) pick[m] = as_int(m % 3 == 0 ? m + 2 : m % 3 == 1 ? m : m - 2);
  }

  size_t row_of(size_t m) const { return c.pick ? static_cast<size_t>(pick[m]) : m; }

  void expected_row(const ReadyState& to, size_t m) const {
    float* at = to.x.data() + row_of(m) * x_ld;
    std::vector<float> row(c.columns);
    if (c.aside) {
      std::copy_n(aside.data() + row_of(m) * y_ld, c.columns, row.data());
      if (c.bias) scalar::add(row.data(), row.data(), aside_bias.data(), c.columns);
      scalar::add(at, at, row.data(), c.columns);
    }
    if (c.y) {
      std::copy_n(y.data() + row_of(m) * y_ld, c.columns, row.data());
      if (c.bias) scalar::add(row.data(), row.data(), bias.data(), c.columns);
      if (c.post_norm) scalar::rms_norm(row.data(), row.data(), post_norm.data(), c.columns, 1e-5f);
      scalar::add(at, at, row.data(), c.columns);
      for (size_t i = 0; i < c.columns; ++i) at[i] *= c.scale;
    }
    std::copy_n(at, c.columns, row.data());
    if (c.layer_norm) take_mean_off(row);
    if (c.norm) scalar::rms_norm(row.data(), row.data(), norm.data(), c.columns, 1e-6f);
    if (c.layer_norm) scalar::add(row.data(), row.data(), norm_bias.data(), c.columns);
    if (c.group != 0) to.to.put(m, row.data());
  }

  // In the lanes and the tree of core/linear.cpp.
  static void take_mean_off(std::vector<float>& row) {
    float lanes[16] = {};
    for (size_t i = 0; i < row.size(); ++i) lanes[i % 16] += row[i];
    for (size_t half = 8; half > 0; half /= 2)
      for (size_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    const float mean = lanes[0] / static_cast<float>(row.size());
    for (float& value : row) value -= mean;
  }

  li::ReadyArgs args(const ReadyState& to) const {
    const auto maybe = [](const auto& array) { return array.size() != 0 ? array.data() : nullptr; };
    li::ReadyArgs a{};
    a.x = to.x.data();
    a.x_ld = as_int(x_ld);
    a.columns = as_int(c.columns);
    a.pick = maybe(pick);
    a.y = maybe(y);
    a.y_ld = as_int(y_ld);
    a.aside = maybe(aside);
    a.aside_bias = maybe(aside_bias);
    a.bias = maybe(bias);
    a.post_norm = maybe(post_norm);
    a.post_eps = 1e-5f;
    a.scale = c.scale;
    a.norm = maybe(norm);
    a.norm_bias = maybe(norm_bias);
    a.centered = c.layer_norm;
    a.eps = 1e-6f;
    if (c.group != 0) {
      a.to = to.to.to();
      a.out = to.to.floats();
    }
    a.out_ld = as_int(to.to.out_ld);
    return a;
  }

  void run() const {
    const auto fresh = [&] {
      return ReadyState{x, Target(outs, c.columns, c.group != 0 ? c.group : c.columns, c.planes)};
    };
    const ReadyState expected = fresh();
    for (size_t m = 0; m < outs; ++m) expected_row(expected, m);
    const size_t shared = round_to(c.columns, 128) * sizeof(float);
    under_each_schedule(
        fresh, grid_of(outs, 1), 256, shared, [&](const ReadyState& to) { ready(args(to)); },
        [&](const ReadyState& to) {
          expect("x", to.x, expected.x);
          to.to.expect_same(expected.to);
        });
  }
};

void check_ready() {
  const ReadyCase cases[] = {
      {160, 32, 1, true, true, true, true, false},     {576, 64, 1, true, false, false, true, true},
      {96, 32, 2, true, true, false, true, false},     {576, 32, 2, true, false, true, true, true},
      {96, 32, 1, false, false, false, false, false},  {160, 32, 2, false, false, false, false, false},
      {384, 128, 1, false, false, false, true, true},  {384, 128, 2, true, true, true, false, false},
      {100, 0, 0, true, true, true, false, false},     {576, 0, 0, true, true, false, false, false},
      {90, 1, 0, true, false, true, true, true},       {160, 1, 0, false, false, false, true, false},
      {384, 128, 2, false, false, false, false, false}, {160, 32, 1, true, true, false, true, false, true, true},
      {576, 64, 2, true, false, false, true, true, true, true}, {90, 1, 0, false, false, false, true, false, true},
      {100, 0, 0, true, true, false, false, false, false, true},
      {160, 32, 1, true, true, true, false, false, false, false, 0.7f},
      {100, 0, 0, true, false, false, true, false, false, true, -1.3f}};
  for (const ReadyCase& c : cases) {
    name_case("ready of %zu columns, groups of %zu, %zu planes%s%s%s%s%s%s%s, times %g", c.columns, c.group, c.planes,
              c.y ? ", y" : "", c.bias ? ", bias" : "", c.post_norm ? ", post norm" : "", c.norm ? ", norm" : "",
              c.pick ? ", pick" : "", c.layer_norm ? ", layer norm" : "", c.aside ? ", aside" : "",
              static_cast<double>(c.scale));
    Ready(c).run();
  }
}

// `with`: not both, but times rows that are given.
void check_gated_of(size_t columns, size_t group, size_t planes, int activation, bool both, bool biased,
                    bool with = false) {
  name_case("gated of %zu columns, groups of %zu, %zu planes, activation %d%s%s%s", columns, group, planes, activation,
            both ? "" : ", no gate", biased ? ", biases" : "", with ? ", given" : "");
  Random random(columns + planes);
  const size_t rows = std::size(kSorts), in_ld = round_to(columns, 32) * 2 + 11;
  const auto gate_at = [&](size_t m, size_t c) { return m * in_ld + (both ? c / 32 * 64 + c % 32 : c); };
  const Array<float> gate_bias = numbers(both && biased ? columns : 0, random);
  const Array<float> up_bias = numbers(biased ? columns : 0, random);
  Array<float> in(gate_at(rows - 1, columns - 1) + 32 + 1);
  const size_t given_ld = columns + 5;
  const Array<float> given = numbers(with ? reach(rows, given_ld, columns) : 0, random);
  const auto fresh = [&] { return Target(rows, columns, group, planes); };
  const Target expected = fresh();
  for (size_t m = 0; m < rows; ++m) {
    Array<float> gate = numbers(columns, random, kSorts[m]);
    Array<float> up = numbers(columns, random, m % 2 == 0 ? Sort::plain : kSorts[m]);
    if (m == 0)
      for (float& one : gate) one *= 40;  // past where exp1 gives 0 and infinity
    for (size_t c = 0; c < columns; ++c) {
      in[gate_at(m, c)] = gate[c];
      if (both) in[gate_at(m, c) + 32] = up[c];
    }
    if (biased) scalar::add(gate.data(), gate.data(), (both ? gate_bias : up_bias).data(), columns);
    if (biased && both) scalar::add(up.data(), up.data(), up_bias.data(), columns);
    if (!both) std::fill(up.begin(), up.end(), 1.0f);
    if (with) std::copy_n(given.data() + m * given_ld, columns, up.data());
    scalar::gated(gate.data(), gate.data(), up.data(), columns, activation);
    expected.put(m, gate.data());
  }
  under_each_schedule(
      fresh, dim3(grid_of(columns, 512), static_cast<unsigned>(rows)), 128, 0,
      [&](const Target& to) {
        gated({in.data(), as_int(in_ld), as_int(columns), activation, both, both && biased ? gate_bias.data() : nullptr,
               biased ? up_bias.data() : nullptr, to.to(), to.floats(), as_int(to.out_ld), with ? given.data() : nullptr,
               as_int(given_ld)});
      },
      [&](const Target& to) { to.expect_same(expected); });
}

void check_gated() {
  for (const int activation : {kSilu, kGeluTanh, kGelu}) {
    check_gated_of(96, 32, 1, activation, true, false);
    check_gated_of(160, 32, 2, activation, true, true);
    check_gated_of(100, 1, 0, activation, true, false);
    check_gated_of(576, 64, 1, activation, true, false);
    check_gated_of(640, 128, 2, activation, true, false);
    check_gated_of(576, 1, 0, activation, true, true);
    check_gated_of(160, 32, 1, activation, false, false);
    check_gated_of(100, 1, 0, activation, false, true);
    check_gated_of(640, 128, 2, activation, false, true);
    check_gated_of(160, 32, 1, activation, false, false, true);
    check_gated_of(64, 1, 0, activation, false, false, true);
  }
}

void check_layer_inputs_of(size_t parts, size_t size) {
  name_case("layer_inputs of %zu parts of %zu", parts, size);
  Random random(13);
  const size_t rows = std::size(kSorts), columns = parts * size, ld = columns + 3;
  const Array<float> x = results<float>(reach(rows, ld, columns)), token = numbers(reach(rows, ld, columns), random);
  for (size_t m = 0; m < rows; ++m) fill(x.data() + m * ld, columns, random, kSorts[m]);
  const Array<float> norm = numbers(size, random), expected = x;
  for (size_t m = 0; m < rows; ++m) {
    float* row = expected.data() + m * ld;
    for (size_t i = 0; i < columns; i += size) scalar::rms_norm(row + i, row + i, norm.data(), size, 1e-6f);
    scalar::add(row, row, token.data() + m * ld, columns);
  }
  under_each_schedule(
      [&] { return x; }, dim3(grid_of(parts, 4), static_cast<unsigned>(rows)), 128, 0,
      [&](const Array<float>& to) {
        layer_inputs({to.data(), token.data(), as_int(ld), as_int(parts), as_int(size), norm.data(), 1e-6f});
      },
      [&](const Array<float>& to) { expect("inputs", to, expected); });
}

void check_softcap_of(size_t columns, float cap) {
  name_case("softcap of %zu columns at %g", columns, static_cast<double>(cap));
  Random random(3);
  const size_t rows = std::size(kSorts), ld = columns + 13;
  const Array<float> x = results<float>(reach(rows, ld, columns));
  for (size_t m = 0; m < rows; ++m) fill(x.data() + m * ld, columns, random, kSorts[m]);
  const Array<float> expected = x;
  for (size_t m = 0; m < rows; ++m) {
    float* row = expected.data() + m * ld;
    std::vector<float> e(columns);
    for (size_t c = 0; c < columns; ++c) e[c] = -2.0f * std::fabs(row[c] / cap);
    scalar::exp_all(e.data(), e.data(), columns);
    for (size_t c = 0; c < columns; ++c)
      row[c] = std::copysign(cap * ((1.0f - e[c]) / (1.0f + e[c])), row[c]);
  }
  under_each_schedule(
      [&] { return x; }, dim3(grid_of(columns, 256), static_cast<unsigned>(rows)), 256, 0,
      [&](const Array<float>& to) { softcap({to.data(), as_int(ld), as_int(columns), cap}); },
      [&](const Array<float>& to) { expect("logits", to, expected); });
}

void check_all() {
  check_ready();
  check_gated();
  check_layer_inputs_of(6, 64);
  check_layer_inputs_of(3, 256);
  check_softcap_of(300, 30.0f);
  check_softcap_of(256, 0.75f);
}

}  // namespace

int main(int count, char** arguments) { return finish(count, arguments, check_all); }
