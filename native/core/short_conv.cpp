// A short causal convolution with gates: x += out(c * conv(b * u)), b, c and u of norm(x). Rows of one sequence walk
// through its state in order, a group of columns at a time; groups are shared over the threads.
#include <algorithm>
#include <cstring>

#include "core/linear.h"

namespace {

constexpr size_t kWidestGroup = 128;

// What one thread does in the phase: columns [first, first + n) of every row.
class ShortConv {
 public:
  ShortConv(const ShortConvOp& op, const Step& step)
      : op_(op),
        step_(step),
        hidden_(step.hidden) {}

  // out[i] of row m, and the state after it: a known row moves the state on, a drafted one is kept behind it.
  void row(size_t m, size_t first, size_t n, float* out) const {
    const size_t slot = static_cast<size_t>(step_.sequences[m]);
    const int64_t position = step_.positions[m], firm = step_.state.slot(slot).firm;
    const size_t past = op_.length - 1;
    float* before = step_.state.at(op_.state, slot) + first;  // the oldest of the rows that it sees
    if (position == 0)
      for (size_t j = 0; j < past; ++j) std::fill_n(before + j * hidden_, n, 0.0f);
    if (position > firm) before += static_cast<size_t>(position - firm) * hidden_;
    const float *b = step_.s.qkv + m * step_.s.qkv_ld + first, *c = b + hidden_, *u = c + hidden_;
    float* now = before + past * hidden_;
    for (size_t i = 0; i < n; ++i) now[i] = part(b, 0, first, i) * part(u, 2, first, i);
    const float* taps = op_.taps.data() + first;
    for (size_t i = 0; i < n; ++i) out[i] = op_.taps_bias.empty() ? 0.0f : op_.taps_bias[first + i];
    for (size_t j = 0; j <= past; ++j)
      for (size_t i = 0; i < n; ++i) out[i] += taps[j * hidden_ + i] * before[j * hidden_ + i];
    for (size_t i = 0; i < n; ++i) out[i] *= part(c, 1, first, i);
    if (position < firm)
      for (size_t j = 0; j < past; ++j) std::copy_n(before + (j + 1) * hidden_, n, before + j * hidden_);
  }

 private:
  float part(const float* values, size_t which, size_t first, size_t i) const {
    return op_.in_bias.empty() ? values[i] : values[i] + op_.in_bias[which * hidden_ + first + i];
  }

  const ShortConvOp& op_;
  const Step& step_;
  const size_t hidden_;
};

}  // namespace

bool run_short_conv(const ShortConvOp& op, const Step& step, Lane& lane) {
  const Scratch& s = step.s;
  Operand operand;
  if (!make_ready(&operand, step, lane, *op.in, {s.x, s.x_ld, &op.norm}, step.rows)) return false;
  lane.phase("in");
  share_panels(step, lane, *op.in, step.rows, [&](size_t p, size_t count) {
    run_panel(step, lane, *op.in, p, operand, step.rows, s.qkv + p * kPanelRows, s.qkv_ld, count);
  });
  if (!lane.sync()) return false;
  const bool quantized = op.out->shape.kind != kBf16;
  const size_t group = quantized ? op.out->shape.group : size_t{kPanelRows};
  const ShortConv conv(op, step);
  lane.phase("convolution");
  lane.share((step.hidden + group - 1) / group, [&](size_t i) {
    const size_t first = i * group, n = std::min(group, step.hidden - first);
    float values[kWidestGroup];
    for (size_t m = 0; m < step.rows; ++m) {
      float* out = quantized ? values : s.hidden + m * s.hidden_ld + first;
      conv.row(m, first, n, out);
      if (quantized) produce(step, *op.out, m, first, values, n);
    }
  });
  if (!lane.sync()) return false;
  if (quantized)
    operand = produced(step);
  else if (!make_ready(&operand, step, lane, *op.out, {s.hidden, s.hidden_ld}, step.rows))
    return false;
  return add_to_stream(step, lane, *op.out, operand, op.out_bias, {}, op.norm.eps);
}

void advance(const ShortConvOp& op, float* state, size_t width, size_t kept, size_t rows) {
  const size_t past = op.length - 1;
  std::memmove(state, state + rows * width, (past + kept - rows) * width * sizeof(float));
}
