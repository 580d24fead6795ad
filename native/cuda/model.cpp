#include "cuda/model.h"

#include "core/error.h"
#include "cuda/repack.h"

namespace cuda {

Model::Model(std::shared_ptr<const Session> session, const Program& program, size_t threads)
    : session_(std::move(session)), threads_(threads) {
  const Program::Parts parts = program.parts();
  if (parts.embed.weight != nullptr) embed = put(parts.embed.weight);
  if (parts.mix.weight != nullptr) mix = put(parts.mix.weight);
  if (parts.layer_inputs.size() > 0) {  // the rows of its table come from the host
    inputs = put(parts.layer_inputs.project);
    inputs_norm = put(parts.layer_inputs.norm);
  }
  std::vector<const float*> ropes;
  for (const RopeTable& rope : parts.ropes) {
    memory_.emplace_back(session_, rope.values.size(), "the RoPE table on the card");
    memory_.back().put(0, rope.values.data(), rope.positions * 2 * rope.half * sizeof(float));
    ropes.push_back(memory_.back().as<float>());
  }
  const Cases put_op{[&](const AttendOp& op) {
                       if (!op.sinks.empty()) refuse("a card has no kernels for attention sinks");
                       OpOnCard on;
                       on.first = put(op.qkv);
                       on.second = put(op.o);
                       on.norm = put(op.norm.weight);
                       on.norm_bias = put(op.norm.bias);
                       if (op.gated || op.out_scale != 1)
                         refuse("a card has no kernels for gates or scales of what attention gives");
                       on.bias = put(op.bias);
                       on.q_norm = put(op.q_norm);
                       on.k_norm = put(op.k_norm);
                       on.v_norm = put(op.v_norm);
                       on.out_bias = put(op.o_bias);
                       on.post_norm = put(op.post_norm);
                       on.rope = ropes[op.rope];
                       on.query_rope = ropes[op.query_rope];
                       return on;
                     },
                     [&](const MlpOp& op) {
                       if (op.squares || op.inner_scale != 1) refuse("a card has no kernels for relu2 or scales of MLPs");
                       OpOnCard on;
                       on.first = put(op.gate_up);
                       on.second = put(op.down);
                       on.norm = put(op.norm.weight);
                       on.norm_bias = put(op.norm.bias);
                       on.gate_bias = put(op.gate_bias);
                       on.up_bias = put(op.up_bias);
                       on.out_bias = put(op.down_bias);
                       on.aside_bias = op.beside ? ops.back().out_bias : nullptr;
                       on.post_norm = put(op.post_norm);
                       return on;
                     },
                     [&](const LayerInputOp& op) {
                       OpOnCard on;
                       on.first = put(op.gate);
                       on.second = put(op.project);
                       on.post_norm = put(op.post_norm);
                       return on;
                     },
                     [](const ShortConvOp&) -> OpOnCard { refuse("a card has no kernels for short convolutions"); },
                     [](const DeltaOp&) -> OpOnCard { refuse("a card has no kernels for delta nets"); },
                     [](const MoeOp&) -> OpOnCard { refuse("a card has no kernels for mixtures of experts"); }};
  for (const Op& op : parts.ops) ops.push_back(std::visit(put_op, op));
  head = put(parts.head.weight);
  head_norm = put(parts.head.norm.weight);
  head_norm_bias = put(parts.head.norm.bias);
  seen_.clear();
}

WeightOnCard Model::put(const WeightRef& weight) {
  const auto found = seen_.find(weight.get());
  if (found != seen_.end()) return found->second;
  const WeightShape& shape = weight->shape;
  REQUIRE(shape.kind <= kBf16, "cards have no kernels for %s weights", kind_name(shape.kind));
  const PackedSizes sizes = packed_sizes(shape);
  const size_t scales_at = round_up(sizes.values, 256), total = scales_at + sizes.scales;
  const Memory staging(total, "weights on their way to the card");
  repack(*weight, threads_, staging.data(), staging.data() + scales_at);
  memory_.emplace_back(session_, total, "weights on the card");
  memory_.back().put(0, staging.data(), total);
  bytes_ += total;
  ranges_.push_back({memory_.back().at(), sizes.values});
  WeightOnCard on;
  on.kind = shape.kind;
  on.planes = static_cast<int>(shape.planes());
  li::CardWeight& card = on.card;
  card.values = memory_.back().as<li::u8>();
  card.scales = sizes.scales == 0 ? nullptr : memory_.back().as<li::u16>(scales_at);
  card.panels = static_cast<int>(weight->panels);
  card.cols = static_cast<int>(shape.cols);
  card.tiles = static_cast<int>((shape.cols + li::kTileColumns - 1) / li::kTileColumns);
  card.group = static_cast<int>(shape.group);
  card.groups = shape.group == 0 ? 0 : static_cast<int>(shape.cols / shape.group);
  return seen_[weight.get()] = on;
}

const float* Model::put(const Floats& values) {
  if (values.empty()) return nullptr;
  const size_t bytes = values.size() * sizeof(float);
  memory_.emplace_back(session_, bytes, "weights on the card");
  memory_.back().put(0, values.data(), bytes);
  bytes_ += bytes;
  return memory_.back().as<float>();
}

}  // namespace cuda
