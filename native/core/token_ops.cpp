// Where tokens come in and logits go out.
#include <algorithm>
#include <cmath>

#include "core/linear.h"

bool run_embed(const Step& step, Lane& lane) {
  const EmbedOp& op = step.embed();
  lane.phase("embedding");
  lane.share(step.rows, [&](size_t m) {
    float* x = step.s.x + m * step.s.x_ld;
    op.weight->row(static_cast<size_t>(step.tokens[m]), x);
    if (op.scale != 1.0f)
      for (size_t i = 0; i < step.hidden; ++i) x[i] *= op.scale;
    if (op.norm_eps >= 0) step.k.rms_norm(x, x, step.program.ones(), step.hidden, op.norm_eps);
  });
  return lane.sync();
}

bool run_mix(const Step& step, Lane& lane) {
  const Weight& weight = *step.mix().weight;
  Operand operand;
  if (!make_ready(&operand, step, lane, weight, {step.inputs, weight.shape.cols}, step.rows)) return false;
  lane.phase("input projection");
  lane.share(weight.panels, [&](size_t p) {
    const size_t column = p * kPanelRows, width = std::min<size_t>(kPanelRows, step.hidden - column);
    float* part = step.s.per_thread[lane.id()].panel;
    run_panel(step, lane, weight, p, operand, step.rows, part, kPanelRows);
    for (size_t m = 0; m < step.rows; ++m)
      std::copy_n(part + m * kPanelRows, width, step.s.x + m * step.s.x_ld + column);
  });
  return lane.sync();
}

bool take_stream(const Step& step, Lane& lane) {
  lane.phase("copy");
  lane.share(step.rows, [&](size_t m) {
    std::copy_n(step.inputs + m * step.hidden, step.hidden, step.s.x + m * step.s.x_ld);
  });
  return lane.sync();
}

bool give_stream(const Step& step, Lane& lane) {
  lane.phase("copy");
  lane.share(step.rows, [&](size_t m) {
    std::copy_n(step.s.x + m * step.s.x_ld, step.hidden, step.hidden_out + m * step.hidden);
  });
  return lane.sync();
}

namespace {

// Of at most two panels: x = cap * tanh(x / cap), tanh(|a|) = (1 - e) / (1 + e) with e = exp(-2|a|), by the kernels' own exp.
void cap_softly(const KernelTable& k, float* x, size_t n, float cap) {
  float e[2 * kPanelRows];
  for (size_t i = 0; i < n; ++i) e[i] = -2.0f * std::fabs(x[i] / cap);
  k.exp(e, e, n);
  for (size_t i = 0; i < n; ++i) x[i] = std::copysign(cap * ((1.0f - e[i]) / (1.0f + e[i])), x[i]);
}

}  // namespace

bool run_head(const Step& step, Lane& lane) {
  const HeadOp& op = step.head();
  const Scratch& s = step.s;
  const size_t vocab = op.weight->shape.rows();
  if (step.outs > 0) {
    Operand operand;
    const Source wanted{s.x, s.x_ld, &op.norm, step.out_rows, step.first};
    if (!make_ready(&operand, step, lane, *op.weight, wanted, step.outs)) return false;
    lane.phase("logits");
    share_panels(step, lane, *op.weight, step.outs, [&](size_t p, size_t count) {
      const size_t ld = count * kPanelRows, width = std::min(ld, vocab - p * kPanelRows);
      float* logits = step.logits + p * kPanelRows;
      if (width == ld) {
        run_panel(step, lane, *op.weight, p, operand, step.outs, logits, vocab, count);
      } else {  // the last panel is padded, the caller's rows are not
        float* part = s.per_thread[lane.id()].panel;
        run_panel(step, lane, *op.weight, p, operand, step.outs, part, ld, count);
        for (size_t m = 0; m < step.outs; ++m) std::copy_n(part + m * ld, width, logits + m * vocab);
      }
      for (size_t m = 0; op.softcap > 0 && m < step.outs; ++m) cap_softly(step.k, logits + m * vocab, width, op.softcap);
    });
  }
  return lane.sync();
}
