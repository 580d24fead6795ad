#include "core/step.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "core/error.h"
#include "kernels/block.h"

namespace {

constexpr auto kAskEvery = std::chrono::milliseconds(20);
constexpr auto kKeepCoreFor = std::chrono::milliseconds(1);
constexpr int kYieldsInAPhase = 400;

// The part of a Team's word that counts in `phase`.
size_t count_in(uint64_t word, uint32_t phase) { return word >> 32 == phase ? static_cast<uint32_t>(word) : 0; }
uint64_t word_of(uint32_t phase, size_t count) { return uint64_t{phase} << 32 | count; }

bool each_alone(const int32_t* sequences, size_t rows) {
  for (size_t i = 1; i < rows; ++i)
    for (size_t j = 0; j < i; ++j)
      if (sequences[i] == sequences[j]) return false;
  return true;
}

}  // namespace

Team::Team(Pool& pool, const Interrupted& interrupted, std::vector<PhaseTime>* times)
    : interrupted_(interrupted),
      asked_(std::chrono::steady_clock::now()),
      taken_(pool.threads()),
      times_(times),
      begun_(asked_) {}

void Team::poll(std::chrono::steady_clock::time_point now) {
  if (now - asked_ < kAskEvery) return;
  asked_ = now;
  if (interrupted_ && interrupted_()) stop_.store(true, std::memory_order_release);
}

Lane::Lane(Team& team, size_t id, size_t threads) : team_(team), id_(id), threads_(threads) {}

Lane::Taken Lane::take(size_t part, size_t size, size_t piece) {
  std::atomic<uint64_t>& word = team_.taken_[part].value;
  for (uint64_t seen = word.load(std::memory_order_relaxed); seen >> 32 <= phase_;) {
    const size_t first = count_in(seen, phase_);
    if (first >= size) break;
    const size_t count = std::max<size_t>((size - first) / piece, 1);
    // No one takes items of a phase that is over: the word is then full or a later phase's.
    if (word.compare_exchange_weak(seen, word_of(phase_, first + count), std::memory_order_relaxed))
      return {first, count};
  }
  return {0, 0};
}

void Lane::report() {
  std::atomic<uint64_t>& word = team_.done_.value;
  uint64_t seen = word.load(std::memory_order_relaxed);
  size_t done = 0;
  do {
    done = count_in(seen, phase_) + finished_;
  } while (!word.compare_exchange_weak(seen, word_of(phase_, done), std::memory_order_acq_rel));
  if (done == items_) team_.over_.set(phase_ + 1);
}

bool Lane::sync() {
  if (finished_ > 0) report();
  const bool empty = items_ == 0;
  items_ = finished_ = 0;
  const uint32_t phase = phase_++;
  if (empty) return true;
  const Clock::time_point now = Clock::now();
  if (id_ == 0) team_.poll(now);
  gave_up_core_ = threads_ > 1 && now - entered_ > kKeepCoreFor;
  if (gave_up_core_) return false;
  for (uint32_t over; (over = team_.over_.value.load(std::memory_order_acquire)) <= phase;)
    team_.over_.wait_past(over, kYieldsInAPhase);
  if (id_ == 0 && team_.times_ != nullptr && phase >= team_.timed_) keep_time(now);
  return !team_.stop_.load(std::memory_order_acquire);
}

void Lane::keep_time(Clock::time_point done) {
  const Clock::time_point now = Clock::now();
  const auto seconds = [](Clock::duration d) { return std::chrono::duration<double>(d).count(); };
  team_.times_->push_back({operation_, name_, seconds(done - team_.begun_), seconds(now - done)});
  team_.begun_ = now;
  team_.timed_ = phase_;
}

Step::Step(Program& owner, const StepInput& input, const KvCache& cache, const StateCache& states, KvProbe* probing,
           size_t first_row, size_t count)
    : program(owner),
      k(owner.kernels_),
      s(owner.scratch_),
      kv(cache),
      state(states),
      probe(probing),
      hidden(owner.hidden_),
      rows(count),
      tokens(input.tokens + first_row),
      positions(input.positions + first_row),
      sequences(input.sequences + first_row),
      whole(input),
      first(first_row),
      begin(input.begin != 0 ? owner.op_of_layer(input.begin) : 0),
      end(owner.op_of_layer(input.end != 0 ? input.end : owner.layers())),
      inputs(input.inputs == nullptr ? nullptr : input.inputs + first_row * owner.input_columns(input.begin)),
      hidden_out(input.hidden == nullptr ? nullptr : input.hidden + first_row * owner.hidden_),
      apart(each_alone(input.sequences + first_row, count)),
      prefetch(owner.prefetch_) {
  const int32_t* from = std::lower_bound(input.out_rows, input.out_rows + input.outs, static_cast<int32_t>(first));
  const int32_t* to = std::lower_bound(from, input.out_rows + input.outs, static_cast<int32_t>(first + count));
  out_rows = from;
  outs = static_cast<size_t>(to - from);
  logits = input.logits + static_cast<size_t>(from - input.out_rows) * owner.vocab();
}

void Program::set_prefetch(size_t bytes) {
  const Hold hold(busy_);
  REQUIRE(bytes % 64 == 0 && bytes <= 1u << 20, "%zu bytes ahead, but they are lines of 64 and at most 1 MiB", bytes);
  prefetch_ = bytes;
}

void Program::watch(const WeightRef& weight) {
  const Hold hold(busy_);
  REQUIRE(device_ == nullptr, "a weight is watched on the CPU only");
  REQUIRE(weight != nullptr && weights().count(weight.get()) == 1, "the watched weight is none of this program");
  REQUIRE(weight->shape.kind == kBf16, "only weights of bf16 can be watched");
  REQUIRE(weight->memory.data != nullptr, "weights of a pool cannot be watched");
  squares_[weight.get()].assign(weight->shape.cols, 0);
}

std::vector<double>* Program::squares(const Weight& weight) {
  const auto found = squares_.find(&weight);
  return found == squares_.end() ? nullptr : &found->second;
}

bool Step::enter(Lane& lane) const {
  const bool by_layer = layer_inputs().size() > 0 && begin < end;
  if (by_layer && !(run_embed(*this, lane) && run_layer_inputs(*this, lane))) return false;
  if (begin > 0) return take_stream(*this, lane);
  return by_layer || (mix().weight != nullptr ? run_mix : run_embed)(*this, lane);
}

bool Step::narrows() const {
  return program.tail_ < end && outs < rows && hidden_out == nullptr && probe == nullptr;
}

Step Step::narrowed(std::vector<int32_t>* room) const {
  room->resize(4 * outs);
  Step few = *this;
  int32_t* at = room->data();
  for (const int32_t** numbers : {&few.tokens, &few.positions, &few.sequences}) {
    for (size_t i = 0; i < outs; ++i) at[i] = (*numbers)[static_cast<size_t>(out_rows[i]) - first];
    *numbers = at;
    at += outs;
  }
  std::iota(at, at + outs, 0);
  few.out_rows = at;
  few.rows = outs;
  few.first = 0;
  few.apart = each_alone(few.sequences, outs);
  return few;
}

namespace {

// Rows whose logits are wanted move to the front, in their order: none is overwritten before it was read.
bool pick_rows(const Step& step, Lane& lane) {
  lane.phase("pick rows");
  lane.share(1, [&](size_t) {
    const Scratch& s = step.s;
    for (size_t i = 0; i < step.outs; ++i) {
      const size_t row = static_cast<size_t>(step.out_rows[i]) - step.first;
      if (row == i) continue;
      std::copy_n(s.x + row * s.x_ld, s.x_ld, s.x + i * s.x_ld);
      std::copy_n(s.inputs + row * s.inputs_ld, s.inputs_ld, s.inputs + i * s.inputs_ld);
    }
  });
  return lane.sync();
}

}  // namespace

bool Step::run(Lane& lane, const Step* tail) const {
  lane.operation("start");
  if (!enter(lane)) return false;
  if (tail == nullptr) return run_ops(begin, end, lane) && leave(lane);
  const size_t cut = std::max(begin, program.tail_);
  if (!run_ops(begin, cut, lane) || !pick_rows(*this, lane)) return false;
  return (tail->rows == 0 || tail->run_ops(cut, end, lane)) && tail->leave(lane);
}

bool Step::run_ops(size_t from, size_t to, Lane& lane) const {
  for (size_t i = from; i < to; ++i) {
    const Cases run_op{[&](const AttendOp& op) { return lane.operation("attend"), run_attend(op, *this, lane); },
                       [&](const MlpOp& op) { return lane.operation("mlp"), run_mlp(op, *this, lane); },
                       [&](const LayerInputOp& op) {
                         return lane.operation("layer input"), run_layer_input(op, *this, lane);
                       },
                       [&](const MoeOp& op) { return lane.operation("experts"), run_moe(op, *this, lane); },
                       [&](const DeltaOp& op) {
                         return lane.operation(op.scans() ? "mamba" : "delta"), run_delta_net(op, *this, lane);
                       },
                       [&](const ShortConvOp& op) { return lane.operation("conv"), run_short_conv(op, *this, lane); }};
    if (!std::visit(run_op, program.ops_[i])) return false;
  }
  return true;
}

bool Step::leave(Lane& lane) const {
  if (hidden_out != nullptr && !give_stream(*this, lane)) return false;
  lane.operation("head");
  return run_head(*this, lane);
}

bool Program::step(const StepInput& input, const Interrupted& interrupted) {
  const Hold hold(busy_);
  std::optional<Hold> lent;
  if (lender_ != nullptr) lent.emplace(lender_->busy_);
  if (scratch_.memory.size() == 0 && lender_ != nullptr) lay_out_scratch();
  check_step(input);
  return device_ != nullptr ? run_on_device(input, interrupted) : run(input, cache(), state_, nullptr, interrupted);
}

bool Program::run_on_device(const StepInput& input, const Interrupted& interrupted) {
  for (size_t first = 0; first < input.rows; first += max_rows_) {
    device_->run(input, first, std::min(max_rows_, input.rows - first));
    if (interrupted && interrupted()) return false;
  }
  return true;
}

namespace {

// The step is over: what its slots hold. Of some layers alone (`partial`) drafts leave nothing, and known rows no state.
template <class Lengths>
void keep_states(const StepInput& input, const Lengths& lengths, bool partial, StateCache& state) {
  for (size_t i = 0; i < input.n_sequences; ++i) {
    StateCache::Slot& slot = state.slot(i);
    if (lengths[i] == 0 || (partial && (input.drafted == nullptr || input.drafted[i] == 0))) continue;
    slot.position = slot.firm;
    slot.kept = partial ? 0 : static_cast<size_t>(lengths[i] - slot.firm);
  }
}

}  // namespace

bool Program::run(const StepInput& input, const KvCache& kv, StateCache& state, KvProbe* probe,
                  const Interrupted& interrupted) {
  std::vector<Step> pieces;
  for (size_t first = 0; first < input.rows; first += max_rows_)
    pieces.emplace_back(*this, input, kv, state, probe, first, std::min(max_rows_, input.rows - first));
  std::vector<std::vector<int32_t>> rooms(pieces.size());
  std::vector<std::optional<Step>> tails(pieces.size());
  for (size_t i = 0; i < pieces.size(); ++i)
    if (pieces[i].narrows()) tails[i].emplace(pieces[i].narrowed(&rooms[i]));
  phase_times_.clear();
  Team team(pool_, interrupted, times_phases_ ? &phase_times_ : nullptr);
  bool finished = true;  // all threads leave when one sees the interrupt; the calling one says how it ended
  pool_.help([&](size_t id) {
    Lane lane(team, id, pool_.threads());
    bool go_on = true;
    for (size_t i = 0; i < pieces.size(); ++i) go_on = go_on && pieces[i].run(lane, tails[i] ? &*tails[i] : nullptr);
    if (id == 0) finished = go_on, phases_ = lane.phases();
    return lane.gave_up_core();
  });
  if (layer_inputs_.rows != nullptr) layer_inputs_.rows->require_whole();
  if (experts_ != nullptr) experts_->settle();
  if (finished && moves_state(input)) keep_states(input, lengths_, input.end != 0 && input.end < layers(), state);
  return finished;
}

std::vector<double> Program::probe_kv(const int32_t* tokens, size_t count, const Interrupted& interrupted) {
  const Hold hold(busy_);
  REQUIRE(head_.weight != nullptr, "probe_kv before head");
  REQUIRE(device_ == nullptr, "probe_kv of a program that is on a device");
  REQUIRE(!layers_.empty(), "probe_kv of a program without attention");
  REQUIRE(embed_.weight != nullptr, "probe_kv of a program that begins with mix");
  REQUIRE(count > 0 && count <= 4096, "%zu tokens to probe with, but 1 to 4096 are needed", count);
  if (scratch_.memory.size() == 0) lay_out_scratch();
  const size_t blocks = (count + kKvBlock - 1) / kKvBlock, piece = std::min(count, max_rows_);
  std::vector<int32_t> positions(count), table(blocks);
  const std::vector<int32_t> sequences(count, 0);
  std::iota(positions.begin(), positions.end(), 0);
  std::iota(table.begin(), table.end(), 0);
  const StepInput input{count, tokens,       positions.data(), sequences.data(), 1,
                        blocks, table.data(), 0,                nullptr,          nullptr};
  check_rows(input);
  starts_.assign(1, 0);
  lengths_.assign(1, static_cast<int32_t>(count));
  StateCache state(1, 0, 1, states_);
  state.slot(0).firm = static_cast<int64_t>(count);
  const std::vector<size_t> counts(kv_groups(), blocks);
  const KvCache wide(counts, layers_of(std::vector<size_t>(layers_.size(), 8)));
  KvProbe probe{KvCache(counts, layers_of(std::vector<size_t>(layers_.size(), 4))),
                Floats(piece * scratch_.qkv_ld),
                Floats(piece * scratch_.attended_ld),
                count,
                std::vector<KvProbe::Row>(layers_.size() * count)};
  std::vector<double> errors;
  if (!run(input, wide, state, &probe, interrupted)) return errors;
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    KvProbe::Row sum{0, 0};
    for (size_t row = layer * count; row < (layer + 1) * count; ++row) {
      sum.error += probe.rows[row].error;
      sum.all += probe.rows[row].all;
    }
    errors.push_back(sum.error == 0 ? 0 : std::sqrt(sum.error / sum.all));
  }
  return errors;
}
