// Building a program: every shape is checked here, so that running it checks nothing. Long because
// each operation has its checks here.
#include "core/program.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <system_error>
#include <utility>

#include "core/attend.h"
#include "core/error.h"
#include "core/probe.h"
#include "core/step.h"
#include "kernels/dispatch.h"

namespace {

constexpr size_t kMaxWidth = size_t{1} << 20;

void check_length(const Floats& values, size_t expected, const char* what) {
  REQUIRE(values.size() == expected, "%s has %zu values, but %zu are needed", what, values.size(), expected);
}

void check_optional(const Floats& values, size_t expected, const char* what) {
  if (!values.empty()) check_length(values, expected, what);
}

void check_norm(const Norm& norm, size_t expected, const char* what) {
  check_length(norm.weight, expected, what);
  check_optional(norm.bias, expected, what);
}

void check_weight(const WeightRef& weight, size_t rows, size_t cols, const char* what) {
  REQUIRE(weight != nullptr, "%s is missing", what);
  REQUIRE(weight->shape.rows() == rows && weight->shape.cols == cols, "%s is %zu x %zu, but must be %zu x %zu", what,
          weight->shape.rows(), weight->shape.cols, rows, cols);
}

void check_stacked(const WeightRef& weight, const char* what) {
  REQUIRE(!weight->shape.interleaved && weight->shape.parts.size() == 1, "%s must be one part, not interleaved", what);
}

}  // namespace

Program::Program(size_t hidden, size_t threads, const std::string& isa, size_t max_rows)
    : hidden_(hidden),
      max_rows_(max_rows),
      kernels_(kernels_for(isa)),
      pool_([&] {
        REQUIRE(hidden > 0 && hidden <= kMaxWidth, "hidden size is %zu", hidden);
        REQUIRE(threads <= 1024, "%zu threads", threads);
        REQUIRE(max_rows > 0 && max_rows <= 4096, "max_rows is %zu, but must lie between 1 and 4096", max_rows);
        return threads != 0 ? threads : physical_cores();
      }()) {}

std::shared_ptr<Weight> Program::pack_weight(const WeightShape& shape, const std::vector<StoredPart>& parts) {
  const Hold hold(busy_);
  return pack(shape, parts, pool_);
}

void Program::set_threads(size_t threads) {
  const Hold hold(busy_);
  REQUIRE(threads <= 1024, "%zu threads", threads);
  const auto resize = [&](size_t count) {
    try {
      pool_.resize(count);
    } catch (const std::system_error&) {  // one thread it is
    }
  };
  const size_t before = pool_.threads();
  resize(threads != 0 ? threads : physical_cores());
  if (scratch_.memory.size() == 0) return;
  try {
    lay_out_scratch();
  } catch (...) {  // the old one is laid out for as many threads as before
    resize(before);
    throw;
  }
}

void Program::require_open(const char* what) const {
  REQUIRE(head_.weight == nullptr, "%s after head: the program is complete", what);
  REQUIRE(embed_.weight != nullptr || mix_.weight != nullptr, "%s before embed", what);
}

void Program::embed(EmbedOp op) {
  REQUIRE(embed_.weight == nullptr && mix_.weight == nullptr, "embed a second time");
  REQUIRE(op.weight != nullptr, "the embedding is missing");
  check_weight(op.weight, op.weight->shape.rows(), hidden_, "the embedding");
  check_stacked(op.weight, "the embedding");
  if (op.norm_eps >= 0) ones_.assign(hidden_, 1.0f);
  embed_ = std::move(op);
}

void Program::embed_rows(const int32_t* tokens, size_t n, float* out) const {
  REQUIRE(embed_.weight != nullptr, "embed_rows of a program without an embedding");
  const auto count = static_cast<int64_t>(embed_.weight->shape.rows());
  for (size_t i = 0; i < n; ++i)
    REQUIRE(tokens[i] >= 0 && tokens[i] < count, "token %d is not below %lld", tokens[i], static_cast<long long>(count));
  Floats row(round_up(hidden_, kPanelRows));
  for (size_t i = 0; i < n; ++i) {
    embed_.weight->row(static_cast<size_t>(tokens[i]), row.data());
    for (size_t j = 0; j < hidden_; ++j) out[i * hidden_ + j] = row[j] * embed_.scale;
    if (embed_.norm_eps >= 0)
      kernels_.rms_norm(out + i * hidden_, out + i * hidden_, ones(), hidden_, embed_.norm_eps);
  }
}

void Program::layer_inputs(LayerInputsOp op) {
  require_open("layer_inputs");
  REQUIRE(ops_.empty() && embed_.weight != nullptr && layer_inputs_.size() == 0,
          "layer_inputs must follow embed, once");
  REQUIRE((op.table != nullptr) != (op.rows != nullptr) && op.project != nullptr,
          "the table or the projection of layer_inputs is missing");
  REQUIRE(op.size() > 0 && op.size() % kPanelRows == 0, "inputs of %zu values, but they must be a multiple of %d",
          op.size(), kPanelRows);
  const size_t all = op.columns(), tokens = op.table_shape().rows();
  REQUIRE(all % op.size() == 0 && all <= kMaxWidth, "rows of %zu values are not parts of %zu", all, op.size());
  if (op.table != nullptr) {
    check_weight(op.table, tokens, all, "the table of layer_inputs");
    check_stacked(op.table, "the table of layer_inputs");
  }
  REQUIRE(tokens >= embed_.weight->shape.rows(), "a table of %zu tokens, but the embedding has %zu", tokens,
          embed_.weight->shape.rows());
  check_weight(op.project, all, hidden_, "the projection of layer_inputs");
  check_stacked(op.project, "the projection of layer_inputs");
  REQUIRE(std::isfinite(op.scale), "the scale of layer_inputs is %g", static_cast<double>(op.scale));
  layer_inputs_ = std::move(op);
}

void Program::layer_input(LayerInputOp op) {
  require_open("layer_input");
  const size_t size = layer_inputs_.size();
  REQUIRE(size > 0 && !ops_.empty(), "layer_input without layer_inputs, or before any layer");
  REQUIRE((layer_input_ops_ + 1) * size <= layer_inputs_.columns(), "layer_input number %zu, but there are %zu",
          layer_input_ops_ + 1, layer_inputs_.columns() / size);
  check_weight(op.gate, size, hidden_, "the gate of layer_input");
  check_stacked(op.gate, "the gate of layer_input");
  check_weight(op.project, hidden_, size, "the projection of layer_input");
  check_stacked(op.project, "the projection of layer_input");
  check_optional(op.post_norm, hidden_, "the norm after layer_input");
  REQUIRE(std::isfinite(op.scale), "the stream is scaled by %g", static_cast<double>(op.scale));
  op.part = layer_input_ops_++;
  ops_.emplace_back(std::move(op));
}

void Program::mix(MixOp op) {
  REQUIRE(embed_.weight == nullptr && mix_.weight == nullptr, "mix where there is an embedding or a mix already");
  REQUIRE(op.weight != nullptr, "the weight of mix is missing");
  check_weight(op.weight, hidden_, op.weight->shape.cols, "the weight of mix");
  check_stacked(op.weight, "the weight of mix");
  mix_ = std::move(op);
}

size_t Program::input_columns(size_t begin) const {
  return begin > 0 ? hidden_ : mix_.weight != nullptr ? mix_.weight->shape.cols : 0;
}

size_t Program::op_of_layer(size_t layer) const { return layer < layer_ops_.size() ? layer_ops_[layer] : ops_.size(); }

void Program::attend(AttendOp op) {
  require_open("attend");
  REQUIRE(op.heads > 0 && op.heads <= 1024 && op.kv_heads > 0 && op.heads % op.kv_heads == 0,
          "%zu query heads cannot share %zu key heads", op.heads, op.kv_heads);
  REQUIRE(op.heads / op.kv_heads <= 64, "%zu query heads share one key head, 64 is the limit", op.heads / op.kv_heads);
  REQUIRE(op.head_dim >= 16 && op.head_dim <= 512 && op.head_dim % 16 == 0,
          "head_dim is %zu, but must be a multiple of 16 up to 512", op.head_dim);
  for (const size_t rope : {op.rope, op.query_rope}) {
    REQUIRE(rope < ropes_.size(), "there is no RoPE table %zu", rope);
    REQUIRE(2 * ropes_[rope].half <= op.head_dim, "RoPE table %zu turns %zu values, but heads have %zu", rope,
            2 * ropes_[rope].half, op.head_dim);
  }
  const size_t q = op.heads * op.head_dim, kv = op.kv_heads * op.head_dim, q_part = op.gated ? 2 * q : q;
  REQUIRE(op.qkv != nullptr, "qkv is missing");
  std::vector<size_t> parts{q_part};
  if (!op.borrows) parts.resize(op.keys_are_values() ? 2 : 3, kv);
  const size_t rows = std::accumulate(parts.begin(), parts.end(), size_t{0});
  check_weight(op.qkv, rows, hidden_, "qkv");
  REQUIRE(op.qkv->shape.parts == parts && !op.qkv->shape.interleaved,
          "qkv must be %zu stacked parts, of %zu rows, and the others of %zu", parts.size(), q_part, kv);
  REQUIRE(!op.gated || op.bias.empty(), "attention with gates and a bias of qkv");
  check_weight(op.o, hidden_, q, "o");
  check_stacked(op.o, "o");
  if (op.norm.get() != nullptr) check_norm(op.norm, hidden_, "the norm before attention");
  check_optional(op.bias, rows, "the bias of qkv");
  check_optional(op.v_norm, op.head_dim, "v_norm");
  REQUIRE(!op.norms_all() || parts.size() == 3, "a norm of all heads at once needs keys and values of their own");
  REQUIRE(!op.borrows || (op.k_norm.empty() && op.v_norm.empty()), "keys and values of another layer are normed there");
  if (!op.norms_all()) {
    check_optional(op.q_norm, op.head_dim, "q_norm");
    check_optional(op.k_norm, op.head_dim, "k_norm");
  }
  check_optional(op.o_bias, hidden_, "the bias of o");
  check_optional(op.post_norm, hidden_, "the norm after attention");
  check_optional(op.sinks, op.heads, "sinks");
  REQUIRE(op.softcap >= 0 && std::isfinite(op.softcap), "softcap is %g", static_cast<double>(op.softcap));
  op.group = static_cast<size_t>(std::find(windows_.begin(), windows_.end(), op.window) - windows_.begin());
  REQUIRE(lender_ == nullptr || op.borrows, "keys and values of a program that reads another one's cache");
  if (op.borrows) {
    REQUIRE(op.layer < layers_.size(), "keys and values of layer %zu, but there are %zu before", op.layer,
            layers_.size());
    const KvCache::Layer& from = layers_[op.layer];
    REQUIRE(from.kv_heads == op.kv_heads && from.head_dim == op.head_dim && from.group == op.group,
            "keys and values of layer %zu are not like this one's: heads, their size and the window must be the same",
            op.layer);
    if (lender_ != nullptr) look_ahead(op);
  } else {
    if (op.group == windows_.size()) windows_.push_back(op.window);
    op.layer = layers_.size();
    layers_.push_back({op.kv_heads, op.head_dim, 0, op.group});
  }
  layer_ops_.push_back(ops_.size());
  ops_.emplace_back(std::move(op));
}

// A query after the last of the lender's rows: itself is not among what it sees.
void Program::look_ahead(AttendOp& op) {
  REQUIRE(op.window != 1, "a query that sees itself alone, but its keys are not there");
  op.ahead = 1;
  if (op.window > 0) --op.window;
}

void Program::gated_mlp(MlpOp op) {
  require_open("gated_mlp");
  REQUIRE(op.gate_up != nullptr, "gate_up is missing");
  if (!op.gated()) check_stacked(op.gate_up, "gate_up");
  const size_t width = op.gate_up->shape.parts[0];
  check_weight(op.gate_up, (op.gated() ? 2 : 1) * width, hidden_, "gate_up");
  check_weight(op.down, hidden_, width, "down");
  check_stacked(op.down, "down");
  if (op.norm.get() != nullptr) check_norm(op.norm, hidden_, "the norm before the MLP");
  for (Floats* bias : {&op.gate_bias, &op.up_bias}) {
    check_optional(*bias, width, "the bias of gate or up");
    if (!bias->empty()) bias->resize(round_up(width, kPanelRows));
  }
  REQUIRE(op.gated() ? op.gate_bias.empty() == op.up_bias.empty() : op.gate_bias.empty(),
          "gate and up have a bias each, or neither has one");
  check_optional(op.down_bias, hidden_, "the bias of down");
  check_optional(op.post_norm, hidden_, "the norm after the MLP");
  REQUIRE(std::isfinite(op.scale), "the stream is scaled by %g", static_cast<double>(op.scale));
  REQUIRE(std::isfinite(op.inner_scale), "the input of down is scaled by %g", static_cast<double>(op.inner_scale));
  if (op.beside) {
    REQUIRE(op.post_norm.empty() && op.scale == 1, "an MLP beside attention with a norm or a scale after it");
    put_attention_aside();
  }
  ops_.emplace_back(std::move(op));
}

// The last operation, which must be attention, leaves it to the next one to add what both make.
void Program::put_attention_aside() {
  auto* before = ops_.empty() ? nullptr : std::get_if<AttendOp>(&ops_.back());
  REQUIRE(before != nullptr && before->post_norm.empty(),
          "an operation beside something else than attention, or beside one with a norm after it");
  before->aside = true;
}

// The same of an MLP, which may have a norm after it.
void Program::put_mlp_aside() {
  auto* before = ops_.empty() ? nullptr : std::get_if<MlpOp>(&ops_.back());
  REQUIRE(before != nullptr && !before->beside && before->scale == 1,
          "experts beside something else than an MLP, or beside one that reads or scales otherwise");
  before->aside = true;
}

void Program::short_conv(ShortConvOp op) {
  require_open("short_conv");
  REQUIRE(op.length >= 2 && op.length <= 16, "a convolution over %zu rows, but 2 to 16 are possible", op.length);
  check_weight(op.in, 3 * hidden_, hidden_, "in");
  check_stacked(op.in, "in");
  check_weight(op.out, hidden_, hidden_, "out");
  check_stacked(op.out, "out");
  check_norm(op.norm, hidden_, "the norm before the convolution");
  check_length(op.taps, op.length * hidden_, "taps");
  check_optional(op.in_bias, 3 * hidden_, "the bias of in");
  check_optional(op.taps_bias, hidden_, "the bias of the convolution");
  check_optional(op.out_bias, hidden_, "the bias of out");
  op.state = states_.size();
  layer_ops_.push_back(ops_.size());
  states_.push_back({(op.length - 1) * hidden_, hidden_});
  ops_.emplace_back(std::move(op));
}

namespace {

void check_scan(const DeltaOp& op) {
  const ScanRule& scan = op.scan;
  const size_t values = op.value_heads * op.value_dim;
  check_length(scan.skip, op.value_heads, "skip");
  REQUIRE(scan.dt_low >= 0 && scan.dt_low <= scan.dt_high, "steps within [%g, %g]", scan.dt_low, scan.dt_high);
  for (const float number : {scan.dt_scale, scan.z_scale, scan.out_scale})
    REQUIRE(std::isfinite(number), "a scale of %g", static_cast<double>(number));
  if (scan.norm_groups == 0) return;
  REQUIRE(values % scan.norm_groups == 0, "%zu values in %zu groups", values, scan.norm_groups);
  check_length(op.out_norm, values, "the norm of all heads");
}

}  // namespace

void Program::delta_net(DeltaOp op) {
  require_open("delta_net");
  REQUIRE(op.heads > 0 && op.value_heads > 0 && op.value_heads <= 1024 && op.value_heads % op.heads == 0,
          "%zu value heads cannot share %zu key heads", op.value_heads, op.heads);
  for (const size_t size : {op.key_dim, op.value_dim})
    REQUIRE(size >= 16 && size <= kMostDeltaHead && size % 16 == 0,
            "heads of a delta net of %zu values, but they are multiples of 16 up to %zu", size, kMostDeltaHead);
  REQUIRE(op.length >= 2 && op.length <= kMostDeltaLength, "a convolution over %zu rows, but 2 to %zu are possible",
          op.length, kMostDeltaLength);
  const size_t keys = op.heads * op.key_dim, values = op.value_heads * op.value_dim, channels = op.channels();
  check_weight(op.in, channels + values, hidden_, "in");
  check_weight(op.gates, (op.scans() ? 1 : 2) * op.value_heads, hidden_, "gates");
  REQUIRE(!op.in->shape.interleaved && !op.gates->shape.interleaved && op.gates->shape.parts.size() <= 2 &&
              (op.gates->shape.parts.size() == 1 || op.gates->shape.parts[0] == op.value_heads),
          "in and gates must be stacked");
  size_t end = 0;
  for (const size_t part : op.in->shape.parts) {
    end += part;
    REQUIRE(end == keys || end == 2 * keys || end == channels || end == channels + values,
            "a part of in ends at row %zu, inside of q, k, v or z", end);
  }
  check_weight(op.out, hidden_, values, "out");
  check_stacked(op.out, "out");
  check_norm(op.norm, hidden_, "the norm before the delta net");
  check_length(op.taps, op.length * channels, "taps");
  check_optional(op.taps_bias, channels, "the bias of the convolution");
  check_length(op.dt_bias, op.value_heads, "dt_bias");
  REQUIRE(op.decay_rate.size() == op.value_heads, "%zu rates of decay for %zu heads", op.decay_rate.size(),
          op.value_heads);
  for (const double rate : op.decay_rate) REQUIRE(rate >= 0 && std::isfinite(rate), "a rate of decay of %g", rate);
  if (op.scans())
    check_scan(op);
  else
    check_length(op.out_norm, op.value_dim, "the norm of the heads");
  REQUIRE(op.beta_scale > 0 && op.beta_scale <= 2, "beta up to %g", static_cast<double>(op.beta_scale));
  if (op.beside) put_attention_aside();
  op.ones.assign(std::max(op.key_dim, op.value_dim), 1.0f);
  const auto dim = static_cast<double>(op.key_dim);  // rms_norm gives vectors the length sqrt(dim)
  op.key_length.assign(op.key_dim, static_cast<float>(1 / std::sqrt(dim)));
  op.query_length.assign(op.key_dim, static_cast<float>(1 / dim));
  op.state = states_.size();
  if (!op.beside) layer_ops_.push_back(ops_.size());
  states_.push_back({op.state_size(), op.row_size()});
  ops_.emplace_back(std::move(op));
}

namespace {

// Who has the panels of the experts: they themselves, or their pool.
void check_pool(const MoeOp& op) {
  for (const MoeOp::Expert& expert : op.experts)
    REQUIRE(op.pool != nullptr || expert.gate_up == nullptr || expert.down == nullptr ||
                (expert.gate_up->memory.data != nullptr && expert.down->memory.data != nullptr),
            "an expert has no values, and there is no pool that has them");
  if (op.pool == nullptr) return;
  REQUIRE(op.pool_layer < op.pool->layers().size(), "layer %zu of a pool of %zu", op.pool_layer,
          op.pool->layers().size());
  const ExpertPool::Layer& layer = op.pool->layers()[op.pool_layer];
  REQUIRE(layer.experts == op.experts.size(), "%zu experts, but the pool has %zu there", op.experts.size(),
          layer.experts);
  for (const MoeOp::Expert& expert : op.experts) {
    REQUIRE(expert.gate_up != nullptr && expert.down != nullptr, "an expert is missing");
    const size_t bytes = expert.gate_up->bytes() + expert.down->bytes();
    REQUIRE(bytes <= layer.bytes, "an expert of %zu bytes, but the pool has %zu of it", bytes, layer.bytes);
    REQUIRE(expert.gate_up->bytes() == op.experts[0].gate_up->bytes(), "experts of different sizes in a pool");
  }
}

}  // namespace

void Program::moe(MoeOp op) {
  require_open("moe");
  const size_t count = op.experts.size();
  REQUIRE(count > 0 && count <= 4096, "%zu experts, but 1 to 4096 are possible", count);
  REQUIRE(op.top_k > 0 && op.top_k <= count && op.top_k <= 64, "%zu of %zu experts, but 1 to 64 of them can be chosen",
          op.top_k, count);
  REQUIRE(op.experts[0].gate_up != nullptr, "the first expert is missing");
  REQUIRE((op.into == nullptr) == (op.out_of == nullptr), "one of two matrices around the experts");
  const size_t inner = op.into == nullptr ? hidden_ : op.into->shape.rows();
  REQUIRE(inner <= hidden_, "experts read %zu values, but the stream has %zu", inner, hidden_);
  if (op.into != nullptr) {
    check_weight(op.into, inner, hidden_, "the matrix before the experts");
    check_stacked(op.into, "the matrix before the experts");
    check_weight(op.out_of, hidden_, inner, "the matrix after the experts");
    check_stacked(op.out_of, "the matrix after the experts");
  }
  REQUIRE(!(op.squares && op.limit > 0), "an activation and a limit of %g", static_cast<double>(op.limit));
  REQUIRE(op.gated() || op.limit == 0, "a limit of %g, but experts have no gates", static_cast<double>(op.limit));
  const auto check = [&](const MoeOp::Expert& expert, const char* what) {
    REQUIRE(expert.gate_up != nullptr, "%s is missing", what);
    REQUIRE(expert.gate_up->shape.interleaved == op.experts[0].gate_up->shape.interleaved,
            "%s and the first expert: one has gates and the other has none", what);
    if (!op.gated()) check_stacked(expert.gate_up, what);
    const size_t width = expert.gate_up->shape.parts[0], reads = &expert == &op.shared ? hidden_ : inner;
    check_weight(expert.gate_up, (op.gated() ? 2 : 1) * width, reads, what);
    check_weight(expert.down, reads, width, what);
    check_stacked(expert.down, what);
    for (const auto part : {&MoeOp::Expert::gate_up, &MoeOp::Expert::down}) {
      const WeightShape &one = (expert.*part)->shape, &first = (op.experts[0].*part)->shape;
      REQUIRE(one.kind == first.kind && one.group == first.group, "%s is quantized otherwise than the first expert",
              what);
    }
  };
  check_pool(op);
  for (MoeOp::Expert& expert : op.experts) {
    check(expert, "an expert");
    REQUIRE(expert.down->shape.cols == op.experts[0].down->shape.cols, "experts of %zu and %zu columns",
            op.experts[0].down->shape.cols, expert.down->shape.cols);
    REQUIRE(expert.gate_bias.empty() == expert.up_bias.empty() && expert.up_bias.empty() == expert.down_bias.empty(),
            "an expert with some of its biases");
    REQUIRE(op.gated() || expert.up_bias.empty(), "biases of experts without gates");
    for (Floats* bias : {&expert.gate_bias, &expert.up_bias, &expert.down_bias}) {
      if (bias->empty()) continue;
      check_length(*bias, bias == &expert.down_bias ? inner : expert.down->shape.cols, "the bias of an expert");
      bias->resize(round_up(bias->size(), kPanelRows));
    }
  }
  if (op.shared.down != nullptr) check(op.shared, "the shared expert");
  check_weight(op.router, count + op.shared_gated, hidden_, "the router");
  REQUIRE(op.router->shape.parts[0] == count, "a router of %zu experts, but there are %zu", op.router->shape.parts[0],
          count);
  REQUIRE(!op.shared_gated || op.shared.down != nullptr, "a gate of a shared expert that is missing");
  check_length(op.norm.weight, hidden_, "the norm before the experts");
  check_optional(op.router_bias, count, "the bias of the router");
  check_optional(op.choice_bias, count, "the bias of the choice");
  REQUIRE(op.groups > 0 && op.groups <= MoeOp::kMostGroups && count % op.groups == 0,
          "%zu experts in %zu groups, of which there are up to %zu", count, op.groups, MoeOp::kMostGroups);
  REQUIRE(op.groups == 1 || count / op.groups >= 2, "groups of one expert");
  REQUIRE(op.top_groups > 0 && op.top_groups <= op.groups && op.top_k <= op.top_groups * (count / op.groups),
          "%zu experts out of %zu of %zu groups", op.top_k, op.top_groups, op.groups);
  REQUIRE(op.least_sum >= 0 && std::isfinite(op.least_sum), "the least sum of weights is %g",
          static_cast<double>(op.least_sum));
  REQUIRE(op.added_sum >= 0 && std::isfinite(op.added_sum), "%g more than the sum of weights",
          static_cast<double>(op.added_sum));
  REQUIRE(op.limit >= 0 && std::isfinite(op.limit) && std::isfinite(op.alpha), "a limit of %g and an alpha of %g",
          static_cast<double>(op.limit), static_cast<double>(op.alpha));
  check_optional(op.post_norm, hidden_, "the norm after the experts");
  check_optional(op.beside_norm, hidden_, "the norm of experts and MLP");
  check_optional(op.router_norm.weight, hidden_, "the norm before the router");
  check_optional(op.expert_scale, count, "the scales of experts");
  REQUIRE(!(op.shared_gated && op.router_norm.get() != nullptr), "the gate of a shared expert, and a router with a norm");
  REQUIRE(!(op.beside() && op.into != nullptr), "experts that are not as wide as the stream, beside an MLP");
  for (const float scale : {op.scale, op.stream_scale})
    REQUIRE(std::isfinite(scale), "the experts' scale is %g", static_cast<double>(scale));
  REQUIRE(op.stream_scale == 1 || op.beside() || !op.post_norm.empty(), "a scale of the stream without a norm before");
  if (op.beside()) put_mlp_aside();
  REQUIRE(op.pool == nullptr || experts_ == nullptr || op.pool == experts_, "experts of two pools");
  if (op.pool != nullptr) experts_ = op.pool;
  ops_.emplace_back(std::move(op));
}

void Program::head(HeadOp op) {
  require_open("head");
  REQUIRE(op.weight != nullptr, "the head is missing");
  check_weight(op.weight, op.weight->shape.rows(), hidden_, "the head");
  check_stacked(op.weight, "the head");
  check_norm(op.norm, hidden_, "the norm before the head");
  REQUIRE(layer_input_ops_ * layer_inputs_.size() == layer_inputs_.columns(), "%zu of %zu layer inputs are used",
          layer_input_ops_, layer_inputs_.columns() / std::max<size_t>(layer_inputs_.size(), 1));
  REQUIRE(op.softcap >= 0 && std::isfinite(op.softcap), "softcap is %g", static_cast<double>(op.softcap));
  const auto borrows = [&](size_t at) {
    const auto* attend = std::get_if<AttendOp>(&ops_[at]);
    return attend != nullptr && attend->borrows;
  };
  tail_ = ops_.size();
  for (auto at = layer_ops_.rbegin(); at != layer_ops_.rend() && borrows(*at); ++at) tail_ = *at;
  head_ = std::move(op);
}

namespace {

// f(weight) for each weight of the op.
template <class AnyOp, class F>
void each_weight(AnyOp& op, const F& f) {
  const auto both = [&](auto& one, auto& other) { f(one), f(other); };
  const auto visit = [&](auto& one) {
    using Kind = std::remove_const_t<std::remove_reference_t<decltype(one)>>;
    if constexpr (std::is_same_v<Kind, AttendOp>) {
      both(one.qkv, one.o);
    } else if constexpr (std::is_same_v<Kind, MlpOp>) {
      both(one.gate_up, one.down);
    } else if constexpr (std::is_same_v<Kind, ShortConvOp>) {
      both(one.in, one.out);
    } else if constexpr (std::is_same_v<Kind, DeltaOp>) {
      both(one.in, one.gates);
      f(one.out);
    } else if constexpr (std::is_same_v<Kind, LayerInputOp>) {
      both(one.gate, one.project);
    } else {
      static_assert(std::is_same_v<Kind, MoeOp>);
      f(one.router);
      for (auto& expert : one.experts) both(expert.gate_up, expert.down);
      if (one.shared.down != nullptr) both(one.shared.gate_up, one.shared.down);
      if (one.into != nullptr) both(one.into, one.out_of);
    }
  };
  std::visit(visit, op);
}

}  // namespace

std::set<const Weight*> Program::weights() const {
  std::set<const Weight*> seen{embed_.weight.get(), mix_.weight.get(), head_.weight.get(),  // tied ones count once
                               layer_inputs_.table.get(), layer_inputs_.project.get()};
  for (const Op& op : ops_) each_weight(op, [&](const WeightRef& weight) { seen.insert(weight.get()); });
  seen.erase(nullptr);
  return seen;
}

void Program::move_to(std::unique_ptr<Device> device) {
  const Hold hold(busy_);
  REQUIRE(head_.weight != nullptr, "a device before head");
  REQUIRE(device_ == nullptr, "a device a second time");
  REQUIRE(lender_ == nullptr, "a device for a program that reads another one's cache");
  REQUIRE(states_.empty(), "a device has no kernels for recurrent operations");
  REQUIRE(kv_.blocks().empty(), "a device after make_kv");
  device_ = std::move(device);
  const auto drop_values = [](WeightRef& weight) { weight = without_values(*weight); };
  if (mix_.weight != nullptr) drop_values(mix_.weight);
  if (layer_inputs_.project != nullptr) drop_values(layer_inputs_.project);
  for (Op& op : ops_) each_weight(op, drop_values);
  if (head_.weight != embed_.weight) drop_values(head_.weight);
}

size_t Program::weight_bytes() const {
  if (device_ != nullptr) return device_->weight_bytes();
  size_t total = experts_ != nullptr ? experts_->bytes() : 0;
  for (const Weight* weight : weights()) total += weight->memory.data != nullptr ? weight->bytes() : 0;
  return total;
}
