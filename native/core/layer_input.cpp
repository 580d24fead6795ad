// Inputs that each layer has of its own: a row of a table of tokens and a projection of the embedding, gated in the layer.
#include <algorithm>

#include "core/linear.h"

bool run_layer_inputs(const Step& step, Lane& lane) {
  const LayerInputsOp& op = step.layer_inputs();
  const Scratch& s = step.s;
  Operand operand;
  if (!make_ready(&operand, step, lane, *op.project, {s.x, s.x_ld}, step.rows)) return false;
  lane.phase("projection");
  lane.share(op.project->panels, [&](size_t p) {
    run_panel(step, lane, *op.project, p, operand, step.rows, s.inputs + p * kPanelRows, s.inputs_ld);
  });
  if (!lane.sync()) return false;
  lane.phase("layer inputs");
  lane.share(step.rows, [&](size_t m) {
    float *row = s.inputs + m * s.inputs_ld, *token = s.per_thread[lane.id()].wide;
    const auto number = static_cast<size_t>(step.tokens[m]);
    if (op.rows != nullptr)
      op.rows->row(number, token, s.per_thread[lane.id()].stored);
    else
      op.table->row(number, token);
    for (size_t i = 0; i < s.inputs_ld; ++i) token[i] *= op.scale;
    for (size_t i = 0; i < s.inputs_ld; i += op.size())
      step.k.rms_norm(row + i, row + i, op.norm.data(), op.size(), op.eps);
    step.k.add(row, row, token, s.inputs_ld);
  });
  return lane.sync();
}

bool run_layer_input(const LayerInputOp& op, const Step& step, Lane& lane) {
  const Scratch& s = step.s;
  const Weight& project = *op.project;
  Operand operand;
  if (!make_ready(&operand, step, lane, *op.gate, {s.x, s.x_ld}, step.rows)) return false;
  const bool quantized = project.shape.kind != kBf16;
  const size_t size = project.shape.cols, n = quantized ? project.shape.group : size_t{kPanelRows};
  lane.phase("gate");
  lane.share(size / n, [&](size_t i) {
    float* part = s.per_thread[lane.id()].panel;
    for (size_t j = 0; j < n; j += kPanelRows)
      run_panel(step, lane, *op.gate, (i * n + j) / kPanelRows, operand, step.rows, part + j, s.panel_ld);
    for (size_t m = 0; m < step.rows; ++m, part += s.panel_ld) {
      const float* given = s.inputs + m * s.inputs_ld + op.part * size + i * n;
      for (size_t j = 0; j < n; j += kPanelRows)
        step.k.gated(part + j, part + j, given + j, kPanelRows, op.activation);
      if (quantized)
        produce(step, project, m, i * n, part, n);
      else
        std::copy_n(part, n, s.hidden + m * s.hidden_ld + i * n);
    }
  });
  if (!lane.sync()) return false;
  if (quantized)
    operand = produced(step);
  else if (!make_ready(&operand, step, lane, project, {s.hidden, s.hidden_ld}, step.rows))
    return false;
  return add_to_stream(step, lane, project, operand, {}, op.post_norm, op.eps, To::kStream, op.scale);
}
