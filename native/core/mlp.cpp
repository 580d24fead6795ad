#include <algorithm>

#include "core/linear.h"
#include "core/square.h"

namespace {

// `n` columns of act(gate) * up, or of act(up), from column `first` on, whole panels; handed row by row to put(m, values).
template <class F>
void gate_and_up(const MlpOp& op, const Step& step, const Lane& lane, Operand& operand, size_t first, size_t n,
                 const F& put) {
  float* out = step.s.per_thread[lane.id()].panel;
  const size_t ld = step.s.panel_ld;
  const size_t both = op.gated() ? 2 : 1;
  const size_t panels = both * n / kPanelRows, most = panels_at_once(step, lane, *op.gate_up, step.rows);
  for (size_t i = 0; i < panels; i += most)  // gate and up in turn
    run_panel(step, lane, *op.gate_up, both * first / kPanelRows + i, operand, step.rows, out + i * kPanelRows, ld,
              std::min(most, panels - i));
  const auto add_bias = [&](float* panel, const Floats& bias, size_t column) {
    if (!bias.empty()) step.k.add(panel, panel, bias.data() + column, kPanelRows);
  };
  for (size_t m = 0; m < step.rows; ++m, out += ld) {
    float values[kWidestGroup];
    for (size_t i = 0; i < n; i += kPanelRows) {
      float *gate = out + both * i, *up = gate + (both - 1) * kPanelRows;
      add_bias(up, op.up_bias, first + i);
      if (op.gated()) add_bias(gate, op.gate_bias, first + i);
      if (op.squares)
        square(values + i, gate, op.gated() ? up : kOnes.data());
      else
        step.k.gated(values + i, gate, op.gated() ? up : kOnes.data(), kPanelRows, op.activation);
      if (op.inner_scale != 1)
        for (size_t j = i; j < i + kPanelRows; ++j) values[j] *= op.inner_scale;
    }
    put(m, values);
  }
}

}  // namespace

bool run_mlp(const MlpOp& op, const Step& step, Lane& lane) {
  const Scratch& s = step.s;
  const Weight& down = *op.down;
  Operand operand;
  if (!make_ready(&operand, step, lane, *op.gate_up, {s.x, s.x_ld, op.norm.get()}, step.rows)) return false;
  const bool quantized = down.shape.kind != kBf16;
  const size_t n = quantized ? down.shape.group : size_t{kPanelRows};
  lane.phase("gate, up");
  lane.share((down.shape.cols + n - 1) / n, [&](size_t i) {
    gate_and_up(op, step, lane, operand, i * n, n, [&](size_t m, const float* values) {
      if (quantized)
        produce(step, down, m, i * n, values, n);
      else
        std::copy_n(values, n, s.hidden + m * s.hidden_ld + i * n);
    });
  });
  if (!lane.sync()) return false;
  if (quantized)
    operand = produced(step);
  else if (!make_ready(&operand, step, lane, down, {s.hidden, s.hidden_ld}, step.rows))
    return false;
  const To to = op.beside ? To::kStreamWithAside : op.aside ? To::kAside : To::kStream;
  return add_to_stream(step, lane, down, operand, op.down_bias, op.post_norm, op.post_eps, to, op.scale);
}
