// A mixture of experts: each row goes through the few that its router chose, and their results are added up by their
// weights, in ascending order of the experts, whatever company the row is in.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/linear.h"
#include "core/route.h"
#include "core/square.h"

namespace {

constexpr size_t kAlone = 8;  // up to so many rows are routed by one thread: cheaper than a barrier

class Mixture {
 public:
  Mixture(const MoeOp& op, const Step& step, Lane& lane)
      : op_(op),
        step_(step),
        lane_(lane),
        count_(op.experts.size()),
        gate_up_(*op.experts[0].gate_up),
        down_(*op.experts[0].down),
        quantized_(down_.shape.kind != kBf16),
        chunk_(quantized_ ? down_.shape.group : size_t{kPanelRows}) {}

  // False: leave the step.
  bool run() {
    const Scratch& s = step_.s;
    const Source from{s.x, s.x_ld, &op_.norm};
    const bool reads_alike = op_.router_norm.get() == nullptr;
    const Source of_router = reads_alike ? from : Source{s.x, s.x_ld, &op_.router_norm};
    Operand operand;
    if (!make_shared_ready(&operand, step_, lane_, *op_.router, of_router, step_.rows)) return false;
    lane_.phase("router");
    lane_.share(op_.router->panels, [&](size_t p) {
      run_panel(step_, lane_, *op_.router, p, operand, step_.rows, s.router + p * kPanelRows, s.router_ld);
    });
    if (!lane_.sync() || !route()) return false;
    // A router of floats leaves the rows normed.
    Source normed = reads_alike && op_.router->shape.kind == kBf16 ? Source{s.shared.normed, s.x_ld} : from;
    if (watched(gate_up_) && normed.norm != nullptr) {
      if (!make_floats_ready(&operand, step_, lane_, gate_up_, normed, step_.rows)) return false;
      normed = {operand.x, operand.ldx};
    }
    if (op_.into != nullptr && !go_into(normed)) return false;
    const Source read = op_.into == nullptr ? normed : Source{s.latent, s.latent_ld};
    const bool plain = watched(gate_up_);  // not all rows are the first expert's to add up
    if (plain) operand = {{}, read.rows, read.ld};
    if (!plain && !make_shared_ready(&operand, step_, lane_, gate_up_, read, step_.rows)) return false;
    if (step_.rows > 1 && !gather(operand)) return false;
    if (plain && !add_squares_of(&Expert::gate_up, operand)) return false;
    lane_.phase("gate, up");
    const size_t chunks = chunks_of(op_.experts[0]), most = std::min(count_, step_.rows * op_.top_k);
    const size_t shared = op_.shared.down != nullptr && op_.into == nullptr ? chunks_of(op_.shared) : 0;
    lane_.share(most * chunks + shared, [&](size_t i) {
      if (i >= most * chunks)
        return gate_and_up(op_.shared, operand, pairs(), step_.rows, i - most * chunks);
      const size_t active = i / chunks;
      if (active >= s.routes.active_count[0]) return;
      const size_t expert = s.routes.active[active], first = s.routes.first[expert];
      gate_and_up(op_.experts[expert], rows_of(operand, first), first, s.routes.first[expert + 1] - first, i % chunks,
                  panels_of(expert));
    });
    return lane_.sync() && down();
  }

 private:
  using Expert = MoeOp::Expert;

  size_t pairs() const { return step_.rows * op_.top_k; }  // of rows and experts
  size_t chunks_of(const Expert& expert) const { return (expert.down->shape.cols + chunk_ - 1) / chunk_; }

  // What experts read where they are not as wide as the stream; and the shared one's half that reads the stream.
  bool go_into(const Source& normed) {
    const Scratch& s = step_.s;
    Operand operand;
    if (!make_shared_ready(&operand, step_, lane_, *op_.into, normed, step_.rows)) return false;
    lane_.phase("into");
    lane_.share(op_.into->panels, [&](size_t p) {
      run_panel(step_, lane_, *op_.into, p, operand, step_.rows, s.latent + p * kPanelRows, s.latent_ld);
    });
    if (!lane_.sync()) return false;
    if (op_.shared.down == nullptr) return true;
    if (!make_shared_ready(&operand, step_, lane_, *op_.shared.gate_up, normed, step_.rows)) return false;
    lane_.phase("gate, up");
    lane_.share(chunks_of(op_.shared), [&](size_t i) { gate_and_up(op_.shared, operand, pairs(), step_.rows, i); });
    return lane_.sync();
  }

  void choose(size_t m) {
    const Scratch& s = step_.s;
    const size_t at = m * op_.top_k;
    choose_experts(op_, step_.k, s.router + m * s.router_ld, s.routes.expert + at, s.routes.weight + at);
  }

  // Of each row the experts it goes to, and their weights; then the rows of each expert.
  bool route() {
    const Scratch::Routes& routes = step_.s.routes;
    lane_.phase("route");
    if (step_.rows > kAlone) {
      lane_.share(step_.rows, [&](size_t m) { choose(m); });
      if (!lane_.sync()) return false;
    }
    lane_.share(1, [&](size_t) {
      if (step_.rows <= kAlone)
        for (size_t m = 0; m < step_.rows; ++m) choose(m);
      std::fill_n(routes.first, count_ + 1, 0);
      for (size_t i = 0; i < pairs(); ++i) ++routes.first[routes.expert[i] + 1];
      std::partial_sum(routes.first, routes.first + count_ + 1, routes.first);
      size_t active = 0;
      for (size_t e = 0; e < count_; ++e)
        if (routes.first[e + 1] > routes.first[e]) routes.active[active++] = e;
      routes.active_count[0] = active;
      std::copy_n(routes.first, count_, routes.next);
      for (size_t i = 0; i < pairs(); ++i) {
        const size_t at = routes.next[routes.expert[i]]++;
        routes.row[at] = i / op_.top_k;
        routes.row_weight[at] = routes.weight[i];
      }
      if (op_.pool != nullptr) op_.pool->want(op_.pool_layer, routes.active, active);
    });
    if (!lane_.sync()) return false;
    if (op_.pool == nullptr) return true;
    lane_.phase("read");
    lane_.draw(std::min(count_, pairs()) * ExpertPool::kParts, [&](size_t i) { op_.pool->read(i); });
    return lane_.sync();
  }

  // Where the panels of expert e lie, those of `down` behind the others; null: in its weights.
  const uint8_t* panels_of(size_t e) const { return op_.pool == nullptr ? nullptr : op_.pool->data(op_.pool_layer, e); }

  // The rows as the experts take them, those of one expert together.
  bool gather(const Operand& from) {
    const Scratch& s = step_.s;
    const size_t planes = gate_up_.shape.planes(), cols = gate_up_.shape.cols;
    lane_.phase("gather");
    lane_.share(pairs(), [&](size_t i) {
      const size_t m = s.routes.row[i];
      if (gate_up_.shape.kind == kBf16) {
        std::copy_n(from.x + m * from.ldx, cols, s.gathered.normed + i * s.x_ld);
        return;
      }
      for (size_t plane = 0; plane < planes; ++plane)
        std::copy_n(from.q.q + (m * planes + plane) * s.q_ld, cols, s.gathered.q + (i * planes + plane) * s.q_ld);
      const size_t groups = cols / gate_up_.shape.group;
      std::copy_n(from.q.scale + m * s.scale_ld, groups, s.gathered.scale + i * s.scale_ld);
      std::copy_n(from.q.sum + m * s.scale_ld, groups, s.gathered.sum + i * s.scale_ld);
    });
    return lane_.sync();
  }

  // The input of the rows from pair `first` on; a single row is everybody's.
  Operand rows_of(const Operand& one, size_t first) const {
    const Scratch& s = step_.s;
    Operand found = one;
    if (step_.rows == 1) return found;
    if (gate_up_.shape.kind == kBf16) {
      found.x = s.gathered.normed + first * s.x_ld;
      found.ldx = s.x_ld;
      return found;
    }
    const size_t planes = gate_up_.shape.planes();
    found.q.q = s.gathered.q + first * planes * s.q_ld;
    found.q.scale = s.gathered.scale + first * s.scale_ld;
    found.q.sum = s.gathered.sum + first * s.scale_ld;
    return found;
  }

  // Group `i` of the columns of act(gate) * up, for `rows` rows, the first of which is pair `first`.
  void gate_and_up(const Expert& expert, Operand operand, size_t first, size_t rows, size_t i,
                   const uint8_t* panels = nullptr) const {
    const Scratch& s = step_.s;
    float* out = s.per_thread[lane_.id()].panel;
    const size_t column = i * chunk_, n = std::min(chunk_, expert.down->shape.cols - column), both = op_.gated() ? 2 : 1;
    const size_t all = both * n / kPanelRows, most = panels_at_once(step_, lane_, *expert.gate_up, rows);
    for (size_t p = 0; p < all; p += most)
      run_panel(step_, lane_, *expert.gate_up, both * column / kPanelRows + p, operand, rows, out + p * kPanelRows,
                s.panel_ld, std::min(most, all - p), panels);
    for (size_t m = 0; m < rows; ++m, out += s.panel_ld) {
      float values[kWidestGroup];
      for (size_t j = 0; j < n; j += kPanelRows) {
        float *gate = out + both * j, *up = gate + (both - 1) * kPanelRows;
        if (!expert.gate_bias.empty()) {
          step_.k.add(gate, gate, expert.gate_bias.data() + column + j, kPanelRows);
          step_.k.add(up, up, expert.up_bias.data() + column + j, kPanelRows);
        }
        if (op_.limit > 0)
          clamped(values + j, gate, up);
        else if (op_.squares)
          square(values + j, gate, op_.gated() ? up : kOnes.data());
        else
          step_.k.gated(values + j, gate, op_.gated() ? up : kOnes.data(), kPanelRows, op_.activation);
      }
      if (quantized_)
        quantize_columns(step_, expert.down->shape, s.expert_rows, first + m, column, values, n);
      else
        std::copy_n(values, n, s.expert_hidden + (first + m) * s.hidden_ld + column);
    }
  }

  // out = g * sigmoid(alpha * g) * (u + 1) of the clamped gates and ups of one panel; NaN stays NaN.
  void clamped(float* out, const float* gate, const float* up) const {
    const float limit = op_.limit;
    float g[kPanelRows], e[kPanelRows];
    for (size_t i = 0; i < kPanelRows; ++i) {
      g[i] = gate[i] > limit ? limit : gate[i];
      e[i] = -(op_.alpha * g[i]);
    }
    step_.k.exp(e, e, kPanelRows);
    for (size_t i = 0; i < kPanelRows; ++i) {
      const float u = up[i] > limit ? limit : up[i] < -limit ? -limit : up[i];
      out[i] = g[i] / (1.0f + e[i]) * (u + 1.0f);
    }
  }

  bool watched(const Weight& weight) const { return step_.program.squares(weight) != nullptr; }

  // Adds the squares of what each expert's matrix reads, `operand` where that is the rows of the stream, to what the
  // program keeps of it. One thread adds up those of an expert; the shared one reads all rows.
  bool add_squares_of(WeightRef Expert::* matrix, const Operand& operand) {
    const Scratch::Routes& routes = step_.s.routes;
    const bool first_half = matrix == &Expert::gate_up;
    lane_.phase("squares");
    lane_.share(count_ + 1, [&](size_t e) {
      const Expert& expert = e < count_ ? op_.experts[e] : op_.shared;
      if (expert.down == nullptr || (e == count_ && first_half && op_.into != nullptr)) return;
      std::vector<double>* sums = step_.program.squares(*(expert.*matrix));
      if (sums == nullptr) return;
      const size_t first = e < count_ ? routes.first[e] : pairs();
      const size_t rows = e < count_ ? routes.first[e + 1] - first : step_.rows;
      const Operand read = !first_half ? hidden_rows(first) : e < count_ ? rows_of(operand, first) : operand;
      for (size_t m = 0; m < rows; ++m)
        for (size_t c = 0; c < sums->size(); ++c) {
          const double x = read.x[m * read.ldx + c];
          (*sums)[c] += x * x;
        }
    });
    return lane_.sync();
  }

  // x += the weighted sum, panel by panel.
  bool down() {
    const Scratch& s = step_.s;
    if (watched(down_) && !add_squares_of(&Expert::down, {})) return false;
    lane_.phase("down");
    lane_.share(down_.panels, [&](size_t p) {
      sum_experts(p);
      if (op_.into == nullptr)
        finish_panel(p);
      else
        for (size_t m = 0; m < step_.rows; ++m)
          std::copy_n(sums() + m * kPanelRows, kPanelRows, s.latent + m * s.latent_ld + p * kPanelRows);
    });
    if (!lane_.sync() || (op_.into != nullptr && !come_out())) return false;
    if (op_.beside())
      return add_normed_sum(step_, lane_, op_.beside_norm, op_.norm.eps, s.y, op_.post_norm, s.latent, op_.stream_scale);
    return op_.post_norm.empty() || add_normed(step_, lane_, op_.post_norm, op_.norm.eps, s.y, op_.stream_scale);
  }

  // The same of what the experts sum to, where that is not as wide as the stream.
  bool come_out() {
    const Scratch& s = step_.s;
    Operand operand;
    if (!make_shared_ready(&operand, step_, lane_, *op_.out_of, Source{s.latent, s.latent_ld}, step_.rows)) return false;
    lane_.phase("out of");
    lane_.share(op_.out_of->panels, [&](size_t p) {
      run_panel(step_, lane_, *op_.out_of, p, operand, step_.rows, sums(), kPanelRows);
      finish_panel(p);
    });
    return lane_.sync();
  }

  float* sums() const { return step_.s.per_thread[lane_.id()].sums; }

  void sum_experts(size_t p) const {
    const Scratch& s = step_.s;
    const size_t column = p * kPanelRows;
    float* sums = this->sums();
    float* part = s.per_thread[lane_.id()].panel;
    std::fill_n(sums, step_.rows * kPanelRows, 0.0f);
    for (size_t a = 0; a < s.routes.active_count[0]; ++a) {
      const size_t expert = s.routes.active[a], first = s.routes.first[expert];
      const size_t rows = s.routes.first[expert + 1] - first;
      Operand operand = hidden_rows(first);
      const uint8_t* panels = panels_of(expert);
      if (panels != nullptr) panels += gate_up_.bytes();
      run_panel(step_, lane_, *op_.experts[expert].down, p, operand, rows, part, kPanelRows, 1, panels);
      const Floats& bias = op_.experts[expert].down_bias;
      for (size_t m = 0; m < rows; ++m) {
        float* one = part + m * kPanelRows;
        if (!bias.empty()) step_.k.add(one, one, bias.data() + column, kPanelRows);
        add(sums + s.routes.row[first + m] * kPanelRows, one, s.routes.row_weight[first + m]);
      }
    }
  }

  // Panel `p` of the stream gets its sums and what the shared expert adds to them.
  void finish_panel(size_t p) const {
    const Scratch& s = step_.s;
    const size_t column = p * kPanelRows, width = std::min<size_t>(kPanelRows, step_.hidden - column);
    float* sums = this->sums();
    float* part = s.per_thread[lane_.id()].panel;
    if (op_.shared.down != nullptr) {
      Operand operand = hidden_rows(pairs());
      run_panel(step_, lane_, *op_.shared.down, p, operand, step_.rows, part, kPanelRows);
      for (size_t m = 0; m < step_.rows; ++m) {
        const float gate = op_.shared_gated ? sigmoid(step_.k, s.router[m * s.router_ld + gate_column()]) : 1.0f;
        add(sums + m * kPanelRows, part + m * kPanelRows, gate);
      }
    }
    for (size_t m = 0; m < step_.rows; ++m) {
      float* x = s.x + m * s.x_ld + column;
      if (op_.post_norm.empty() && !op_.beside())
        step_.k.add(x, x, sums + m * kPanelRows, width);
      else  // y has what the MLP makes, if there is one beside
        std::copy_n(sums + m * kPanelRows, width, (op_.beside() ? s.latent : s.y) + m * s.x_ld + column);
    }
  }

  size_t gate_column() const { return op_.router->shape.panel_of(1, 0) * kPanelRows; }

  static void add(float* sums, const float* part, float weight) {
    for (size_t i = 0; i < kPanelRows; ++i) sums[i] += weight * part[i];
  }

  Operand hidden_rows(size_t first) const {
    const Scratch& s = step_.s;
    if (!quantized_) return {{}, s.expert_hidden + first * s.hidden_ld, s.hidden_ld};
    const size_t planes = down_.shape.planes();
    return {{s.expert_rows.q + first * planes * s.q_ld, s.expert_rows.scale + first * s.scale_ld,
             s.expert_rows.sum + first * s.scale_ld, s.q_ld, s.scale_ld, step_.prefetch}};
  }

  const MoeOp& op_;
  const Step& step_;
  Lane& lane_;
  const size_t count_;
  const Weight& gate_up_;  // of the first expert: all are alike
  const Weight& down_;
  const bool quantized_;
  const size_t chunk_;  // columns of `down` that are made at once
};

}  // namespace

bool run_moe(const MoeOp& op, const Step& step, Lane& lane) { return Mixture(op, step, lane).run(); }
