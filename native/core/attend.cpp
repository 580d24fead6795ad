// Attention: q, k and v of every row; then all keys and values are written; then every row attends.
#include <algorithm>

#include "core/linear.h"

namespace {

struct Heads {
  const AttendOp& op;
  const Step& step;
  const Scratch::Own& own;
  size_t shared;           // query heads of one KV head
  size_t k_start, v_start;  // in a row of qkv; parts start on panel borders

  Heads(const AttendOp& attend, const Step& whole, const Lane& lane)
      : op(attend),
        step(whole),
        own(whole.s.own[lane.id()]),
        shared(attend.heads / attend.kv_heads),
        k_start(attend.qkv->shape.panel_of(1, 0) * kPanelRows),
        v_start(attend.qkv->shape.panel_of(2, 0) * kPanelRows) {}

  float* row(size_t m) const { return step.s.qkv + m * step.s.qkv_ld; }

  // Bias, norm and RoPE of one head; `index` counts heads over q | k | v.
  void finish_head(float* head, size_t index, const Floats& norm, size_t position) const {
    const KernelTable& k = step.k;
    const RopeTable& rope = step.rope(op.rope);
    if (!op.bias.empty()) k.add(head, head, op.bias.data() + index * op.head_dim, op.head_dim);
    if (!norm.empty()) k.rms_norm(head, head, norm.data(), op.head_dim, op.norm.eps);
    k.rope(head, rope.cos(position), rope.sin(position), op.head_dim);
  }

  // Finishes the heads of row m that belong to KV head `h`, and writes its key and value into the cache.
  void place(size_t m, size_t h) const {
    const KernelTable& k = step.k;
    const size_t position = static_cast<size_t>(step.positions[m]);
    for (size_t i = h * shared; i < (h + 1) * shared; ++i)
      finish_head(row(m) + i * op.head_dim, i, op.q_norm, position);
    float* key = row(m) + k_start + h * op.head_dim;
    float* value = row(m) + v_start + h * op.head_dim;
    finish_head(key, op.heads + h, op.k_norm, position);
    if (!op.bias.empty())
      k.add(value, value, op.bias.data() + (op.heads + op.kv_heads + h) * op.head_dim, op.head_dim);
    uint8_t* block = step.kv.block(op.layer, table(m)[position / kKvBlock], h);
    const auto put = step.kv.bits() == 8 ? k.kv_put_8 : k.kv_put_16;
    put(block, position % kKvBlock, key, value, op.head_dim);
  }

  // Query heads [from, to) of those that share KV head `h`.
  void attend(size_t m, size_t h, size_t from, size_t to) const {
    AttendJob job{};
    job.end = static_cast<size_t>(step.positions[m]) + 1;
    job.first = op.window > 0 && job.end > op.window ? job.end - op.window : 0;
    for (size_t i = job.first / kKvBlock; i * kKvBlock < job.end; ++i)
      own.blocks[i] = step.kv.block(op.layer, table(m)[i], h);
    job.blocks = own.blocks;
    const size_t first_head = (h * shared + from) * op.head_dim;
    job.q = row(m) + first_head;
    job.ldq = job.ldo = job.head_dim = op.head_dim;
    job.heads = to - from;
    job.scale = op.scale;
    job.out = step.s.attended + m * step.s.attended_ld + first_head;
    (step.kv.bits() == 8 ? step.k.attend_8 : step.k.attend_16)(&job);
  }

 private:
  struct Table {
    const int32_t* blocks;
    size_t operator[](size_t i) const { return static_cast<size_t>(blocks[i]); }
  };
  Table table(size_t m) const {
    return {step.block_tables + static_cast<size_t>(step.sequences[m]) * step.width};
  }
};

// Into how many parts to cut the query heads of one KV head. Each part reads the cache again, so only when threads would
// stand idle: one row of a model with few KV heads. Reading costs about as much as one head.
size_t parts_of_a_group(const AttendOp& op, const Step& step, size_t threads) {
  constexpr size_t worth_cutting = 256;
  const size_t shared = op.heads / op.kv_heads, groups = step.rows * op.kv_heads;
  if (step.longest < worth_cutting) return 1;
  size_t best = 1, least = SIZE_MAX;
  for (size_t parts = 1; parts <= shared; ++parts) {
    const size_t rounds = (groups * parts + threads - 1) / threads;
    const size_t cost = rounds * (1 + (shared + parts - 1) / parts);
    if (cost < least) best = parts, least = cost;
  }
  return best;
}

}  // namespace

bool run_attend(const AttendOp& op, const Step& step, Lane& lane) {
  const Scratch& s = step.s;
  Operand operand;
  if (!make_ready(&operand, step, lane, *op.qkv, {s.x, s.x_ld, &op.norm}, step.rows)) return false;
  lane.share(op.qkv->panels, [&](size_t p) {
    run_panel(step, *op.qkv, p, operand, step.rows, s.qkv + p * kPanelRows, s.qkv_ld);
  });
  if (!lane.sync()) return false;

  const Heads heads(op, step, lane);
  const size_t groups = step.rows * op.kv_heads, parts = parts_of_a_group(op, step, lane.threads());
  // Rows of one sequence see each other: all keys and values must be there first.
  const bool place_first = !step.apart || parts > 1;
  if (place_first) {
    for (size_t i = lane.begin(groups); i < lane.end(groups); ++i) heads.place(i / op.kv_heads, i % op.kv_heads);
    if (!lane.sync()) return false;
  }
  lane.draw(groups * parts, [&](size_t i) {
    i = groups * parts - 1 - i;  // later rows see more tokens: the long ones first
    const size_t m = i / parts / op.kv_heads, h = i / parts % op.kv_heads, part = i % parts;
    if (!place_first) heads.place(m, h);
    heads.attend(m, h, heads.shared * part / parts, heads.shared * (part + 1) / parts);
  });
  if (!lane.sync()) return false;

  if (!make_ready(&operand, step, lane, *op.o, {s.attended, s.attended_ld}, step.rows)) return false;
  return add_to_stream(step, lane, *op.o, operand, op.o_bias, op.post_norm, op.norm.eps);
}
