// The phases of a step, as launches.
#include <algorithm>
#include <array>

#include "cuda/device.h"
#include "cuda/piece.h"

namespace cuda {

li::KvLayer CudaDevice::kv_layer(size_t layer) const {
  const KvCache::Location& at = kv_locations_[layer];
  return {kv_.as<li::u8>(at.start), static_cast<li::Index>(at.block_bytes), narrow(at.bits)};
}

// The step's integers on the card, in this order: tokens, positions, sequences, out rows (max_rows each), block tables.
li::RowSlots CudaDevice::slots_of(const Piece& piece, size_t group) const {
  const size_t rows = program_.max_rows();
  const int* ints = ints_.as<int>();
  const int* tables = ints + 4 * rows + group * piece.input.group_stride;
  return {ints + rows, ints + 2 * rows, tables, narrow(piece.input.width)};
}

li::QuantizedRows CudaDevice::quantized(const WeightOnCard& weight) const {
  const li::CardWeight& card = weight.card;
  if (weight.kind == kBf16) return {};
  return {q_,          scales_,    sums_, weight.planes, narrow(q_ld_), narrow(s_ld_),
          card.group, card.groups, card.tiles};
}

void CudaDevice::enqueue_start(const Piece& piece) {
  const Driver& driver = session_->driver();
  const size_t ints = (4 * program_.max_rows() + piece.table_ints) * sizeof(int32_t);
  session_->check(driver.MemcpyHtoDAsync(ints_.at(), ints_pinned_.data(), ints, session_->stream()), "copying slots");
  if (needs_tokens(piece)) {
    enqueue_embed(piece);
    enqueue_layer_inputs(piece);
  }
  if (piece.columns == 0) {
    if (!needs_tokens(piece)) enqueue_embed(piece);
    return;
  }
  const bool mixes = piece.input.begin == 0;
  float* to = mixes ? floats_ : x_;
  const size_t ld = mixes ? float_ld_ : x_ld_;
  for (size_t i = 0; i < piece.rows; ++i)
    session_->check(driver.MemcpyHtoDAsync(reinterpret_cast<Pointer>(to + i * ld),
                                           rows_pinned_.data() + i * piece.columns * sizeof(float),
                                           piece.columns * sizeof(float), session_->stream()),
                    "copying inputs");
  if (!mixes) return;
  if (model_.mix.kind != kBf16) {
    li::ReadyArgs args{};
    args.x = floats_;
    args.x_ld = narrow(float_ld_);
    args.columns = narrow(piece.columns);
    args.to = quantized(model_.mix);
    kernels_.launch(kernels_.ready, {piece.rows}, 256, tiles_of(piece.columns) * li::kTileColumns * sizeof(float), args);
  }
  linear(model_.mix, piece.rows, x_, x_ld_);
}

void CudaDevice::enqueue_embed(const Piece& piece) {
  const li::EmbedArgs args{model_.embed.card, model_.embed.kind, ints_.as<int>(), program_.parts().embed.scale, x_,
                           narrow(x_ld_)};
  kernels_.launch(kernels_.embed, {piece.rows}, 128, 0, args);
}

// Of the embedding, which is in x_: projected and normed, with what tokens bring.
void CudaDevice::enqueue_layer_inputs(const Piece& piece) {
  const LayerInputsOp& op = program_.parts().layer_inputs;
  session_->check(session_->driver().MemcpyHtoDAsync(reinterpret_cast<Pointer>(token_rows_), token_rows_pinned_.data(),
                                                     piece.rows * inputs_ld_ * sizeof(float), session_->stream()),
                  "copying rows of tokens");
  const size_t hidden = program_.hidden();
  li::ReadyArgs args{};
  args.x = x_;
  args.x_ld = narrow(x_ld_);
  args.columns = narrow(hidden);
  args.to = quantized(model_.inputs);
  args.out = model_.inputs.kind == kBf16 ? floats_ : nullptr;
  args.out_ld = narrow(float_ld_);
  kernels_.launch(kernels_.ready, {piece.rows}, 256, tiles_of(hidden) * li::kTileColumns * sizeof(float), args);
  linear(model_.inputs, piece.rows, inputs_, inputs_ld_);
  const size_t parts = inputs_ld_ / op.size();
  const li::LayerInputsArgs sum{inputs_,          token_rows_,        narrow(inputs_ld_), narrow(parts),
                                narrow(op.size()), model_.inputs_norm, op.eps};
  kernels_.launch(kernels_.layer_inputs, {(parts + 3) / 4, piece.rows}, 128, 0, sum);
}

void CudaDevice::enqueue_layers(const Piece& piece) {
  const Program::Parts parts = program_.parts();
  enqueue_start(piece);
  Pending pending;
  for (size_t i = piece.begin; i < piece.end; ++i) {
    const Cases enqueue{[&](const AttendOp& op) { attend(piece, op, model_.ops[i], pending); },
                        [&](const MlpOp& op) { mlp(piece, op, model_.ops[i], pending); },
                        [&](const LayerInputOp& op) { layer_input(piece, op, model_.ops[i], pending); },
                        [](const ShortConvOp&) {},  // these are refused by Model
                        [](const DeltaOp&) {},
                        [](const MoeOp&) {}};
    std::visit(enqueue, parts.ops[i]);
  }
  if (piece.input.hidden != nullptr || piece.outs > kHeadRows)
    ready(piece.rows, pending, nullptr, nullptr, nullptr);
  if (piece.input.hidden != nullptr)
    for (size_t i = 0; i < piece.rows; ++i)
      session_->check(session_->driver().MemcpyDtoHAsync(rows_pinned_.data() + i * program_.hidden() * sizeof(float),
                                                         reinterpret_cast<Pointer>(x_ + i * x_ld_),
                                                         program_.hidden() * sizeof(float), session_->stream()),
                      "copying the residual stream");
  if (piece.outs > 0) enqueue_head(pending, 0, std::min(piece.outs, kHeadRows));
}

void CudaDevice::enqueue_head(Pending& pending, size_t first_out, size_t outs) {
  const HeadOp& op = program_.parts().head;
  const size_t vocab = program_.vocab();
  const NormOnCard norm{op.norm, model_.head_norm, model_.head_norm_bias};
  ready(outs, pending, &norm, &model_.head, ints_.as<int>() + 3 * program_.max_rows() + first_out);
  linear(model_.head, outs, logits_, logits_ld_);
  if (op.softcap > 0)
    kernels_.launch(kernels_.softcap, {(vocab + 255) / 256, outs}, 256, 0,
                    li::SoftcapArgs{logits_, narrow(logits_ld_), narrow(vocab), op.softcap});
  for (size_t i = 0; i < outs; ++i)
    session_->check(session_->driver().MemcpyDtoHAsync(logits_pinned_.data() + i * vocab * sizeof(float),
                                                       reinterpret_cast<Pointer>(logits_ + i * logits_ld_),
                                                       vocab * sizeof(float), session_->stream()),
                    "copying logits");
}

// x += what is pending; then its norm for weight `to`, quantized or as floats. Without `to`: only the sum.
void CudaDevice::ready(size_t rows, Pending& pending, const NormOnCard* norm, const WeightOnCard* to, const int* pick) {
  if (to == nullptr && !pending.any) return;
  const size_t hidden = program_.hidden();
  li::ReadyArgs args{};
  args.x = x_;
  args.x_ld = narrow(x_ld_);
  args.columns = narrow(hidden);
  args.pick = pick;
  args.y = pending.any ? y_ : nullptr;
  args.y_ld = narrow(x_ld_);
  args.aside = pending.aside;
  args.aside_bias = pending.aside_bias;
  args.bias = pending.bias;
  args.post_norm = pending.post_norm;
  args.post_eps = pending.eps;
  args.scale = pending.scale;
  if (norm != nullptr) {
    args.norm = norm->weight;
    args.norm_bias = norm->bias;
    args.centered = norm->norm.centered;
    args.eps = norm->norm.eps;
  }
  if (to != nullptr) {
    args.to = quantized(*to);
    args.out = to->kind == kBf16 ? floats_ : nullptr;
  }
  args.out_ld = narrow(float_ld_);
  kernels_.launch(kernels_.ready, {rows}, 256, tiles_of(hidden) * li::kTileColumns * sizeof(float), args);
  pending = {};
}

// Which kernel serves how many rows, and its grid.
void CudaDevice::linear(const WeightOnCard& weight, size_t rows, float* out, size_t out_ld) {
  const auto panels = static_cast<size_t>(weight.card.panels);
  const li::LinearArgs args{weight.card, quantized(weight), floats_, narrow(float_ld_), narrow(rows), out, narrow(out_ld)};
  if (weight.kind == kBf16) {
    const size_t at_once = rows == 1 ? 1 : rows <= 4 ? 4 : 16;
    const Handle kernel =
        at_once == 1 ? kernels_.linear_bf16_1 : at_once == 4 ? kernels_.linear_bf16_4 : kernels_.linear_bf16_16;
    kernels_.launch(kernel, {(panels + 3) / 4, (rows + at_once - 1) / at_once}, 128, 0, args);
    return;
  }
  const Kernels& k = kernels_;
  const std::array<std::array<Handle, 6>, 4> all{{
      {k.linear_i4_1, k.linear_i4_2, k.linear_i4_4, k.linear_i4_8, k.linear_i4_16, k.linear_i4_32},
      {k.linear_i3_1, k.linear_i3_2, k.linear_i3_4, k.linear_i3_8, k.linear_i3_16, k.linear_i3_32},
      {k.linear_i8_1, k.linear_i8_2, k.linear_i8_4, k.linear_i8_8, k.linear_i8_16, k.linear_i8_32},
      {k.linear_i8x16_1, k.linear_i8x16_2, k.linear_i8x16_4, k.linear_i8x16_8, k.linear_i8x16_16, k.linear_i8x16_32},
  }};
  const auto& kernels = all[weight.planes == 2 ? 3 : static_cast<size_t>(weight.kind)];
  if (rows <= 4) {  // a block a tile row
    kernels_.launch(kernels[rows == 1 ? 0 : rows == 2 ? 1 : 2], {panels * li::kTilesOfPanel}, 128, 0, args);
  } else if (rows <= 16) {  // a warp half a panel: many small blocks, so that every multiprocessor has some
    kernels_.launch(kernels[rows <= 8 ? 3 : 4], {panels}, 64, 0, args);
  } else {  // a warp a panel
    kernels_.launch(kernels[5], {(panels + 3) / 4, (rows + 31) / 32}, 128, 0, args);
  }
}

void CudaDevice::attend(const Piece& piece, const AttendOp& op, const OpOnCard& on, Pending& pending) {
  const size_t rows = piece.rows, shared = op.heads / op.kv_heads, slots = std::max<size_t>(piece.slots, 1);
  const NormOnCard norm{op.norm, on.norm, on.norm_bias};
  ready(rows, pending, &norm, &on.first, nullptr);
  linear(on.first, rows, qkv_, qkv_ld_);

  const li::KvLayer kv = kv_layer(op.layer);
  const li::RowSlots at = slots_of(piece, op.group);
  li::RopeArgs rope{};
  rope.qkv = qkv_;
  rope.qkv_ld = narrow(qkv_ld_);
  const size_t own = op.borrows ? 0 : op.kv_heads;  // heads of keys and values that this operation writes
  const bool same = op.keys_are_values();
  if (!op.borrows) {
    rope.k_start = narrow(op.qkv->shape.panel_of(1, 0) * kPanelRows);
    rope.v_start = narrow(op.qkv->shape.panel_of(same ? 1 : 2, 0) * kPanelRows);
  }
  rope.v_bias = narrow(op.heads + (same ? 0 : own));
  rope.v_norm = on.v_norm;
  rope.bias = on.bias;
  rope.q_norm = on.q_norm;
  rope.k_norm = on.k_norm;
  rope.ready = op.norms_all();
  rope.norm_after = op.norm_after_rope;
  rope.eps = op.norm.eps;
  rope.table = on.rope;
  rope.query_table = on.query_rope;
  rope.half = narrow(program_.parts().ropes[op.rope].half);
  rope.query_half = narrow(program_.parts().ropes[op.query_rope].half);
  rope.heads = narrow(op.heads);
  rope.kv_heads = narrow(own);
  rope.head_dim = narrow(op.head_dim);
  // A rotation of both sides multiplies their product by its length, a power of two.
  rope.score_scale = kv.bits == 16 ? op.scale : op.scale / static_cast<float>(op.head_dim & -op.head_dim);
  rope.kv = kv;
  rope.at = at;
  rope.q8 = q8_;
  rope.q_scale = q_scale_;
  if (op.norms_all()) {
    const li::NormAllArgs all{qkv_,      rope.qkv_ld,           narrow(op.q_norm.size()), rope.k_start, narrow(op.k_norm.size()),
                              on.bias,   on.q_norm,             on.k_norm,                op.norm.eps};
    kernels_.launch(kernels_.norm_all, {2, rows}, 256, 0, all);
  }
  kernels_.launch(kernels_.rope_append, {(op.heads + own + 3) / 4, rows}, 128, 0, rope);

  auto* parts = parts_.as<float>();
  const size_t results = rows * op.heads * slots;
  li::AttendArgs args{};
  args.q = qkv_;
  args.q_ld = narrow(qkv_ld_);
  args.q8 = q8_;
  args.q_scale = q_scale_;
  args.scale = op.scale;
  args.softcap = op.softcap;
  args.heads = rope.heads;
  args.kv_heads = narrow(op.kv_heads);
  args.head_dim = rope.head_dim;
  args.window = narrow(op.window);
  args.kv = kv;
  args.at = at;
  args.m = parts;
  args.l = parts + results;
  args.acc = parts + 2 * results;
  args.slots = narrow(slots);
  args.split = piece.slots > 0;
  const Handle kernel = kv.bits == 4 ? kernels_.attend_4 : kv.bits == 8 ? kernels_.attend_8 : kernels_.attend_16;
  kernels_.launch(kernel, {slots, op.kv_heads, rows}, 32 * std::min<size_t>(shared, 4), 0, args);

  const size_t columns = op.heads * op.head_dim;
  li::MergeArgs merge{};
  merge.m = args.m;
  merge.l = args.l;
  merge.acc = args.acc;
  merge.slots = args.slots;
  merge.split = args.split;
  merge.heads = args.heads;
  merge.head_dim = args.head_dim;
  merge.window = args.window;
  merge.positions = at.positions;
  merge.to = quantized(on.second);
  merge.out = floats_;
  merge.out_ld = narrow(float_ld_);
  kernels_.launch(kernels_.merge, {(tiles_of(columns) + 3) / 4, rows}, 128, 0, merge);
  linear(on.second, rows, op.aside ? aside_ : y_, x_ld_);
  if (!op.aside) pending = {true, on.out_bias, on.post_norm, op.post_eps};
}

void CudaDevice::mlp(const Piece& piece, const MlpOp& op, const OpOnCard& on, Pending& pending) {
  const size_t columns = op.down->shape.cols;
  const NormOnCard norm{op.norm, on.norm, on.norm_bias};
  ready(piece.rows, pending, &norm, &on.first, nullptr);
  linear(on.first, piece.rows, gate_up_, gate_up_ld_);
  const li::GatedArgs args{gate_up_,     narrow(gate_up_ld_), narrow(columns),      op.activation, op.gated(),
                           on.gate_bias, on.up_bias,          quantized(on.second), floats_,       narrow(float_ld_),
                           nullptr,      0};
  kernels_.launch(kernels_.gated, {(tiles_of(columns) + 3) / 4, piece.rows}, 128, 0, args);
  linear(on.second, piece.rows, y_, x_ld_);
  pending = {true, on.out_bias, on.post_norm, op.post_eps, op.beside ? aside_ : nullptr, on.aside_bias, op.scale};
}

void CudaDevice::layer_input(const Piece& piece, const LayerInputOp& op, const OpOnCard& on, Pending& pending) {
  const size_t columns = op.project->shape.cols;
  const Norm none{};
  const NormOnCard norm{none, nullptr, nullptr};
  ready(piece.rows, pending, &norm, &on.first, nullptr);
  linear(on.first, piece.rows, gate_up_, gate_up_ld_);
  const li::GatedArgs args{gate_up_, narrow(gate_up_ld_), narrow(columns),      op.activation, false,
                           nullptr,  nullptr,             quantized(on.second), floats_,       narrow(float_ld_),
                           inputs_ + op.part * columns,   narrow(inputs_ld_)};
  kernels_.launch(kernels_.gated, {(tiles_of(columns) + 3) / 4, piece.rows}, 128, 0, args);
  linear(on.second, piece.rows, y_, x_ld_);
  pending = {true, nullptr, on.post_norm, op.eps};
  pending.scale = op.scale;
}

}  // namespace cuda
