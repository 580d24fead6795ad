#include "core/linear.h"

bool run_mlp(const MlpOp& op, const Step& step, Lane& lane) {
  const Scratch& s = step.s;
  const KernelTable& k = step.k;
  Operand operand;
  if (!make_ready(&operand, step, lane, *op.gate_up, {s.x, s.x_ld, &op.norm}, step.rows)) return false;
  lane.share(op.gate_up->panels / 2, [&](size_t p) {
    float* gate = s.own[lane.id()].panel;
    float* up = gate + kPanelRows;
    run_panel(step, lane, *op.gate_up, 2 * p, operand, step.rows, gate, 2 * kPanelRows);
    run_panel(step, lane, *op.gate_up, 2 * p + 1, operand, step.rows, up, 2 * kPanelRows);
    for (size_t m = 0; m < step.rows; ++m, gate += 2 * kPanelRows, up += 2 * kPanelRows)
      k.gated(s.hidden + m * s.hidden_ld + p * kPanelRows, gate, up, kPanelRows, op.activation);
  });
  if (!lane.sync()) return false;
  if (!make_ready(&operand, step, lane, *op.down, {s.hidden, s.hidden_ld}, step.rows)) return false;
  return add_to_stream(step, lane, *op.down, operand, {}, op.post_norm, op.norm.eps);
}
