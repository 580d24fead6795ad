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

  void attend(size_t m, size_t h) const {
    AttendJob job{};
    job.end = static_cast<size_t>(step.positions[m]) + 1;
    job.first = op.window > 0 && job.end > op.window ? job.end - op.window : 0;
    for (size_t i = job.first / kKvBlock; i * kKvBlock < job.end; ++i)
      own.blocks[i] = step.kv.block(op.layer, table(m)[i], h);
    job.blocks = own.blocks;
    job.q = row(m) + h * shared * op.head_dim;
    job.ldq = job.ldo = job.head_dim = op.head_dim;
    job.heads = shared;
    job.scale = op.scale;
    job.out = step.s.attended + m * step.s.attended_ld + h * shared * op.head_dim;
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
  const size_t items = step.rows * op.kv_heads;
  if (!step.apart) {  // rows of one sequence see each other: all keys and values must be there first
    for (size_t i = lane.begin(items); i < lane.end(items); ++i) heads.place(i / op.kv_heads, i % op.kv_heads);
    if (!lane.sync()) return false;
  }
  lane.draw(items, [&](size_t i) {
    i = items - 1 - i;  // later rows see more tokens: the long ones first
    if (step.apart) heads.place(i / op.kv_heads, i % op.kv_heads);
    heads.attend(i / op.kv_heads, i % op.kv_heads);
  });
  if (!lane.sync()) return false;

  if (!make_ready(&operand, step, lane, *op.o, {s.attended, s.attended_ld}, step.rows)) return false;
  return add_to_stream(step, lane, *op.o, operand, op.o_bias, op.post_norm, op.norm.eps);
}
