// Gated delta nets: x += out(norm(o) * silu(z)). A causal convolution over q, k and v; then each value head has a matrix
// that every row decays, corrects and reads. Rows walk through a head's state in order, while it is in the core's cache;
// heads are shared over the threads. Mamba-2 is the same without a correction, and normed over groups of heads.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/linear.h"

namespace {

constexpr float kLengthEps = 1e-6f;  // of the length that queries and keys are divided by

// log(1 + e^x): the logarithm by the series of atanh, whose argument is at most 1/3.
double softplus(const KernelTable& k, float x) {
  float small = -std::fabs(x);
  k.exp(&small, &small, 1);
  const double s = small / (2.0 + small), square = s * s;
  double sum = 0;
  for (int n = 25; n > 0; n -= 2) sum = sum * square + 1.0 / n;
  return (x > 0 ? static_cast<double>(x) : 0.0) + 2 * s * sum;
}

// Where the parts of one sequence's state lie.
struct State {
  State(const DeltaOp& op, float* start) : op_(op), start_(start) {}

  float* inputs() const { return start_; }  // [length - 1][channels]: what the convolution sees of rows before
  float* matrix(size_t h) const { return start_ + op_.inputs_size() + h * op_.key_dim * op_.value_dim; }
  // Of a drafted row: its input of the convolution, keys, corrections and decays.
  float* kept(size_t i) const { return start_ + op_.state_size() + i * op_.row_size(); }
  float* kept_key(size_t i, size_t head) const { return kept(i) + op_.channels() + head * op_.key_dim; }
  float* kept_delta(size_t i, size_t h) const {
    return kept(i) + op_.channels() + op_.heads * op_.key_dim + h * op_.value_dim;
  }
  float* kept_decay(size_t i, size_t h) const { return kept_delta(i, op_.value_heads) + h; }

  // Drafted row i changes the matrix of value head h.
  void replay(const KernelTable& k, float* to, const float* from, size_t i, size_t h) const {
    const float* key = kept_key(i, h / (op_.value_heads / op_.heads));
    k.delta_replay(to, from, key, kept_delta(i, h), *kept_decay(i, h), op_.key_dim, op_.value_dim);
  }

 private:
  const DeltaOp& op_;
  float* start_;
};

class DeltaNet {
 public:
  DeltaNet(const DeltaOp& op, const Step& step, Lane& lane)
      : op_(op),
        step_(step),
        k_(step.k),
        lane_(lane),
        gates_at_(op.in->panels * kPanelRows),
        takes_groups_(takes_groups(*op.out, op.value_dim) && op.scan.norm_groups == 0) {}

  // False: leave the step.
  bool run() {
    if (!project()) return false;
    lane_.phase("convolution");
    lane_.share(2 * op_.heads + op_.value_heads, [&](size_t i) {
      if (i < 2 * op_.heads) return convolve(i * op_.key_dim, op_.key_dim, i);
      convolve(op_.channel_of_value(i - 2 * op_.heads), op_.value_dim, i);
    });
    if (!lane_.sync()) return false;
    lane_.phase(op_.scans() ? "scan" : "delta rule");
    lane_.share(op_.value_heads, [&](size_t h) { walk(h); });
    if (!lane_.sync()) return false;
    if (op_.scan.norm_groups > 0) {
      lane_.phase("norm");
      lane_.share(step_.rows * op_.scan.norm_groups, [&](size_t i) { norm_group(i); });
      if (!lane_.sync()) return false;
    }
    Operand operand;
    const Scratch& s = step_.s;
    if (takes_groups_)
      operand = produced(step_);
    else if (!make_ready(&operand, step_, lane_, *op_.out, {s.attended, s.attended_ld}, step_.rows))
      return false;
    const To to = op_.beside ? To::kStreamWithAside : To::kStream;
    return add_to_stream(step_, lane_, *op_.out, operand, {}, {}, op_.norm.eps, to);
  }

 private:
  float* row(size_t m) const { return step_.s.qkv + m * step_.s.qkv_ld; }
  size_t slot(size_t m) const { return static_cast<size_t>(step_.sequences[m]); }
  State state(size_t m) const { return State(op_, step_.state.at(op_.state, slot(m))); }
  // Position of row m after the first drafted row of its sequence; negative: it is known.
  int64_t drafted(size_t m) const { return step_.positions[m] - step_.state.slot(slot(m)).firm; }
  bool goes_on(size_t m) const { return m > 0 && step_.sequences[m - 1] == step_.sequences[m]; }

  // q, k, v and z of each row, and its gates behind them. Gates that are floats take no phase of their own.
  bool project() {
    const Scratch& s = step_.s;
    const Source from{s.x, s.x_ld, &op_.norm};
    Operand gates, in;
    const auto run_gate = [&](size_t p) {
      run_panel(step_, lane_, *op_.gates, p, gates, step_.rows, s.qkv + gates_at_ + p * kPanelRows, s.qkv_ld);
    };
    if (!make_ready(&gates, step_, lane_, *op_.gates, from, step_.rows)) return false;
    const bool together = op_.gates->shape.kind == kBf16;
    if (!together) {
      lane_.phase("gates");
      lane_.share(op_.gates->panels, run_gate);
      if (!lane_.sync()) return false;
    }
    if (!make_ready(&in, step_, lane_, *op_.in, from, step_.rows)) return false;
    lane_.phase("in");
    const size_t most = panels_at_once(step_, lane_, *op_.in, step_.rows), items = (op_.in->panels + most - 1) / most;
    lane_.share(items + (together ? op_.gates->panels : 0), [&](size_t i) {
      if (i >= items) return run_gate(i - items);
      const size_t p = i * most, count = std::min(most, op_.in->panels - p);
      run_panel(step_, lane_, *op_.in, p, in, step_.rows, s.qkv + p * kPanelRows, s.qkv_ld, count);
    });
    return lane_.sync();
  }

  // Channels [first, first + n), those of one head, of every row: the convolution and SiLU, in place; queries and keys
  // then get their length. `head` counts over queries, keys and values.
  void convolve(size_t first, size_t n, size_t head) const {
    const size_t past = op_.length - 1, channels = op_.channels(), column = op_.column(first);
    const float* taps = op_.taps.data() + first;
    float window[kMostDeltaLength][kMostDeltaHead];  // row t is in place t mod length
    size_t newest = 0;
    const auto place = [&](size_t back) { return window[(newest + op_.length - back) % op_.length]; };
    const auto close = [&](size_t m) {  // what rows after row m see
      for (size_t back = 0; back < past; ++back)
        std::copy_n(place(back), n, state(m).inputs() + (past - 1 - back) * channels + first);
    };
    for (size_t m = 0; m < step_.rows; ++m) {
      const int64_t at = drafted(m);
      if (!goes_on(m)) open(m, first, n, place);
      newest = (newest + 1) % op_.length;
      float* x = row(m) + column;
      std::copy_n(x, n, place(0));
      for (size_t i = 0; i < n; ++i) x[i] = op_.taps_bias.empty() ? 0.0f : op_.taps_bias[first + i];
      for (size_t back = op_.length; back-- > 0;) {
        const float *before = place(back), *tap = taps + (past - back) * channels;
        for (size_t i = 0; i < n; ++i) x[i] += tap[i] * before[i];
      }
      k_.gated(x, x, op_.ones.data(), n, kSilu);
      if (head < 2 * op_.heads && !op_.scans()) {
        const Floats& length = head < op_.heads ? op_.query_length : op_.key_length;
        k_.rms_norm(x, x, length.data(), n, kLengthEps / static_cast<float>(n));
      }
      if (at >= 0) {
        std::copy_n(place(0), n, state(m).kept(static_cast<size_t>(at)) + first);
        if (head >= op_.heads && head < 2 * op_.heads)
          std::copy_n(x, n, state(m).kept_key(static_cast<size_t>(at), head - op_.heads));
      }
      const bool last = m + 1 == step_.rows || !goes_on(m + 1);
      if (at < 0 && (last || at == -1)) close(m);
    }
  }

  // The window before row m: place(0) is the input of the row before it.
  template <class Place>
  void open(size_t m, size_t first, size_t n, const Place& place) const {
    const size_t past = op_.length - 1, channels = op_.channels();
    const State before = state(m);
    if (step_.positions[m] == 0)
      for (size_t j = 0; j < past; ++j) std::fill_n(before.inputs() + j * channels + first, n, 0.0f);
    const size_t kept = static_cast<size_t>(std::max<int64_t>(drafted(m), 0));
    for (size_t back = 0; back < past; ++back) {
      const bool draft = back < kept;
      const float* from = draft ? before.kept(kept - 1 - back) : before.inputs() + (past - 1 - (back - kept)) * channels;
      std::copy_n(from + first, n, place(back));
    }
  }

  // All rows through value head h.
  void walk(size_t h) const {
    const Scratch& s = step_.s;
    float* own = s.per_thread[lane_.id()].state;  // of drafted rows, whose sequence's state stays as it is
    float delta[kMostDeltaHead], out[kMostDeltaHead];
    const size_t head = h / (op_.value_heads / op_.heads), dv = op_.value_dim;
    const size_t q = op_.column(head * op_.key_dim), key = op_.column((op_.heads + head) * op_.key_dim);
    const size_t v = op_.column(op_.channel_of_value(h)), z = op_.column(op_.channels() + h * dv);
    for (size_t m = 0; m < step_.rows; ++m) {
      const State now = state(m);
      float* const matrix = now.matrix(h);
      if (step_.positions[m] == 0) std::fill_n(matrix, op_.key_dim * dv, 0.0f);
      const int64_t at = drafted(m);
      const float *from = at > 0 ? own : matrix, *x = row(m);
      if (at > 0 && !goes_on(m))
        for (size_t i = 0; i < static_cast<size_t>(at); ++i) now.replay(k_, own, i == 0 ? matrix : own, i, h);
      float* const next = at < 0 ? matrix : own;
      const float rate = op_.scans() ? dt_of(x, h) : beta_of(x, h);
      const float decay = op_.scans() ? decay_by(-op_.decay_rate[h] * static_cast<double>(rate)) : decay_of(x, h);
      if (op_.scans()) {
        for (size_t j = 0; j < dv; ++j) delta[j] = rate * x[v + j];
        k_.delta_scan(next, from, out, delta, x + q, x + key, decay, op_.key_dim, dv);
        for (size_t j = 0; j < dv; ++j) out[j] += op_.scan.skip[h] * x[v + j];
      } else {
        k_.delta_rule(next, from, out, delta, x + q, x + key, x + v, decay, rate, op_.key_dim, dv);
      }
      if (at >= 0) {
        std::copy_n(delta, dv, now.kept_delta(static_cast<size_t>(at), h));
        *now.kept_decay(static_cast<size_t>(at), h) = decay;
      }
      float* to = takes_groups_ ? out : s.attended + m * s.attended_ld + h * dv;
      if (op_.scans()) {
        if (op_.scan.norm_before_gate)
          std::copy_n(out, dv, to);
        else
          gate(to, x + z, out, dv);
      } else {
        k_.rms_norm(out, out, op_.out_norm.data(), dv, op_.out_norm_eps);
        k_.gated(to, x + z, out, dv, kSilu);
      }
      if (takes_groups_) produce(step_, *op_.out, m, h * dv, to, dv);
    }
  }

  // to = values * silu(z) of n columns, at the scales of Mamba-2.
  void gate(float* to, const float* z, const float* values, size_t n) const {
    float scaled[kMostDeltaHead];
    for (size_t j = 0; j < n; ++j) scaled[j] = op_.scan.z_scale * z[j];
    k_.gated(to, scaled, values, n, kSilu);
    if (op_.scan.out_scale != 1)
      for (size_t j = 0; j < n; ++j) to[j] *= op_.scan.out_scale;
  }

  // Group i counts over all rows.
  void norm_group(size_t i) const {
    const size_t groups = op_.scan.norm_groups, n = op_.value_heads * op_.value_dim / groups;
    const size_t m = i / groups, first = i % groups * n;
    float* values = step_.s.attended + m * step_.s.attended_ld + first;
    k_.rms_norm(values, values, op_.out_norm.data() + first, n, op_.out_norm_eps);
    if (!op_.scan.norm_before_gate) return;
    for (size_t j = first; j < first + n; j += op_.value_dim)
      gate(values + j - first, row(m) + op_.column(op_.channels() + j), values + j - first,
           std::min(op_.value_dim, first + n - j));
  }

  float beta_of(const float* x, size_t h) const {
    float e = -x[gates_at_ + op_.gate_column(h)];
    k_.exp(&e, &e, 1);
    return op_.beta_scale / (1.0f + e);
  }

  float decay_of(const float* x, size_t h) const {
    const float a = x[gates_at_ + op_.gate_column(op_.value_heads + h)] + op_.dt_bias[h];
    return decay_by(-op_.decay_rate[h] * softplus(k_, a));
  }

  float decay_by(double exponent) const {
    auto g = static_cast<float>(exponent);
    k_.exp(&g, &g, 1);
    return g;
  }

  // The step of Mamba-2's head h.
  float dt_of(const float* x, size_t h) const {
    const double dt = softplus(k_, op_.scan.dt_scale * x[gates_at_ + op_.gate_column(h)] + op_.dt_bias[h]);
    return static_cast<float>(std::clamp(dt, op_.scan.dt_low, op_.scan.dt_high));
  }

  const DeltaOp& op_;
  const Step& step_;
  const KernelTable& k_;
  Lane& lane_;
  const size_t gates_at_;  // in a row of qkv
  const bool takes_groups_;
};

}  // namespace

size_t DeltaOp::column(size_t row) const {
  size_t part = 0;
  for (; row >= in->shape.parts[part]; ++part) row -= in->shape.parts[part];
  return in->shape.panel_of(part, 0) * kPanelRows + row;
}

size_t DeltaOp::gate_column(size_t row) const {
  const size_t part = row >= gates->shape.parts[0] ? 1 : 0;
  return gates->shape.panel_of(part, 0) * kPanelRows + row - part * gates->shape.parts[0];
}

bool run_delta_net(const DeltaOp& op, const Step& step, Lane& lane) { return DeltaNet(op, step, lane).run(); }

void advance_head(const DeltaOp& op, const KernelTable& k, float* state, size_t rows, size_t h) {
  const State now(op, state);
  for (size_t i = 0; i < rows; ++i) now.replay(k, now.matrix(h), now.matrix(h), i, h);
}

void advance(const DeltaOp& op, float* state, size_t kept, size_t rows) {
  const State now(op, state);
  const size_t past = op.length - 1, channels = op.channels(), stay = past > rows ? past - rows : 0;
  std::memmove(now.inputs(), now.inputs() + (past - stay) * channels, stay * channels * sizeof(float));
  for (size_t j = stay; j < past; ++j)
    std::copy_n(now.kept(rows - past + j), channels, now.inputs() + j * channels);
  std::memmove(now.kept(0), now.kept(rows), (kept - rows) * op.row_size() * sizeof(float));
}
