#include "cuda/device.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/error.h"

namespace cuda {
namespace {

constexpr size_t kPartsLimit = size_t{128} << 20;  // above, attention is not split at its cuts: slower, the same bits

size_t tiles_of(size_t columns) { return (columns + li::kTileColumns - 1) / li::kTileColumns; }
int narrow(size_t n) { return static_cast<int>(n); }

// Consecutive arrays, measured first and handed out after.
struct Layout {
  uint8_t* start;
  size_t used = 0;
  template <class T>
  void take(T** array, size_t n) {
    if (start != nullptr) *array = reinterpret_cast<T*>(start + used);
    used += round_up(n * sizeof(T), 256);
  }
};

}  // namespace

// What is added to the stream before it is read next.
struct CudaDevice::Pending {
  bool any = false;
  const float *bias = nullptr, *post_norm = nullptr;
  float eps = 0;
};

// Rows of a step that run together.
struct CudaDevice::Piece {
  const StepInput& input;
  size_t first, rows;
  size_t begin, end;  // of the program's ops
  size_t out_begin, outs;
  size_t columns;  // of inputs, 0: none
  size_t cuts = 0, slots = 0;
  const int32_t* out_rows() const { return input.out_rows + out_begin; }
};

CudaDevice::CudaDevice(std::shared_ptr<const Session> session, const Program& program, const void* image, bool graphs,
                       size_t threads)
    : session_(std::move(session)),
      program_(program),
      use_graphs_(graphs),
      model_(session_, program, threads),
      kernels_(session_, image, tiles_of(std::max(program.hidden(), program.input_columns(0))) * li::kTileColumns * 4) {
  lay_out_scratch();
}

CudaDevice::~CudaDevice() { drop_graphs(); }

void CudaDevice::drop_graphs() {
  const bool there = session_->try_enter();
  for (const auto& [key, graph] : graphs_)
    if (there) session_->driver().GraphExecDestroy(graph);
  graphs_.clear();
}

void CudaDevice::lay_out_scratch() {
  const Program::Parts parts = program_.parts();
  const size_t rows = program_.max_rows(), padded = std::max(rows, kHeadRows);
  size_t widest = std::max(program_.hidden(), program_.input_columns(0)), groups = 0;
  const auto see = [&](const WeightOnCard& weight) {
    planes_ = std::max(planes_, static_cast<size_t>(weight.planes));
    groups = std::max(groups, static_cast<size_t>(weight.card.groups));
    widest = std::max(widest, static_cast<size_t>(weight.card.cols));
  };
  for (size_t i = 0; i < parts.ops.size(); ++i) {
    const OpOnCard& on = model_.ops[i];
    see(on.first);
    see(on.second);
    const size_t out = static_cast<size_t>(on.first.card.panels) * kPanelRows;
    if (const auto* attend = std::get_if<AttendOp>(&parts.ops[i])) {
      qkv_ld_ = std::max(qkv_ld_, out);
      heads_ = std::max(heads_, attend->heads);
      head_dim_ = std::max(head_dim_, attend->head_dim);
      query_ = std::max(query_, attend->heads * attend->head_dim);
    } else {
      gate_up_ld_ = std::max(gate_up_ld_, out);
    }
  }
  for (const WeightOnCard* weight : {&model_.mix, &model_.head}) see(*weight);
  x_ld_ = round_up(program_.hidden(), kPanelRows);
  float_ld_ = widest;
  q_ld_ = tiles_of(widest) * li::kTileColumns;
  s_ld_ = groups;
  logits_ld_ = static_cast<size_t>(model_.head.card.panels) * kPanelRows;
  const auto take_all = [&](uint8_t* start) {
    Layout layout{start};
    layout.take(&x_, rows * x_ld_);
    layout.take(&y_, rows * x_ld_);
    layout.take(&qkv_, rows * qkv_ld_);
    layout.take(&gate_up_, rows * gate_up_ld_);
    layout.take(&floats_, padded * float_ld_);
    layout.take(&q_, padded * planes_ * q_ld_);
    layout.take(&scales_, padded * s_ld_);
    layout.take(&sums_, padded * s_ld_);
    layout.take(&q8_, rows * query_);
    layout.take(&q_scale_, rows * heads_);
    layout.take(&logits_, kHeadRows * logits_ld_);
    return layout.used;
  };
  scratch_ = CardMemory(session_, take_all(nullptr), "scratch memory on the card");
  take_all(scratch_.as<uint8_t>());
  logits_here_ = PinnedMemory(session_, kHeadRows * program_.vocab() * sizeof(float));
}

void CudaDevice::make_kv(const KvCache& layout) {
  drop_graphs();
  kv_ = CardMemory();  // the old one goes first: both at once may not fit
  kv_ = CardMemory(session_, layout.bytes(), "the KV cache on the card");
  kv_places_.clear();
  for (size_t i = 0; i < layout.layers(); ++i) kv_places_.push_back(layout.place(i));
  if (layout.bytes() == 0) return;  // a program without attention
  // Blocks are kept on disk whole: what nobody wrote must not be somebody else's.
  session_->check(session_->driver().MemsetD8Async(kv_.at(), 0, layout.bytes(), session_->stream()), "clearing the cache");
  session_->wait();
}

void CudaDevice::read_kv(size_t block, uint8_t* out) {
  for (const KvCache::Place& place : kv_places_) {
    const size_t bytes = place.kv_heads * place.block_bytes;
    kv_.get(place.start + block * bytes, out, bytes);
    out += bytes;
  }
}

void CudaDevice::write_kv(size_t block, const uint8_t* in) {
  for (const KvCache::Place& place : kv_places_) {
    const size_t bytes = place.kv_heads * place.block_bytes;
    kv_.put(place.start + block * bytes, in, bytes);
    in += bytes;
  }
}

li::KvLayer CudaDevice::kv_layer(size_t layer) const {
  const KvCache::Place& place = kv_places_[layer];
  return {kv_.as<li::u8>(place.start), static_cast<li::Index>(place.block_bytes), narrow(place.bits)};
}

// The step's integers on the card, in this order: tokens, positions, sequences, out rows (max_rows each), block tables.
li::RowPlaces CudaDevice::places(const Piece& piece) const {
  const size_t rows = program_.max_rows();
  const int* ints = ints_.as<int>();
  return {ints + rows, ints + 2 * rows, ints + 4 * rows, narrow(piece.input.width)};
}

li::QuantizedRows CudaDevice::quantized(const WeightOnCard& weight) const {
  const li::CardWeight& card = weight.card;
  if (weight.kind == kBf16) return {};
  return {q_,          scales_,    sums_, weight.planes, narrow(q_ld_), narrow(s_ld_),
          card.group, card.groups, card.tiles};
}

size_t CudaDevice::slots_for(const Piece& piece) const {
  if (piece.rows > kGraphRows) return 0;
  const size_t slots = std::bit_ceil(piece.cuts);
  return piece.rows * slots * heads_ * (head_dim_ + 2) * sizeof(float) <= kPartsLimit ? slots : 0;
}

// Grows what depends on the step: graphs hold on to addresses, so they go.
void CudaDevice::make_room(const Piece& piece) {
  const size_t slots = std::max<size_t>(piece.slots, 1);
  const size_t parts = piece.rows * slots * heads_ * (head_dim_ + 2) * sizeof(float);
  if (parts > parts_.size()) {
    drop_graphs();
    parts_ = CardMemory();
    parts_ = CardMemory(session_, std::bit_ceil(parts), "attention's results on the card");
  }
  const size_t ints = (4 * program_.max_rows() + piece.input.n_sequences * piece.input.width) * sizeof(int32_t);
  if (ints > ints_.size()) {
    drop_graphs();
    ints_ = CardMemory(session_, std::bit_ceil(ints), "a step's places on the card");
    ints_here_ = PinnedMemory(session_, std::bit_ceil(ints));
  }
  const size_t columns = std::max(piece.columns, piece.input.hidden != nullptr ? program_.hidden() : 0);
  const size_t rows = program_.max_rows() * columns * sizeof(float);
  if (rows > rows_here_.size()) {
    drop_graphs();
    rows_here_ = PinnedMemory(session_, rows);
  }
}

void CudaDevice::bring_inputs(const Piece& piece) {
  const StepInput& input = piece.input;
  const size_t rows = program_.max_rows();
  auto* ints = reinterpret_cast<int32_t*>(ints_here_.data());
  if (input.tokens != nullptr) std::copy_n(input.tokens + piece.first, piece.rows, ints);
  std::copy_n(input.positions + piece.first, piece.rows, ints + rows);
  std::copy_n(input.sequences + piece.first, piece.rows, ints + 2 * rows);
  for (size_t i = 0; i < piece.outs; ++i)
    ints[3 * rows + i] = piece.out_rows()[i] - static_cast<int32_t>(piece.first);
  std::copy_n(input.block_tables, input.n_sequences * input.width, ints + 4 * rows);
  if (piece.columns > 0)
    std::memcpy(rows_here_.data(), input.inputs + piece.first * piece.columns, piece.rows * piece.columns * sizeof(float));
}

void CudaDevice::run(const StepInput& input, size_t first, size_t count) {
  const Program::Parts parts = program_.parts();
  const auto op_of = [&](size_t layer) { return layer < parts.layer_ops.size() ? parts.layer_ops[layer] : parts.ops.size(); };
  const auto bound = [&](size_t row) {
    return static_cast<size_t>(
        std::lower_bound(input.out_rows, input.out_rows + input.outs, static_cast<int32_t>(row)) - input.out_rows);
  };
  Piece piece{input,
              first,
              count,
              input.begin != 0 ? op_of(input.begin) : 0,
              op_of(input.end != 0 ? input.end : program_.layers()),
              bound(first),
              bound(first + count) - bound(first),
              program_.input_columns(input.begin)};
  for (size_t i = first; i < first + count; ++i)
    piece.cuts = std::max(piece.cuts, static_cast<size_t>(input.positions[i]) / li::kCutTokens + 1);
  piece.slots = slots_for(piece);
  session_->enter();
  make_room(piece);
  bring_inputs(piece);
  if (use_graphs_ && count <= kGraphRows)
    run_graph(piece);
  else
    enqueue_layers(piece);
  session_->wait();
  if (input.hidden != nullptr)
    std::memcpy(input.hidden + first * program_.hidden(), rows_here_.data(), count * program_.hidden() * sizeof(float));
  give_logits(piece, 0, std::min(piece.outs, kHeadRows));
  for (size_t out = kHeadRows; out < piece.outs; out += kHeadRows) {  // never in a graph: those have few rows
    Pending pending;                                                   // the rows before have taken it
    const size_t outs = std::min(kHeadRows, piece.outs - out);
    enqueue_head(pending, out, outs);
    session_->wait();
    give_logits(piece, out, outs);
  }
}

void CudaDevice::give_logits(const Piece& piece, size_t first_out, size_t outs) const {
  const size_t vocab = program_.vocab();
  std::memcpy(piece.input.logits + (piece.out_begin + first_out) * vocab, logits_here_.data(),
              outs * vocab * sizeof(float));
}

// A graph repeats the launches and copies of a piece of this form; only what the copies bring differs.
void CudaDevice::run_graph(const Piece& piece) {
  const Driver& driver = session_->driver();
  const StepInput& input = piece.input;
  const Key key{piece.rows,    piece.outs,  piece.begin, piece.end, piece.columns, input.hidden != nullptr,
                piece.slots, input.n_sequences, input.width};
  const auto found = graphs_.find(key);
  if (found != graphs_.end()) {
    session_->check(driver.GraphLaunch(found->second, session_->stream()), "running a graph");
    return;
  }
  constexpr int thread_local_capture = 1;
  constexpr size_t most = 64;
  if (graphs_.size() >= most) drop_graphs();
  session_->check(driver.StreamBeginCapture(session_->stream(), thread_local_capture), "recording a graph");
  Handle graph = nullptr, exec = nullptr;
  try {
    enqueue_layers(piece);
  } catch (...) {
    driver.StreamEndCapture(session_->stream(), &graph);
    if (graph != nullptr) driver.GraphDestroy(graph);
    throw;
  }
  session_->check(driver.StreamEndCapture(session_->stream(), &graph), "recording a graph");
  const Result made = driver.GraphInstantiate(&exec, graph, 0);
  driver.GraphDestroy(graph);
  session_->check(made, "making a graph");
  graphs_[key] = exec;
  session_->check(driver.GraphLaunch(exec, session_->stream()), "running a graph");
}

void CudaDevice::enqueue_start(const Piece& piece) {
  const Driver& driver = session_->driver();
  const size_t ints = (4 * program_.max_rows() + piece.input.n_sequences * piece.input.width) * sizeof(int32_t);
  session_->check(driver.MemcpyHtoDAsync(ints_.at(), ints_here_.data(), ints, session_->stream()), "copying places");
  if (piece.columns == 0) {
    const li::EmbedArgs args{model_.embed.card, model_.embed.kind, ints_.as<int>(), program_.parts().embed.scale, x_,
                             narrow(x_ld_)};
    kernels_.launch(kernels_.embed, {piece.rows}, 128, 0, args);
    return;
  }
  const bool mixes = piece.input.begin == 0;
  float* to = mixes ? floats_ : x_;
  const size_t ld = mixes ? float_ld_ : x_ld_;
  for (size_t i = 0; i < piece.rows; ++i)
    session_->check(driver.MemcpyHtoDAsync(reinterpret_cast<Pointer>(to + i * ld),
                                           rows_here_.data() + i * piece.columns * sizeof(float),
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

void CudaDevice::enqueue_layers(const Piece& piece) {
  const Program::Parts parts = program_.parts();
  enqueue_start(piece);
  Pending pending;
  for (size_t i = piece.begin; i < piece.end; ++i) {
    if (const auto* op = std::get_if<AttendOp>(&parts.ops[i]))
      attend(piece, *op, model_.ops[i], pending);
    else
      mlp(piece, std::get<MlpOp>(parts.ops[i]), model_.ops[i], pending);
  }
  if (piece.input.hidden != nullptr || piece.outs > kHeadRows)
    ready(piece.rows, pending, nullptr, 0, nullptr, nullptr);
  if (piece.input.hidden != nullptr)
    for (size_t i = 0; i < piece.rows; ++i)
      session_->check(session_->driver().MemcpyDtoHAsync(rows_here_.data() + i * program_.hidden() * sizeof(float),
                                                         reinterpret_cast<Pointer>(x_ + i * x_ld_),
                                                         program_.hidden() * sizeof(float), session_->stream()),
                      "copying the residual stream");
  if (piece.outs > 0) enqueue_head(pending, 0, std::min(piece.outs, kHeadRows));
}

void CudaDevice::enqueue_head(Pending& pending, size_t first_out, size_t outs) {
  const HeadOp& op = program_.parts().head;
  const size_t vocab = program_.vocab();
  ready(outs, pending, model_.head_norm, op.norm.eps, &model_.head,
        ints_.as<int>() + 3 * program_.max_rows() + first_out);
  linear(model_.head, outs, logits_, logits_ld_);
  if (op.softcap > 0)
    kernels_.launch(kernels_.softcap, {(vocab + 255) / 256, outs}, 256, 0,
                    li::SoftcapArgs{logits_, narrow(logits_ld_), narrow(vocab), op.softcap});
  for (size_t i = 0; i < outs; ++i)
    session_->check(session_->driver().MemcpyDtoHAsync(logits_here_.data() + i * vocab * sizeof(float),
                                                       reinterpret_cast<Pointer>(logits_ + i * logits_ld_),
                                                       vocab * sizeof(float), session_->stream()),
                    "copying logits");
}

// x += what is pending; then its norm for weight `to`, quantized or as floats. Without `to`: only the sum.
void CudaDevice::ready(size_t rows, Pending& pending, const float* norm, float eps, const WeightOnCard* to,
                       const int* pick) {
  if (to == nullptr && !pending.any) return;
  const size_t hidden = program_.hidden();
  li::ReadyArgs args{};
  args.x = x_;
  args.x_ld = narrow(x_ld_);
  args.columns = narrow(hidden);
  args.pick = pick;
  args.y = pending.any ? y_ : nullptr;
  args.y_ld = narrow(x_ld_);
  args.bias = pending.bias;
  args.post_norm = pending.post_norm;
  args.post_eps = pending.eps;
  args.norm = norm;
  args.eps = eps;
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
  if (rows <= 4) {  // a block a panel
    kernels_.launch(kernels[rows == 1 ? 0 : rows == 2 ? 1 : 2], {panels}, 128, 0, args);
  } else if (rows <= 16) {  // a warp half a panel: many small blocks, so that every multiprocessor has some
    kernels_.launch(kernels[rows <= 8 ? 3 : 4], {panels}, 64, 0, args);
  } else {  // a warp a panel
    kernels_.launch(kernels[5], {(panels + 3) / 4, (rows + 31) / 32}, 128, 0, args);
  }
}

void CudaDevice::attend(const Piece& piece, const AttendOp& op, const OpOnCard& on, Pending& pending) {
  const size_t rows = piece.rows, shared = op.heads / op.kv_heads, slots = std::max<size_t>(piece.slots, 1);
  ready(rows, pending, on.norm, op.norm.eps, &on.first, nullptr);
  linear(on.first, rows, qkv_, qkv_ld_);

  const li::KvLayer kv = kv_layer(op.layer);
  const li::RowPlaces at = places(piece);
  li::RopeArgs rope{};
  rope.qkv = qkv_;
  rope.qkv_ld = narrow(qkv_ld_);
  rope.k_start = narrow(op.qkv->shape.panel_of(1, 0) * kPanelRows);
  rope.v_start = narrow(op.qkv->shape.panel_of(2, 0) * kPanelRows);
  rope.bias = on.bias;
  rope.q_norm = on.q_norm;
  rope.k_norm = on.k_norm;
  rope.eps = op.norm.eps;
  rope.table = on.rope;
  rope.heads = narrow(op.heads);
  rope.kv_heads = narrow(op.kv_heads);
  rope.head_dim = narrow(op.head_dim);
  // A rotation of both sides multiplies their product by its length, a power of two.
  rope.score_scale = kv.bits == 4 ? op.scale / static_cast<float>(op.head_dim & -op.head_dim) : op.scale;
  rope.kv = kv;
  rope.at = at;
  rope.q8 = q8_;
  rope.q_scale = q_scale_;
  kernels_.launch(kernels_.rope_append, {(op.heads + op.kv_heads + 3) / 4, rows}, 128, 0, rope);

  auto* parts = parts_.as<float>();
  const size_t results = rows * op.heads * slots;
  li::AttendArgs args{};
  args.q = qkv_;
  args.q_ld = narrow(qkv_ld_);
  args.q8 = q8_;
  args.q_scale = q_scale_;
  args.scale = op.scale;
  args.heads = rope.heads;
  args.kv_heads = rope.kv_heads;
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
  linear(on.second, rows, y_, x_ld_);
  pending = {true, on.o_bias, on.post_norm, op.norm.eps};
}

void CudaDevice::mlp(const Piece& piece, const MlpOp& op, const OpOnCard& on, Pending& pending) {
  const size_t columns = op.down->shape.cols;
  ready(piece.rows, pending, on.norm, op.norm.eps, &on.first, nullptr);
  linear(on.first, piece.rows, gate_up_, gate_up_ld_);
  const li::GatedArgs args{gate_up_, narrow(gate_up_ld_), narrow(columns), op.activation, quantized(on.second), floats_,
                           narrow(float_ld_)};
  kernels_.launch(kernels_.gated, {(tiles_of(columns) + 3) / 4, piece.rows}, 128, 0, args);
  linear(on.second, piece.rows, y_, x_ld_);
  pending = {true, nullptr, on.post_norm, op.norm.eps};
}

}  // namespace cuda
