#include "core/step.h"

namespace {

constexpr auto kAskEvery = std::chrono::milliseconds(20);

bool each_alone(const int32_t* sequences, size_t rows) {
  for (size_t i = 1; i < rows; ++i)
    for (size_t j = 0; j < i; ++j)
      if (sequences[i] == sequences[j]) return false;
  return true;
}

}  // namespace

void Team::poll(uint32_t phase) {
  const auto now = std::chrono::steady_clock::now();
  if (now - asked_ < kAskEvery) return;
  asked_ = now;
  if (interrupted_ && interrupted_()) stop_after_.store(phase, std::memory_order_release);
}

bool Lane::sync() {
  if (id_ == 0) team_.poll(phase_);
  team_.pool_.barrier();
  const bool go_on = team_.stop_after_.load(std::memory_order_acquire) > phase_;
  ++phase_;
  // Everyone has left the phase before the last, and no one enters the next but one without this thread.
  if (id_ == 0) queue(phase_ + 2).store(0, std::memory_order_relaxed);
  return go_on;
}

Step::Step(Program& owner, const StepInput& input, size_t first_row, size_t count)
    : program(owner),
      k(owner.kernels_),
      s(owner.scratch_),
      kv(owner.kv_),
      hidden(owner.hidden_),
      rows(count),
      tokens(input.tokens + first_row),
      positions(input.positions + first_row),
      sequences(input.sequences + first_row),
      block_tables(input.block_tables),
      width(input.width),
      first(first_row),
      apart(each_alone(input.sequences + first_row, count)) {
  const int32_t* from = std::lower_bound(input.out_rows, input.out_rows + input.outs, static_cast<int32_t>(first));
  const int32_t* to = std::lower_bound(from, input.out_rows + input.outs, static_cast<int32_t>(first + count));
  out_rows = from;
  outs = static_cast<size_t>(to - from);
  logits = input.logits + static_cast<size_t>(from - input.out_rows) * owner.vocab();
}

bool Step::run(Lane& lane) const {
  if (!run_embed(*this, lane)) return false;
  for (const auto& op : program.ops_) {
    const auto* attend = std::get_if<AttendOp>(&op);
    if (!(attend != nullptr ? run_attend(*attend, *this, lane) : run_mlp(std::get<MlpOp>(op), *this, lane)))
      return false;
  }
  return run_head(*this, lane);
}

bool Program::step(const StepInput& input, const Interrupted& interrupted) {
  const Hold hold(busy_);
  check_step(input);
  std::vector<Step> pieces;
  for (size_t first = 0; first < input.rows; first += max_rows_)
    pieces.emplace_back(*this, input, first, std::min(max_rows_, input.rows - first));
  Team team(pool_, interrupted);
  bool finished = true;  // all threads leave at the same phase; the calling one says how it ended
  pool_.run([&](size_t id) {
    Lane lane(team, id);
    bool go_on = true;
    for (const Step& piece : pieces) go_on = go_on && piece.run(lane);
    if (id == 0) finished = go_on;
  });
  return finished;
}
