#include "core/linear.h"

namespace {

const float* source_row(const Source& from, size_t m) {
  return from.rows + (from.pick != nullptr ? static_cast<size_t>(from.pick[m]) - from.pick_base : m) * from.ld;
}

}  // namespace

void quantize_columns(const Step& step, const WeightShape& shape, const Scratch::Quantized& to, size_t m, size_t first,
              const float* x, size_t n) {
  const Scratch& s = step.s;
  int8_t* q = to.q + m * shape.planes() * s.q_ld + first;
  float* scale = to.scale + m * s.scale_ld + first / shape.group;
  int32_t* sum = to.sum + m * s.scale_ld + first / shape.group;
  if (shape.planes() == 2)
    step.k.quantize_16(q, q + s.q_ld, scale, sum, x, n, shape.group);
  else
    step.k.quantize(q, scale, sum, x, n, shape.group);
}

namespace {

// out may not be x.
void apply(const KernelTable& k, const Norm& norm, float* out, const float* x, size_t n) {
  if (norm.centered) {
    float lanes[16] = {};
    for (size_t i = 0; i < n; ++i) lanes[i % 16] += x[i];
    for (size_t half = 8; half > 0; half /= 2)
      for (size_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    const float mean = lanes[0] / static_cast<float>(n);
    for (size_t i = 0; i < n; ++i) out[i] = x[i] - mean;
    x = out;
  }
  k.rms_norm(out, x, norm.weight.data(), n, norm.eps);
  if (!norm.bias.empty()) k.add(out, out, norm.bias.data(), n);
}

void ready_row(const Step& step, const Lane& lane, const Weight& weight, const Source& from, const Scratch::Quantized& to,
               size_t m) {
  const Scratch& s = step.s;
  const float* row = source_row(from, m);
  const bool quantized = weight.shape.kind != kBf16;
  if (from.norm != nullptr) {
    float* normed = quantized ? s.per_thread[lane.id()].row : to.normed + m * s.x_ld;
    apply(step.k, *from.norm, normed, row, step.hidden);
    row = normed;
  }
  if (quantized) quantize_columns(step, weight.shape, to, m, 0, row, weight.shape.cols);
}

// Adds the squares of `rows` rows, floats, to what the program keeps of the weight. Each column has one item, so that the
// sums do not depend on the threads.
bool add_squares(std::vector<double>& sums, Lane& lane, const Operand& operand, size_t rows) {
  constexpr size_t columns = 64;
  lane.phase("squares");
  lane.share((sums.size() + columns - 1) / columns, [&](size_t i) {
    const size_t first = i * columns, end = std::min(first + columns, sums.size());
    for (size_t m = 0; m < rows; ++m)
      for (size_t c = first; c < end; ++c) {
        const double x = operand.x[m * operand.ldx + c];
        sums[c] += x * x;
      }
  });
  return lane.sync();
}

}  // namespace

bool make_floats_ready(Operand* operand, const Step& step, Lane& lane, const Weight& weight, const Source& from,
                       size_t rows) {
  const Scratch::Quantized& to = step.s.shared;
  if (from.norm == nullptr && from.pick == nullptr) {
    *operand = {{}, from.rows, from.ld};
    return true;
  }
  *operand = {{}, to.normed, step.s.x_ld};
  lane.phase("norm");
  lane.share(rows, [&](size_t m) { ready_row(step, lane, weight, from, to, m); });
  return lane.sync();
}

namespace {

bool make_ready(Operand* operand, const Step& step, Lane& lane, const Weight& weight, const Source& from, size_t rows,
                bool few) {
  const Scratch& s = step.s;
  if (std::vector<double>* sums = step.program.squares(weight); sums != nullptr)
    return make_floats_ready(operand, step, lane, weight, from, rows) && add_squares(*sums, lane, *operand, rows);
  if (weight.shape.kind == kBf16 && from.norm == nullptr && from.pick == nullptr) {
    *operand = {{}, from.rows, from.ld};
    return true;
  }
  const Scratch::Quantized& to = few ? s.per_thread[lane.id()].few : s.shared;
  *operand = {{to.q, to.scale, to.sum, s.q_ld, s.scale_ld, step.prefetch}, to.normed, s.x_ld, few, from};
  if (few) return true;
  lane.phase(from.norm != nullptr ? "norm" : "quantize");
  lane.share(rows, [&](size_t m) { ready_row(step, lane, weight, from, to, m); });
  return lane.sync();
}

}  // namespace

bool make_ready(Operand* operand, const Step& step, Lane& lane, const Weight& weight, const Source& from, size_t rows) {
  return make_ready(operand, step, lane, weight, from, rows, rows <= kFewRows);
}

bool make_shared_ready(Operand* operand, const Step& step, Lane& lane, const Weight& weight, const Source& from,
                       size_t rows) {
  return make_ready(operand, step, lane, weight, from, rows, false);
}

bool takes_groups(const Weight& weight, size_t n) { return weight.shape.kind != kBf16 && n % weight.shape.group == 0; }

void produce(const Step& step, const Weight& weight, size_t m, size_t first, const float* x, size_t n) {
  quantize_columns(step, weight.shape, step.s.produced, m, first, x, n);
}

Operand produced(const Step& step) {
  const Scratch& s = step.s;
  return {{s.produced.q, s.produced.scale, s.produced.sum, s.q_ld, s.scale_ld, step.prefetch}};
}

void run_panel(const Step& step, const Lane& lane, const Weight& weight, size_t panel, Operand& operand, size_t rows,
               float* out, size_t ldo, size_t count, const uint8_t* panels) {
  if (operand.pending) {
    for (size_t m = 0; m < rows; ++m)
      ready_row(step, lane, weight, operand.source, step.s.per_thread[lane.id()].few, m);
    operand.pending = false;
  }
  const KernelTable& k = step.k;
  const WeightShape& shape = weight.shape;
  const uint8_t* data = panels != nullptr ? panels + panel * weight.panel_bytes : weight.panel(panel);
  operand.q.second = count == 1 ? 0 : weight.panel_bytes;
  switch (shape.kind) {
    case kInt4: return k.linear_i4(out, ldo, data, shape.cols, shape.group, &operand.q, rows);
    case kInt3: return k.linear_i3(out, ldo, data, shape.cols, shape.group, &operand.q, rows);
    case kInt5: return k.linear_i5(out, ldo, data, shape.cols, shape.group, &operand.q, rows);
    case kInt8: {
      const auto linear = shape.planes() == 2 ? k.linear_i8_16 : k.linear_i8;
      return linear(out, ldo, data, shape.cols, shape.group, &operand.q, rows);
    }
    case kAffine4: return k.linear_a4(out, ldo, data, shape.cols, shape.group, shape.wide, &operand.q, rows);
    case kAffine5: return k.linear_a5(out, ldo, data, shape.cols, shape.group, shape.wide, &operand.q, rows);
    case kMxfp4: return k.linear_mx4(out, ldo, data, shape.cols, shape.group, &operand.q, rows);
    case kBf16: return k.linear_bf16(out, ldo, data, shape.cols, operand.x, operand.ldx, rows);
  }
}

size_t panels_at_once(const Step& step, const Lane& lane, const Weight& weight, size_t rows) {
  constexpr size_t kLong = 32768;  // shorter panels are read faster one after the other, as one stream
  const bool many = weight.panels >= 16 * lane.threads();  // fewer cannot be shared out evenly by twos
  const bool suits = many && weight.shape.kind != kBf16 && weight.panel_bytes >= kLong;
  return rows == 1 && suits && step.k.takes_second ? 2 : 1;
}

namespace {

void times(float* x, size_t n, float scale) {
  if (scale == 1) return;
  for (size_t i = 0; i < n; ++i) x[i] *= scale;
}

}  // namespace

bool add_to_stream(const Step& step, Lane& lane, const Weight& weight, Operand& operand, const Floats& bias,
                   const Floats& post_norm, float eps, To to, float scale) {
  const Scratch& s = step.s;
  const KernelTable& k = step.k;
  lane.phase("out");
  share_panels(step, lane, weight, step.rows, [&](size_t p, size_t count) {
    const size_t column = p * kPanelRows, ld = count * kPanelRows;
    const size_t width = std::min(ld, step.hidden - column);
    float* part = s.per_thread[lane.id()].panel;
    run_panel(step, lane, weight, p, operand, step.rows, part, ld, count);
    for (size_t m = 0; m < step.rows; ++m, part += ld) {
      float* x = s.x + m * s.x_ld + column;
      if (!bias.empty()) k.add(part, part, bias.data() + column, width);
      float* y = s.y + m * s.x_ld + column;
      if (to == To::kStreamWithAside) k.add(x, x, y, width);
      if (post_norm.empty() && to != To::kAside) {
        k.add(x, x, part, width);
        times(x, width, scale);
      } else {
        std::copy_n(part, width, y);
      }
    }
  });
  if (!lane.sync()) return false;
  return post_norm.empty() || add_normed(step, lane, post_norm, eps, s.y, scale, to);
}

bool add_normed(const Step& step, Lane& lane, const Floats& norm, float eps, float* y, float scale, To to) {
  const Scratch& s = step.s;
  lane.phase("post-norm");
  lane.share(step.rows, [&](size_t m) {
    float* row = y + m * s.x_ld;
    float* x = s.x + m * s.x_ld;
    step.k.rms_norm(row, row, norm.data(), step.hidden, eps);
    if (to == To::kAside) return;
    step.k.add(x, x, row, step.hidden);
    times(x, step.hidden, scale);
  });
  return lane.sync();
}

bool add_normed_sum(const Step& step, Lane& lane, const Floats& norm, float eps, float* y, const Floats& inner_norm,
                    float* more, float scale) {
  const Scratch& s = step.s;
  lane.phase("post-norm");
  lane.share(step.rows, [&](size_t m) {
    float *x = s.x + m * s.x_ld, *row = y + m * s.x_ld, *other = more + m * s.x_ld;
    if (!inner_norm.empty()) step.k.rms_norm(other, other, inner_norm.data(), step.hidden, eps);
    step.k.add(row, row, other, step.hidden);
    step.k.rms_norm(row, row, norm.data(), step.hidden, eps);
    step.k.add(x, x, row, step.hidden);
    times(x, step.hidden, scale);
  });
  return lane.sync();
}
