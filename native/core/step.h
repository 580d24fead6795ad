// Running a program: what each phase sees, and how the threads share its work.
//
// A step is a sequence of phases, one after the other; which thread does what inside a phase changes no bit, because
// every output is computed whole by one thread, in one fixed order.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

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

// What the threads of one step share. Phases are numbered from 0; a word `phase << 32 | count` counts for its phase, and
// is 0 for a later one, so that nobody has to clear it.
class Team {
 public:
  // `times` is filled by the calling thread; null: nobody wants to know.
  Team(Pool& pool, const Interrupted& interrupted, std::vector<PhaseTime>* times = nullptr);

 private:
  friend class Lane;
  struct alignas(64) Word {
    std::atomic<uint64_t> value{0};
  };
  void poll(std::chrono::steady_clock::time_point now);

  const Interrupted& interrupted_;
  std::chrono::steady_clock::time_point asked_;
  std::atomic<bool> stop_{false};  // everyone leaves after the phase it is in
  std::vector<Word> taken_;        // items taken from each thread's share
  Word done_;                      // items done
  WaitWord over_;                  // phases that are over
  std::vector<PhaseTime>* times_;
  std::chrono::steady_clock::time_point begun_;  // the phase that is timed
  uint32_t timed_ = 0;  // phases before this one are: who gave its core up walks through them again
};

// One thread's walk through the step. A phase is over when its items are done, whoever did them: a thread whose core is
// taken away between two phases is not waited for, and catches up later. Threads give up their core once a millisecond,
// between two phases, so that who else wants it takes it there and not in the middle of an item.
//
// All threads walk through the same phases. What a phase needs may be read only from inside its items: for a thread
// that has fallen behind it is gone.
class Lane {
 public:
  Lane(Team& team, size_t id, size_t threads);

  size_t id() const { return id_; }
  size_t threads() const { return threads_; }
  uint32_t phases() const { return phase_; }  // that it has walked through
  bool gave_up_core() const { return gave_up_core_; }

  // How the phases from here on, and the next one, are called where they are timed.
  void operation(const char* name) { operation_ = name; }
  void phase(const char* name) { name_ = name; }

  // Both: at most once a phase.
  // f(i) for each i < n, once over all threads. The same thread begins with the same part each time, so it stays in its
  // core's cache; who is done helps the others.
  template <class F>
  void share(size_t n, const F& f) {
    items_ = n;
    const auto begin = [&](size_t thread) { return n * thread / threads_; };
    for (size_t i = 0; i < threads_; ++i) {
      const size_t from = (id_ + i) % threads_, first = begin(from), size = begin(from + 1) - first;
      // Of its own part a thread takes a quarter at a time: few visits to the counter, little held at the end.
      for (Taken t; (t = take(from, size, i == 0 ? 4 : size)).count > 0;) {
        for (size_t j = 0; j < t.count; ++j) f(first + t.first + j);
        finished_ += t.count;
      }
    }
  }
  // f(i) for each i < n, in this order, whoever is free.
  template <class F>
  void draw(size_t n, const F& f) {
    items_ = n;
    for (Taken t; (t = take(0, n, n)).count > 0; ++finished_) f(t.first);
  }

  // Ends the phase. False: leave the step, it was interrupted or the core is given up.
  [[nodiscard]] bool sync();

 private:
  struct Taken {
    size_t first, count;
  };
  // The next items of `size` in a part: one, or a `piece`-th of those left.
  Taken take(size_t part, size_t size, size_t piece);
  void report();
  void keep_time(std::chrono::steady_clock::time_point done);

  using Clock = std::chrono::steady_clock;
  Team& team_;
  const size_t id_;
  const size_t threads_;
  const Clock::time_point entered_ = Clock::now();
  const char *operation_ = "", *name_ = "";
  uint32_t phase_ = 0;
  size_t items_ = 0;     // of this phase
  size_t finished_ = 0;  // by this thread
  bool gave_up_core_ = false;
};

// What compares a 4-bit cache with the step's own (Program::probe_kv): the narrow cache, a piece's q, k and v as they came
// from the weights, what it attended, and of each layer and row the squared error and the square of what was meant.
struct KvProbe {
  struct Row {
    double error, all;
  };
  KvCache narrow;
  Floats qkv, attended;
  size_t count;  // rows of the step
  std::vector<Row> rows;
};

// A piece of a step: at most max_rows rows.
struct Step {
  Step(Program& owner, const StepInput& input, const KvCache& kv, const StateCache& state, KvProbe* probe, size_t first,
       size_t count);

  Program& program;
  const KernelTable& k;
  const Scratch& s;
  const KvCache& kv;
  const StateCache& state;
  KvProbe* probe;  // or null
  size_t hidden;
  size_t rows;
  const int32_t* tokens;
  const int32_t* positions;
  const int32_t* sequences;
  const StepInput& whole;  // that this is a piece of
  size_t outs;              // rows whose logits are wanted
  const int32_t* out_rows;  // counted from `first`
  size_t first;
  float* logits;
  size_t begin, end;    // of program.ops_
  const float* inputs;  // of this piece, or null
  float* hidden_out;    // of this piece, or null
  bool apart;  // no two rows are of one sequence
  size_t prefetch;  // of weights, by one row

  // False: interrupted. `tail`: the rows of this piece that go on where nothing is kept any more, or null: all do.
  bool run(Lane& lane, const Step* tail) const;
  bool enter(Lane& lane) const;  // what is there before the first layer
  bool run_ops(size_t from, size_t to, Lane& lane) const;
  bool leave(Lane& lane) const;
  // Whether rows can be left out from Program::tail_ on; and the piece of those whose logits are wanted, whose numbers
  // lie in `room`.
  bool narrows() const;
  Step narrowed(std::vector<int32_t>* room) const;
  const EmbedOp& embed() const { return program.embed_; }
  const LayerInputsOp& layer_inputs() const { return program.layer_inputs_; }
  const MixOp& mix() const { return program.mix_; }
  const HeadOp& head() const { return program.head_; }
  const RopeTable& rope(size_t i) const { return program.ropes_[i]; }
};

// The phases of one op. False: interrupted.
[[nodiscard]] bool run_embed(const Step& step, Lane& lane);
[[nodiscard]] bool run_layer_inputs(const Step& step, Lane& lane);
[[nodiscard]] bool run_mix(const Step& step, Lane& lane);
[[nodiscard]] bool take_stream(const Step& step, Lane& lane);  // x = inputs
[[nodiscard]] bool give_stream(const Step& step, Lane& lane);  // hidden_out = x
[[nodiscard]] bool run_attend(const AttendOp& op, const Step& step, Lane& lane);
[[nodiscard]] bool run_mlp(const MlpOp& op, const Step& step, Lane& lane);
[[nodiscard]] bool run_layer_input(const LayerInputOp& op, const Step& step, Lane& lane);
[[nodiscard]] bool run_moe(const MoeOp& op, const Step& step, Lane& lane);
[[nodiscard]] bool run_short_conv(const ShortConvOp& op, const Step& step, Lane& lane);
[[nodiscard]] bool run_delta_net(const DeltaOp& op, const Step& step, Lane& lane);
[[nodiscard]] bool run_head(const Step& step, Lane& lane);

// Of `kept` drafted rows behind a state of this width, the first `rows` are right: the state moves on by them.
void advance(const ShortConvOp& op, float* state, size_t width, size_t kept, size_t rows);
// Of a delta net first the value heads, each alone.
void advance_head(const DeltaOp& op, const KernelTable& k, float* state, size_t rows, size_t h);
void advance(const DeltaOp& op, float* state, size_t kept, size_t rows);
