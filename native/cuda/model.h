// A program's weights on the card.
#pragma once
#include <map>
#include <memory>
#include <vector>

#include "core/program.h"
#include "cuda/args.h"
#include "cuda/driver.h"

namespace cuda {

struct WeightOnCard {
  li::CardWeight card{};
  WeightKind kind = kBf16;
  int planes = 1;
};

// One op of the program; what it has not is null.
struct OpOnCard {
  WeightOnCard first, second;  // qkv and o, gate_up and down, or gate and project
  const float *norm = nullptr, *norm_bias = nullptr, *bias = nullptr, *q_norm = nullptr, *k_norm = nullptr,
              *out_bias = nullptr, *post_norm = nullptr, *rope = nullptr, *query_rope = nullptr, *gate_bias = nullptr,
              *up_bias = nullptr, *aside_bias = nullptr, *v_norm = nullptr;
};

class Model {
 public:
  // Copies all of a complete program to the card, repacked by `threads` threads. Throws Full.
  Model(std::shared_ptr<const Session> session, const Program& program, size_t threads);

  WeightOnCard embed, mix, head, inputs;  // the last: what projects inputs by layer
  const float *head_norm = nullptr, *head_norm_bias = nullptr, *inputs_norm = nullptr;
  std::vector<OpOnCard> ops;  // as Program::Parts::ops
  size_t bytes() const { return bytes_; }

  // Where the values of each matrix lie, without scales: for whoever counts what is read.
  struct Range {
    Pointer start;
    size_t bytes;
  };
  const std::vector<Range>& ranges() const { return ranges_; }

 private:
  WeightOnCard put(const WeightRef& weight);
  const float* put(const Floats& values);

  std::shared_ptr<const Session> session_;
  size_t threads_;
  std::map<const Weight*, WeightOnCard> seen_;  // tied ones are put once; empty after the constructor
  std::vector<CardMemory> memory_;
  std::vector<Range> ranges_;
  size_t bytes_ = 0;
};

}  // namespace cuda
