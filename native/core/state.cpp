// States of recurrent operations: made, moved on, copied. What a step does with them is in the operations' own files.
#include "core/error.h"
#include "core/program.h"
#include "core/step.h"

void Program::make_state(size_t slots, size_t snapshots, size_t drafts) {
  const Hold hold(busy_);
  REQUIRE(head_.weight != nullptr, "make_state before head");
  REQUIRE(slots > 0 && slots <= 1 << 16 && snapshots <= 1 << 20 && drafts <= 4096,
          "%zu states, %zu snapshots, %zu drafted rows", slots, snapshots, drafts);
  state_ = StateCache();  // the old one goes first: both at once may not fit
  state_ = StateCache(slots, snapshots, std::max<size_t>(drafts, 1), states_);
}

size_t Program::state_bytes() const { return StateCache(0, 0, 0, states_).state_bytes(); }

void Program::advance_state(size_t slot, size_t rows) {
  const Hold hold(busy_);
  REQUIRE(slot < state_.slots(), "state %zu, but there are %zu", slot, state_.slots());
  StateCache::Slot& at = state_.slot(slot);
  REQUIRE(rows <= at.kept, "%zu drafted rows are right, but %zu are kept", rows, at.kept);
  if (rows == 0) return;
  advance_heads(slot, rows);
  const Cases move_on{[](const AttendOp&) {}, [](const MlpOp&) {}, [](const MoeOp&) {}, [](const LayerInputOp&) {},
                      [&](const DeltaOp& op) { advance(op, state_.at(op.state, slot), at.kept, rows); },
                      [&](const ShortConvOp& op) { advance(op, state_.at(op.state, slot), hidden_, at.kept, rows); }};
  for (const Op& op : ops_) std::visit(move_on, op);
  at.position += static_cast<int64_t>(rows);
  at.kept -= rows;
}

// The matrices of delta nets, head by head over the threads.
void Program::advance_heads(size_t slot, size_t rows) {
  std::vector<std::pair<const DeltaOp*, size_t>> heads;
  for (const Op& op : ops_)
    if (const auto* delta = std::get_if<DeltaOp>(&op))
      for (size_t h = 0; h < delta->value_heads; ++h) heads.emplace_back(delta, h);
  if (heads.empty()) return;
  const Interrupted never;
  Team team(pool_, never);
  pool_.help([&](size_t id) {
    Lane lane(team, id, pool_.threads());
    lane.share(heads.size(), [&](size_t i) {
      const auto [op, h] = heads[i];
      advance_head(*op, kernels_, state_.at(op->state, slot), rows, h);
    });
    (void)lane.sync();
    return lane.gave_up_core();
  });
}

void Program::require_location(size_t location, size_t bytes) const {
  REQUIRE(location < state_.locations(), "state %zu, but there are %zu", location, state_.locations());
  REQUIRE(bytes == state_.state_bytes(), "%zu bytes, but a state has %zu", bytes, state_.state_bytes());
}

void Program::copy_state(size_t from, size_t to, size_t position) {
  const Hold hold(busy_);
  require_location(from, state_.state_bytes());
  require_location(to, state_.state_bytes());
  state_.copy(from, to);
  if (to < state_.slots()) state_.slot(to) = {static_cast<int64_t>(position), 0, 0};
}

void Program::read_state(size_t location, uint8_t* out, size_t bytes) {
  const Hold hold(busy_);
  require_location(location, bytes);
  state_.read(location, out);
}

void Program::write_state(size_t location, const uint8_t* in, size_t bytes) {
  const Hold hold(busy_);
  require_location(location, bytes);
  state_.write(location, in);
}

void Program::clear_state(size_t slot, size_t position) {
  const Hold hold(busy_);
  REQUIRE(slot < state_.slots(), "state %zu, but there are %zu", slot, state_.slots());
  const std::vector<uint8_t> zeros(state_.state_bytes());
  state_.write(slot, zeros.data());
  state_.slot(slot) = {static_cast<int64_t>(position), 0, 0};
}
