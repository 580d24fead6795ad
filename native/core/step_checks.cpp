// A step's arguments, checked before anything runs: after this no index can leave its array.
#include <algorithm>

#include "core/attend.h"
#include "core/error.h"
#include "core/program.h"
#include "kernels/block.h"

void Program::check_step(const StepInput& input) {
  REQUIRE(!cache().blocks().empty(), "step before make_kv");
  REQUIRE(input.rows > 0, "a step needs at least one row");
  REQUIRE(input.rows <= size_t{1} << 24, "a step of %zu rows", input.rows);
  check_layers(input);
  check_rows(input);
  lengths_.assign(input.n_sequences, 0);
  starts_.assign(input.n_sequences, 0);
  for (size_t i = 0; i < input.rows; ++i) {
    const auto sequence = static_cast<size_t>(input.sequences[i]);
    int32_t& length = lengths_[sequence];
    if (length == 0) starts_[sequence] = input.positions[i];
    REQUIRE(length == 0 || input.positions[i] == length,
            "row %zu is at position %d, but its sequence's row before is at %d: positions must follow each other", i,
            input.positions[i], length - 1);
    length = input.positions[i] + 1;
  }
  for (size_t group = 0; group < kv_groups(); ++group) {
    for (size_t i = 0; i < input.n_sequences; ++i)
      if (lengths_[i] > 0) check_sequence(input, i, group);
    if (lender_ == nullptr) check_writers(input, group);
  }
  if (moves_state(input)) check_states(input);
}

bool Program::moves_state(const StepInput& input) const {
  return !states_.empty() && op_of_layer(input.begin) < ops_.size();
}

// A state is of one position: rows go on there, or begin anew. Slots of the step are of no use until it is over. Where
// some layers run alone, all rows are drafts, which leave the states as they are, or the text begins, and nothing goes on.
void Program::check_states(const StepInput& input) {
  const bool partial = input.end != 0 && input.end < layers();
  REQUIRE(input.begin == 0, "layers from %zu on, but with states the first must run", input.begin);
  REQUIRE(state_.slots() > 0, "step before make_state");
  std::vector<int64_t> rows(input.n_sequences, 0);
  for (size_t i = 0; i < input.rows; ++i) ++rows[static_cast<size_t>(input.sequences[i])];
  for (size_t i = 0; i < input.n_sequences; ++i) {
    if (rows[i] == 0) continue;
    REQUIRE(i < state_.slots(), "sequence %zu, but there are %zu states", i, state_.slots());
    const int64_t first = lengths_[i] - rows[i], drafted = input.drafted != nullptr ? input.drafted[i] : 0;
    const int64_t at = state_.slot(i).position;
    REQUIRE(first == 0 || first == at, "sequence %zu goes on at position %lld, but its state is of %lld", i,
            static_cast<long long>(first), static_cast<long long>(at));
    REQUIRE(drafted >= 0 && drafted <= rows[i] && static_cast<size_t>(drafted) <= state_.drafts(),
            "sequence %zu has %lld drafted rows of %lld, and room for %zu", i, static_cast<long long>(drafted),
            static_cast<long long>(rows[i]), state_.drafts());
    REQUIRE(!partial || drafted == rows[i] || (first == 0 && drafted == 0),
            "layers 0 to %zu of %zu, but with states all must run for known rows", input.end, layers());
    state_.slot(i) = {-1, lengths_[i] - drafted, 0};
  }
}

void Program::check_layers(const StepInput& input) const {
  const size_t end = input.end != 0 ? input.end : layers();
  REQUIRE(input.begin <= end && end <= layers(), "layers %zu to %zu, but there are %zu", input.begin, end, layers());
  REQUIRE(input.inputs != nullptr || input_columns(input.begin) == 0, "inputs are missing");
}

void Program::check_rows(const StepInput& input) const {
  const bool asks = input.inputs == nullptr || layer_inputs_.size() > 0;
  const auto tokens = static_cast<int64_t>(asks ? embed_.weight->shape.rows() : 0);
  for (size_t i = 0; i < input.rows; ++i) {
    REQUIRE(tokens == 0 || (input.tokens[i] >= 0 && input.tokens[i] < tokens), "row %zu: token %d is not below %lld", i,
            input.tokens[i], static_cast<long long>(tokens));
    REQUIRE(input.positions[i] >= 0 && static_cast<size_t>(input.positions[i]) < max_positions_,
            "row %zu: position %d is not below %zu", i, input.positions[i], max_positions_);
    REQUIRE(input.sequences[i] >= 0 && static_cast<size_t>(input.sequences[i]) < input.n_sequences,
            "row %zu: sequence %d, but there are %zu block tables", i, input.sequences[i], input.n_sequences);
  }
  for (size_t i = 0; i < input.outs; ++i) {
    REQUIRE(input.out_rows[i] >= 0 && static_cast<size_t>(input.out_rows[i]) < input.rows,
            "out_rows[%zu] is %d, but the step has %zu rows", i, input.out_rows[i], input.rows);
    REQUIRE(i == 0 || input.out_rows[i] > input.out_rows[i - 1], "out_rows must ascend: %d comes after %d",
            input.out_rows[i], input.out_rows[i - 1]);
  }
}

// The blocks of a sequence that its rows in this step see or write: those before may be given back.
Program::Span Program::seen_blocks(size_t sequence, size_t group) const {
  const size_t window = windows_.empty() ? 0 : windows_[group];
  return {first_seen(static_cast<size_t>(starts_[sequence]) + (lender_ != nullptr), window) / kKvBlock,
          (static_cast<size_t>(lengths_[sequence]) + kKvBlock - 1) / kKvBlock};
}

void Program::check_sequence(const StepInput& input, size_t sequence, size_t group) const {
  const Span seen = seen_blocks(sequence, group);
  REQUIRE(seen.to <= input.width, "sequence %zu has %d tokens in %zu blocks, but its block table has %zu", sequence,
          lengths_[sequence], seen.to, input.width);
  const int32_t* table = input.table(group, sequence);
  for (size_t i = seen.from; i < seen.to; ++i)
    REQUIRE(table[i] >= 0 && static_cast<size_t>(table[i]) < cache().blocks()[group],
            "sequence %zu: block %d is not below %zu", sequence, table[i], cache().blocks()[group]);
}

// Sequences may share blocks to read. A block that one of them writes must be in one place only: else the result would
// depend on which thread came first.
void Program::check_writers(const StepInput& input, size_t group) {
  const auto writer_of = [&](size_t row) -> int64_t& {
    const int32_t* table = input.table(group, static_cast<size_t>(input.sequences[row]));
    return writer_[group][static_cast<size_t>(table[static_cast<size_t>(input.positions[row]) / kKvBlock])];
  };
  const auto slot = [](int64_t sequence, size_t i) { return sequence << 32 | static_cast<int64_t>(i); };
  int32_t shared = -1;  // a sequence with such a block
  for (size_t row = 0; row < input.rows; ++row) {
    const int64_t written = slot(input.sequences[row], static_cast<size_t>(input.positions[row]) / kKvBlock);
    int64_t& writer = writer_of(row);
    if (writer >= 0 && writer != written) shared = input.sequences[row];
    writer = written;
  }
  for (size_t sequence = 0; sequence < input.n_sequences; ++sequence) {
    if (lengths_[sequence] == 0) continue;
    const Span seen = seen_blocks(sequence, group);
    for (size_t i = seen.from; i < seen.to; ++i) {
      const int64_t writer = writer_[group][static_cast<size_t>(input.table(group, sequence)[i])];
      if (writer >= 0 && writer != slot(static_cast<int64_t>(sequence), i)) shared = static_cast<int32_t>(sequence);
    }
  }
  for (size_t row = 0; row < input.rows; ++row) writer_of(row) = -1;
  REQUIRE(shared < 0, "sequence %d has a block that this step writes in another place too", shared);
}
