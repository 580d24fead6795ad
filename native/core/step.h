// Running a program: what each phase sees, and how the threads share its work.
//
// A step is a sequence of phases with a barrier between them; which thread does what inside a phase changes no bit,
// because every output is computed whole by one thread, in one fixed order.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "core/pool.h"
#include "core/program.h"

// Up to this many rows, every thread makes the rows ready for itself: that is cheaper than a barrier.
constexpr size_t kFewRows = 4;

// Gives `busy` back however what uses the threads ends.
class Hold {
 public:
  explicit Hold(std::atomic_flag& busy) : busy_(busy) {
    if (busy_.test_and_set()) throw std::runtime_error("the program is running a step already");
  }
  ~Hold() { busy_.clear(); }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

 private:
  std::atomic_flag& busy_;
};

// What the threads of one step share.
class Team {
 public:
  Team(Pool& pool, const Interrupted& interrupted) : pool_(pool), interrupted_(interrupted) {}

 private:
  friend class Lane;
  struct alignas(64) Queue {
    std::atomic<size_t> next{0};
  };
  void poll(uint32_t phase);

  Pool& pool_;
  const Interrupted& interrupted_;
  std::chrono::steady_clock::time_point asked_ = std::chrono::steady_clock::now();
  // Everyone leaves after this phase. A number, not a flag: a slow thread may look only when a fast one has already
  // raised it for the next phase, and must not leave one barrier too early.
  std::atomic<uint32_t> stop_after_{UINT32_MAX};
  Queue queues_[4];  // one a phase, in turn
};

// One thread's view of the step.
class Lane {
 public:
  Lane(Team& team, size_t id) : team_(team), id_(id), threads_(team.pool_.threads()) {}

  size_t id() const { return id_; }
  size_t threads() const { return threads_; }
  size_t begin(size_t n) const { return n * id_ / threads_; }
  size_t end(size_t n) const { return n * (id_ + 1) / threads_; }

  // Ends the phase: waits for all threads. False: the step was interrupted, leave.
  [[nodiscard]] bool sync();

  // Both: at most once a phase.
  // f(i) for each i < n, once over all threads. The same core takes the same nine tenths each time, so they stay in its
  // cache; the last tenth goes to whoever is free, for when a core is taken away.
  template <class F>
  void share(size_t n, const F& f) {
    const size_t fixed = threads_ == 1 ? n : n * 9 / 10 / threads_ * threads_;
    for (size_t i = begin(fixed); i < end(fixed); ++i) f(i);
    draw(n - fixed, [&](size_t i) { f(fixed + i); });
  }
  // f(i) for each i < n, whoever is free.
  template <class F>
  void draw(size_t n, const F& f) {
    std::atomic<size_t>& next = queue(phase_);
    for (size_t i; n > 0 && (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) f(i);
  }

 private:
  std::atomic<size_t>& queue(uint32_t phase) const { return team_.queues_[phase % 4].next; }

  Team& team_;
  const size_t id_;
  const size_t threads_;
  uint32_t phase_ = 0;
};

// A piece of a step: at most max_rows rows.
struct Step {
  Step(Program& owner, const StepInput& input, size_t first, size_t count);

  Program& program;
  const KernelTable& k;
  const Scratch& s;
  const KvCache& kv;
  size_t hidden;
  size_t rows;
  const int32_t* tokens;
  const int32_t* positions;
  const int32_t* sequences;
  const int32_t* block_tables;
  size_t width;
  size_t outs;              // rows whose logits are wanted
  const int32_t* out_rows;  // counted from `first`
  size_t first;
  float* logits;
  bool apart;  // no two rows are of one sequence

  bool run(Lane& lane) const;  // false: interrupted
  const EmbedOp& embed() const { return program.embed_; }
  const HeadOp& head() const { return program.head_; }
  const RopeTable& rope(size_t i) const { return program.ropes_[i]; }
};

// The phases of one op. False: interrupted.
[[nodiscard]] bool run_embed(const Step& step, Lane& lane);
[[nodiscard]] bool run_attend(const AttendOp& op, const Step& step, Lane& lane);
[[nodiscard]] bool run_mlp(const MlpOp& op, const Step& step, Lane& lane);
[[nodiscard]] bool run_head(const Step& step, Lane& lane);
