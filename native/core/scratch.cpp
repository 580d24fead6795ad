// The scratch memory of a program: how much of each array its operations need, laid out in one block.
#include <algorithm>
#include <cstdint>

#include "core/attend.h"
#include "core/program.h"
#include "core/step.h"

namespace {

// Hands out consecutive, aligned arrays of a block of memory that is measured first and allocated after.
class Layout {
 public:
  explicit Layout(uint8_t* start) : start_(start) {}
  template <class T>
  void take(T** array, size_t n) {
    const size_t bytes = n * sizeof(T), room = round_up(bytes, 2 * kLine) + kGap;
    if (start_ != nullptr) {
      *array = reinterpret_cast<T*>(start_ + used_);
      forbid(start_ + used_ + bytes, room - bytes);
    }
    used_ += room;
  }
  size_t used() const { return used_; }

 private:
  uint8_t* start_;
  size_t used_ = 0;
};

void take_quantized(Layout& layout, Scratch& s, Scratch::Quantized& rows, size_t n) {
  layout.take(&rows.q, n * s.planes * s.q_ld);
  layout.take(&rows.scale, n * s.scale_ld);
  layout.take(&rows.sum, n * s.scale_ld);
}

void take_experts(Layout& layout, Scratch& s, size_t rows) {
  const size_t pairs = rows * s.top_k, all = pairs + (s.shares_expert ? rows : 0);
  layout.take(&s.router, rows * s.router_ld);
  Scratch::Routes& routes = s.routes;
  for (size_t** numbers : {&routes.expert, &routes.row}) layout.take(numbers, pairs);
  for (float** weights : {&routes.weight, &routes.row_weight}) layout.take(weights, pairs);
  for (size_t** numbers : {&routes.first, &routes.next, &routes.active}) layout.take(numbers, s.most_experts + 1);
  layout.take(&routes.active_count, 1);
  layout.take(&s.latent, rows * s.latent_ld);
  take_quantized(layout, s, s.gathered, pairs);
  take_quantized(layout, s, s.expert_rows, all);
  if (!s.floats_in_experts) return;
  layout.take(&s.gathered.normed, pairs * s.x_ld);
  layout.take(&s.expert_hidden, all * s.hidden_ld);
}

size_t take_all(Scratch& s, uint8_t* start, size_t rows) {
  Layout layout(start);
  layout.take(&s.x, rows * s.x_ld);
  layout.take(&s.y, rows * s.x_ld);
  layout.take(&s.qkv, rows * s.qkv_ld);
  layout.take(&s.attended, rows * s.attended_ld);
  layout.take(&s.hidden, rows * s.hidden_ld);
  if (s.inputs_ld > 0) layout.take(&s.inputs, rows * s.inputs_ld);
  layout.take(&s.q8, rows * s.attended_ld);
  for (float** values : {&s.q_scale, &s.m, &s.l}) layout.take(values, rows * s.heads_ld);
  layout.take(&s.q_sum, rows * s.heads_ld);
  layout.take(&s.parts, s.parts_size);
  take_quantized(layout, s, s.produced, rows);
  take_quantized(layout, s, s.shared, rows);
  layout.take(&s.shared.normed, rows * s.x_ld);
  if (s.most_experts > 0) take_experts(layout, s, rows);
  for (Scratch::PerThread& mine : s.per_thread) {
    take_quantized(layout, s, mine.few, kFewRows);
    layout.take(&mine.few.normed, kFewRows * s.x_ld);
    layout.take(&mine.row, s.x_ld);
    if (s.inputs_ld > 0) layout.take(&mine.wide, s.inputs_ld);
    if (s.stored_ld > 0) layout.take(&mine.stored, s.stored_ld);
    layout.take(&mine.panel, rows * s.panel_ld);
    layout.take(&mine.tiles, rows);
    layout.take(&mine.query, s.attended_ld);
    layout.take(&mine.query_8, s.attended_ld);
    layout.take(&mine.query_scale, s.heads_ld);
    layout.take(&mine.query_sum, s.heads_ld);
    layout.take(&mine.room, kAttendRoom);
    if (s.most_experts > 0) layout.take(&mine.sums, rows * kPanelRows);
    if (s.delta_state > 0) layout.take(&mine.state, s.delta_state);
  }
  return layout.used();
}

}  // namespace

void Program::lay_out_scratch() {
  Scratch s;
  s.x_ld = round_up(hidden_, kPanelRows);
  size_t widest = hidden_, head_dim = 0;
  max_positions_ = size_t{1} << 24;
  const Cases measure{[&](const AttendOp& op) {
                        const size_t copied = op.keys_are_values() ? op.kv_heads * op.head_dim : 0;
                        s.qkv_ld = std::max(s.qkv_ld, op.qkv->panels * kPanelRows + copied);
                        s.attended_ld = std::max(s.attended_ld, op.heads * op.head_dim);
                        s.heads_ld = std::max(s.heads_ld, op.heads);
                        head_dim = std::max(head_dim, op.head_dim);
                        for (const size_t rope : {op.rope, op.query_rope})
                          max_positions_ = std::min(max_positions_, ropes_[rope].positions - op.ahead);
                      },
                      [&](const MlpOp& op) {
                        s.hidden_ld = std::max(s.hidden_ld, op.gate_up->panels / (op.gated() ? 2 : 1) * kPanelRows);
                        s.panel_ld = std::max(s.panel_ld, 2 * op.down->shape.group);
                      },
                      [&](const MoeOp& op) {
                        s.most_experts = std::max(s.most_experts, op.experts.size());
                        s.top_k = std::max(s.top_k, op.top_k);
                        s.router_ld = std::max(s.router_ld, op.router->panels * kPanelRows);
                        s.shares_expert |= op.shared.down != nullptr;
                        for (const WeightRef* weight : {&op.experts[0].gate_up, &op.experts[0].down})
                          s.floats_in_experts |= (*weight)->shape.kind == kBf16;
                        for (const MoeOp::Expert* one : {&op.experts[0], &op.shared}) {
                          if (one->down == nullptr) continue;
                          s.hidden_ld = std::max(s.hidden_ld, one->gate_up->panels / (op.gated() ? 2 : 1) * kPanelRows);
                          s.panel_ld = std::max(s.panel_ld, 2 * one->down->shape.group);
                        }
                        if (op.beside()) s.latent_ld = std::max(s.latent_ld, s.x_ld);
                        if (op.into != nullptr) s.latent_ld = std::max(s.latent_ld, op.into->panels * kPanelRows);
                      },
                      [&](const DeltaOp& op) {
                        s.qkv_ld = std::max(s.qkv_ld, (op.in->panels + op.gates->panels) * kPanelRows);
                        s.attended_ld = std::max(s.attended_ld, op.value_heads * op.value_dim);
                        s.delta_state = std::max(s.delta_state, op.key_dim * op.value_dim);
                      },
                      [&](const LayerInputOp& op) {
                        s.hidden_ld = std::max(s.hidden_ld, op.gate->panels * kPanelRows);
                        s.panel_ld = std::max(s.panel_ld, op.project->shape.group);
                      },
                      [&](const ShortConvOp& op) {
                        s.qkv_ld = std::max(s.qkv_ld, op.in->panels * kPanelRows);
                        s.hidden_ld = std::max(s.hidden_ld, s.x_ld);
                      }};
  for (const Op& op : ops_) std::visit(measure, op);
  s.inputs_ld = layer_inputs_.columns();
  if (layer_inputs_.rows != nullptr) s.stored_ld = layer_inputs_.rows->row_bytes();
  widest = std::max({widest, s.attended_ld, s.hidden_ld, input_columns(0)});
  s.q_ld = round_up(widest, kLine);
  s.scale_ld = round_up(widest, 32) / 32;
  for (const Weight* weight : weights()) s.planes = std::max(s.planes, weight->shape.planes());
  s.per_thread.resize(pool_.threads());
  const size_t split_groups = pool_.threads() * kSplitShare;  // tiles times KV heads: each is more than its part of the work
  if (pool_.threads() > 1) s.parts_size = 2 * split_groups * kTileQueries * (head_dim + 2);
  s.arrived = std::make_unique<std::atomic<size_t>[]>(split_groups);
  s.memory = Memory(take_all(s, nullptr, max_rows_), "the program's scratch memory");
  take_all(s, s.memory.data(), max_rows_);
  scratch_ = std::move(s);
}
