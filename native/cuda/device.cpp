#include "cuda/device.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "cuda/piece.h"

namespace cuda {
namespace {

constexpr size_t kPartsLimit = size_t{128} << 20;  // above, attention has no KV splits: slower, the same bits

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
    const Cases measure{[&](const AttendOp& op) {
                          qkv_ld_ = std::max(qkv_ld_, out);
                          heads_ = std::max(heads_, op.heads);
                          head_dim_ = std::max(head_dim_, op.head_dim);
                          query_ = std::max(query_, op.heads * op.head_dim);
                        },
                        [&](const MlpOp&) { gate_up_ld_ = std::max(gate_up_ld_, out); },
                        [&](const LayerInputOp&) { gate_up_ld_ = std::max(gate_up_ld_, out); },
                        [](const ShortConvOp&) {},  // these are refused by Model
                        [](const DeltaOp&) {},
                        [](const MoeOp&) {}};
    std::visit(measure, parts.ops[i]);
  }
  for (const WeightOnCard* weight : {&model_.mix, &model_.head, &model_.inputs}) see(*weight);
  inputs_ld_ = parts.layer_inputs.columns();
  x_ld_ = round_up(program_.hidden(), kPanelRows);
  float_ld_ = widest;
  q_ld_ = tiles_of(widest) * li::kTileColumns;
  s_ld_ = groups;
  logits_ld_ = static_cast<size_t>(model_.head.card.panels) * kPanelRows;
  const auto take_all = [&](uint8_t* start) {
    Layout layout{start};
    layout.take(&x_, rows * x_ld_);
    layout.take(&y_, rows * x_ld_);
    layout.take(&aside_, rows * x_ld_);
    layout.take(&qkv_, rows * qkv_ld_);
    layout.take(&gate_up_, rows * gate_up_ld_);
    layout.take(&floats_, padded * float_ld_);
    layout.take(&q_, padded * planes_ * q_ld_);
    layout.take(&scales_, padded * s_ld_);
    layout.take(&sums_, padded * s_ld_);
    layout.take(&q8_, rows * query_);
    layout.take(&q_scale_, rows * heads_);
    layout.take(&logits_, kHeadRows * logits_ld_);
    layout.take(&inputs_, rows * inputs_ld_);
    layout.take(&token_rows_, rows * inputs_ld_);
    return layout.used;
  };
  scratch_ = CardMemory(session_, take_all(nullptr), "scratch memory on the card");
  take_all(scratch_.as<uint8_t>());
  logits_pinned_ = PinnedMemory(session_, kHeadRows * program_.vocab() * sizeof(float));
  if (inputs_ld_ > 0) token_rows_pinned_ = PinnedMemory(session_, rows * inputs_ld_ * sizeof(float));
}

void CudaDevice::make_kv(const KvCache& layout) {
  drop_graphs();
  kv_ = CardMemory();  // the old one goes first: both at once may not fit
  kv_ = CardMemory(session_, layout.bytes(), "the KV cache on the card");
  kv_locations_.clear();
  for (size_t i = 0; i < layout.layers(); ++i) kv_locations_.push_back(layout.location(i));
  if (layout.bytes() == 0) return;  // a program without attention
  // Blocks are kept on disk whole: what nobody wrote must not be somebody else's.
  session_->check(session_->driver().MemsetD8Async(kv_.at(), 0, layout.bytes(), session_->stream()), "clearing the cache");
  session_->wait();
}

void CudaDevice::read_kv(size_t block, uint8_t* out, size_t group) {
  for (const KvCache::Location& at : kv_locations_) {
    if (!at.is_in(group)) continue;
    const size_t bytes = at.kv_heads * at.block_bytes;
    kv_.get(at.start + block * bytes, out, bytes);
    out += bytes;
  }
}

void CudaDevice::write_kv(size_t block, const uint8_t* in, size_t group) {
  for (const KvCache::Location& at : kv_locations_) {
    if (!at.is_in(group)) continue;
    const size_t bytes = at.kv_heads * at.block_bytes;
    kv_.put(at.start + block * bytes, in, bytes);
    in += bytes;
  }
}

size_t CudaDevice::slots_for(const Piece& piece) const {
  if (piece.rows > kGraphRows) return 0;
  const size_t slots = std::bit_ceil(piece.kv_splits);
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
  const size_t ints = (4 * program_.max_rows() + piece.table_ints) * sizeof(int32_t);
  if (ints > ints_.size()) {
    drop_graphs();
    ints_ = CardMemory(session_, std::bit_ceil(ints), "a step's slots on the card");
    ints_pinned_ = PinnedMemory(session_, std::bit_ceil(ints));
  }
  const size_t columns = std::max(piece.columns, piece.input.hidden != nullptr ? program_.hidden() : 0);
  const size_t rows = program_.max_rows() * columns * sizeof(float);
  if (rows > rows_pinned_.size()) {
    drop_graphs();
    rows_pinned_ = PinnedMemory(session_, rows);
  }
}

void CudaDevice::bring_inputs(const Piece& piece) {
  const StepInput& input = piece.input;
  const size_t rows = program_.max_rows();
  auto* ints = reinterpret_cast<int32_t*>(ints_pinned_.data());
  if (input.tokens != nullptr) std::copy_n(input.tokens + piece.first, piece.rows, ints);
  std::copy_n(input.positions + piece.first, piece.rows, ints + rows);
  std::copy_n(input.sequences + piece.first, piece.rows, ints + 2 * rows);
  for (size_t i = 0; i < piece.outs; ++i)
    ints[3 * rows + i] = piece.out_rows()[i] - static_cast<int32_t>(piece.first);
  std::copy_n(input.block_tables, piece.table_ints, ints + 4 * rows);
  if (needs_tokens(piece)) bring_token_rows(piece);
  if (piece.columns > 0)
    std::memcpy(rows_pinned_.data(), input.inputs + piece.first * piece.columns,
                piece.rows * piece.columns * sizeof(float));
}

bool CudaDevice::needs_tokens(const Piece& piece) const { return inputs_ld_ > 0 && piece.begin < piece.end; }

// What each row's token brings to the layers: few bytes of a large table, which stays with the host, or in its file.
void CudaDevice::bring_token_rows(const Piece& piece) {
  const LayerInputsOp& op = program_.parts().layer_inputs;
  std::vector<uint64_t> room(op.rows != nullptr ? op.rows->row_bytes() / sizeof(uint64_t) + 1 : 0);
  auto* out = reinterpret_cast<float*>(token_rows_pinned_.data());
  for (size_t i = 0; i < piece.rows; ++i, out += inputs_ld_) {
    const auto token = static_cast<size_t>(piece.input.tokens[piece.first + i]);
    if (op.rows != nullptr)
      op.rows->row(token, out, reinterpret_cast<uint8_t*>(room.data()));
    else
      op.table->row(token, out);
    for (size_t c = 0; c < inputs_ld_; ++c) out[c] *= op.scale;
  }
  if (op.rows != nullptr) op.rows->require_whole();
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
              program_.input_columns(input.begin),
              (program_.kv_groups() - 1) * input.group_stride + input.n_sequences * input.width};
  for (size_t i = first; i < first + count; ++i)
    piece.kv_splits = std::max(piece.kv_splits, static_cast<size_t>(input.positions[i]) / li::kSplitTokens + 1);
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
    std::memcpy(input.hidden + first * program_.hidden(), rows_pinned_.data(),
                count * program_.hidden() * sizeof(float));
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
  std::memcpy(piece.input.logits + (piece.out_begin + first_out) * vocab, logits_pinned_.data(),
              outs * vocab * sizeof(float));
}

// A graph repeats the launches and copies of a piece of this form; only what the copies bring differs.
void CudaDevice::run_graph(const Piece& piece) {
  const Driver& driver = session_->driver();
  const StepInput& input = piece.input;
  const Key key{piece.rows,    piece.outs,  piece.begin, piece.end, piece.columns, input.hidden != nullptr,
                piece.slots, input.n_sequences, input.width, input.group_stride};
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

}  // namespace cuda
